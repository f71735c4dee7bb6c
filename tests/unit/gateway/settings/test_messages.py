"""The messages for broken settings, word for word: each names the key, the place, the value and what is allowed."""

import pytest

from gateway.settings.load import Problems, load
from schemas.errors import SettingsError

ADDRESS = "HOST:PORT with a port from 0 to 65535, like 127.0.0.1:1883 or [::1]:1883"
RULE = '[[access]]\nprincipal = "a"\naction = "publish"\nfilter = "#"\n'

FILES = {
    'preset = "fast"': "preset (FILE): 'fast' is refused, it must be standard or apsaramq",
    "preset = 1": "preset (FILE): 1 is refused, it must be standard or apsaramq",
    'prest = "standard"': "prest (FILE): unknown key; did you mean preset?",
    "zzz = 1": "zzz (FILE): unknown key",
    '"a\\nb" = 1': "a\\nb (FILE): unknown key",
    '[offline]\npase = "x"': "offline.pase (FILE): unknown key; did you mean offline.pace?",
    '[ofline]\npace = "x"': "ofline.pace (FILE): unknown key; did you mean offline.pace?",
    "offline = 1": "offline (FILE): it must be a section, [offline]",
    '[offline]\npace = "fast"': "offline.pace (FILE): 'fast' is refused, it must be acknowledged or batches",
    'anonymous = "maybe"': "anonymous (FILE): 'maybe' is refused, it must be true or false",
    "anonymous = 1": "anonymous (FILE): 1 is refused, it must be true or false",
    'mqtt = "1883"': f"mqtt (FILE): '1883' is refused, it must be {ADDRESS}",
    'mqtt = "127.0.0.1:65536"': f"mqtt (FILE): '127.0.0.1:65536' is refused, it must be {ADDRESS}",
    'mqtt = ["127.0.0.1:-1"]': f"mqtt (FILE): ['127.0.0.1:-1'] is refused, it must be {ADDRESS}",
    'mqtt = "::1:1883"': f"mqtt (FILE): '::1:1883' is refused, it must be {ADDRESS}",
    'mqtt = "[localhost]:1883"': f"mqtt (FILE): '[localhost]:1883' is refused, it must be {ADDRESS}",
    'http = ":8080"': f"http (FILE): ':8080' is refused, it must be {ADDRESS}",
    'http = ["127.0.0.1:1"]': f"http (FILE): ['127.0.0.1:1'] is refused, it must be {ADDRESS}",
    "[mqtt]\nport = 1": "mqtt (FILE): {'port': 1} is refused, it must be " + ADDRESS,
    "mqtt = []": "mqtt: no listener is left; give at least one of mqtt, mqtts, ws, wss",
    'mqtt = "127.0.0.1:8080"': "http: 127.0.0.1:8080 is taken by mqtt already; give each listener a port of its own",
    'ws = ["127.0.0.1:1", "127.0.0.1:1"]': "ws: 127.0.0.1:1 is taken by ws already; give each listener a port of its own",
    'anonymous = true\nmqtt = "0.0.0.0:1"': (
        "anonymous: it is for loopback listeners only and mqtt has 0.0.0.0:1; use 127.0.0.1 or switch anonymous off"
    ),
    'mqtts = "127.0.0.1:1"': "tls.certificate: a listener with TLS (mqtts, wss) needs tls.certificate and tls.key",
    'wss = "127.0.0.1:1"\n[tls]\ncertificate = "c"': "tls.key: a listener with TLS (mqtts, wss) needs tls.certificate and tls.key",
    'data = ""': "data (FILE): '' is refused, it must be a path",
    "data = 5": "data (FILE): 5 is refused, it must be a path",
    "[limits]\nwindow = 0": "limits.window (FILE): 0 is refused, it must be a whole number from 1 to 65535",
    "[limits]\nwindow = 1.5": "limits.window (FILE): 1.5 is refused, it must be a whole number from 1 to 65535",
    "[limits]\nwindow = true": "limits.window (FILE): True is refused, it must be a whole number from 1 to 65535",
    '[limits]\npacket = "1 elephant"': (
        "limits.packet (FILE): '1 elephant' is refused, it must be bytes from 1024 to 268435455, as a number or like 64KiB, 256MiB, 1GiB"
    ),
    "[limits]\npacket = 2048\ntopic_bytes = 4096": "limits.topic_bytes: 4096 does not fit in a packet of limits.packet = 2048",
    "[limits]\npending_bytes = 5": "limits.pending_bytes: 5 is less than one packet of limits.packet = 1048576",
    "[limits]\nlog_wait = -1": "limits.log_wait (FILE): -1 is refused, it must be seconds from 0.01 to 86400, as a number or like 90s, 10m, 1h, 3d",
    "[limits]\nlog_wait = nan": "limits.log_wait (FILE): nan is refused, it must be seconds from 0.01 to 86400, as a number or like 90s, 10m, 1h, 3d",
    "[limits]\nkeep_alive = 0.5": (
        "limits.keep_alive (FILE): 0.5 is refused, it must be whole seconds from 0 to 65535, as a number or like 90s, 10m, 1h, 3d"
    ),
    "[limits]\npackets = 5": "limits.packets (FILE): unknown key; did you mean limits.packet?",
    '[node]\nid = "a b"': "node.id (FILE): 'a b' is refused, it must be 1 to 64 letters, digits, ., - and _",
    "[compatibility]\nnot_authorized_code = 1": ("compatibility.not_authorized_code (FILE): 1 is refused, it must be a whole number from 128 to 255"),
    '[p2p]\nparents = "a/b"': "p2p.parents (FILE): 'a/b' is refused, it must be names of parent topics, without /, + and #",
    '[logging]\nlevel = "loud"': "logging.level (FILE): 'loud' is refused, it must be one of debug, info, warning, error",
    "access = 1": "access (FILE): it must be a list of at most 1024 rules, each an [[access]] section",
    RULE + 'efect = "deny"': "access (FILE): it must be rules of principal, action, filter and effect; rule 1: it contains unknown field efect",
    '[[access]]\nprincipal = "a"': (
        "access (FILE): it must be rules of principal, action, filter and effect; rule 1: it is missing required field action"
    ),
    RULE + RULE.replace('"a"', "5"): (
        "access (FILE): it must be rules of principal, action, filter and effect; rule 2: Expected str, got int - at principal"
    ),
    RULE.replace("publish", "publsh"): "access (FILE): it must be valid rules; rule 1: action 'publsh' is not one of publish, subscribe, read, *",
    RULE + 'effect = "denny"': "access (FILE): it must be valid rules; rule 1: effect 'denny' is not one of allow, deny",
    RULE.replace('"a"', '""'): (
        "access (FILE): it must be valid rules; rule 1: principal is empty: name an access key's id, anonymous, or * for all"
    ),
    RULE.replace('"#"', '"a/#/b"'): "access (FILE): it must be valid rules; rule 1: filter 'a/#/b' is not an MQTT topic filter without $share",
    RULE.replace(
        '"#"', '"$share/g/a"'
    ): "access (FILE): it must be valid rules; rule 1: filter '$share/g/a' is not an MQTT topic filter without $share",
    '[store]\nurl = "mysql://db/x"': (
        "store.url (FILE): it must be a URL of PostgreSQL like postgresql://user@host:5432/database, or empty for SQLite"
    ),
    '[store]\nurl = "postgresql://u:secret@db/x"': (
        "store.url (FILE): it must be without a password: put it into a file that store.password_file names, or into PGPASSWORD"
    ),
    '[store]\nurl = "postgresql://u@db/x?sslmode=require&password=secret"': (
        "store.url (FILE): it must be without a password: put it into a file that store.password_file names, or into PGPASSWORD"
    ),
    f'instance_id = "{"x" * 500}"': f"instance_id (FILE): '{'x' * 79}... is refused, it must be 1 to 64 letters, digits, - and _",
}


