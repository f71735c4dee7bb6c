"""The command line against a gateway's HTTP side and a small broker: what is printed, where it finds things, exit codes."""

import asyncio
import io
import json
import os
import sys

import pytest

from gateway import cli
from gateway.api.routes import create_api
from gateway.api.server import serve
from gateway.auth.credentials import prepare_administrator, read_credential
from gateway.auth.login import sign
from gateway.commands.endpoint import Rendezvous, read_rendezvous, remove_rendezvous, write_rendezvous
from schemas.settings import Address
from schemas.traces import TraceEvent, TracePage
from tests.unit.gateway.api.services import FakeServices
from tests.unit.gateway.auth.keystore import new_keyring
from tests.unit.gateway.commands.broker import Broker


class Site:
    """A data folder with its gateway's HTTP side, and a broker where the gateway says that MQTT is."""

    def __init__(self, data, services, broker, capsys):
        self.data, self.services, self.broker, self._capsys = data, services, broker, capsys

    async def run(self, *arguments, with_data=True):
        """Exit code, standard output, standard error."""
        argv = [*arguments, "--data", str(self.data)] if with_data else list(arguments)
        code = await asyncio.to_thread(cli.main, argv)
        return code, *self._capsys.readouterr()

    @property
    def administrator(self):
        return read_credential(self.data)


@pytest.fixture
async def site(tmp_path, capsys, monkeypatch):
    for name in ("URL", "ACCESS_KEY", "ACCESS_SECRET"):
        monkeypatch.delenv(f"SLUICEWAY_{name}", raising=False)
    keyring = await new_keyring(tmp_path, instance_id="mqtt-sw-test")
    await prepare_administrator(keyring, tmp_path, 0)
    broker, services = Broker(), FakeServices(keyring)
    services.mqtt = await broker.start()
    server = serve(create_api(services), Address("127.0.0.1", 0))
    address = await server.start()
    write_rendezvous(tmp_path, Rendezvous(1, f"http://{address}", (services.mqtt,)))
    yield Site(tmp_path, services, broker, capsys)
    await server.stop()
    await broker.stop()


async def test_key_create_prints_json_that_logs_in(site):
    code, out, _ = await site.run("key", "create", "--json")
    made = json.loads(out)
    assert code == 0
    assert set(made) == {"accessKeyId", "accessKeySecret", "instanceId"}
    assert site.services.keyring.is_secret_of(made["accessKeyId"], made["accessKeySecret"].encode(), 0)


async def test_keys_are_listed_without_secrets_and_revoked(site):
    _, out, _ = await site.run("key", "create")
    key_id, secret = (line.split()[-1] for line in out.splitlines()[:2])
    code, listed, _ = await site.run("key", "list")
    assert code == 0
    assert f"{key_id}  device         active" in listed
    assert secret not in listed
    code, out, _ = await site.run("key", "revoke", key_id)
    assert (code, out) == (0, f"{key_id} is revoked; connections closed: 3\n")
    assert f"{key_id}  device         revoked" in (await site.run("key", "list"))[1]
    code, out, err = await site.run("key", "revoke", key_id)
    assert (code, out, err) == (1, "", "sluiceway: there is no active key of this id\n")


async def test_json_of_list_and_revoke_is_the_apis(site):
    assert json.loads((await site.run("key", "list", "--json"))[1])["keys"][0]["role"] == "administrator"
    key = json.loads((await site.run("key", "create", "--json"))[1])["accessKeyId"]
    assert json.loads((await site.run("key", "revoke", key, "--json"))[1])["revoked"] is True


async def test_bearer_keys(site):
    code, out, _ = await site.run("bearer", "create", "dash board", "--scope", "write", "--valid", "60")
    key_id, secret = (line.split()[-1] for line in out.splitlines()[:2])
    assert code == 0
    assert site.services.bearers.find(secret, 0).scope == "write"
    listed = (await site.run("bearer", "list"))[1]
    assert listed.startswith(f"{key_id}  write  created ")
    assert listed.endswith("  dash board\n")
    assert secret not in listed
    assert json.loads((await site.run("bearer", "list", "--json"))[1])["bearerKeys"][0]["id"] == key_id
    assert (await site.run("bearer", "revoke", key_id))[:2] == (0, f"{key_id} is revoked\n")
    assert (await site.run("bearer", "revoke", key_id))[2] == "sluiceway: there is no bearer key of this id\n"


