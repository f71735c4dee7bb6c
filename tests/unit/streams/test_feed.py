"""One reader for all rules: who is handed what, what it costs those whose topic it isn't, and what retention took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Flag, Frame, Kind, Record
from streams.log import Batch
from streams.memory.log import Fate, MemoryLog
from streams.runtime.feed import Feed


def record(number: int, topic: str = "shop/1", kind: Kind = Kind.PUBLISH, qos: int = 1, session: int = 0) -> Record:
    return Record(int(kind), number.to_bytes(16, "big"), number, "c", topic, b"%d" % number, qos=qos, packet_id=9, session=session)


class Rule:
    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.taken: list[Record] = []
        self.cuts = 0
        self.asked = 0

    def take(self, batch: Batch, picks: Sequence[int]) -> None:
        self.taken += [batch.records[index] for index in picks]

    def cut(self, records: int) -> None:
        self.cuts += records

    def is_mine(self, name: str) -> bool:
        self.asked += 1
        return name.partition("/")[0] == self.parent


class Repeating:
    """Every frame lies in the log twice."""

    def fate(self, topic: str, shard: int, waiting: int) -> Fate:
        return Fate(copies=2)


class Nobody:
    def appended(self, records: Sequence[Record], first: At) -> None:
        """Nothing."""

    def refused(self, records: Sequence[Record], error: Exception) -> None:
        raise AssertionError


async def test_each_rule_gets_its_own_in_order() -> None:
    log = MemoryLog(asyncio.get_running_loop(), shards=1)
    feed, shop, other = Feed(log, PUBLISH_TOPIC), Rule("shop"), Rule("other")
    await feed.open(None)
    feed.attach(shop)
    feed.attach(other)
    for number in range(6):
        log.append(PUBLISH_TOPIC, "k", record(number, ("shop/1", "other", "third")[number % 3]), Nobody())  # type: ignore[arg-type]
    task = asyncio.ensure_future(feed.run())
    while len(shop.taken) < 2:
        await asyncio.sleep(0)
    assert [each.time for each in shop.taken] == [0, 3]
    assert [each.time for each in other.taken] == [1, 4]
    assert shop.asked == 3, "a topic is looked up once"
    feed.detach(other)
    log.append(PUBLISH_TOPIC, "k", record(9, "other"), Nobody())  # type: ignore[arg-type]
    log.append(PUBLISH_TOPIC, "k", record(10), Nobody())  # type: ignore[arg-type]
    while len(shop.taken) < 3:
        await asyncio.sleep(0)
    assert len(other.taken) == 2
    task.cancel()


def test_releases_and_repeats_are_handed_to_nobody() -> None:
    feed, shop = Feed(MemoryLog(None), PUBLISH_TOPIC), Rule("shop")  # type: ignore[arg-type]
    feed.attach(shop)
    once = record(1, qos=2, session=3)
    again = msgspec.structs.replace(once, flags=int(Flag.DUP))
    feed.dispatch(Batch(At(0, 0, 0), [once, again, record(2, "", Kind.RELEASE, 2, 3), again]))
    assert len(shop.taken) == 2


async def test_a_cut_may_have_taken_a_release() -> None:
    log = MemoryLog(asyncio.get_running_loop(), shards=1)
    feed, shop = Feed(log, PUBLISH_TOPIC), Rule("shop")
    await feed.open(None)
    feed.attach(shop)
    shard = log.shards[PUBLISH_TOPIC][0]
    task = asyncio.ensure_future(feed.run())
    same = record(1, qos=2, session=3)
    log.append(PUBLISH_TOPIC, "k", same, Nobody())  # type: ignore[arg-type]
    while len(shop.taken) < 1:
        await asyncio.sleep(0)
    shard.add(Frame(1, "memory", 1, 100, [record(2, "", Kind.RELEASE, 2, 3)]))
    shard.add(Frame(1, "memory", 1, 101, [msgspec.structs.replace(same, flags=int(Flag.DUP))]))
    del shard.frames[:2], shard.offsets[:2], shard.times[:2]
    for reader in log.readers:
        reader.wake()
    while len(shop.taken) < 2:
        await asyncio.sleep(0)
    assert shop.cuts == 1
    task.cancel()


def test_topics_that_are_remembered_are_bounded(monkeypatch: object) -> None:
    feed, shop = Feed(MemoryLog(None), PUBLISH_TOPIC), Rule("shop")  # type: ignore[arg-type]
    feed.attach(shop)
    limit = 50_000
    feed.dispatch(Batch(At(0, 0, 0), [record(number, f"shop/{number}") for number in range(limit + 10)]))
    assert len(feed._by_name) == 10
    assert len(shop.taken) == limit + 10


async def test_a_cut_is_told_and_a_repeated_frame_is_none() -> None:
    log = MemoryLog(asyncio.get_running_loop(), shards=1, adversary=Repeating())
    feed, shop = Feed(log, PUBLISH_TOPIC), Rule("shop")
    await feed.open(None)
    feed.attach(shop)
    for number in range(4):
        log.append(PUBLISH_TOPIC, "k", record(number), Nobody())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    shard = log.shards[PUBLISH_TOPIC][0]
    task = asyncio.ensure_future(feed.run())
    while len(shop.taken) < 4:
        await asyncio.sleep(0)
    assert shop.cuts == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    feed.close()
    late = Feed(log, PUBLISH_TOPIC)
    await late.open({0: At(0, 0, 0)})
    late.attach(shop)
    del shard.frames[:4], shard.offsets[:4], shard.times[:4]
    task = asyncio.ensure_future(late.run())
    while not shop.cuts:
        await asyncio.sleep(0)
    assert shop.cuts == 4
    task.cancel()


def test_99_rules_that_match_nothing_cost_next_to_nothing() -> None:
    """A look-up a record, however many rules there are. Compared in one run, so a busy machine slows both."""
    records = [record(number, f"shop/{number % 50}") for number in range(1_000)]
    batch = Batch(At(0, 0, 0), records)

    def feed_of(rules: int) -> Feed:
        feed = Feed(MemoryLog(None), PUBLISH_TOPIC)  # type: ignore[arg-type]
        for number in range(rules - 1):
            feed.attach(Rule(f"other-{number}"))
        feed.attach(Rule("shop"))
        feed.dispatch(batch)
        return feed

    one, many = feed_of(1), feed_of(100)
    turns = [(_timed(one, batch), _timed(many, batch)) for _ in range(30)]  # by turns: the machine changes
    assert min(cost for _, cost in turns) < 1.5 * min(cost for cost, _ in turns)


def _timed(feed: Feed, batch: Batch) -> float:
    start = time.thread_time_ns()
    feed.dispatch(batch)
    return time.thread_time_ns() - start
