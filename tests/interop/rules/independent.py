"""Readers and senders at a backend that share nothing with the program: aiokafka, and the official RocketMQ client in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import textwrap
from collections import defaultdict
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.examples.sending import to_kafka_with_headers, to_rocketmq
from tests.support.brokers import java
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ

WITHIN = 90.0
RECEIVE = textwrap.dedent("""
    import base64, json, sys, time
    from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer
    address, topic, group, count, within = sys.argv[1:]
    consumer = SimpleConsumer(ClientConfiguration(address, Credentials()), group, {topic: FilterExpression()})
    consumer.startup()
    seen, end = set(), time.monotonic() + float(within)
    while len(seen) < int(count) and time.monotonic() < end:
        try:
            found = consumer.receive(32, 30) or ()
        except Exception as early:  # the proxy may not know the consumer's settings yet
            print(early, file=sys.stderr)
            time.sleep(0.5)
            continue
        for message in found:
            consumer.ack(message)
            properties = dict(message.properties)
            keys = sorted(message.keys or ())
            print(json.dumps([base64.b64encode(message.body).decode(), message.message_id, keys, properties, message.message_group]), flush=True)
            seen.add(message.message_id)
    sys.stdout.flush()
    import os; os._exit(0)
""")


class Read(NamedTuple):
    """``id`` is the message id as the backend's own client shows it, ``lane`` its partition or sharding key."""

    body: bytes
    id: str
    properties: dict[str, str]
    lane: str


async def read(broker: Kafka | RocketMQ, topic: str, count: int) -> list[Read]:
    """All messages of a topic, each lane's in order; fewer than ``count`` where no more came in time."""
    if isinstance(broker, Kafka):
        return await _read_kafka(broker, topic, count)
    return await asyncio.to_thread(_read_rocketmq, broker, topic, count)


async def _read_kafka(kafka: Kafka, topic: str, count: int) -> list[Read]:
    found: list[Read] = []
    async with AIOKafkaConsumer(bootstrap_servers=kafka.address, auto_offset_reset="earliest", enable_auto_commit=False) as consumer:
        await consumer._client.add_topic(topic)
        consumer.assign([TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())])
        end = asyncio.get_running_loop().time() + WITHIN
        while len(found) < count and asyncio.get_running_loop().time() < end:
            for partition, messages in (await consumer.getmany(timeout_ms=500)).items():
                for message in messages:
                    headers = {name: value.decode() for name, value in message.headers}
                    found.append(Read(message.value or b"", headers.pop("mqttMessageId"), headers, str(partition.partition)))
    return found


def _read_rocketmq(rocketmq: RocketMQ, topic: str, count: int) -> list[Read]:
    group = f"GID_reader_{topic}"
    rocketmq.create_group(group)
    done = subprocess.run(
        [sys.executable, "-c", RECEIVE, rocketmq.grpc, topic, group, str(count), str(WITHIN)],
        capture_output=True, text=True, timeout=WITHIN + 60, cwd=rocketmq.folder, env=java.environment(rocketmq.folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found, seen = [], set()
    for line in done.stdout.splitlines():
        body, identity, keys, properties, lane = json.loads(line)
        assert keys == [identity], "the message id is the message's key as well"
        if identity not in seen:  # what was not acknowledged in time comes again
            seen.add(identity)
            found.append(Read(base64.b64decode(body), identity, properties, lane or ""))
    return found


async def send(broker: Kafka | RocketMQ, topic: str, messages: list[tuple[str, dict[str, str]]]) -> None:
    """Body and properties of each."""
    given = [{"body": body, "properties": properties} for body, properties in messages]
    if isinstance(broker, Kafka):
        await asyncio.to_thread(to_kafka_with_headers, broker, topic, given)
    else:
        await asyncio.to_thread(to_rocketmq, broker, topic, given)


def by_lane(messages: list[Read], client: str) -> dict[str, list[bytes]]:
    """Bodies of one client, by lane."""
    lanes: dict[str, list[bytes]] = defaultdict(list)
    for message in messages:
        if message.properties["clientId"] == client:
            lanes[message.lane].append(message.body)
    return lanes