async def test_status(site):
    code, out, _ = await site.run("status", "on/line")
    assert (code, out) == (0, "on/line is online since 2023-11-14 22:13:20 UTC from 127.0.0.1:9\n")
    assert (await site.run("status", "off"))[1] == "off is offline since 1970-01-01 00:00:00 UTC\n"
    assert json.loads((await site.run("status", "off", "--json"))[1])["online"] is False
    assert await site.run("status", "never ?#%") == (1, "", "sluiceway: this client was never seen\n")


async def test_status_of_a_group_and_a_clients_history(site):
    code, out, _ = await site.run("status", "--group", "GID_abc")
    assert code == 0
    assert out.splitlines()[1:3] == [
        "GID_abc@@@1 is online since 1970-01-01 00:00:00 UTC from 127.0.0.1:9",
        "GID_abc@@@2 is offline since 1970-01-01 00:00:00 UTC",
    ]
    assert out.splitlines()[-1] == "GID_abc: 1 online, 5 ever seen"
    assert len(json.loads((await site.run("status", "--group", "GID_abc", "--json"))[1])["clients"]) == 5
    site.services.silent = ["two"]
    assert (await site.run("status", "--group", "GID_abc"))[1].endswith("ever seen\n(not counted: clients of two, which did not answer)\n")
    assert json.loads((await site.run("status", "--group", "GID_abc", "--json"))[1])["silent"] == ["two"]
    event = TraceEvent(time=0, action="close", client_id="on/line", channel_id="c1", detail="no heart")
    site.services.traced = TracePage(1, [event], [])
    assert (await site.run("status", "on/line", "--history"))[1] == "1970-01-01 00:00:00.000 close        on/line c1 no heart\n"
    assert site.services.asked[-1].client == "on/line"
    code, _, err = await site.run("status", "--group", "GID_abc", "--history")
    assert (code, err) == (1, "sluiceway: --history is of one client: give its id instead of --group\n")


async def test_a_gateway_by_url_and_key(site, monkeypatch):
    key = json.loads((await site.run("key", "create", "--json"))[1])
    url = read_rendezvous(site.data).http
    monkeypatch.setenv("SLUICEWAY_ACCESS_SECRET", key["accessKeySecret"])
    code, out, _ = await site.run("status", "off", "--url", url + "/", "--access-key", key["accessKeyId"], with_data=False)
    assert (code, out.split()[0]) == (0, "off")
    monkeypatch.setenv("SLUICEWAY_URL", url)
    monkeypatch.setenv("SLUICEWAY_ACCESS_KEY", key["accessKeyId"])
    assert (await site.run("status", "off", with_data=False))[0] == 0
    code, _, err = await site.run("key", "list", with_data=False)
    assert (code, err) == (1, "sluiceway: this needs the administrator's credential (admin.json in the data folder)\n")
    monkeypatch.setenv("SLUICEWAY_ACCESS_SECRET", "wrong")
    assert (await site.run("status", "off", with_data=False))[2] == "sluiceway: unknown access key or wrong secret\n"


async def test_pub_waits_for_every_acknowledgement(site):
    code, out, err = await site.run("pub", "-t", "a/b", "-m", "grüß", "-i", "me", "-V", "4", "--count", "250", "--retain")
    assert (code, out, err) == (0, "", "")
    publishes = [body for kind, body in site.broker.packets if kind == 3]
    assert len(publishes) == 250
    assert all(body.startswith(b"\x00\x03a/b") and body.endswith("grüß".encode()) for body in publishes)
    connect = site.broker.packets[0][1]
    assert connect[6] == 4
    assert f"Signature|{site.administrator.access_key_id}|mqtt-sw-test".encode() in connect
    assert connect.endswith(sign(site.administrator.access_key_secret.encode(), "me"))


async def test_pub_takes_standard_input(site, monkeypatch):
    class Input:
        buffer = io.BytesIO(b"\x00\xff")

    monkeypatch.setattr(sys, "stdin", Input)
    assert (await site.run("pub", "-t", "a"))[0] == 0
    assert site.broker.packets[1][1].endswith(b"\x00\xff")


@pytest.mark.parametrize("qos", ["0", "1"])
async def test_pub_with_each_version(site, qos):
    assert (await site.run("pub", "-t", "a", "-m", "x", "-q", qos))[0] == 0
    assert site.broker.packets[0][1][6] == 5


