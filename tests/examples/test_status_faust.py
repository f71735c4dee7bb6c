"""The Faust application on a real Kafka: its tables are what the ledger says, also when it was killed, at work or at rest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.examples.programs import Program
from tests.examples.sending import to_kafka
from tests.examples.status_events import GROUPS, Event, Story, body, tell
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.gateway import Gateway
from tests.support.process import free_port
from tests.support.rules import connection, create

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PARTITIONS = 4
WITHIN = 90.0


def page(port: int, name: str) -> Any:
    """None while the worker does not serve."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/{name}/", timeout=5)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def expected(story: Story) -> tuple[list[str], list[list[Any]]]:
    return sorted(story.online), sorted([group, float(start), count] for (group, start), count in story.connections.items())


def lag(kafka: Kafka, group: str, topic: str) -> int:
    """Messages of the topic behind what the group committed."""

    async def ask() -> int:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        async with AIOKafkaConsumer(bootstrap_servers=kafka.address, group_id=group, enable_auto_commit=False) as reader:
            reader.assign(partitions)
            ends = await reader.end_offsets(partitions)
            return sum([end - (await reader.committed(partition) or 0) for partition, end in ends.items()])

    return asyncio.run(ask())


async def make_changelogs(kafka: Kafka, name: str) -> None:
    """Before the worker does: on a busy machine Faust stops at a topic of its own that Kafka does not know with all its partitions yet."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
    await admin.start()
    try:
        names = [f"{name}-{table}-changelog" for table in ("channels", "connections")]
        await admin.create_topics([NewTopic(each, PARTITIONS, 1, topic_configs={"cleanup.policy": "compact"}) for each in names])
    finally:
        await admin.close()


def worker(start_example: Callable[..., Program], kafka: Kafka, topic: str, name: str, port: int, folder: Path) -> Program:
    asyncio.run(make_changelogs(kafka, name))
    return start_example(
        "-m", "faust", "-A", "status_faust", "--datadir", str(folder / "data"), "worker", "--web-host", "127.0.0.1", "--web-port", str(port),
        KAFKA=kafka.address, STATUS_TOPIC=topic, PARTITIONS=str(PARTITIONS), APP=name,
    )  # fmt: skip


def test_tables_survive_kills(kafka: Kafka, start_example: Callable[..., Program], tmp_path: Path) -> None:
    topic, name, port = unique("status"), unique("faust"), free_port()
    kafka.create_topic(topic, PARTITIONS)
    story = tell(11, time.time_ns() // 1_000_000 - 600_000)
    program = worker(start_example, kafka, topic, name, port, tmp_path)

    def send(events: Sequence[Event]) -> None:
        to_kafka(kafka, topic, ((event["clientId"], body(event)) for event in events))

    middle = len(story.events) // 2
    send(story.events[:middle])
    # Its first commit may come before its first writes to the changelogs: Faust's flush gives up after 0.1 s, and a new topic's leader takes longer
    program.until(lambda: lag(kafka, name, topic) == 0, WITHIN, "the first half committed")
    online = page(port, "online")
    send(story.events[middle:])
    program.until(lambda: page(port, "online") != online, WITHIN, "some of the second half")
    program.kill()  # at work
    program.start()
    program.until(lambda: (page(port, "online"), page(port, "connections")) == expected(story), WITHIN, "the tables that the events tell of")
    program.until(lambda: lag(kafka, name, topic) == 0, WITHIN, "its offsets committed")
    program.kill()  # at rest: nothing is read again but the changelogs
    program.start()
    program.until(lambda: (page(port, "online"), page(port, "connections")) == expected(story), WITHIN, "the tables back from their changelogs")


def test_a_gateway_feeds_it(kafka: Kafka, start_gateway: Callable[..., Gateway], start_example: Callable[..., Program], tmp_path: Path) -> None:
    """Every other client leaves."""
    topic, name, port = unique("status"), unique("faust"), free_port()
    kafka.create_topic(topic, PARTITIONS)
    gateway = start_gateway(config=connection(kafka))
    create(gateway, "status", "who", "--group", "*", "--to", f"main/{topic}")
    program = worker(start_example, kafka, topic, name, port, tmp_path)
    clients = [f"{group}@@@{number}" for group in GROUPS for number in range(4)]

    def counted() -> dict[str, int]:
        return {group: sum(count for each, _, count in page(port, "connections") or () if each == group) for group in GROUPS}

    async def come() -> None:
        async with contextlib.AsyncExitStack() as stay:
            for client in clients:
                connected = aiomqtt.Client(gateway.mqtt.host, gateway.mqtt.port, identifier=client)
                if int(client[-1]) % 2:
                    await stay.enter_async_context(connected)
                else:
                    async with connected:
                        pass
            expected = (sorted(client for client in clients if int(client[-1]) % 2), dict.fromkeys(GROUPS, 4))
            await asyncio.to_thread(program.until, lambda: (page(port, "online"), counted()) == expected, WITHIN, "all clients")

    asyncio.run(come())
    program.until(lambda: page(port, "online") == [], WITHIN, "everybody gone")
