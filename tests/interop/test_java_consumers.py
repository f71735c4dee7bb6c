"""Java consumers that nobody here wrote read what outflow rules send: complete, with ids, properties and bodies, and in order where it is ordered."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import aiomqtt
import pytest

from tests.support.brokers.consumers import (
    ANY_GROUP_CONSUMER,
    ORDERED_CONSUMER,
    ORDERED_TAG,
    ORDERED_TOPIC,
    Reader,
    Seen,
    console,
    read_messages,
)
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Endpoint, Gateway
from tests.support.rules import connection, create, until_sent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DEVICES = tuple(f"GID_java@@@{number}" for number in range(6))
MESSAGES = 20
WITHIN = 60.0


async def publish(endpoint: Endpoint, parent: str, *, ordered: bool) -> None:
    """Every device at a time its own messages, one after the other; some P2P."""

    async def device(name: str) -> None:
        async with asyncio.timeout(WITHIN), aiomqtt.Client(endpoint.host, endpoint.port, identifier=name) as client:
            if ordered:
                await client.publish("$SYS/enableOrderMsg", json.dumps({"order": "true"}), qos=1)
            for number in range(MESSAGES):
                await client.publish(f"{parent}/{second(name, number)}", body(parent, name, number), qos=1)

    await asyncio.gather(*(device(name) for name in DEVICES))


def second(name: str, number: int) -> str:
    return f"p2p/{DEVICES[0]}" if number % 5 == 4 else f"up/{number % 3}/{name}"


def body(parent: str, name: str, number: int) -> bytes:
    """Kafka's console consumer is read as text, so bytes that are none are left to other tests."""
    return f"{parent}|{name}|{number}|{'ß€𝄞' * number}".encode()


def ledger(parent: str) -> dict[bytes, dict[str, str]]:
    """By body, the properties."""
    return {
        body(parent, name, number): {
            "mqttSecondTopic": f"/{second(name, number)}",
            "topic": f"{parent}/{second(name, number)}",
            "clientId": name,
            "qoslevel": "1",
            "cleansessionflag": "true",
        }
        for name in DEVICES
        for number in range(MESSAGES)
    }


def check(seen: Iterable[Seen], parent: str) -> dict[bytes, Seen]:
    """All of the ledger, nothing else of this parent topic, every body with its own properties and one id."""
    mine = {message.body: message for message in seen if message.body.startswith(f"{parent}|".encode())}
    expected = ledger(parent)
    assert {text: {name: message.properties.get(name) for name in expected[text]} for text, message in mine.items()} == expected
    assert len({message.id for message in mine.values()}) == len(mine)
    return mine


def in_order(seen: Iterable[Seen], parent: str) -> None:
    """Each device's messages lie in one queue and were first read in the order in which it sent them."""
    queues, numbers = defaultdict(set), defaultdict(list)
    for message in seen:
        if message.body.startswith(f"{parent}|".encode()):
            _, name, number, _ = message.body.split(b"|", 3)
            queues[name].add(message.queue)
            if int(number) not in numbers[name]:
                numbers[name].append(int(number))
    assert {name.decode(): len(found) for name, found in queues.items()} == dict.fromkeys(DEVICES, 1)
    assert {name.decode(): found for name, found in numbers.items()} == dict.fromkeys(DEVICES, list(range(MESSAGES)))
    assert len(set.union(*queues.values())) > 1, "all devices in one queue prove nothing"


def read_all(reader: Reader, parent: str) -> list[Seen]:
    def complete() -> bool:
        return len({message.body for message in reader.messages() if message.body.startswith(f"{parent}|".encode())}) >= len(DEVICES) * MESSAGES

    reader.until(complete, WITHIN, "all messages")
    return reader.messages()


@pytest.mark.parametrize("name", ["rocketmq", "rocketmq4"])
def test_rocketmq_example_consumer(name: str, request: pytest.FixtureRequest, start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """The same bytes, properties and message id that the gateway has; the broker's own tools find a message by that id."""
    broker: RocketMQ = request.getfixturevalue(name)
    topic, group = unique("java"), unique("group")
    broker.create_topic(topic)
    broker.create_group(group)
    gateway = start_gateway(config=connection(broker))
    create(gateway, "outflow", "to-java", "--topic", topic, "--to", f"main/{topic}", "--tag", "{2}")
    asyncio.run(publish(gateway.mqtt, topic, ordered=False))
    until_sent(gateway, "to-java", len(DEVICES) * MESSAGES)
    # Not before: a group that finds a queue empty begins behind what comes into it while it looks
    reader = Reader(tmp_path / "reader", broker, ANY_GROUP_CONSUMER, "-g", group, "-t", topic, "-s", "*", "-f", "false")
    reader.start()
    mine = check(read_all(reader, topic), topic)
    for text, message in mine.items():
        assert message.tag == ledger(topic)[text]["topic"].split("/")[1]
        assert message.id == message.key
    wanted = mine[body(topic, DEVICES[3], 7)]
    said = broker.admin("queryMsgByUniqueKey", "-t", topic, "-i", wanted.id)
    assert f"clientId={DEVICES[3]}" in said
    assert f"mqttSecondTopic={wanted.properties['mqttSecondTopic']}" in said


def test_rocketmq_ordered_example_consumer(rocketmq: RocketMQ, start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Upstream ordering of the model: `$SYS/enableOrderMsg`, a FIFO topic, the ordered consumer. It takes one message in five twice."""
    rocketmq.create_topic(ORDERED_TOPIC, kind="FIFO")
    parent = unique("ordered")
    gateway = start_gateway(config=connection(rocketmq))
    create(gateway, "outflow", "to-java", "--topic", parent, "--to", f"main/{ORDERED_TOPIC}", "--tag", ORDERED_TAG)
    reader = Reader(tmp_path / "reader", rocketmq, ORDERED_CONSUMER)
    reader.start()
    asyncio.run(publish(gateway.mqtt, parent, ordered=True))
    seen = read_all(reader, parent)
    check(seen, parent)
    in_order(seen, parent)


@pytest.mark.parametrize("name", ["rocketmq", "rocketmq4"])
def test_rocketmq_tools_print_an_ordered_rule(name: str, request: pytest.FixtureRequest, start_gateway: Callable[..., Gateway]) -> None:
    """Ordered by the rule, without the devices' asking; `mqadmin printMsg` reads queue by queue."""
    broker: RocketMQ = request.getfixturevalue(name)
    topic = unique("java")
    broker.create_topic(topic)
    gateway = start_gateway(config=connection(broker))
    create(gateway, "outflow", "to-java", "--topic", topic, "--to", f"main/{topic}", "--ordered")
    asyncio.run(publish(gateway.mqtt, topic, ordered=False))
    until_sent(gateway, "to-java", len(DEVICES) * MESSAGES)
    seen = read_messages(broker.admin("printMsg", "-t", topic, "-d", "false"))
    check(seen, topic)
    in_order(seen, topic)


def test_kafka_console_consumer(kafka: Kafka, start_gateway: Callable[..., Gateway]) -> None:
    """Ordered: a device's messages lie in one partition, in order; the key is the client id."""
    topic = unique("java")
    kafka.create_topic(topic, 4)
    gateway = start_gateway(config=connection(kafka))
    create(gateway, "outflow", "to-java", "--topic", topic, "--to", f"main/{topic}", "--ordered")
    asyncio.run(publish(gateway.mqtt, topic, ordered=False))
    seen = console(kafka, topic, len(DEVICES) * MESSAGES)
    mine = check(seen, topic)
    in_order(seen, topic)
    assert {message.key for message in mine.values()} == set(DEVICES)
