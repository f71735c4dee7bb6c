"""The programs that decide who is online, on real brokers: events come shuffled and twice, and the program is killed in the middle of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.examples.programs import Program
from tests.examples.sending import to_kafka, to_rocketmq
from tests.examples.status_events import Event, Story, body, tell
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ

pytestmark = pytest.mark.slow
SEED = 7
WITHIN = 60.0


def rows(path: Path) -> set[tuple[Any, ...]]:
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return set()
    try:
        return set(database.execute("SELECT * FROM channel"))
    except sqlite3.OperationalError:
        return set()
    finally:
        database.close()


def folded(lines: list[dict[str, Any]]) -> set[str]:
    """What somebody believes who read the lines."""
    online: set[str] = set()
    for line in lines:
        if "online" in line:
            online = set(line["online"])
        elif line["isOnline"]:
            online.add(line["client"])
        else:
            online.discard(line["client"])
    return online


def follow(program: Program, state: Path, story: Story, send: Callable[[Sequence[Event]], None]) -> None:
    """Half of the events, a kill when some are in, the other half: what it has in the end is what the story tells, and it said so."""
    middle = len(story.events) // 2
    send(story.events[:middle])
    program.until(lambda: len(rows(state)) >= 10, WITHIN, "ten channels")
    program.kill()
    send(story.events[middle:])
    program.start()
    program.until(lambda: rows(state) == story.rows, WITHIN, "the state that the events tell of")
    program.stop()
    assert folded(program.lines()) == story.online


def test_kafka(kafka: Kafka, start_example: Callable[..., Program], tmp_path: Path) -> None:
    topic, story, state = unique("status"), tell(SEED, time.time_ns() // 1_000_000), tmp_path / "state"
    kafka.create_topic(topic, 4)
    program = start_example("status_kafka.py", kafka.address, unique("group"), topic, str(state))
    follow(program, state, story, lambda events: to_kafka(kafka, topic, ((event["clientId"], body(event)) for event in events)))


def test_rocketmq(rocketmq: RocketMQ, start_example: Callable[..., Program], tmp_path: Path) -> None:
    topic, group, story, state = unique("status"), unique("group"), tell(SEED, time.time_ns() // 1_000_000), tmp_path / "state"
    rocketmq.create_topic(topic)
    rocketmq.create_group(group)

    def send(events: Sequence[Event]) -> None:
        to_rocketmq(rocketmq, topic, ({"body": body(event).decode(), "tag": event["eventType"]} for event in events))

    follow(start_example("status_rocketmq.py", rocketmq.grpc, group, topic, str(state)), state, story, send)
