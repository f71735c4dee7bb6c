"""The programs that answer devices, between a real gateway and real brokers: devices publish, each gets a receipt for each of its messages.

The ledger is what devices published and got, and what the program said that it read: ids, bodies and properties.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import aiomqtt
import pytest

from tests.examples.programs import Program
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Endpoint, Gateway
from tests.support.rules import connection, create

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DEVICES = ("GID_meters@@@1", "GID_meters@@@2", "door-3", "lampe-ü")
MESSAGES = 15
WITHIN = 60.0
PARENT = "plant"


async def live(endpoint: Endpoint, device: str) -> list[dict[str, Any]]:
    """Publishes its messages, and returns the commands that come, to which it has not subscribed."""
    commands: list[dict[str, Any]] = []
    async with asyncio.timeout(WITHIN), aiomqtt.Client(endpoint.host, endpoint.port, identifier=device) as client:
        for number in range(MESSAGES):
            await client.publish(f"{PARENT}/up/{number % 2}", f"{device}:{number}", qos=number % 2 + 1)
        async for message in client.messages:
            assert str(message.topic) == f"{PARENT}/p2p/{device}"
            assert (message.qos, message.retain) == (1, False)
            assert isinstance(message.payload, bytes)
            commands.append(json.loads(message.payload))
            if len({command["received"] for command in commands}) == MESSAGES:
                return commands
    raise AssertionError


async def live_all(endpoint: Endpoint) -> dict[str, list[dict[str, Any]]]:
    return dict(zip(DEVICES, await asyncio.gather(*(live(endpoint, device) for device in DEVICES)), strict=True))


def expected() -> dict[str, dict[str, str]]:
    """By body, the properties that every backend sees."""
    ledger = {}
    for device in DEVICES:
        for number in range(MESSAGES):
            topic = f"{PARENT}/up/{number % 2}"
            properties = {"mqttSecondTopic": f"/up/{number % 2}", "topic": topic, "clientId": device}
            ledger[f"{device}:{number}"] = properties | {"qoslevel": str(number % 2 + 1), "cleansessionflag": "true"}
    return ledger


def check(program: Program, commands: dict[str, list[dict[str, Any]]]) -> None:
    """Every message was read and answered, to the device that sent it; at least once, and nothing happened here that would repeat one."""
    read = {line["body"]: line for line in program.lines()}
    assert {body: {name: line["properties"].get(name) for name in expected()[body]} for body, line in read.items()} == expected()
    ids: dict[str, set[str]] = defaultdict(set)
    for line in read.values():
        ids[line["properties"]["clientId"]].add(line["id"])
    assert {device: [command["received"] for command in got] for device, got in commands.items()} == {
        device: sorted(mine, key=[command["received"] for command in commands[device]].index) for device, mine in ids.items()
    }
    everyone = set().union(*ids.values())
    assert len(everyone) == len(DEVICES) * MESSAGES
    assert all(len(id_) == 32 and id_ == id_.upper() and int(id_, 16) for id_ in everyone)


def set_up(gateway: Gateway, outflow: str, commands: str) -> None:
    create(gateway, "outflow", "readings", "--topic", PARENT, "--to", f"main/{outflow}")
    create(gateway, "inflow", "commands", "--from", f"main/{commands}", "--topic", PARENT)


def test_rocketmq(rocketmq: RocketMQ, start_gateway: Callable[..., Gateway], start_example: Callable[..., Program]) -> None:
    outflow, commands, group = unique("readings"), unique("commands"), unique("group")
    for topic in (outflow, commands):
        rocketmq.create_topic(topic)
    rocketmq.create_group(group)
    gateway = start_gateway(config=connection(rocketmq))
    set_up(gateway, outflow, commands)
    program = start_example("rocketmq_backend.py", rocketmq.grpc, group, outflow, commands)
    got = asyncio.run(live_all(gateway.mqtt))
    program.stop()
    check(program, got)


def test_kafka(kafka: Kafka, start_gateway: Callable[..., Gateway], start_example: Callable[..., Program]) -> None:
    outflow, commands = unique("readings"), unique("commands")
    for topic in (outflow, commands):
        kafka.create_topic(topic, 4)
    gateway = start_gateway(config=connection(kafka))
    set_up(gateway, outflow, commands)
    program = start_example("kafka_backend.py", kafka.address, unique("group"), outflow, commands)
    got = asyncio.run(live_all(gateway.mqtt))
    program.stop()
    check(program, got)
