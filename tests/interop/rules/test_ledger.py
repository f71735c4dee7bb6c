"""A ledger over 64 clients, P2P in the mix, targets of 8 queues or partitions, kept by readers and senders that nobody here wrote."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

from tests.interop.rules.conftest import RuleGateway, Start
from tests.interop.rules.independent import by_lane, read, send
from tests.support.ledger import stamp
from tests.support.wire import Clients

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300), pytest.mark.slow]

CLIENTS = 64
EACH = 15
COMMANDS = 320
KINDS = (("kafka", "kafka"), ("rocketmq", "rocketmq"))


@pytest.fixture(params=KINDS, ids=[name for _, name in KINDS])
def site(request: pytest.FixtureRequest, start_rules: Start) -> RuleGateway:
    kind, name = request.param
    return start_rules(kind, request.getfixturevalue(name))


def topic_of(client: int, number: int) -> str:
    return f"shop/p2p/GID_l@@@{(client + 1) % CLIENTS}" if number % 5 == 0 else f"shop/{client % 7}/{number % 3}"


@pytest.mark.parametrize("ordered", [False, True], ids=["any-order", "ordered"])
async def test_all_that_devices_publish_arrives_as_it_was(site: RuleGateway, clients: Clients, ordered: bool) -> None:
    options: dict[str, Any] = {"kind": "FIFO"} if ordered and site.broker.__class__.__name__ == "RocketMQ" else {}
    topic = await asyncio.to_thread(site.topic, "ledger", queues=8, **options)
    await asyncio.to_thread(site.rule, "create", "outflow", "out", "--topic", "shop", "--to", f"main/{topic}", *(["--ordered"] if ordered else []))
    wires = [await clients.connect(site.gateway.mqtt, f"GID_l@@@{number}") for number in range(CLIENTS)]

    async def publish(client: int) -> dict[bytes, tuple[str, str]]:
        sent = {}
        for number in range(EACH):
            body = stamp(f"GID_l@@@{client}", number, 128)
            await wires[client].publish(topic_of(client, number), body, 1)
            sent[body] = (f"GID_l@@@{client}", topic_of(client, number))
        return sent

    ledger: dict[bytes, tuple[str, str]] = {}
    for sent in await asyncio.gather(*(publish(client) for client in range(CLIENTS))):
        ledger |= sent
    found = await read(site.broker, topic, CLIENTS * EACH)
    assert sorted(hashlib.sha256(message.body).hexdigest() for message in found) == sorted(hashlib.sha256(body).hexdigest() for body in ledger)
    assert len({message.id for message in found}) == CLIENTS * EACH
    for message in found:
        client, name = ledger[message.body]
        properties = message.properties
        assert len(message.id) == 32
        assert (properties["clientId"], properties["topic"], properties["mqttSecondTopic"]) == (client, name, name.removeprefix("shop"))
        assert (properties["qoslevel"], properties["cleansessionflag"]) == ("1", "true")
    if ordered:
        for client in range(CLIENTS):
            (bodies,) = by_lane(found, f"GID_l@@@{client}").values()
            wanted = [stamp(f"GID_l@@@{client}", number, 128) for number in range(EACH)]
            # The official Python client doesn't read in order; Java's does (tests/interop/test_java_consumers.py)
            assert (sorted(bodies) if options else bodies) == (sorted(wanted) if options else wanted)


async def test_all_that_a_backend_sends_arrives_as_it_was(site: RuleGateway, clients: Clients) -> None:
    """To who subscribes, and to the one that a command names, which subscribes to nothing."""
    topic = await asyncio.to_thread(site.topic, "ledger", queues=8)
    await asyncio.to_thread(site.rule, "create", "inflow", "commands", "--from", f"main/{topic}", "--topic", "shop")
    wires = [await clients.connect(site.gateway.mqtt, f"GID_l@@@{number}") for number in range(CLIENTS)]
    for number, wire in enumerate(wires):
        await wire.subscribe(f"shop/c/{number}", 1)
    async with asyncio.timeout(60):
        while not (await asyncio.to_thread(site.status, "commands"))["position"]:
            await asyncio.sleep(0.1)
    ledger: dict[int, list[tuple[str, str]]] = {client: [] for client in range(CLIENTS)}
    messages = []
    for number in range(COMMANDS):
        client, to_one = number % CLIENTS, number % 3 == 0
        second = f"/p2p/GID_l@@@{client}" if to_one else f"c/{client}"
        body = f"command {number} {hashlib.sha256(b'%d' % number).hexdigest()}"
        user = json.dumps([{"key": "number", "value": str(number)}])
        messages.append((body, {"mqttSecondTopic": second, "qoslevel": "1", "mqtt5UserProperty": user}))
        ledger[client].append((f"shop/p2p/GID_l@@@{client}" if to_one else f"shop/c/{client}", body))
    await send(site.broker, topic, messages)
    for client, wire in enumerate(wires):
        found = await wire.publishes(len(ledger[client]), 60)
        assert sorted((publish.topic, publish.payload.decode()) for publish in found) == sorted(ledger[client])
        for publish in found:
            assert publish.properties is not None
            assert publish.properties.user_property == (("number", publish.payload.split()[1].decode()),)
    status = await asyncio.to_thread(site.status, "commands")
    assert (status["counts"]["sent"], status["counts"]["deadLetters"]) == (COMMANDS, 0)
