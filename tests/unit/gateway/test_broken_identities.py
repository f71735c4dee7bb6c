"""Configurations of identities that are broken, one by one, by every way that leads in: settings, command line, REST API and OpenAPI.

Each is refused with a message that names the field and says what would be right, tells no secret, and leaves store, keys and rules as they were.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest
from joserfc.jwk import ECKey

from gateway import cli
from gateway.auth.keys import open_keyring
from gateway.auth.registers import open_registers
from gateway.settings.load import Problems, load
from schemas.errors import StartError
from streams.memory.store import MemoryStore
from tests.support.certificates import Authority
from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.test_endpoint import Site

CANARY: Final = "canary-5e1f"
IDENTITY: Final = {"Username": "u", "Secret": CANARY, "IdentityType": "USER", "SignMode": "ORIGIN"}
PERMISSION: Final = {"Identity": "u", "IdentityType": "USER", "Topic": "plant/#", "PermitAction": "ALL", "Effect": "ALLOW"}
POLICY: Final = {"principal": "user:u", "action": "publish", "filter": "plant/#", "effect": "allow"}
RULE: Final = '[[access]]\nprincipal = "user:u"\naction = "publish"\nfilter = "plant/#"\n'


class Broken(NamedTuple):
    """``field`` and ``fix``: what the message must say. ``what`` is a file's text, a command, an action or a route."""

    what: str
    given: dict[str, Any]
    field: str
    fix: str


def added(**change: str) -> dict[str, Any]:
    return IDENTITY | change


def permitted(**change: str) -> dict[str, Any]:
    return PERMISSION | change


def ruled(**change: Any) -> dict[str, Any]:
    return POLICY | change


OPENAPI: Final = (
    Broken("AddCustomAuthIdentity", added(Username=""), "Username", "missing"),
    Broken("AddCustomAuthIdentity", added(Username="u" * 65), "Username", "1 to 64 characters"),
    Broken("AddCustomAuthIdentity", added(Username="*"), "Username", "not be *"),
    Broken("AddCustomAuthIdentity", added(Username="a\nb"), "Username", "no control characters"),
    Broken("AddCustomAuthIdentity", added(Username="Signature|a|bed"), "Username", "another login"),
    Broken("AddCustomAuthIdentity", added(IdentityType="GROUP"), "IdentityType", "USER, CLIENT"),
    Broken("AddCustomAuthIdentity", added(IdentityType="CLIENT"), "ClientId", "missing"),
    Broken("AddCustomAuthIdentity", added(IdentityType="CLIENT", ClientId="*"), "ClientId", "not be *"),
    Broken("AddCustomAuthIdentity", added(Secret=""), "Secret", "missing"),
    Broken("AddCustomAuthIdentity", added(Secret=CANARY * 40), "Secret", "1 to 256 characters"),
    Broken("AddCustomAuthIdentity", added(SignMode="HMAC"), "SignMode", "ORIGIN or SIGNED"),
    Broken("UpdateCustomAuthIdentity", added(), "Username", "no such identity"),
    Broken("DeleteCustomAuthIdentity", added(), "Username", "no such identity"),
    Broken("AddCustomAuthPermission", permitted(Identity="*"), "Identity", "not be *"),
    Broken("AddCustomAuthPermission", permitted(Topic="plant/#/x"), "Topic", "topic filter"),
    Broken("AddCustomAuthPermission", permitted(Topic="plant/${nobody}"), "Topic", "${client}, ${group}, ${device}, ${user}"),
    Broken("AddCustomAuthPermission", permitted(PermitAction="WRITE"), "PermitAction", "PUB, SUB, ALL"),
    Broken("AddCustomAuthPermission", permitted(Effect="MAYBE"), "Effect", "ALLOW or DENY"),
    Broken("UpdateCustomAuthPermission", permitted(), "Topic", "no permission"),
    Broken("AddCustomAuthConnectBlack", {"ClientId": "a\x1b[0m"}, "ClientId", "no control characters"),
    Broken("RegisterDeviceCredential", {"ClientId": "no group"}, "ClientId", "<group id>@@@<device id>"),
    Broken("CreateGroupId", {"GroupId": "group"}, "GroupId", "begin with GID_ or GID-"),
    Broken("ApplyToken", {"Resources": "a/#/b", "Actions": "R", "ExpireTime": "9999999999999"}, "Resources", "topic filters"),
    Broken("ApplyToken", {"Resources": "a", "Actions": "X", "ExpireTime": "9999999999999"}, "Actions", "R, W or R,W"),
    Broken("ApplyToken", {"Resources": "a", "Actions": "R", "ExpireTime": "1"}, "ExpireTime", "60 seconds from now"),
    Broken("RegisterCaCertificate", {"MqttInstanceId": "bed", "CaName": "ca", "CaContent": "x", "VerificationContent": "x"}, "CaContent", "PEM"),
)

