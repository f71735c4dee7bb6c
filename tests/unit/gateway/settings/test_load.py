"""Settings: flag over environment over file over preset over default; the table of options is whole and means what it says."""

import msgspec
import pytest

from gateway.settings.load import Problems, load
from gateway.settings.options import OPTIONS, PRESETS, SECTIONS, default
from schemas.errors import SettingsError
from schemas.identities import AccessRule
from schemas.limits import APSARAMQ_LIMITS, KIB, MIB, Limits
from schemas.settings import Address, Settings


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return path

    return write


def test_without_anything_the_defaults_hold():
    assert load({}, {}) == Settings()


def test_flag_over_environment_over_file_over_preset_over_default(file):
    variable = {"SLUICEWAY_LOGGING_LEVEL": "warning"}
    written = file('[logging]\nlevel = "error"')
    assert load({}, {}, None).logging.level == "info"
    assert load({}, {}, written).logging.level == "error"
    assert load({}, variable, written).logging.level == "warning"
    assert load({"logging.level": "debug"}, variable, written).logging.level == "debug"
    assert load({"logging.level": None}, variable, written).logging.level == "warning"


def test_a_preset_takes_the_place_of_defaults_only(file):
    apsaramq = load({"preset": "apsaramq"}, {})
    assert apsaramq.limits == APSARAMQ_LIMITS
    assert apsaramq.offline.pace == "batches"
    own = load({"preset": "apsaramq"}, {"SLUICEWAY_OFFLINE_PACE": "acknowledged"}, file("[limits]\ntopic_bytes = 128"))
    assert (own.offline.pace, own.limits.topic_bytes, own.limits.client_id_bytes) == ("acknowledged", 128, 64)


def test_the_file_is_also_named_by_the_environment(file):
    assert load({}, {"SLUICEWAY_CONFIG": str(file("anonymous = true"))}).anonymous
    assert not load({}, {"SLUICEWAY_CONFIG": ""}).anonymous


def test_variables_of_commands_and_tests_are_no_options():
    names = ("URL", "ACCESS_KEY", "ACCESS_SECRET", "FAILPOINT", "TEST_ANYTHING")
    assert load({}, {f"SLUICEWAY_{name}": "x" for name in names} | {"PATH": "x", "SLUICE": "x"}) == Settings()


def _leaves(struct, prefix=""):
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_setting_is_an_option_and_every_option_a_setting():
    assert set(_leaves(Settings())) - {"connections"} == set(OPTIONS)


def test_names_are_not_ambiguous():
    variables = [option.variable for option in OPTIONS.values()]
    flags = [option.flag for option in OPTIONS.values() if option.flag]
    assert len(set(variables)) == len(variables)
    assert len(set(flags)) == len(flags)
    assert not SECTIONS & set(OPTIONS)
    assert not {"SLUICEWAY_URL", "SLUICEWAY_ACCESS_KEY", "SLUICEWAY_ACCESS_SECRET", "SLUICEWAY_CONFIG", "SLUICEWAY_FAILPOINT"} & set(variables)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_defaults_and_presets_are_allowed_values(name):
    for value in (default(name), *(preset[name] for preset in PRESETS.values() if name in preset)):
        if value in (None, ()):
            continue
        read = OPTIONS[name].kind.read(_as_written(value))
        assert read == value
        assert isinstance(read, type(value)) or isinstance(value, int)


def _as_written(value):
    """A value as TOML would have it."""
    if isinstance(value, tuple) and not isinstance(value, Address):
        return [_as_written(part) for part in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_can_be_set_by_environment(name):
    value = default(name)
    text = "[]" if name in ("access", "proxy", "tls.certificates") else "" if value == () else "/x" if value is None else _text(value)
    load({"http": "127.0.0.1:0"}, {OPTIONS[name].variable: text, "SLUICEWAY_WS": "127.0.0.1:99"})


def _text(value):
    written = _as_written(value)
    return ",".join(written) if isinstance(written, list) else str(written).lower() if isinstance(written, bool) else str(written)


def test_addresses():
    settings = load({"mqtt": ["127.0.0.1:1, [::1]:2", "localhost:3"], "ws": [""], "http": "0.0.0.0:0"}, {"SLUICEWAY_WS": "127.0.0.1:9"})
    assert settings.mqtt == (Address("127.0.0.1", 1), Address("::1", 2), Address("localhost", 3))
    assert [str(address) for address in settings.mqtt] == ["127.0.0.1:1", "[::1]:2", "localhost:3"]
    assert settings.ws == ()
    assert settings.http == Address("0.0.0.0", 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("65536", 65536), ("64KiB", 65536), ("64 kib", 65536), ("1MiB", MIB), ("0.5MiB", 512 * KIB), ("2000B", 2000)],
)
def test_sizes(text, value):
    assert load({}, {"SLUICEWAY_LIMITS_PACKET": text}).limits.packet == value


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("3d", 259200), ("2000ms", 2)])
def test_durations(text, value):
    settings = load({}, {"SLUICEWAY_LIMITS_OFFLINE_AGE": text, "SLUICEWAY_LOG_SEGMENT_AGE": text})
    assert (settings.limits.offline_age, settings.log.segment_age) == (value, value)
    assert isinstance(settings.limits.offline_age, int)
    assert isinstance(settings.log.segment_age, float)


