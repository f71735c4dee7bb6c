"""The model's samples, each with a standard client, and a real broker where one is named: what its users have is what they find here.

Backends on the RocketMQ side are its official client and its Java examples; on the MQTT side aiomqtt, paho and mosquitto's programs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.examples.sending import to_kafka_with_headers, to_rocketmq
from tests.support.brokers.consumers import ANY_GROUP_CONSUMER, Reader, console
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.certificates import Authority
from tests.support.gateway import AccessKey, Endpoint, Gateway
from tests.support.mosquitto import executable
from tests.support.rules import connection, create, until_sent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WITHIN = 30.0
READ_WITHIN = 90.0
"""Seconds for a Java consumer, which asks for routes every 30 s and divides queues every 20 s: its first tries may meet a busy broker."""
DEVICE = "GID_sample@@@0001"
OTHER = "GID_sample@@@0002"


def password_of(client: str, secret: str) -> str:
    """As the model's samples compute it."""
    return base64.b64encode(hmac.new(secret.encode(), client.encode(), hashlib.sha1).digest()).decode()


def login(key: AccessKey, client: str) -> dict[str, str]:
    return {"identifier": client, "username": f"Signature|{key.id}|{key.instance}", "password": password_of(client, key.secret)}


@asynccontextmanager
async def device(endpoint: Endpoint, client: str, key: AccessKey | None = None, **options: Any) -> AsyncIterator[aiomqtt.Client]:
    who = {"identifier": client} if key is None else login(key, client)
    async with asyncio.timeout(WITHIN), aiomqtt.Client(endpoint.host, endpoint.port, **who, **options) as connected:
        yield connected


async def take(client: aiomqtt.Client, count: int) -> list[tuple[str, bytes, int]]:
    """The next messages: topic, body, QoS."""
    got: list[tuple[str, bytes, int]] = []
    async for message in client.messages:
        assert isinstance(message.payload, bytes)
        got.append((str(message.topic), message.payload, message.qos))
        if len(got) == count:
            break
    return got


async def exchange(endpoint: Endpoint, key: AccessKey, **options: Any) -> None:
    """One client publishes to another, and gets what it publishes to itself."""
    async with device(endpoint, DEVICE, key, **options) as sender, device(endpoint, OTHER, key, **options) as receiver:
        await receiver.subscribe("sample/+/temperature", qos=1)
        for number in range(10):
            await sender.publish(f"sample/{number % 2}/temperature", f"reading {number}", qos=1)
        assert await take(receiver, 10) == [(f"sample/{number % 2}/temperature", f"reading {number}".encode(), 1) for number in range(10)]


# Between devices


def test_signature_vector_of_the_documentation() -> None:
    assert password_of("GID_Test@@@0001", "XXXXX") == "vI009IZJZVGRwBwZvnbwjfuXxVM="