REST: Final = (
    Broken("PUT policies", ruled(principal=""), "principal", "1 to 256 characters"),
    Broken("PUT policies", ruled(action="write"), "action", "publish, subscribe, read, *"),
    Broken("PUT policies", ruled(filter="$share/g/a"), "filter", "without $share"),
    Broken("PUT policies", ruled(filter="plant/x${client}"), "filter", "stand alone between slashes"),
    Broken("PUT policies", ruled(effect="permit"), "effect", "allow or deny"),
    Broken("PUT policies", ruled(efect="deny"), "efect", "unknown"),
    Broken("POST bearer-keys", {"name": ""}, "name", "1 to 64 printable characters"),
    Broken("POST bearer-keys", {"name": "n", "scope": "root"}, "scope", "read, write, admin"),
    Broken("POST bearer-keys", {"name": "n", "validSeconds": -1}, "validSeconds", "0 for a key without an end"),
    Broken("POST keys", {"role": "administrator"}, "role", "'device' or 'manager'"),
    Broken("POST groups", {"groupId": "GID_" + "g" * 61}, "groupId", "7 to 64 letters"),
    Broken("POST topics", {"topic": "a/b"}, "topic", "3 to 64 letters"),
    Broken("POST authorities", {"name": "", "ca": "CA", "verification": "CA"}, "name", "1 to 64"),
    Broken("POST authorities", {"name": "ca", "ca": "DEVICE", "verification": "CA"}, "ca", "basic constraints"),
    Broken("POST authorities", {"name": "ca", "ca": "CA", "verification": "OTHER"}, "verification", "authority's key"),
)

SETTINGS: Final = (
    Broken(RULE.replace("publish", "write"), {}, "access", "publish, subscribe, read, *"),
    Broken(RULE.replace("plant/#", "plant/${nobody}"), {}, "access", "${client}, ${group}, ${device}, ${user}"),
    Broken(RULE.replace("user:u", ""), {}, "access", "name an access key's id"),
    Broken(RULE + 'efect = "deny"', {}, "access", "unknown field efect"),
    Broken('[jwt]\nkey = "x"', {}, "jwt.key", "did you mean jwt.keys?"),
    Broken(f'[jwt]\nissuer = "{"x" * 257}"', {}, "jwt.issuer", "at most 256 characters"),
    Broken('instance_id = "a b"', {}, "instance_id", "letters, digits, - and _"),
    Broken('anonymous = true\nmqtt = "0.0.0.0:1883"', {}, "anonymous", "use 127.0.0.1 or switch anonymous off"),
)

FILES: Final = (
    Broken("[jwt]\nkeys = 'FOLDER/none'", {}, "jwt.keys", "can't be read"),
    Broken("[jwt]\nkeys = 'FOLDER/empty'", {}, "jwt.keys", "it must be a JWKS, or RSA, EC or Ed25519 public keys in PEM"),
    Broken("[jwt]\nkeys = 'FOLDER/private'", {}, "jwt.keys", "give the public one only"),
    Broken("[jwt]\nkeys = 'FOLDER/shared'", {}, "jwt.keys", "it must be a JWKS"),
    Broken("[jwt]\nkeys = 'FOLDER/broken'", {}, "jwt.keys", "can't be read"),
    Broken("[keys]\nseal_file = 'FOLDER/open'", {}, "open", "chmod 600"),
    Broken("[keys]\nseal_file = 'FOLDER/short'", {}, "short", "32 bytes in base64"),
)

COMMANDS: Final = (
    Broken("key create --role administrator", {}, "--role", "device"),
    Broken("key rotate SWx --valid 0", {}, "--valid", "a number from 1"),
    Broken("bearer create n --scope root", {}, "--scope", "read"),
    Broken("bearer create n --valid soon", {}, "--valid", "a number from 1"),
    Broken("policy put user:u write plant/#", {}, "action", "publish"),
    Broken("policy put user:u publish plant/# maybe", {}, "effect", "allow"),
)


def test_there_are_as_many_as_were_counted() -> None:
    assert [len(each) for each in (OPENAPI, REST, SETTINGS, FILES, COMMANDS)] == [26, 15, 8, 7, 6]


