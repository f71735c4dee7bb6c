"""Secrets that would be recognised, in a gateway that goes through all that could betray one: none is in any output, nor in clear in its folder.

Each secret has the places where its maker must be told it, and is looked for everywhere else: standard output and error of gateway and commands,
every HTTP answer, and all files that are there when the gateway has ended. It is looked for as text, in base64, in hexadecimal and URL-encoded,
and so are the passwords of Signature logins, which can be used again for ever.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.auth.login import sign
from gateway.clock import Clock
from gateway.protocol.packets import Connack
from tests.support.gateway import ROOT, Gateway, clean_environment
from tests.support.process import free_port
from tests.support.wire import Clients, connect_packet
from tests.unit.gateway.openapi.requests import acs3, v1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CLIENT: Final = "GID_canary@@@d1"
IDENTITY, PAST = "canary-identity-8c21f0", "canary-past-77b0c4"
KAFKA, ROCKET, WRONG = "canary-kafka-0d9a1e", "canary-rocket-63ff52", "canary-wrong-b17d20"
DATABASE: Final = "canary-database-fa20b6"
ADDRESS: Final = "127.0.0.1:{port}"
WANTED_OUTPUTS: Final = 90


class Watch:
    """What was said, by whom; and the secrets that must not be in it, each with the outputs that may hold it."""

    def __init__(self) -> None:
        self.said: dict[str, bytes] = {}
        self.secrets: dict[str, tuple[bytes, tuple[str, ...]]] = {}

    def secret(self, name: str, value: str | bytes, *, told: Iterable[str] = ()) -> None:
        assert len(value) >= 16, "too short to be recognised"
        self.secrets[name] = value.encode() if isinstance(value, str) else value, tuple(told)

    def hear(self, name: str, content: bytes | str) -> None:
        self.said[f"{len(self.said)} {name}"] = content.encode() if isinstance(content, str) else content

    def betrayed(self) -> list[str]:
        return [
            f"{secret} in {name}"
            for secret, (value, told) in self.secrets.items()
            for name, content in self.said.items()
            if any(form in content for form in forms(value)) and not any(name.endswith(" " + place) for place in told)
        ]


def forms(value: bytes) -> set[bytes]:
    """Base64 at each of the three places that a value may have in a longer text, whole groups only."""
    inside = {base64.b64encode(b"\x00" * shift + value)[4 if shift else 0 : -4] for shift in range(3)}
    return {
        value,
        value.hex().encode(),
        value.hex().upper().encode(),
        quote(value, safe="").encode(),
        *inside,
        *(text.translate(_SAFE) for text in inside),
    }


_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Site:
    def __init__(self, gateway: Gateway, watch: Watch, web: httpx.AsyncClient) -> None:
        self.gateway, self.watch, self.web = gateway, watch, web

    async def command(self, *arguments: str, name: str = "", stdin: str = "", **env: str) -> str:
        """Any exit code: what it says is what counts."""
        line = [sys.executable, "-m", "gateway.cli", *arguments, "--data", str(self.gateway.data)]
        done = await asyncio.to_thread(
            subprocess.run, line, env=clean_environment() | self.gateway.env | env, cwd=ROOT, input=stdin, capture_output=True, timeout=30, text=True
        )
        self.watch.hear(name or " ".join(arguments), done.stdout + done.stderr)
        return str(done.stdout)

    async def ask(self, method: str, path: str, *, name: str = "", **request: Any) -> httpx.Response:
        reply = await self.web.request(method, path, **request)
        self.watch.hear(name or f"{method} {path}", repr(reply.headers.raw).encode() + reply.content)
        return reply

    async def call(self, family: Callable[..., Any], key: dict[str, str], secret: str, action: str, *, name: str = "", **fields: str) -> Any:
        """An action of the OpenAPI."""
        fields = {"InstanceId": key["instanceId"]} | fields
        method, target, headers, body = family(key["accessKeyId"], secret, action, Clock().wall(), **fields)
        headers = {**headers, "host": "gateway"}
        reply = await self.ask(method, target, name=name or f"{action} {family.__name__}", headers=headers, content=body)
        return reply.json()


def configuration(folder: Path, key: ECKey) -> str:
    (folder / "jwks.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    (folder / "rocket").write_text(ROCKET)
    nobody = ADDRESS.format(port=free_port())
    return f"""