@pytest.mark.parametrize("text", FILES)
def test_what_a_broken_file_is_told(tmp_path, text):
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(Problems) as caught:
        load({}, {}, path)
    assert [problem.replace(str(path), "FILE") for problem in caught.value.problems] == [FILES[text]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = ", "FILE is not valid TOML: "),
        (b"a = 1\na = 2", "FILE is not valid TOML: "),
        (b"\xff", "FILE is not UTF-8 text (byte 0)"),
        (b"#" * 1_048_577, "FILE is larger than 1048576 bytes: it is no configuration file"),
        (None, "FILE can't be read: No such file or directory"),
    ],
)
def test_what_is_no_configuration_file(tmp_path, content, message):
    path = tmp_path / "gateway.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load({}, {}, path)
    said = str(caught.value).replace(str(path), "FILE")
    assert said == message or (message.endswith(": ") and said.startswith(message) and said != message)


def test_a_folder_is_no_configuration_file(tmp_path):
    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        load({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLUICEWAY_OFLINE_PACE": "x"}, "SLUICEWAY_OFLINE_PACE (environment): unknown variable; did you mean SLUICEWAY_OFFLINE_PACE?"),
        ({"SLUICEWAY_XYZ": "x"}, "SLUICEWAY_XYZ (environment): unknown variable"),
        ({"SLUICEWAY_OFFLINE_PACE": ""}, "offline.pace (SLUICEWAY_OFFLINE_PACE): '' is refused, it must be acknowledged or batches"),
        ({"SLUICEWAY_LIMITS_WINDOW": "ten"}, "limits.window (SLUICEWAY_LIMITS_WINDOW): 'ten' is refused, it must be a whole number from 1 to 65535"),
        ({"SLUICEWAY_ACCESS": "{"}, "access (SLUICEWAY_ACCESS): it must be a JSON list of rules"),
        ({"SLUICEWAY_HTTP": "\x1b[31m"}, f"http (SLUICEWAY_HTTP): '\\x1b[31m' is refused, it must be {ADDRESS}"),
        ({"SLUICEWAY_CONFIG": "/nowhere/x.toml"}, "/nowhere/x.toml can't be read: No such file or directory"),
    ],
)
def test_what_a_broken_environment_is_told(environment, message):
    with pytest.raises(SettingsError) as caught:
        load({}, environment)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"http": "x"}, f"http (--http): 'x' is refused, it must be {ADDRESS}"),
        ({"mqtt": ["x"]}, f"mqtt (--mqtt): 'x' is refused, it must be {ADDRESS}"),
        (
            {"anonymous": True, "ws": ["[::]:1"]},
            "anonymous: it is for loopback listeners only and ws has [::]:1; use 127.0.0.1 or switch anonymous off",
        ),
    ],
)
def test_what_a_broken_flag_is_told(flags, message):
    with pytest.raises(SettingsError) as caught:
        load(flags, {})
    assert str(caught.value) == message
