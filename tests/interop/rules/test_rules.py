"""Rules against real brokers: what devices publish arrives, in order where it is ordered, and commands reach devices."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from schemas.connections import ConnectionSettings
from streams.backend import Backend, Incoming, Outgoing
from tests.interop.rules.conftest import RuleGateway, Start
from tests.support.wire import Clients

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300), pytest.mark.slow]

BROKERS = (("kafka", "kafka"), ("rocketmq", "rocketmq"), ("rocketmq", "rocketmq4"))


@pytest.fixture(params=BROKERS, ids=[name for _, name in BROKERS])
def site(request: pytest.FixtureRequest, start_rules: Start) -> RuleGateway:
    kind, name = request.param
    return start_rules(kind, request.getfixturevalue(name))


def backend_of(site: RuleGateway) -> Backend:
    """Another client of the same broker."""
    from gateway.opening import connect_backend

    return connect_backend(ConnectionSettings(name="test", kind=_kind(site), address=(site.broker.address,)))  # type: ignore[arg-type]


def _kind(site: RuleGateway) -> str:
    return "kafka" if "kafka" in type(site.broker).__name__.lower() else "rocketmq"


async def read_all(backend: Backend, topic: str, count: int, within: float = 60.0) -> list[Incoming]:
    source = backend.source("reader", topic, await backend.resolve(topic, "earliest"))
    found: list[Incoming] = []
    try:
        async with asyncio.timeout(within):
            while len(found) < count:
                found += await source.next(1_000, 1 << 20)
    finally:
        await source.close()
    return found


async def until(check: Any, within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(check):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_what_devices_publish_arrives(site: RuleGateway, clients: Clients) -> None:
    """Properties, ids and bodies byte for byte, P2P in the mix; each client's order kept by an ordered rule."""
    topic = await asyncio.to_thread(site.topic, "out", queues=8)
    await asyncio.to_thread(site.rule, "create", "outflow", "out", "--topic", "shop", "--to", f"main/{topic}", "--ordered")
    for client in range(8):
        wire = await clients.connect(site.gateway.mqtt, f"GID_t@@@{client}")
        for number in range(50):
            name = f"shop/{client}" if number % 5 else "shop/p2p/nobody"
            await wire.publish(name, b"%d %d \x00\xff" % (client, number), number % 3)
        await wire.publish("shop/empty", b"", 1)
    backend = backend_of(site)
    found = await read_all(backend, topic, 8 * 51)
    await backend.close()
    assert len(found) == 8 * 51
    for client in range(8):
        mine = [message for message in found if dict(message.properties)["clientId"] == f"GID_t@@@{client}"]
        assert [message.body for message in mine] == [b"%d %d \x00\xff" % (client, number) for number in range(50)] + [b""]
        assert len({message.queue for message in mine}) == 1
        assert [dict(message.properties)["qoslevel"] for message in mine[:50]] == [str(number % 3) for number in range(50)]
        assert dict(mine[1].properties)["mqttSecondTopic"] == f"/{client}"
        assert dict(mine[0].properties)["topic"] == "shop/p2p/nobody"
    status = await asyncio.to_thread(site.status, "out")
    assert (status["state"], status["lagRecords"], status["counts"]["sent"]) == ("running", 0, 8 * 51)


async def test_commands_reach_devices(site: RuleGateway, clients: Clients) -> None:
    topic = await asyncio.to_thread(site.topic, "in", queues=4)
    backend = backend_of(site)
    target = backend.target("sender", ordered=False)
    old = [Outgoing(topic, b"old", (), f"{number:032X}", 1) for number in range(1_000)]
    assert not await target.send(old)
    await asyncio.to_thread(site.rule, "create", "inflow", "inf", "--from", f"main/{topic}", "--topic", "shop")
    wire = await clients.connect(site.gateway.mqtt, "dev")
    await wire.subscribe("shop/#", 1)
    await until(lambda: site.status("inf")["position"])
    pairs = (("mqttSecondTopic", "/a"), ("qoslevel", "1"), ("mqtt5UserProperty", '[{"key":"k","value":"v"}]'))
    messages = [Outgoing(topic, b"%d \x00\xff" % number, pairs, f"{number:032X}", 1, lane="one") for number in range(200)]
    assert not await target.send(messages)
    assert not await target.send([Outgoing(topic, b"p2p", (("mqttSecondTopic", "p2p/dev"),), "F" * 32, 1)])
    found = await wire.publishes(201, 30)
    assert [publish.payload for publish in found if publish.topic == "shop/a"] == [b"%d \x00\xff" % number for number in range(200)]
    assert [publish.payload for publish in found if publish.topic == "shop/p2p/dev"] == [b"p2p"]
    # The command to one device names no lane: it may come before or after those that do.
    assert all(publish.properties is not None for publish in found if publish.topic == "shop/a")
    await target.close()
    await backend.close()


async def test_status_events_arrive(site: RuleGateway, clients: Clients) -> None:
    topic = await asyncio.to_thread(site.topic, "status", queues=2)
    await asyncio.to_thread(site.rule, "create", "status", "sta", "--group", "GID_s", "--to", f"main/{topic}")
    for client in ("GID_s@@@1", "GID_other@@@1"):
        wire = await clients.connect(site.gateway.mqtt, client)
        await wire.disconnect()
    backend = backend_of(site)
    found = await read_all(backend, topic, 3)
    await backend.close()
    assert sorted(dict(message.properties)["eventType"] for message in found) == ["connect", "disconnect", "tcpclean"]
    if _kind(site) == "rocketmq":
        assert sorted(message.tag for message in found) == ["connect", "disconnect", "tcpclean"]


async def test_a_missing_topic_is_told_and_made_if_asked(site: RuleGateway, clients: Clients) -> None:
    from tests.support.brokers.fixtures import unique

    missing = unique("missing")
    with pytest.raises(AssertionError, match="does not exist; make it with"):
        await asyncio.to_thread(site.rule, "create", "outflow", "out", "--topic", "shop", "--to", f"main/{missing}")
    await asyncio.to_thread(site.rule, "create", "outflow", "out", "--topic", "shop", "--to", f"main/{missing}", "--create")
    wire = await clients.connect(site.gateway.mqtt, "dev")
    await wire.publish("shop/1", b"x", 1)
    backend = backend_of(site)
    await until(lambda: site.status("out")["counts"]["sent"] == 1)
    assert [message.body for message in await read_all(backend, missing, 1)] == [b"x"]
    await backend.close()