def everything(bed: Testbed) -> Any:
    """All that could have been changed; nonces of requests aside."""
    documents = {key: document for key, document in bed.store._state.documents.items() if key[0] != "nonce"}
    return documents, dict(bed.store._state.keys), bed.keyring.all(), list(bed.node.registers.policies.stored()), len(bed.node.registers.identities)


class AdministratedSite(Site):
    def __init__(self, bed: Testbed) -> None:
        super().__init__(bed)
        key = bed.loop.finish(bed.keyring.create("administrator", 0))
        self.administrator = key.id, key.secret.reveal()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdministratedSite]:
    """One for all: nothing that is tried here changes it."""
    bed = Testbed(tmp_path_factory.mktemp("bed"))
    yield AdministratedSite(bed)
    bed.close()


@pytest.mark.parametrize("broken", OPENAPI, ids=lambda broken: f"{broken.what}-{broken.field}")
def test_through_the_openapi(site: Site, broken: Broken) -> None:
    before = everything(site.bed)
    reply = site.send(site.make(broken.what, **broken.given))
    body = reply.json()
    assert reply.status_code == 400, reply.text
    assert broken.field in body["Code"] + " " + body["Message"]
    assert broken.fix in body["Message"]
    assert CANARY not in reply.text
    assert everything(site.bed) == before


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "ca").mkdir()
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "ca", "other")
    device = authority.issue("device", client=True)
    return {"CA": authority.pem, "DEVICE": device.certificate.read_text(), "OTHER": other.pem}


@pytest.mark.parametrize("broken", REST, ids=lambda broken: f"{broken.what}-{broken.field}")
def test_through_the_rest_api(site: AdministratedSite, certificates: dict[str, str], broken: Broken) -> None:
    bed = site.bed
    before = everything(bed)
    method, _, path = broken.what.partition(" ")
    body = {name: certificates.get(value, value) if isinstance(value, str) else value for name, value in broken.given.items()}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(site.app, client=("127.0.0.1", 9))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", auth=site.administrator) as client:
            return await client.request(method, f"/api/v1/{path}", json=body)

    reply = bed.loop.finish(ask())
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["field"] == broken.field
    assert broken.fix in reply.json()["error"]["message"]
    assert everything(bed) == before


@pytest.mark.parametrize("broken", SETTINGS, ids=lambda broken: f"{broken.field}-{broken.fix}")
def test_through_settings(tmp_path: Path, broken: Broken) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(broken.what)
    with pytest.raises(Problems) as caught:
        load({}, {}, file)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(broken.field)
    assert broken.fix in caught.value.problems[0]


@pytest.mark.parametrize("broken", FILES, ids=lambda broken: f"{broken.what[-12:]}")
def test_through_files_that_settings_name(tmp_path: Path, broken: Broken) -> None:
    """The start is refused with nothing made."""
    key = ECKey.generate_key("P-256")
    content = {
        "empty": "",
        "private": key.as_pem(private=True).decode(),
        "shared": json.dumps({"keys": [{"kty": "oct", "k": "A" * 43}]}),
        "broken": key.as_pem(private=False).decode().replace("A", "B"),
        "open": "A" * 43 + "=",
        "short": "AAAA",
    }
    for name, text in content.items():
        (tmp_path / name).touch(0o644 if name == "open" else 0o600)
        (tmp_path / name).write_text(text)
    file, store = tmp_path / "gateway.toml", MemoryStore()
    file.write_text(broken.what.replace("FOLDER", str(tmp_path)))
    settings = load({"data": str(tmp_path)}, {}, file)

    async def start() -> None:
        await open_registers(store, await open_keyring(store, settings.seal_file), settings)

    with pytest.raises(StartError) as caught:
        asyncio.run(start())
    assert broken.field in str(caught.value)
    assert broken.fix in str(caught.value)
    for text in content.values():
        assert not text or text not in str(caught.value)
    assert store._state.keys == {}


@pytest.mark.parametrize("broken", COMMANDS, ids=lambda broken: broken.what)
def test_through_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path, broken: Broken) -> None:
    """Usage: nothing is asked of a gateway."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*broken.what.split(), "--data", str(tmp_path)])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert broken.field in err
    assert broken.fix in err
    assert list(tmp_path.iterdir()) == []


def test_what_was_broken_is_taken_when_it_is_mended(bed: Testbed) -> None:
    """The tables' right halves are right: what they refuse, they refuse for the one field that was changed."""
    site = Site(bed)
    site.call("AddCustomAuthIdentity", **IDENTITY)
    site.call("AddCustomAuthPermission", **PERMISSION)
    assert len(site.bed.node.registers.identities) == 1
    assert [rule.principal for rule in site.bed.node.registers.policies.stored()] == ["user:u"]