[logging]
level = "debug"
[limits]
login_failures_address = 0
login_failures_key = 0
[jwt]
keys = "{folder / "jwks.json"}"
[connections.kafka]
kind = "kafka"
address = "{nobody}"
mechanism = "PLAIN"
user = "canary"
password = "{KAFKA}"
allow_outflow = ["out"]
[connections.rocket]
kind = "rocketmq"
address = "{nobody}"
user = "canary"
password_file = "{folder / "rocket"}"
allow_outflow = ["out"]
"""


async def logins(site: Site, clients: Clients, good: Iterable[tuple[str, bytes]], bad: Iterable[tuple[str, bytes]]) -> None:
    """All of them, on both versions; the good ones subscribe, publish and are taken over by the next."""
    for version in (4, 5):
        for user, password in good:
            wire = await clients.connect(site.gateway.mqtt, CLIENT, version, user_name=user, password=password, clean_start=False)
            await wire.subscribe("plant/#", 1)
            await wire.publish("plant/a", b"payload", 1)
        for user, password in bad:
            wire = await clients.dial(site.gateway.mqtt, version)
            wire.send(connect_packet(CLIENT, version, user_name=user, password=password))
            assert (await wire.expect(Connack)).reason_code != 0
            await wire.closed()


async def other_logins(site: Site, clients: Clients, *logins: tuple[str, bytes]) -> None:
    """Sessions belong to whom they were made by: all but the last come with client ids of their own, and the last, a device's, is refused."""
    for number, (user, password) in enumerate(logins, start=1):
        is_last = number == len(logins)
        wire = await clients.dial(site.gateway.mqtt)
        wire.send(connect_packet(CLIENT if is_last else f"{CLIENT}{number}", user_name=user, password=password))
        assert ((await wire.expect(Connack)).reason_code != 0) is is_last


def readable(app_paths: Iterable[str]) -> list[str]:
    return [path.replace("{client_id}", CLIENT).replace("{group_id}", "GID_canary").replace("{rule_id}", "out") for path in app_paths]


