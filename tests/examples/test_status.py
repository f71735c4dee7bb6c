"""The programs that decide who is online, on real brokers: events come shuffled and twice, and the program is killed in the middle of them.

Then with a real gateway, whose clients leave in every way there is, and which is killed itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.examples.programs import Program
from tests.examples.sending import to_kafka, to_rocketmq
from tests.examples.status_events import Event, Story, body, tell
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Endpoint, Gateway
from tests.support.mosquitto import executable
from tests.support.rules import connection, create

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
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


# With a gateway

STAYS, KILLED, LEAVES, TWICE, FOREIGN = "GID_doors@@@stays", "GID_doors@@@killed", "GID_doors@@@leaves", "GID_doors@@@twice", "GID_other@@@1"


@contextlib.contextmanager
def staying(endpoint: Endpoint, client: str) -> Iterator[subprocess.Popen[bytes]]:
    """mosquitto_sub, which comes back by itself when its connection breaks."""
    command = [executable("mosquitto_sub"), "-h", endpoint.host, "-p", str(endpoint.port), "-i", client, "-t", "nothing"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            yield child
        finally:
            child.kill()


async def come_and_go(endpoint: Endpoint, settled: Callable[[], None]) -> None:
    """Leave by DISCONNECT; connect again before the first connection is gone, and stay; belong to another group."""
    async with asyncio.timeout(WITHIN):
        for client in (LEAVES, FOREIGN):
            async with aiomqtt.Client(endpoint.host, endpoint.port, identifier=client):
                pass
        with contextlib.suppress(aiomqtt.MqttError):  # the first connection is closed by the second
            async with aiomqtt.Client(endpoint.host, endpoint.port, identifier=TWICE):
                with contextlib.suppress(aiomqtt.MqttError):
                    async with aiomqtt.Client(endpoint.host, endpoint.port, identifier=TWICE):
                        await asyncio.to_thread(settled)


def channels(state: Path) -> Counter[tuple[str, bool]]:
    """How many channels a client has had, and whether they are closed."""
    return Counter((client, closed is not None) for client, _, opened, closed in rows(state) if opened is not None)


def live_with(gateway: Gateway, program: Program, state: Path) -> None:
    once = Counter({(STAYS, False): 1, (KILLED, True): 1, (LEAVES, True): 1, (TWICE, True): 1, (TWICE, False): 1})
    after = Counter({(STAYS, True): 1, (STAYS, False): 1, (KILLED, True): 1, (LEAVES, True): 1, (TWICE, True): 2})

    def settled() -> None:
        program.until(lambda: channels(state) == once, WITHIN, "all comings and goings")
        gateway.kill()

    with staying(gateway.mqtt, STAYS), staying(gateway.mqtt, KILLED) as killed:
        program.until(lambda: channels(state)[KILLED, False] == 1, WITHIN, "the two that stay")
        killed.kill()
        asyncio.run(come_and_go(gateway.mqtt, settled))
        assert folded(program.lines()) == {STAYS, TWICE}
        gateway.start()
        program.until(lambda: channels(state) == after, WITHIN, "the end of what the killed gateway had open, and who came back")
        program.stop()
        assert folded(program.lines()) == {STAYS}


def test_kafka_with_a_gateway(kafka: Kafka, start_gateway: Callable[..., Gateway], start_example: Callable[..., Program], tmp_path: Path) -> None:
    topic, state = unique("status"), tmp_path / "state"
    kafka.create_topic(topic, 4)
    gateway = start_gateway(config=connection(kafka))
    create(gateway, "status", "who", "--group", "GID_doors", "--to", f"main/{topic}")
    live_with(gateway, start_example("status_kafka.py", kafka.address, unique("group"), topic, str(state)), state)


def test_rocketmq_with_a_gateway(
    rocketmq: RocketMQ, start_gateway: Callable[..., Gateway], start_example: Callable[..., Program], tmp_path: Path
) -> None:
    topic, group, state = unique("status"), unique("group"), tmp_path / "state"
    rocketmq.create_topic(topic)
    rocketmq.create_group(group)
    gateway = start_gateway(config=connection(rocketmq))
    create(gateway, "status", "who", "--group", "GID_doors", "--to", f"main/{topic}")
    live_with(gateway, start_example("status_rocketmq.py", rocketmq.grpc, group, topic, str(state)), state)
