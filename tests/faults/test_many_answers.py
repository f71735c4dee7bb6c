"""Three gateways over real Kafka and PostgreSQL: one is asked, and answers and acts for all; with one of them stopped it says so, in time."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import time
from typing import Any

import httpx
import pytest

from tests.faults.test_many_gateways import shared, three
from tests.support.gateway import Gateway
from tests.support.many_backbone import NAMES
from tests.support.openapi_sdks import Call, tea
from tests.support.wire import Clients

__all__ = ["shared", "three"]  # fixtures

pytestmark = [
    pytest.mark.brokers,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("shared", ["kafka"], indirect=True),  # nodes ask each other by the store: the log is all one to them
]

GROUP = "GID_many"
ANSWERED_WITHIN = 3.5
"""Seconds: the gateway's own 1.5, and what a busy machine takes; less than the lease of the node that is stopped is sure to last."""
KNOWN_WITHIN = 20.0
"""Seconds until a new key is known to all: notices, the pause between two readings, and what a busy machine takes."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once: a client would read all the machine's authorities before it asks in clear text."""
KEPT = {"clean_start": False, "session_expiry": 3600}


async def ask(gateway: Gateway, method: str, path: str) -> httpx.Response:
    """Over HTTP, as the administrator of that node."""
    credential = json.loads((gateway.data / "admin.json").read_text())
    auth = (credential["accessKeyId"], credential["accessKeySecret"])
    async with httpx.AsyncClient(auth=auth, timeout=20, verify=NO_TLS) as client:
        return await client.request(method, f"http://{gateway.http}/api/v1/{path}")


async def get(gateway: Gateway, path: str) -> Any:
    response = await ask(gateway, "GET", path)
    assert response.status_code == 200, response.text
    return response.json()


async def callers(gateways: list[Gateway]) -> list[Call]:
    """The official SDK at each node, with one key, once all of them know it."""
    key = json.loads(await asyncio.to_thread(gateways[0].run, "key", "create", "--role", "manager", "--json"))
    made = [tea(str(gateway.http), key["accessKeyId"], key["accessKeySecret"]) for gateway in gateways]

    def with_instance(call: Call) -> Call:
        return lambda action, **fields: call(action, instance_id=key["instanceId"], **fields)

    async with asyncio.timeout(KNOWN_WITHIN):
        for gateway in gateways:
            while key["accessKeyId"] not in str(await get(gateway, "keys")):
                await asyncio.sleep(0.1)
    return [with_instance(call) for call in made]


async def events_of(gateway: Gateway, message: str) -> list[tuple[str, str]]:
    """Of the command: words and clients, once the last of them is there."""
    async with asyncio.timeout(10):
        while True:
            answer = json.loads(await asyncio.to_thread(gateway.run, "trace", "--message", message, "--json"))
            assert answer["gaps"] == []
            if answer["total"] >= 5:
                return sorted((event["action"], event.get("clientId", "")) for event in answer["events"])
            await asyncio.sleep(0.1)


async def test_whoever_is_asked_answers_and_acts_for_all(three: list[Gateway], clients: Clients) -> None:
    calls = await callers(three)
    wires = [await clients.connect(gateway.mqtt, f"{GROUP}@@@{name}", **KEPT) for gateway, name in zip(three, NAMES, strict=True)]
    for wire in wires[1:]:
        await wire.subscribe("plant/#", 1)
    sent = await asyncio.to_thread(calls[0], "send_message", mqtt_topic="plant/a", payload="x")
    for wire in wires[1:]:
        await wire.publishes(1)
    told = [("ack", f"{GROUP}@@@{name}") for name in NAMES[1:]] + [("sub", f"{GROUP}@@@{name}") for name in NAMES[1:]]
    took = []
    for number, gateway in enumerate(three):
        assert await events_of(gateway, sent.msg_id) == sorted([*told, ("pub_api", "")])
        for name in NAMES:
            found = await ask(gateway, "GET", f"sessions/{GROUP}@@@{name}")
            took.append(found.elapsed.total_seconds())
            session = found.json()
            assert (session["node"], session["connected"]) == (name, True)
        assert (await ask(gateway, "GET", "sessions/nobody")).status_code == 404
        assert await get(gateway, "online") == {"groups": [{"groupId": GROUP, "online": 3}]}
        assert (await get(gateway, f"groups/{GROUP}/clients"))["online"] == 3
        counted = await asyncio.to_thread(calls[number], "query_sessions_by_group_id", group_id=GROUP)
        assert counted.online_count == 3
    print(f"sessions asked of any node: {max(took) * 1000:.1f} ms at most, {sorted(took)[len(took) // 2] * 1000:.1f} ms p50")
    connects = await get(three[1], f"history/{GROUP}@@@three")
    assert [event["action"] for event in connects["events"]] == ["connect"]

    closed = await asyncio.to_thread(calls[2], "close_connection", client_id=f"{GROUP}@@@one")
    assert (closed.code, closed.success) == (200, True)
    assert (await ask(three[2], "DELETE", f"connections/{GROUP}@@@two")).status_code == 200
    for wire in wires[:2]:
        async with asyncio.timeout(5):
            await wire.lost.wait()
    again = await asyncio.to_thread(calls[2], "close_connection", client_id=f"{GROUP}@@@one")
    assert (again.code, again.success) == (404, False)
    session = await get(three[2], f"sessions/{GROUP}@@@two")
    assert (session["node"], session["connected"]) == ("two", False)
    assert not wires[2].lost.is_set()


async def test_a_node_that_is_stopped_is_named_within_the_deadline(three: list[Gateway], clients: Clients) -> None:
    calls = await callers(three)
    for gateway, name in zip(three, NAMES, strict=True):
        await clients.connect(gateway.mqtt, f"{GROUP}@@@{name}")
    one, two, _ = three
    took: list[float] = []

    async def timed(work: Any) -> Any:
        since = time.monotonic()
        answer = await work
        took.append(time.monotonic() - since)
        return answer

    two.signal(signal.SIGSTOP)
    try:
        # All at once: it lives by its lease for some seconds only
        online, group, missing, there, trace, closed = await asyncio.gather(
            timed(get(one, "online")),
            timed(get(one, f"groups/{GROUP}/clients")),
            timed(ask(one, "GET", f"sessions/{GROUP}@@@two")),
            timed(get(one, f"sessions/{GROUP}@@@three")),
            timed(get(one, "trace")),
            timed(asyncio.to_thread(calls[2], "close_connection", client_id=f"{GROUP}@@@two")),
        )
        print(f"answers with one node stopped: {max(took):.2f} s at most")
        assert max(took) < ANSWERED_WITHIN
        assert online == {"groups": [{"groupId": GROUP, "online": 2}], "silent": ["two"]}
        assert (group["online"], group["silent"]) == (2, ["two"])
        assert missing.status_code == 503
        assert missing.json()["error"]["message"].endswith("there is no answer of: two")
        assert there["node"] == "three"
        assert [(gap["node"], gap["messages"], gap["events"]) for gap in trace["gaps"]] == [("two", 0, 0)]
        assert (closed.code, closed.success) == (503, False)
        assert "two" in closed.message
    finally:
        two.kill()
    async with asyncio.timeout(20):
        while "silent" in (answer := await get(one, "online")):
            await asyncio.sleep(0.2)
    assert answer == {"groups": [{"groupId": GROUP, "online": 2}]}
    assert [gap["node"] for gap in (await get(one, "trace"))["gaps"]] == ["two"], "what it had traced is not there"