async def test_sub_prints_a_line_a_message_and_ends_after_count(site):
    site.broker.messages = [(b"a/b", b"one"), ("ü".encode(), b"two\nlines \x1b[31m \xff"), (b"a/c", b"third")]
    code, out, _ = await site.run("sub", "-t", "#", "--count", "2", "-V", "4")
    assert (code, out) == (0, "a/b one\nü two\\nlines \\x1b[31m \\xff\n")
    assert (await site.run("sub", "-t", "#", "--count", "3"))[1].endswith("a/c third\n")


@pytest.mark.parametrize(
    ("packet", "code", "arguments", "message"),
    [
        (2, 0x87, ("pub", "-t", "a", "-m", "x"), "the gateway refused the connection: Not authorized"),
        (2, 0x86, ("sub", "-t", "a"), "the gateway refused the connection: Bad user name or password"),
        (4, 0x87, ("pub", "-t", "a", "-m", "x"), "the gateway refused the publish: Not authorized"),
        (9, 0x80, ("sub", "-t", "a"), "the gateway refused the subscription: Unspecified error"),
    ],
)
async def test_a_refusal_is_one_line(site, packet, code, arguments, message):
    site.broker.codes[packet] = code
    assert await site.run(*arguments) == (1, "", f"sluiceway: {message}\n")


async def test_a_connection_that_breaks_is_one_line(site):
    site.broker.closes_after_connack = True
    code, _, err = await site.run("sub", "-t", "a")
    assert code == 1
    assert err.startswith("sluiceway: the connection ")


@pytest.mark.parametrize(("command", "topic"), [("pub", "a/#"), ("pub", ""), ("sub", "a/#/b"), ("sub", "")])
async def test_a_topic_that_is_none_is_one_line(site, command, topic):
    code, out, err = await site.run(command, "-t", topic, *(["-m", "x"] if command == "pub" else []))
    assert (code, out) == (1, "")
    assert err.startswith(f"sluiceway: {topic!r} can't be {command}")


async def test_a_broker_that_is_not_there(site):
    site.services.mqtt = "127.0.0.1:1"
    code, _, err = await site.run("pub", "-t", "a", "-m", "x")
    assert (code, err) == (1, "sluiceway: no MQTT connection to 127.0.0.1:1: Connection refused\n")


async def test_no_gateway_runs(site):
    (site.data / "gateway.json").unlink()
    code, _, err = await site.run("key", "create", "--json")
    assert code == 1
    assert err == f"sluiceway: no gateway runs on {site.data} (there is no gateway.json): start it with sluiceway run --data {site.data}\n"


async def test_a_gateway_that_was_killed(site):
    write_rendezvous(site.data, Rendezvous(1, "http://127.0.0.1:1"))
    code, _, err = await site.run("key", "list")
    assert (code, err) == (1, "sluiceway: the gateway at http://127.0.0.1:1 doesn't answer: Connection refused; is it running?\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("key", "list"), "which gateway? give its data folder with --data DIR, or --url http://HOST:PORT with --access-key ID"),
        (
            ("status", "c", "--url", "http://h:1"),
            "no access key: give --data DIR for the administrator's, or --access-key ID with SLUICEWAY_ACCESS_SECRET set",
        ),
        (
            ("status", "c", "--url", "http://h:1", "--access-key", "k"),
            "the access key's secret is missing: set SLUICEWAY_ACCESS_SECRET (never on the command line)",
        ),
    ],
)
async def test_what_is_missing_is_named(site, arguments, message):
    assert await site.run(*arguments, with_data=False) == (1, "", f"sluiceway: {message}\n")


@pytest.mark.parametrize("url", ["ftp://h", "h:1", "http://", "http://h:x"])
async def test_what_is_no_url_is_named(site, url):
    code, _, err = await site.run("key", "list", "--url", url)
    assert code == 1
    assert err.count("\n") == 1
    assert url in err


async def test_a_folder_without_a_credential(site):
    (site.data / "admin.json").unlink()
    assert "there is no administrator's credential in" in (await site.run("key", "list"))[2]


async def test_a_credential_that_others_may_read_is_refused(site):
    (site.data / "admin.json").chmod(0o644)
    code, _, err = await site.run("key", "list")
    assert code == 2
    assert "chmod 600" in err