def test_the_file_of_all_kinds(file, tmp_path):
    path = file(
        f"""
        data = "{tmp_path}/d"
        mqtts = "127.0.0.1:8883"
        preset = "apsaramq"
        [tls]
        certificate = "/c.pem"
        key = "/k.pem"
        [p2p]
        parents = ["commands", "calls"]
        [compatibility]
        not_authorized_code = 0x80
        [[access]]
        principal = "*"
        action = "subscribe"
        filter = "test/nosubscribe"
        effect = "deny"
        [[access]]
        principal = "anonymous"
        action = "*"
        filter = "#"
        """
    )
    settings = load({}, {}, path)
    assert settings.p2p.parents == ("commands", "calls")
    assert settings.compatibility.not_authorized_code == 0x80
    assert settings.access == (AccessRule("*", "subscribe", "test/nosubscribe", "deny"), AccessRule("anonymous", "*", "#", "allow"))
    assert settings.tls.certificate.name == "c.pem"
    assert settings.seal_file == tmp_path / "d" / "seal.key"


def test_rules_in_the_environment_are_json():
    rules = '[{"principal": "*", "action": "read", "filter": "a/#", "effect": "deny"}]'
    assert load({}, {"SLUICEWAY_ACCESS": rules}).access == (AccessRule("*", "read", "a/#", "deny"),)


def test_limits_are_options_one_by_one():
    environment = {OPTIONS[f"limits.{name}"].variable: "70" for name in ("window", "mailbox_messages", "sessions")}
    assert load({}, environment).limits == Limits(window=70, mailbox_messages=70, sessions=70)


def test_every_problem_is_found_and_the_first_is_the_line(file):
    with pytest.raises(Problems) as caught:
        load({"http": "x"}, {"SLUICEWAY_OFLINE_PACE": "x"}, file('[offline]\npace = "fast"\nunheard = 1'))
    assert len(caught.value.problems) == 4
    assert str(caught.value).endswith("(and 3 more: see sluiceway check-config)")
    assert isinstance(caught.value, SettingsError)


BACKBONE = '[connections.backbone]\nkind = "kafka"\naddress = "a:9092,b:9092"\n[connections.other]\nkind = "rocketmq"\naddress = "c:9876"\n'


def test_a_log_on_kafka_names_its_connection(file):
    settings = load({}, {}, file(BACKBONE + '[log]\nkind = "kafka"\nconnection = "backbone"\nshards = 12\ndurability = "as configured"\n'))
    assert (settings.log.kind, settings.log.connection, settings.log.shards, settings.log.durability) == ("kafka", "backbone", 12, "as configured")


def test_a_log_on_rocketmq_names_its_connection(file):
    settings = load({}, {}, file(BACKBONE + '[log]\nkind = "rocketmq"\nconnection = "other"\n'))
    assert (settings.log.kind, settings.log.connection, settings.log.durability) == ("rocketmq", "other", "checked")


def test_many_nodes_share_a_log_and_a_store(file):
    kafka = BACKBONE + '[log]\nkind = "kafka"\nconnection = "backbone"\n'
    store = '[store]\nurl = "postgresql://sluiceway@db/sluiceway"\n'
    for log in (kafka, BACKBONE + '[log]\nkind = "rocketmq"\nconnection = "other"\n'):
        assert load({}, {}, file(f"{log}{store}[node]\nmany = true\n")).node.many
    for lacking in (kafka, store):
        with pytest.raises(Problems) as refused:
            load({}, {}, file(f"{lacking}[node]\nmany = true\n"))
        assert 'node.many: many nodes share a log and a store: set log.kind = "kafka" or "rocketmq", and store.url' in str(refused.value)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("", "log.connection: it is empty; name the [connections.NAME] section of the log's kafka"),
        ('connection = "elsewhere"', "log.connection: there is no [connections.elsewhere]"),
        ('connection = "other"', "log.connection: connections.other is of kind rocketmq and log.kind is kafka"),
    ],
)
def test_a_log_on_kafka_without_its_connection_is_refused(file, named, words):
    with pytest.raises(Problems) as refused:
        load({}, {}, file(f'{BACKBONE}[log]\nkind = "kafka"\n{named}\n'))
    assert words in str(refused.value)