async def everything(site: Site, clients: Clients, web_key: ECKey) -> None:
    """Keys, credentials, identities, tokens made; used rightly and wrongly on every way; listed, traced, measured, rotated."""
    watch = site.watch
    made = json.loads(await site.command("key", "create", "--role", "manager", "--json", name="made key"))
    secret, user = made["accessKeySecret"], f"Signature|{made['accessKeyId']}|{made['instanceId']}"
    watch.secret("access key", secret, told=["made key"])
    watch.secret("password", sign(secret.encode(), CLIENT))
    bearer = json.loads(await site.command("bearer", "create", "canary", "--scope", "admin", "--json", name="made bearer"))["bearerKey"]
    watch.secret("bearer key", bearer.rpartition("_")[2], told=["made bearer"])
    text = jwt.encode(
        {"alg": "ES256", "kid": "ec"}, {"sub": "canary", "exp": Clock().wall() // 1000 + 600, "acl": ALL}, web_key, algorithms=["ES256"]
    )
    watch.secret("jwt", text)
    watch.secret("jwt signature", text.rpartition(".")[2])

    async def call(action: str, **fields: str) -> Any:
        return await site.call(v1, made, secret, action, **fields)

    await call("CreateGroupId", GroupId="GID_canary")
    device = (await call("RegisterDeviceCredential", ClientId=CLIENT, name="made device"))["DeviceCredential"]
    watch.secret("device credential", device["DeviceAccessKeySecret"], told=["made device", "GetDeviceCredential v1"])
    await call("AddCustomAuthIdentity", Username="canary", Secret=PAST, IdentityType="USER", SignMode="ORIGIN")
    await call("UpdateCustomAuthIdentity", Username="canary", Secret=IDENTITY, IdentityType="USER", SignMode="ORIGIN")
    await call("AddCustomAuthPermission", Identity="canary", IdentityType="USER", Topic="plant/#", PermitAction="ALL", Effect="ALLOW")
    expires = str(Clock().wall() + 3_600_000)
    token = (await call("ApplyToken", Resources="plant/#", Actions="R,W", ExpireTime=expires, name="made token"))["Token"]
    watch.secret("token", token, told=["made token"])
    watch.secret("token signature", token[-40:], told=["made token"])

    names = {
        "device": f"DeviceCredential|{device['DeviceAccessKeyId']}|{made['instanceId']}",
        "token": f"Token|{made['accessKeyId']}|{made['instanceId']}",
    }
    of_device = sign(device["DeviceAccessKeySecret"].encode(), CLIENT)
    watch.secret("device password", of_device)
    good = [(user, sign(secret.encode(), CLIENT)), (names["token"], f"RW|{token}".encode())]
    bad = [
        (user, secret.encode()),
        (user + "x", sign(secret.encode(), CLIENT)),
        (names["device"], device["DeviceAccessKeySecret"].encode()),
        (names["token"], f"R|{token}".encode()),
        (names["token"], token.encode()),
        ("canary", PAST.encode()),
        (IDENTITY, IDENTITY.encode()),
        ("canary", f"{text}x".encode()),
        (f"Signature|{secret}|{made['instanceId']}", secret.encode()),
        (text, text.encode()),
    ]
    await logins(site, clients, good, bad)
    await other_logins(site, clients, ("canary", IDENTITY.encode()), ("canary", text.encode()), (names["device"], of_device))
    await wrong_requests(site, made, secret, token, bearer, device["DeviceAccessKeySecret"])
    await listings(site, made, secret, bearer)
    rotated = json.loads(await site.command("key", "rotate", made["accessKeyId"], "--json", name="rotated key"))
    watch.secret("rotated key", rotated["accessKeySecret"], told=["rotated key"])
    await call("RevokeToken", Token=token)
    await site.ask("GET", "/metrics")


ALL: Final = {"publish": ["plant/#"], "subscribe": ["plant/#"]}


async def wrong_requests(site: Site, made: dict[str, str], secret: str, token: str, bearer: str, device: str) -> None:
    """What a caller got wrong, with secrets where they belong and where they don't."""
    for family in (v1, acs3):
        await site.call(family, made, WRONG, "AddCustomAuthIdentity", Username="x", Secret=IDENTITY, IdentityType="USER", SignMode="ORIGIN")
        await site.call(family, made, secret, "AddCustomAuthIdentity", Username="x", Secret=IDENTITY * 20, IdentityType="?", SignMode="ORIGIN")
        await site.call(family, made, secret, "AddCustomAuthIdentity", Username="x", Secret=IDENTITY, IdentityType="USER", SignMode=WRONG)
        await site.call(family, made, WRONG, "QueryToken", Token=token)
        await site.call(family, made, secret, "RevokeToken", Token=token + "x")
        await site.call(family, made | {"accessKeyId": "nobody"}, secret, "ListGroupId", SecurityToken=WRONG)
        await site.call(family, made, secret, "ListGroupId", SecurityToken=WRONG)
    for authorization in (f"Bearer {bearer}x", f"Basic {base64.b64encode(f'x:{secret}'.encode()).decode()}", f"Basic {secret}", f"Token {device}"):
        await site.ask("GET", "/api/v1/keys", headers={"Authorization": authorization})
    right = {"Authorization": f"Bearer {bearer}"}
    login = {"clientId": CLIENT, "userName": f"Signature|{made['accessKeyId']}|{made['instanceId']}"}
    for password in (secret, sign(secret.encode(), CLIENT).decode(), WRONG):
        await site.ask("POST", "/api/v1/signature", headers=right, json=login | {"password": password})
        await site.command("signature", CLIENT, "--check", login["userName"], name="signature --check", stdin=password)
    await site.ask("POST", "/api/v1/bearer-keys", headers=right, json={"name": "x", "secret": IDENTITY})
    await site.ask("POST", "/api/v1/publish", headers=right, content=f'{{"topic": "a", "password": "{IDENTITY}"')
    for rule, topic, backend in (("out", "plant", "kafka/out"), ("line", "line", "rocket/out")):
        await site.command("rule", "create", "outflow", rule, "--topic", topic, "--to", backend)
    wrong = {"SLUICEWAY_ACCESS_KEY": made["accessKeyId"], "SLUICEWAY_ACCESS_SECRET": WRONG}
    await site.command("key", "list", **wrong)
    await site.command("pub", "-t", "plant/a", "-m", "x", **wrong)


async def listings(site: Site, made: dict[str, str], secret: str, bearer: str) -> None:
    """Everything that can be read: every GET route, and commands."""
    paths = (await site.ask("GET", "/openapi.json", headers={"Authorization": f"Bearer {bearer}"})).json()["paths"]
    routes = readable(path for path, methods in paths.items() if "get" in methods)
    assert len(routes) >= 20
    for route in routes:
        for headers in ({"Authorization": f"Bearer {bearer}"}, {}):
            await site.ask("GET", route, headers=headers, params={"client": CLIENT} if route.endswith("/trace") else {})
    for action in ("ListGroupId", "QueryCustomAuthPermission", "QueryCustomAuthConnectBlack", "ListInstances", "QuerySessionByClientId"):
        await site.call(v1, made, secret, action, Size="100", ClientId=CLIENT)
    await site.call(v1, made, secret, "QueryCustomAuthIdentity", Size="100")
    await site.call(v1, made, secret, "GetDeviceCredential", ClientId=CLIENT)
    await site.call(v1, made, secret, "ListDeviceCredentialClientId", GroupId="GID_canary", PageSize="100")
    for line in (
        "key list",
        "bearer list",
        f"status {CLIENT}",
        f"status {CLIENT} --history",
        f"trace --client {CLIENT} --json",
        "policy list",
        "rule list",
    ):
        await site.command(*line.split())


def test_no_secret_is_in_any_output(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    web_key = ECKey.generate_key("P-256", {"kid": "ec"})
    watch, gateway = Watch(), start_gateway(anonymous=False, config=configuration(tmp_path, web_key))
    gateway.until(lambda: b"More keys:" in gateway.err.read_bytes(), 10, "the first key")
    first = next(line.split()[-1] for line in gateway.err.read_text().splitlines() if "access key secret" in line)
    watch.secret("first key", first, told=["gateway.err"])
    admin, seal = gateway.data / "admin.json", gateway.data / "seal.key"
    watch.secret("administrator", json.loads(admin.read_text())["accessKeySecret"], told=["admin.json"])
    watch.secret("seal key", seal.read_bytes().strip(), told=["seal.key"])
    watch.secret("seal key's bytes", base64.b64decode(seal.read_bytes()), told=["seal.key"])
    watch.secret("identity", IDENTITY, told=["QueryCustomAuthIdentity v1"])
    for name, value in {"identity before": PAST, "kafka": KAFKA, "rocketmq": ROCKET, "wrong": WRONG, "database": DATABASE}.items():
        watch.secret(name, value)

    async def go() -> None:
        clients = Clients()
        async with httpx.AsyncClient(base_url=f"http://{gateway.http}", timeout=30) as web:
            try:
                await everything(Site(gateway, watch, web), clients, web_key)
            finally:
                await clients.close()

    asyncio.run(go())
    hear_folder(gateway, watch)  # with what lies in write-ahead logs
    assert gateway.stop() == 0
    database(gateway, watch)
    hear_folder(gateway, watch)
    assert len(watch.secrets) == 20
    assert len(watch.said) >= WANTED_OUTPUTS
    assert watch.betrayed() == []
    told = {place for _, places in watch.secrets.values() for place in places}
    assert all(any(name.endswith(" " + place) for name in watch.said) for place in told), "an exception that is none"
    for name, (value, places) in watch.secrets.items():
        heard = [each for each, content in watch.said.items() if value in content]
        assert bool(heard) is bool(places) or name == "seal key's bytes", (name, heard)


def database(gateway: Gateway, watch: Watch) -> None:
    """Starts that can't reach their database, and the check of settings."""
    (gateway.folder / "database").write_text(DATABASE)
    url = f"postgresql://canary@127.0.0.1:{free_port()}/canary?connect_timeout=1"
    check = [word if word != "run" else "check-config" for word in gateway.command()]
    for env in ({"SLUICEWAY_STORE_PASSWORD_FILE": str(gateway.folder / "database")}, {"PGPASSWORD": DATABASE}):
        for command, code in ((gateway.command(), 2), (check, 0)):
            done = subprocess.run(
                command, env=clean_environment() | {"SLUICEWAY_STORE_URL": url} | env, cwd=ROOT, capture_output=True, timeout=30, check=False
            )
            assert done.returncode == code, done.stderr
            watch.hear("no database", done.stdout + done.stderr)


def hear_folder(gateway: Gateway, watch: Watch) -> None:
    """All files of the data folder, and what the gateway has said."""
    files = [file for file in gateway.data.rglob("*") if file.is_file()]
    assert len(files) >= 6
    for file in (*files, gateway.out, gateway.err):
        watch.hear(file.name, file.read_bytes())


def test_a_watch_hears_a_secret_in_every_form() -> None:
    """What finds nothing must be able to find."""
    for say in (
        bytes,
        bytes.hex,
        base64.b64encode,
        lambda value: base64.urlsafe_b64encode(b"x" + value + b"y"),
        lambda value: base64.b64encode(b"xy" + value),
    ):
        watch = Watch()
        watch.secret("canary", "canary/+?\xff-8c21f0", told=["its maker"])
        said = say("canary/+?\xff-8c21f0".encode())
        watch.hear("its maker", said)
        assert watch.betrayed() == []
        watch.hear("somebody", said)
        assert watch.betrayed() == ["canary in 1 somebody"]
