"""Three gateways as processes over a real Kafka or RocketMQ and PostgreSQL: what is subscribed on one and published on another, kill -9 of one."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from schemas.reasons import ReasonCode
from schemas.records import PRESENCE_TOPIC, Kind
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.gateway import Gateway
from tests.support.many_backbone import NAMES, Shared, start_three
from tests.support.party import will
from tests.support.postgresql import PostgreSQL, fresh
from tests.support.process import ServerDied
from tests.support.wire import Clients

ROUNDS = int(os.environ.get("TEST_ROUNDS", "200"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280 + ROUNDS // 10)]

A_CLIENT = 2_400
"""Rounds of three receivers: a client may have 1,000 subscriptions."""
LIVE_WITHIN = 10.0
KEPT = {"clean_start": False, "session_expiry": 3600}
BROKERS = ("kafka", "rocketmq", "rocketmq4")


@pytest.fixture(params=BROKERS)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    return Shared(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
async def three(shared: Shared, start_gateway: Callable[..., Gateway]) -> AsyncIterator[list[Gateway]]:
    yield await start_three(start_gateway, shared.config)


@pytest.mark.parametrize("shared", BROKERS[:2], indirect=True)
async def test_what_is_published_anywhere_comes_to_who_has_subscribed_anywhere(three: list[Gateway], clients: Clients) -> None:
    """Each time on a new topic, right after SUBACK: none is missed."""
    receivers = [await clients.connect(gateway.mqtt, f"receiver-{number}") for number, gateway in enumerate(three)]
    publishers = [await clients.connect(gateway.mqtt, f"publisher-{number}") for number, gateway in enumerate(three)]
    pairs = itertools.cycle((here, there) for here in range(3) for there in range(3) if here != there)
    waits = []
    for number in range(ROUNDS):
        here, there = next(pairs)
        if number % A_CLIENT == 0 and number:
            receivers = [await clients.connect(gateway.mqtt, f"receiver-{index}") for index, gateway in enumerate(three)]
        assert (await receivers[here].subscribe(f"round/{number}", 1)).reason_codes == (ReasonCode.GRANTED_QOS_1,)
        since = time.monotonic()
        await publishers[there].publish(f"round/{number}", b"%d" % number, 1)
        (publish,) = await receivers[here].publishes(1)
        waits.append(time.monotonic() - since)
        assert publish.payload == b"%d" % number
    waits.sort()
    print(f"subscribe, publish elsewhere, receive: {ROUNDS} times, p50 {waits[ROUNDS // 2] * 1000:.1f} ms, p99 {waits[-ROUNDS // 100] * 1000:.1f} ms")


async def test_a_node_that_is_killed_leaves_its_sessions_to_the_others(three: list[Gateway], shared: Shared, clients: Clients) -> None:
    one, two, three_ = three
    watcher = await clients.connect(one.mqtt, "watcher")
    await watcher.subscribe("wills/#", 1)
    for number in range(20):
        session = await clients.connect(two.mqtt, f"session-{number}", **KEPT, will=will(f"wills/{number}", b"%d" % number))
        await session.subscribe("load/#", 1)
        if number % 2:
            await session.disconnect()
    publisher = await clients.connect(three_.mqtt, "publisher")
    sent = []

    async def publish(count: int) -> None:
        for _ in range(count):
            await publisher.publish("load/x", b"%d" % len(sent), 1)
            sent.append(b"%d" % len(sent))

    await publish(30)
    killed_at = time.monotonic()
    two.kill()
    await publish(100)
    wills = sorted([int(publish.payload) for publish in await watcher.publishes(10, within=LIVE_WITHIN)])
    assert wills == list(range(0, 20, 2))
    await publish(30)
    assert time.monotonic() - killed_at < LIVE_WITHIN
    for number in range(20):
        again = await clients.connect((one, three_)[number % 4 // 2].mqtt, f"session-{number}", **KEPT)
        assert again.connack is not None
        assert again.connack.session_present
        seen: list[bytes] = []
        owed = set(sent if number % 2 else sent[30:])  # half of them were connected, and had the first ones
        while not owed <= set(seen):
            seen += [publish.payload for publish in await again.publishes(1)]
        assert list(dict.fromkeys(seen)) == sorted(dict.fromkeys(seen), key=int)
    print(f"sessions of the killed node lived elsewhere after {time.monotonic() - killed_at:.1f} s at most")
    cleaned = await tcpcleans(shared)
    assert [cleaned[f"session-{number}"] for number in range(20)] == [1] * 20
    await watcher.silence()


async def tcpcleans(shared: Shared) -> Counter[str]:
    """By client, how many tcpclean events the log has."""
    log = await shared.reads.start()
    try:
        left = {shard: end for shard, (first, end) in (await log.ends(PRESENCE_TOPIC)).items() if end > first}
        reader = log.open(PRESENCE_TOPIC, "earliest", list(left))
        found: Counter[str] = Counter()
        while left:
            batch = await reader.next(1000, 1 << 20)
            found.update(record.client for record in batch.records if record.kind == Kind.TCPCLEAN)
            if batch.end >= left.get(batch.end.shard, batch.end):
                left.pop(batch.end.shard, None)
        reader.close()
        return found
    finally:
        await log.close()


@pytest.mark.parametrize("shared", BROKERS[:2], indirect=True)
@pytest.mark.parametrize("many", [True, False])
async def test_a_database_that_has_not_seen_the_log_serves_nobody(
    shared: Shared, tmp_path: Path, start_gateway: Callable[..., Gateway], clients: Clients, many: bool
) -> None:
    """Nor at the next start, when it has counted as far; with a log of its own it does."""
    first = await asyncio.to_thread(start_gateway, NAMES[0], config=shared.config(NAMES[0]))
    publisher = await clients.connect(first.mqtt, "publisher")
    await publisher.publish("x", b"", 1)
    assert first.stop() == 0
    shared.database = fresh()
    config = shared.config("another") if many else shared.config("another").partition("[store]")[0]
    for _ in range(2):
        with pytest.raises(ServerDied, match="ended with 2 ") as died:
            await asyncio.to_thread(start_gateway, "another", config=config)
        assert f"log.prefix: the log {shared.prefix} has messages of start 1, which this database has not seen" in str(died.value)
        assert b"ready" not in (tmp_path / "another" / "gateway.out").read_bytes()
    await asyncio.to_thread(start_gateway, "another", config=config.replace(shared.prefix, f"{unique('many')}-"))


async def test_nodes_outlive_an_outage_of_the_store_that_is_longer_than_their_leases(
    kafka: Kafka, tmp_path: Path, mortal_postgresql: PostgreSQL, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    shared = Shared(kafka, tmp_path, mortal_postgresql.url("postgres"))
    gateways = [await asyncio.to_thread(start_gateway, name, config=shared.config(name)) for name in NAMES[:2]]
    wires = [await clients.connect(gateway.mqtt, f"session-{number}", **KEPT) for number, gateway in enumerate(gateways)]
    for wire in wires:
        await wire.subscribe("x", 1)
    await asyncio.to_thread(mortal_postgresql.kill_all)
    await asyncio.sleep(6)
    await asyncio.to_thread(mortal_postgresql.start)
    await wires[0].publish("x", b"after", 1, within=30)
    for wire in wires:
        assert [publish.payload for publish in await wire.publishes(1, within=30)] == [b"after"]
    await asyncio.sleep(3)
    assert all(gateway.alive for gateway in gateways)
