"""Rules over HTTP and by commands, on a gateway with its own log and database and a backend in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import cli
from gateway.app import App
from gateway.auth.credentials import read_credential
from schemas.settings import Address, Settings
from tests.support.gateway import Endpoint
from tests.support.noting_backend import NotingBackend
from tests.support.wire import Clients
from tests.unit.gateway.rules.conftest import CONNECTION

pytestmark = pytest.mark.slow

OUT = {"id": "out", "kind": "outflow", "connection": "main", "backendTopic": "orders", "topic": "shop"}


class Site:
    def __init__(self, data: Path, app: App, backend: NotingBackend, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self.app, self.backend, self._capsys = data, app, backend, capsys
        assert app._http is not None
        credential = read_credential(data)
        assert credential is not None
        self._auth = (credential.access_key_id, credential.access_key_secret)

    async def ask(self, method: str, path: str, body: Any = None, *, auth: tuple[str, str] | None = None) -> tuple[int, Any]:
        from gateway.commands.endpoint import read_rendezvous

        found = read_rendezvous(self.data)
        assert found is not None
        async with httpx.AsyncClient(base_url=found.http, auth=auth or self._auth) as client:
            answer = await client.request(method, "/api/v1/rules" + path, json=body)
        return answer.status_code, answer.json()

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code and what was printed."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(cli.main, ["rule", *arguments, "--data", str(self.data)])
        out, err = self._capsys.readouterr()
        return code, out, err

    async def publish(self, topic: str, payload: bytes) -> None:
        from gateway.protocol.properties import Properties
        from schemas.identities import Principal

        await self.app._services.publish(topic, payload, 1, False, Properties(), Principal("k", "device"))

    async def until(self, count: int, topic: str = "orders") -> list[bytes]:
        async with asyncio.timeout(10):
            while len(self.backend.sent(topic)) < count:
                await asyncio.sleep(0.01)
        return [message.body for message in self.backend.sent(topic)]


@pytest.fixture
async def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Site]:
    here = Address("127.0.0.1", 0)
    backend = NotingBackend("orders", "commands", "events")
    app = App(Settings(data=tmp_path, mqtt=(here,), http=here, anonymous=True, connections=(CONNECTION,)))
    app._connect = lambda connection: backend  # type: ignore[assignment, return-value]
    await app.start()
    try:
        yield Site(tmp_path, app, backend, capsys)
    finally:
        await app.stop()
    assert backend.closed


async def test_a_rule_from_its_making_to_its_end(site: Site) -> None:
    status, made = await site.ask("POST", "", OUT | {"sources": ["device", "api"]})
    assert (status, made["id"], made["status"]["state"]) == (201, "out", "starting")
    await site.publish("shop/1", b"1")
    assert await site.until(1) == [b"1"]
    assert (await site.ask("GET", "/out"))[1]["status"]["counts"]["sent"] == 1
    assert [rule["id"] for rule in (await site.ask("GET", ""))[1]["rules"]] == ["out"]
    assert (await site.ask("POST", "/out/disable"))[1]["enabled"] is False
    await site.publish("shop/1", b"2")
    assert (await site.ask("POST", "/out/enable"))[1]["enabled"] is True
    assert await site.until(2) == [b"1", b"2"]
    assert (await site.ask("PATCH", "/out", {"key": "topic"}))[1]["key"] == "topic"
    assert (await site.ask("POST", "/out/reset", {"start": "earliest"}))[0] == 200
    assert await site.until(4) == [b"1", b"2", b"1", b"2"]
    assert (await site.ask("DELETE", "/out"))[1] == {"id": "out", "deleted": True}
    assert (await site.ask("GET", "/out"))[0] == 404


REFUSED: tuple[tuple[str, str, Any, int, str], ...] = (
    ("POST", "", OUT | {"topic": "a/b"}, 400, "topic"),
    ("POST", "", {}, 400, "kind"),
    ("POST", "", [], 400, ""),
    ("POST", "", OUT | {"connection": "x"}, 400, "connection"),
    ("GET", "/none", None, 404, "id"),
    ("PATCH", "/none", {}, 404, "id"),
    ("DELETE", "/none", None, 404, "id"),
    ("POST", "/none/enable", None, 404, "id"),
    ("POST", "/none/dry-run", {}, 404, "id"),
    ("POST", "/dry-run", {}, 400, "rule"),
    ("POST", "/dry-run", {"rule": OUT, "records": 10**9}, 400, "records"),
    ("POST", "/dry-run", {"rule": OUT, "record": 1}, 400, "record"),
    ("GET", "/none/dead-letters", None, 404, "id"),
    ("GET", "/none/dead-letters?after=x", None, 400, "query.after"),
    ("POST", "/none/dead-letters/resend", {"number": "x"}, 400, "number"),
)


async def test_what_is_refused_names_its_field(site: Site) -> None:
    for method, path, body, status, field in REFUSED:
        code, answer = await site.ask(method, path, body)
        assert (code, answer["error"].get("field", "")) == (status, field), (method, path, answer)
    assert (await site.ask("GET", ""))[1] == {"rules": []}


async def test_the_same_by_commands(site: Site) -> None:
    code, out, err = await site.command("create", "outflow", "out", "--topic", "shop", "--to", "main/orders", "--ordered", "--sources", "device,api")
    assert (code, err) == (0, "")
    assert out.startswith("rule out is created: out  outflow  shop -> main/orders  starting")
    assert (await site.command("create", "inflow", "inf", "--from", "main/commands", "--topic", "shop"))[0] == 0
    assert (await site.command("create", "status", "sta", "--group", "GID_a", "--to", "main/events", "--disabled"))[0] == 0
    await site.publish("shop/1", b"1")
    await site.until(1)
    code, out, _ = await site.command("list")
    assert [line.split("  ")[0] for line in out.splitlines()] == ["inf", "out", "sta"]
    assert "running  lag 0  sent 1" in out
    shown = json.loads((await site.command("show", "out", "--json"))[1])
    assert (shown["ordered"], shown["status"]["state"]) == (True, "running")
    assert "lostByRetention 0" in (await site.command("show", "out"))[1]
    assert "would send 1" in (await site.command("dry-run", "out", "--records", "5"))[1]
    assert (await site.command("update", "out", "--rate", "7", "--no-ordered"))[0] == 0
    assert json.loads((await site.command("show", "out", "--json"))[1])["rate"] == 7
    for words in (["disable", "out"], ["enable", "out"], ["reset", "out", "--start", "earliest"], ["dead-letters", "out"], ["resend", "out"]):
        assert (await site.command(*words))[0] == 0, words
    assert (await site.command("drop-dead-letters", "out"))[0] == 0
    assert (await site.command("delete", "out"))[1] == "rule out is deleted\n"


async def test_commands_say_what_is_wrong(site: Site) -> None:
    code, _, err = await site.command("create", "outflow", "x", "--topic", "shop", "--to", "main/orders")
    assert (code, err) == (1, "sluiceway: id 'x' is refused, it must be 3 to 64 letters, digits, - and _\n")
    assert "CONNECTION/TOPIC" in (await site.command("create", "outflow", "out", "--topic", "shop", "--to", "orders"))[2]
    assert "create none" in (await site.command("create", "outflow", "out", "--topic", "shop", "--to", "main/none"))[2]
    assert "no rule of this id" in (await site.command("show", "out"))[2]
    assert "nothing to change" in (await site.command("update", "out"))[2]


async def test_metrics_of_rules(site: Site) -> None:
    await site.ask("POST", "", OUT | {"sources": ["device", "api"]})
    await site.publish("shop/1", b"1")
    await site.until(1)
    page = site.app._services.metrics().decode()
    assert 'sluiceway_rule_sent_total{kind="outflow",rule="out"} 1.0' in page
    assert 'sluiceway_rule_lag_records{kind="outflow",rule="out"} 0.0' in page


async def test_a_device_that_publishes_is_heard(site: Site, clients: Clients) -> None:
    await site.ask("POST", "", OUT)
    found = site.app._listeners
    assert found is not None
    spec = found.addresses[0]
    device = await clients.connect(Endpoint(spec.host, spec.port), "dev")
    await device.publish("shop/1", b"x", 1)
    assert await site.until(1) == [b"x"]
