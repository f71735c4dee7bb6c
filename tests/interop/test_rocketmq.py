"""What others see of us on a real RocketMQ: its own tools show our groups, offsets and messages, its official client reads what we write."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator

import pytest

from bridges.rocketmq.backend import RocketmqBackend
from schemas.connections import ConnectionSettings
from streams.backend import Incoming, Outgoing
from tests.support.brokers import java
from tests.support.brokers.fixtures import unique
from tests.support.brokers.rocketmq import CLUSTER, RocketMQ

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(params=["rocketmq", "rocketmq4"])
def broker(request: pytest.FixtureRequest) -> RocketMQ:
    found: RocketMQ = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def backend(broker: RocketMQ) -> AsyncIterator[RocketmqBackend]:
    backend = RocketmqBackend(ConnectionSettings(name="main", kind="rocketmq", address=(broker.address,)))
    yield backend
    await backend.close()


def outgoing(topic: str, number: int, **options: object) -> Outgoing:
    fields = {"body": b"body %d" % number, "id": f"{number:032X}", "time": int(time.time() * 1000), **options}
    return Outgoing(topic=topic, properties=(("mqttSecondTopic", f"/a/{number}"), ("clientId", "GID@@@ä")), **fields)  # type: ignore[arg-type]


async def test_rocketmqs_tools_show_groups_offsets_and_messages(broker: RocketMQ, backend: RocketmqBackend) -> None:
    topic, rule = unique("tools"), unique("rule")
    group = f"sluiceway_{rule}"
    await backend.create_topic(topic, 2)
    target, source = backend.target(rule, ordered=True), backend.source(rule, topic, {}, tags="t || u")
    message_id = f"{time.time_ns():032X}"
    sent = [outgoing(topic, n, lane="lane", tag="t") for n in range(9)]
    await target.send([*sent, outgoing(topic, 9, lane="lane", tag="t", id=message_id)])
    got: list[Incoming] = []
    async with asyncio.timeout(20):
        while len(got) < 10:
            got += await source.next(100, 1 << 20)
    await source.commit({got[0].queue: 7})

    async def tool(command: str, *arguments: str) -> list[list[str]]:
        return [line.split() for line in (await asyncio.to_thread(broker.admin, command, *arguments)).splitlines()]

    producers, consumers, progress, status, by_key, by_id = [
        await tool("producerConnection", "-g", group, "-t", topic),
        await tool("consumerConnection", "-g", group),
        await tool("consumerProgress", "-g", group),
        await tool("topicStatus", "-t", topic),
        await tool("queryMsgByKey", "-t", topic, "-k", message_id),
        await tool("queryMsgByUniqueKey", "-t", topic, "-i", message_id),
    ]
    assert any("PYTHON" in line and any(word.startswith("sluiceway@main@") for word in line) for line in producers)
    assert any("PYTHON" in line for line in consumers)
    assert [topic, "t", "||", "u"] in consumers
    queue, number = got[0].queue.split(":")
    # Topic, broker, queue, the broker's offset, the group's offset, and how far it is behind.
    assert any(line[:6] == [topic, queue, number, "10", "7", "3"] for line in progress)
    assert any(line[:4] == [queue, number, "0", "10"] for line in status)
    assert any(line[:3] == [message_id, number, "9"] for line in by_key)
    assert ["Keys:", f"[{message_id}]"] in by_id
    assert ["Tags:", "[t]"] in by_id
    await source.close()
    await target.close()


PROGRAM = textwrap.dedent("""
    import json, sys, time
    from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer
    address, topic, group, count = sys.argv[1:]
    consumer = SimpleConsumer(ClientConfiguration(address, Credentials()), group, {topic: FilterExpression()})
    consumer.startup()
    got = 0
    failures = 0
    while got < int(count):
        try:
            messages = consumer.receive(16, 30)
        except Exception:
            # The proxy fails until it has this client's settings.
            failures += 1
            if failures == 20:
                raise
            time.sleep(0.2)
            continue
        for message in messages:
            consumer.ack(message)
            got += 1
            keys, properties = list(message.keys), dict(message.properties)
            print(json.dumps([message.message_id, message.body.hex(), message.tag, keys, message.message_group, properties]), flush=True)
    consumer.shutdown()
""")


@pytest.mark.parametrize("kind", ["NORMAL", "FIFO"])
async def test_the_official_client_reads_what_we_write(rocketmq: RocketMQ, kind: str) -> None:
    topic, group = unique("official"), unique("group")
    ordered_group = ["-o", "true"] if kind == "FIFO" else []
    await asyncio.to_thread(rocketmq.admin, "updateSubGroup", "-c", CLUSTER, "-g", group, *ordered_group)
    backend = RocketmqBackend(ConnectionSettings(name="main", kind="rocketmq", address=(rocketmq.address,)))
    await backend.create_topic(topic, 4, kind)
    described = await backend.describe(topic)
    assert described is not None
    assert described.kind == kind
    lanes = ["GID@@@1", "x" * 64, "ä" * 40]
    ordered = {n: lanes[n % 3] for n in range(30)} if kind == "FIFO" else {}
    bodies = {n: bytes(range(256)) if n == 3 else b"" if n == 4 else b"body %d" % n for n in range(30)}
    messages = [outgoing(topic, n, lane=ordered.get(n), tag="t", body=bodies[n]) for n in range(30)]
    assert await backend.target("rule", ordered=True).send(messages) == []
    arguments = [sys.executable, "-c", PROGRAM, rocketmq.grpc, topic, group, "30"]
    done = await asyncio.to_thread(
        lambda: subprocess.run(arguments, capture_output=True, text=True, timeout=120, cwd=rocketmq.folder, env=java.environment(rocketmq.folder))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    read = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    numbers = [int(message_id, 16) for message_id, *_ in read]
    assert sorted(set(numbers)) == list(range(30))
    for number, (message_id, body, tag, keys, lane, properties) in zip(numbers, read, strict=True):
        assert (tag, keys, properties["clientId"], properties["mqttSecondTopic"]) == ("t", [message_id], "GID@@@ä", f"/a/{number}")
        assert bytes.fromhex(body) == (bodies[number] or b"\x00")
        assert ("mqttEmptyBody" in properties) is (number == 4)
        if kind == "FIFO":
            assert lane == ordered[number] or (len(lane) == 33 and lane.startswith("#"))
    for lane in set(ordered.values()):
        mine = [number for number in numbers if ordered[number] == lane]
        assert mine == sorted(mine)
    await backend.close()
