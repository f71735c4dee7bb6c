"""Standard clients exchange messages with the gateway: every client as subscriber and as publisher, QoS 0, 1 and 2, MQTT 3.1.1
and 5.0, over TCP and WebSocket where it can. The other side of an exchange is another client still.
"""

from __future__ import annotations

import itertools

import pytest

from tests.interop.jobs import Job, Message, Will
from tests.interop.programs import MATRIX, partner_of, run_publisher, run_subscriber, running, towards
from tests.support.gateway import Gateway
from tests.support.mosquitto import Mosquitto
from tests.support.spread import Spread

PAYLOADS = [b"first", b"", b"\x00\x01\xfe\xff", "überall".encode(), bytes(range(256)) * 80, b"last"]
"""Text, nothing, bytes that are no text, UTF-8, more than one read of a socket, and an end."""
WAYS = [
    pytest.param(client.name, transport, version, id=f"{client.name}-{transport}-v{version}")
    for client in MATRIX.values()
    for transport in client.transports
    for version in client.versions
]
NEWEST = [pytest.param(client.name, version, id=f"{client.name}-v{version}") for client in MATRIX.values() for version in client.versions]
numbers = itertools.count(1)


def job(broker: Gateway | Mosquitto | Spread, role: str, **fields: object) -> Job:
    """A job with a topic and client id of its own, unless it names them."""
    number = next(numbers)
    defaults: dict[str, object] = {"topic": f"matrix/{number}", "client_id": f"matrix-{role}-{number}"}
    endpoint = broker.ws if fields.get("transport") == "ws" else broker.mqtt
    assert endpoint is not None
    return Job(role=role, host=endpoint.host, port=endpoint.port, **(defaults | fields))  # type: ignore[arg-type]


def hexed(payloads: list[bytes]) -> list[str]:
    return [payload.hex() for payload in payloads]


def compared(broker: Gateway | Mosquitto | Spread, publisher: str, qos: int, messages: list[Message]) -> list[Message]:
    """mosquitto_pub takes a connection a message, each to another node where there are several: no node knows of what is on its way at the one
    before, unless that was acknowledged."""
    return sorted(messages, key=lambda message: message.payload) if isinstance(broker, Spread) and publisher == "mosquitto" and not qos else messages


@pytest.mark.slow
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(("client", "transport", "version"), WAYS)
async def test_subscribes(broker: Gateway | Mosquitto | Spread, client: str, transport: str, version: int, qos: int) -> None:
    """[MQTT-4.2-1]"""
    subscribe = job(broker, "subscribe", transport=transport, version=version, qos=qos, count=len(PAYLOADS))
    partner = partner_of(client)
    publish = towards(job(broker, "publish", topic=subscribe.topic, version=version, qos=qos, payloads=hexed(PAYLOADS)), partner)
    async with running(client, subscribe) as program:
        await program.ready()
        await run_publisher(partner, publish)
        got = await program.messages(len(PAYLOADS))
        await program.ended()
    expected = [Message(subscribe.topic, payload, qos, False) for payload in PAYLOADS]
    assert compared(broker, partner, qos, got) == compared(broker, partner, qos, expected)


@pytest.mark.slow
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(("client", "transport", "version"), WAYS)
async def test_publishes(broker: Gateway | Mosquitto | Spread, client: str, transport: str, version: int, qos: int) -> None:
    publish = job(broker, "publish", transport=transport, version=version, qos=qos, payloads=hexed(PAYLOADS))
    partner = partner_of(client)
    subscribe = towards(job(broker, "subscribe", topic=publish.topic, version=version, qos=2, count=len(PAYLOADS)), partner)
    async with running(partner, subscribe) as program:
        await program.ready()
        await run_publisher(client, publish)
        got = await program.messages(len(PAYLOADS))
    expected = [Message(publish.topic, payload, qos, False) for payload in PAYLOADS]
    assert compared(broker, client, qos, got) == compared(broker, client, qos, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("client", "version"), NEWEST)
async def test_retained_message_is_there_for_who_comes_later(broker: Gateway | Mosquitto | Spread, client: str, version: int) -> None:
    publish = job(broker, "publish", version=version, qos=1, retain=True, payloads=hexed([b"old", b"kept"]))
    await run_publisher(client, publish)
    got = await run_subscriber(client, job(broker, "subscribe", topic=publish.topic, version=version, qos=1, count=1))
    assert got == [Message(publish.topic, b"kept", 1, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("client", "version"), NEWEST)
async def test_will_of_a_killed_client_arrives(broker: Gateway | Mosquitto | Spread, client: str, version: int) -> None:
    partner = partner_of(client)
    watch = towards(job(broker, "hold", version=version, qos=1), partner)
    doomed = job(broker, "hold", version=version, qos=1, will=Will(topic=watch.topic, payload="gone"))
    async with running(partner, watch) as watcher:
        await watcher.ready()
        async with running(client, doomed) as program:
            await program.ready()
            await program.kill()
            assert await watcher.message() == Message(watch.topic, b"gone", 1, False)


@pytest.mark.slow
@pytest.mark.parametrize(("client", "version"), NEWEST)
async def test_clean_end_publishes_no_will(broker: Gateway | Mosquitto | Spread, client: str, version: int) -> None:
    """The marker published after the clean end is the first message that the watcher sees."""
    partner = partner_of(client)
    watch = towards(job(broker, "subscribe", version=version, qos=1, count=1), partner)
    async with running(partner, watch) as watcher:
        await watcher.ready()
        await run_subscriber_for_nothing(client, job(broker, "subscribe", version=version, will=Will(topic=watch.topic, payload="gone")))
        await run_publisher(partner, towards(job(broker, "publish", topic=watch.topic, qos=1, payloads=hexed([b"marker"])), partner))
        assert await watcher.message() == Message(watch.topic, b"marker", 1, False)


@pytest.mark.slow
@pytest.mark.parametrize(("client", "version"), NEWEST)
async def test_persistent_session_gets_what_came_while_it_was_away(broker: Gateway | Mosquitto | Spread, client: str, version: int) -> None:
    away = job(broker, "subscribe", version=version, qos=1, clean=False)
    await run_subscriber_for_nothing(client, away)
    payloads = [b"one", b"two", b"three"]
    partner = partner_of(client)
    await run_publisher(partner, towards(job(broker, "publish", topic=away.topic, version=version, qos=1, payloads=hexed(payloads)), partner))
    back = job(broker, "subscribe", topic=away.topic, client_id=away.client_id, version=version, qos=1, clean=False, count=3)
    assert await run_subscriber(client, back) == [Message(away.topic, payload, 1, False) for payload in payloads]


async def run_subscriber_for_nothing(client: str, subscribe: Job) -> None:
    """Subscribes and leaves with DISCONNECT as soon as it may."""
    assert subscribe.count == 0
    async with running(client, subscribe) as program:
        await program.ready()
        await program.ended()