def test_signatures_need_no_gateway(capsys, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_ACCESS_SECRET", "XXXXX")
    key = ("signature", "GID_Test@@@0001", "--access-key", "YYYYY")
    assert cli.main([*key, "--instance-id", "mqtt-xxxxx"]) == 0
    assert capsys.readouterr().out == "user name  Signature|YYYYY|mqtt-xxxxx\npassword   vI009IZJZVGRwBwZvnbwjfuXxVM=\n"
    assert cli.main([*key, "--instance-id", "mqtt-xxxxx", "--only", "password"]) == 0
    assert capsys.readouterr().out == "vI009IZJZVGRwBwZvnbwjfuXxVM=\n"
    assert cli.main([*key, "--instance-id", "mqtt-xxxxx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"userName": "Signature|YYYYY|mqtt-xxxxx", "password": "vI009IZJZVGRwBwZvnbwjfuXxVM="}
    assert cli.main(key) == 1
    assert capsys.readouterr().err == "sluiceway: the instance id is missing: give --instance-id, as key create printed it\n"


async def test_signature_with_the_data_folder(site):
    _, out, _ = await site.run("signature", "me", "--only", "password")
    assert out.strip().encode() == sign(site.administrator.access_key_secret.encode(), "me")


def test_the_rendezvous_is_private_and_its_writers_to_remove(tmp_path):
    own = Rendezvous(os.getpid(), "http://127.0.0.1:1", ("127.0.0.1:2",))
    write_rendezvous(tmp_path, own)
    assert (tmp_path / "gateway.json").stat().st_mode & 0o777 == 0o600
    assert read_rendezvous(tmp_path) == own
    remove_rendezvous(tmp_path)
    remove_rendezvous(tmp_path)
    assert read_rendezvous(tmp_path) is None
    another = Rendezvous(1, "http://127.0.0.1:1")
    write_rendezvous(tmp_path, another)
    remove_rendezvous(tmp_path)
    assert read_rendezvous(tmp_path) == another


async def test_a_key_is_rotated(site):
    key_id = json.loads((await site.run("key", "create", "--json"))[1])["accessKeyId"]
    code, out, _ = await site.run("key", "rotate", key_id, "--valid", "60")
    assert code == 0
    assert site.services.keyring.is_secret_of(key_id, out.split()[3].encode(), 0)
    assert "valid for 60 s more" in out
    assert (await site.run("key", "rotate", "nobody"))[0] == 1


async def test_a_managers_key_is_made(site):
    made = json.loads((await site.run("key", "create", "--role", "manager", "--json"))[1])
    assert site.services.keyring.role(made["accessKeyId"]) == "manager"


@pytest.mark.parametrize(("kind", "name"), [("group", "GID_one"), ("topic", "plant")])
async def test_groups_and_topics_are_made_listed_and_removed(site, kind, name):
    assert (await site.run(kind, "create", name))[:2] == (0, f"{kind} {name} is there now\n")
    assert (await site.run(kind, "list"))[:2] == (0, f"{name}\n")
    assert name in (await site.run(kind, "list", "--json"))[1]
    code, out, err = await site.run(kind, "create", name)
    assert (code, out) == (1, "")
    assert "exists already" in err
    assert (await site.run(kind, "delete", name))[:2] == (0, f"{kind} {name} is gone\n")
    assert (await site.run(kind, "delete", name))[0] == 1
    assert (await site.run(kind, "list"))[:2] == (0, "")


async def test_policies_are_put_listed_and_removed(site):
    assert (await site.run("policy", "put", "user:x", "publish", "own/${user}/#"))[:2] == (0, "in force: user:x publish own/${user}/# allow\n")
    await site.run("policy", "put", "*", "*", "secret/#", "deny")
    assert (await site.run("policy", "list"))[1] == "* * secret/# deny\nuser:x publish own/${user}/# allow\n"
    assert (await site.run("policy", "list", "user:x"))[1] == "user:x publish own/${user}/# allow\n"
    code, _, err = await site.run("policy", "put", "p", "publish", "a/${nobody}")
    assert code == 1
    assert "filter has an unknown variable" in err
    assert (await site.run("policy", "delete", "user:x", "publish", "own/${user}/#"))[0] == 0
    assert (await site.run("policy", "delete", "user:x", "publish", "own/${user}/#"))[0] == 1


@pytest.mark.parametrize(("change", "words"), [("", "the login is right"), ("x", "not base64")])
async def test_a_login_that_a_device_sent_is_checked(site, monkeypatch, change, words):
    key = site.administrator
    password = sign(key.access_key_secret.encode(), "c1") + change.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(password + b"\n")))
    code, out, _ = await site.run("signature", "c1", "--check", f"Signature|{key.access_key_id}|{key.instance_id}")
    assert (code == 0) is (not change)
    assert words in out
