"""The Faust application on a real Kafka: its tables are what the ledger says, also when it was killed, at work or at rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.examples.programs import Program
from tests.examples.sending import to_kafka
from tests.examples.status_events import Event, Story, body, tell
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.process import free_port

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


def test_tables_survive_kills(kafka: Kafka, start_example: Callable[..., Program], tmp_path: Path) -> None:
    topic, name, port = unique("status"), unique("faust"), free_port()
    kafka.create_topic(topic, PARTITIONS)
    story = tell(11, time.time_ns() // 1_000_000 - 600_000)
    program = start_example(
        "-m", "faust", "-A", "status_faust", "--datadir", str(tmp_path / "data"), "worker", "--web-host", "127.0.0.1", "--web-port", str(port),
        KAFKA=kafka.address, STATUS_TOPIC=topic, PARTITIONS=str(PARTITIONS), APP=name,
    )  # fmt: skip

    def send(events: Sequence[Event]) -> None:
        to_kafka(kafka, topic, ((event["clientId"], body(event)) for event in events))

    middle = len(story.events) // 2
    send(story.events[:middle])
    program.until(lambda: len(page(port, "connections") or ()) >= 3, WITHIN, "the first windows")
    program.kill()  # at work
    send(story.events[middle:])
    program.start()
    program.until(lambda: (page(port, "online"), page(port, "connections")) == expected(story), WITHIN, "the tables that the events tell of")
    program.until(lambda: lag(kafka, name, topic) == 0, WITHIN, "its offsets committed")
    program.kill()  # at rest: nothing is read again but the changelogs
    program.start()
    program.until(lambda: (page(port, "online"), page(port, "connections")) == expected(story), WITHIN, "the tables back from their changelogs")