async def test_plain_publish_and_subscribe(gateway: Gateway) -> None:
    """mosquitto's programs, no login."""
    where = ("-h", gateway.mqtt.host, "-p", str(gateway.mqtt.port))
    subscriber = await asyncio.create_subprocess_exec(
        "stdbuf", "-oL", executable("mosquitto_sub"), *where, "-i", OTHER, "-t", "sample/#", "-q", "1", "-C", "3", "-v", "-d",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert subscriber.stdout is not None
    try:
        async with asyncio.timeout(WITHIN):
            while not (await subscriber.stdout.readline()).startswith(b"Subscribed"):
                pass
            for number in range(3):
                arguments = ("-i", DEVICE, "-t", f"sample/{number}", "-m", f"hello {number}", "-q", "1")
                publisher = await asyncio.create_subprocess_exec(executable("mosquitto_pub"), *where, *arguments)
                assert await publisher.wait() == 0
            lines = (await subscriber.stdout.read()).decode().splitlines()
        assert [line for line in lines if line.startswith("sample/")] == [f"sample/{number} hello {number}" for number in range(3)]
    finally:
        if subscriber.returncode is None:
            subscriber.kill()
        await subscriber.wait()


async def test_signature_login(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(anonymous=False)
    key = gateway.create_key()
    await exchange(gateway.mqtt, key)
    for wrong in ({"password": password_of(DEVICE, "another secret")}, {"username": f"Signature|{key.id}|another-instance"}):
        with pytest.raises(aiomqtt.MqttError, match="(?i)not authori[sz]ed|bad user name"):
            async with aiomqtt.Client(gateway.mqtt.host, gateway.mqtt.port, **(login(key, DEVICE) | wrong), timeout=WITHIN):
                pass


async def test_tls_and_websocket(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Signature login over TLS, WebSocket and both. A client that trusts another authority than ours does not connect."""
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    gateway = start_gateway(anonymous=False, listen=("mqtts", "ws", "wss"), config=f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    key = gateway.create_key()
    trusted = aiomqtt.TLSParameters(ca_certs=str(authority.path))
    ends = gateway.endpoints
    await exchange(ends["mqtts"], key, tls_params=trusted)
    await exchange(ends["ws"], key, transport="websockets", websocket_path="/mqtt")
    await exchange(ends["wss"], key, transport="websockets", websocket_path="/mqtt", tls_params=trusted)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    who = login(key, DEVICE)
    for trusts, goes in ((authority, True), (Authority(elsewhere), False)):
        publisher = await asyncio.create_subprocess_exec(
            executable("mosquitto_pub"), "-h", ends["mqtts"].host, "-p", str(ends["mqtts"].port), "--cafile", str(trusts.path),
            "-i", DEVICE, "-u", who["username"], "-P", who["password"], "-t", "sample/a", "-m", "b", "-q", "1",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, complaint = await asyncio.wait_for(publisher.communicate(), WITHIN)
        assert (publisher.returncode == 0, b"TLS error" not in complaint) == (goes, goes), complaint


# Between devices and backends


def rocketmq_rules(rocketmq: RocketMQ, start_gateway: Callable[..., Gateway]) -> tuple[Gateway, str, str, str]:
    """A gateway with a rule each way; parent topic, outflow and inflow topic."""
    parent, outflow, inflow = unique("parent"), unique("outflow"), unique("inflow")
    rocketmq.create_topic(outflow)
    rocketmq.create_topic(inflow)
    gateway = start_gateway(config=connection(rocketmq))
    create(gateway, "outflow", "sample-out", "--topic", parent, "--to", f"main/{outflow}")
    create(gateway, "inflow", "sample-in", "--from", f"main/{inflow}", "--topic", parent)
    return gateway, parent, outflow, inflow


def read(rocketmq: RocketMQ, topic: str, folder: Path) -> Reader:
    """The Java consumer, at work. Messages are there before it is: a group that finds a queue empty begins behind what comes while it looks."""
    group = unique("group")
    rocketmq.create_group(group)
    reader = Reader(folder, rocketmq, ANY_GROUP_CONSUMER, "-g", group, "-t", topic, "-s", "*", "-f", "false")
    reader.start()
    return reader


def test_mqtt_to_rocketmq_with_p2p(rocketmq: RocketMQ, start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """What a device publishes, P2P too, the backend reads; what the backend sent itself does not come back to it."""
    gateway, parent, outflow, inflow = rocketmq_rules(rocketmq, start_gateway)

    async def devices() -> None:
        async with device(gateway.mqtt, DEVICE) as sender, device(gateway.mqtt, OTHER) as target, device(gateway.mqtt, "bystander") as third:
            await third.subscribe(f"{parent}/#", qos=1)
            await sender.publish(parent, b"level one", qos=1)
            await sender.publish(f"{parent}/a/b", b"\x00\xff", qos=0)
            await sender.publish(f"{parent}/p2p/{OTHER}", b"to one", qos=1)
            await asyncio.to_thread(to_rocketmq, rocketmq, inflow, [{"body": "from the backend"}])
            await sender.publish(f"{parent}/end", b"end", qos=2)
            assert await take(target, 1) == [(f"{parent}/p2p/{OTHER}", b"to one", 1)]
            got = await take(third, 4)
            assert sorted(got) == sorted(
                [(parent, b"level one", 1), (f"{parent}/a/b", b"\x00\xff", 0), (parent, b"from the backend", 1), (f"{parent}/end", b"end", 1)]
            )

    asyncio.run(devices())
    until_sent(gateway, "sample-out", 4)
    reader = read(rocketmq, outflow, tmp_path / "reader")
    reader.until(lambda: len(reader.messages()) >= 4, READ_WITHIN, "all messages")
    names = ("mqttSecondTopic", "topic", "clientId", "qoslevel")
    got = {message.body: tuple(message.properties.get(name) for name in names) for message in reader.messages()}
    assert got == {
        b"level one": (None, parent, DEVICE, "1"),
        b"\x00\xff": ("/a/b", f"{parent}/a/b", DEVICE, "0"),
        b"to one": (f"/p2p/{OTHER}", f"{parent}/p2p/{OTHER}", DEVICE, "1"),
        b"end": ("/end", f"{parent}/end", DEVICE, "2"),
    }


INFLOW: list[dict[str, Any]] = [
    {"body": "no second topic"},
    {"body": "slash", "properties": {"mqttSecondTopic": "/notice/1", "qoslevel": "0"}},
    {"body": "no slash", "properties": {"mqttSecondTopic": "notice/2", "qoslevel": "2"}},
    {"body": "p2p slash", "properties": {"mqttSecondTopic": f"/p2p/{DEVICE}", "qoslevel": "1"}},
    {"body": "p2p no slash", "properties": {"mqttSecondTopic": f"p2p/{DEVICE}"}},
    {"body": "p2p shown", "properties": {"mqttSecondTopic": f"/p2p/{DEVICE}", "mqttRealTopic": "/alarm"}},
    {"body": "posing", "properties": {"mqttSecondTopic": "/notice/3", "clientId": "somebody", "topic": "else/where"}},
]
"""As a backend of the model writes them."""


async def receive_inflow(gateway: Gateway, parent: str, send: Callable[[], object]) -> None:
    """A device that subscribes to nothing gets its P2P messages and no others; one that subscribes to all gets all but these."""
    async with device(gateway.mqtt, DEVICE) as target, device(gateway.mqtt, OTHER) as subscriber:
        await subscriber.subscribe(f"{parent}/#", qos=2)
        await asyncio.to_thread(send)
        assert sorted(await take(target, 3)) == sorted(
            [(f"{parent}/p2p/{DEVICE}", b"p2p slash", 1), (f"{parent}/p2p/{DEVICE}", b"p2p no slash", 1), (f"{parent}/alarm", b"p2p shown", 1)]
        )
        assert sorted(await take(subscriber, 4)) == sorted(
            [
                (parent, b"no second topic", 1),
                (f"{parent}/notice/1", b"slash", 0),
                (f"{parent}/notice/2", b"no slash", 2),
                (f"{parent}/notice/3", b"posing", 1),
            ]
        )


def test_rocketmq_to_mqtt_with_p2p(rocketmq: RocketMQ, start_gateway: Callable[..., Gateway]) -> None:
    gateway, parent, _, inflow = rocketmq_rules(rocketmq, start_gateway)
    asyncio.run(receive_inflow(gateway, parent, lambda: to_rocketmq(rocketmq, inflow, INFLOW)))
    assert "SEND_OK" in rocketmq.admin("sendMessage", "-t", inflow, "-p", "by mqadmin")


def test_kafka_both_ways_with_p2p(kafka: Kafka, start_gateway: Callable[..., Gateway]) -> None:
    """The same over Kafka: headers for properties."""
    parent, outflow, inflow = unique("parent"), unique("outflow"), unique("inflow")
    for topic in (outflow, inflow):
        kafka.create_topic(topic, 4)
    gateway = start_gateway(config=connection(kafka))
    create(gateway, "outflow", "sample-out", "--topic", parent, "--to", f"main/{outflow}")
    create(gateway, "inflow", "sample-in", "--from", f"main/{inflow}", "--topic", parent)
    asyncio.run(receive_inflow(gateway, parent, lambda: to_kafka_with_headers(kafka, inflow, INFLOW)))

    async def publish() -> None:
        async with device(gateway.mqtt, DEVICE) as sender:
            await sender.publish(f"{parent}/p2p/{OTHER}", b"to one", qos=1)
            await sender.publish(f"{parent}/a", b"", qos=1)

    asyncio.run(publish())
    seen = {each.body: (each.key, each.properties["mqttSecondTopic"], each.properties["clientId"]) for each in console(kafka, outflow, 2)}
    assert seen == {b"to one": (DEVICE, f"/p2p/{OTHER}", DEVICE), b"": (DEVICE, "/a", DEVICE)}
