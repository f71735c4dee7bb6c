"""What every log promises (streams/log.py), on the reference, on the adversary, and on each driver."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.errors import LogDamaged, LogError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record
from streams.log import Log, Reader
from tests.contract.log_drivers import BROKER_DRIVERS, DRIVERS, Driver
from tests.contract.log_traffic import BIG, Told, fill, numbers, placed, record, take
from tests.support.brokers.fixtures import FIRST_START, unique


@pytest.fixture(params=[*DRIVERS, *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.timeout(FIRST_START)]) for name in BROKER_DRIVERS)])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    if request.param in BROKER_DRIVERS:
        fixture, make = BROKER_DRIVERS[request.param]
        return make(request.getfixturevalue(fixture).address, f"{unique('log')}-")
    return DRIVERS[request.param](tmp_path / "log")


@pytest.fixture
async def log(driver: Driver) -> AsyncIterator[Log]:
    log = await driver.start()
    yield log
    await log.close()


@pytest.mark.slow
@pytest.mark.timeout(FIRST_START)
@pytest.mark.parametrize("name", ["kafka", "rocketmq"])
async def test_a_log_that_is_ahead_of_its_database_is_not_read(request: pytest.FixtureRequest, name: str) -> None:
    """A new database counts starts from 1: what is written now would be taken for repeats of what was written then."""
    fixture, make = BROKER_DRIVERS[name]
    address, prefix = request.getfixturevalue(fixture).address, f"{unique('log')}-"
    before = make(address, prefix)
    for written in range(2):
        log = await before.start()
        assert log.newest_epoch == written  # type: ignore[attr-defined]
        await fill(log, range(30))
        await log.close()
    log = await make(address, prefix).start()
    assert log.newest_epoch == 2  # type: ignore[attr-defined]
    for start in ("earliest", "latest"):
        reader = log.open(PUBLISH_TOPIC, start)  # type: ignore[arg-type]
        with pytest.raises(LogDamaged, match="wrote at its start [12], and by the database this is start 1"):
            await take(reader, 100)
    await log.close()


async def test_each_record_is_told_once_and_in_order_of_its_key(log: Log, driver: Driver) -> None:
    told, stored = await fill(log, range(300))
    for offset, key in enumerate("abc"):
        assert told.order[key] == list(range(offset, 300, 3))
    assert told.at.keys().isdisjoint(told.refusals)
    assert bool(told.refusals) == driver.refuses
    assert len(stored) == len(told.at)


async def test_consecutive_records_of_a_sink_are_told_in_one_call(log: Log, driver: Driver) -> None:
    """No call per record: the sinks of a group hear of it by runs."""
    told = Told()
    for number in range(60):
        told.append(log, record(number))
    await told.wait(60)
    assert told.calls < 60


async def test_sinks_of_one_group_hear_of_their_own_records_only(log: Log) -> None:
    sinks = [Told() for _ in range(3)]
    for number in range(90):
        sinks[number // 2 % 3].append(log, record(number))
    for sink in sinks:
        await sink.wait(30)
    for place, sink in enumerate(sinks):
        assert sink.order["k"] == [number for number in range(90) if number // 2 % 3 == place]


async def test_what_is_appended_is_read_in_order_and_what_is_refused_never(log: Log) -> None:
    reader = log.open(PUBLISH_TOPIC, "earliest")
    told, stored = await fill(log, range(300))
    got = await take(reader, len(stored))
    assert sorted(each.id for _, each in got) == sorted(told.at)
    assert {each.id: each for _, each in got} == {each.id: each for each in stored}
    for key in "abc":
        assert numbers(got, key) == [each.packet_id for each in stored if each.client == key]


async def test_positions_grow_within_a_shard_and_are_those_that_sinks_hear(log: Log, driver: Driver) -> None:
    reader = log.open(PUBLISH_TOPIC, "earliest")
    told, stored = await fill(log, range(200))
    last: dict[int, At] = {}
    for at, each in await take(reader, len(stored), max_records=5):
        assert at.shard not in last or last[at.shard] < at
        last[at.shard] = at
        if driver.exact:
            assert told.at[each.id] == at
        else:
            assert told.at[each.id].shard == at.shard
            assert told.at[each.id] >= at


async def test_a_key_stays_in_its_shard(log: Log) -> None:
    told, _ = await fill(log, range(200), keys=[f"key-{number}" for number in range(8)])
    shards = defaultdict(set)
    for number in range(200):
        if (at := told.at.get(number.to_bytes(16, "big"))) is not None:
            shards[number % 8].add(at.shard)
    assert all(len(found) == 1 for found in shards.values())


async def test_a_reader_can_be_opened_anew_at_the_end_of_any_batch(log: Log) -> None:
    """``Batch.end`` loses nothing and repeats nothing, in the middle of frames too; ``place`` grows with it."""
    _, stored = await fill(log, range(200))
    chance = random.Random(7)
    places: dict[int, At] = {}
    got: list[tuple[At, Record]] = []
    while len(got) < len(stored):
        reader = log.open(PUBLISH_TOPIC, places or "earliest")
        for _ in range(chance.randint(1, 3)):
            if len(got) < len(stored):
                async with asyncio.timeout(10):
                    batch = await reader.next(chance.randint(1, 9), BIG)
                got += placed(batch)
                before = places.get(batch.end.shard, batch.first)
                assert log.place(before) <= log.place(batch.first) <= log.place(batch.end)
                places[batch.end.shard] = batch.end
        reader.close()
    assert sorted(each.packet_id for _, each in got) == sorted(each.packet_id for each in stored)


async def test_a_position_to_start_from_is_inclusive(log: Log) -> None:
    _, stored = await fill(log, range(60), keys=["a"])
    first = log.open(PUBLISH_TOPIC, "earliest")
    at, wanted = (await take(first, len(stored)))[17]
    reader = log.open(PUBLISH_TOPIC, {at.shard: at}, [at.shard])
    assert (await take(reader, 1, max_records=1))[0] == (at, wanted)


async def test_latest_begins_behind_what_is_durable(log: Log) -> None:
    await fill(log, range(50))
    reader = log.open(PUBLISH_TOPIC, "latest")
    _, stored = await fill(log, range(50, 100))
    got = await take(reader, len(stored))
    assert sorted(each.packet_id for _, each in got) == [each.packet_id for each in stored]


async def test_a_time_begins_at_the_first_record_that_is_not_older(log: Log) -> None:
    _, stored = await fill(log, range(100), keys=["a"])
    wanted = [each.packet_id for each in stored if each.time >= 1060]
    reader = log.open(PUBLISH_TOPIC, 1060)
    assert numbers(await take(reader, len(wanted)), "a") == wanted


async def test_a_time_to_come_begins_at_the_end(log: Log) -> None:
    await fill(log, range(30), keys=["a"])
    reader = log.open(PUBLISH_TOPIC, 5_000)
    waiting = asyncio.ensure_future(take(reader, 1))
    await asyncio.sleep(0.05)
    stored = (await fill(log, range(30, 60), keys=["a"]))[1]
    assert (await waiting)[0][1] == stored[0]


async def test_a_position_past_the_end_is_refused(log: Log) -> None:
    """Log and store are then not of one data folder."""
    await fill(log, range(40), keys=["a"])
    ends = await log.ends(PUBLISH_TOPIC)
    shard, (_, end) = next((shard, both) for shard, both in ends.items() if both[0] != both[1])
    log.open(PUBLISH_TOPIC, {shard: end}).close()
    with pytest.raises(LogDamaged, match="ends at record"):
        await log.open(PUBLISH_TOPIC, {shard: At(shard, end.offset, end.index + 1)}).next(1, 1)


async def test_batches_keep_to_their_limits_but_hold_a_record_at_least(log: Log, driver: Driver) -> None:
    told = Told()
    for number in range(40):
        told.append(log, record(number, size=1000))
    await told.wait(40)
    for max_records, max_bytes, most in ((6, BIG, 6), (BIG, 3500, 3), (BIG, 1, 1)):
        reader = log.open(PUBLISH_TOPIC, "earliest")
        got: list[Record] = []
        while len(got) < len(told.at):
            batch = await reader.next(max_records, max_bytes)
            assert len(batch.records) <= most
            assert batch.records or not driver.exact
            got += batch.records
        assert [each.packet_id for each in got] == sorted(int.from_bytes(each, "big") for each in told.at)


async def test_next_waits_for_records_and_gets_them(log: Log) -> None:
    reader = log.open(PUBLISH_TOPIC, "earliest")
    waiting = asyncio.ensure_future(reader.next(BIG, BIG))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    _, stored = await fill(log, range(20))
    async with asyncio.timeout(5):
        assert (await waiting).records[0] in stored


async def test_next_that_is_given_up_loses_nothing(log: Log) -> None:
    reader = log.open(PUBLISH_TOPIC, "earliest")
    for turn in range(10):
        waiting = asyncio.ensure_future(reader.next(BIG, BIG))
        for _ in range(turn % 3):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not waiting.cancelled():
            pytest.fail("there was nothing to read yet")
    _, stored = await fill(log, range(50))
    assert len(await take(reader, len(stored))) == len(stored)


async def test_closing_a_reader_cancels_its_wait(log: Log) -> None:
    reader = log.open(PUBLISH_TOPIC, "latest")
    waiting = asyncio.ensure_future(reader.next(1, 1))
    await asyncio.sleep(0.01)
    reader.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(LogError, match="closed"):
        await reader.next(1, 1)


async def test_topics_are_apart(log: Log) -> None:
    _, published = await fill(log, range(30))
    _, present = await fill(log, range(30, 40), topic=PRESENCE_TOPIC)
    for topic, stored in ((PUBLISH_TOPIC, published), (PRESENCE_TOPIC, present)):
        got = await take(log.open(topic, "earliest"), len(stored))
        assert {each.packet_id for _, each in got} == {each.packet_id for each in stored}


async def test_topics_share_groups_without_mixing(log: Log) -> None:
    told = Told()
    topics = (PUBLISH_TOPIC, PRESENCE_TOPIC)
    for number in range(100):
        told.append(log, record(number), topics[number % 2])
    await told.wait(100)
    for odd, topic in enumerate(topics):
        expected = [number for number in range(odd, 100, 2) if number.to_bytes(16, "big") in told.at]
        assert numbers(await take(log.open(topic, "earliest"), len(expected)), "k") == expected


async def test_a_reader_of_some_shards_gets_those_only(log: Log) -> None:
    told, _ = await fill(log, range(120), keys=[f"key-{number}" for number in range(12)])
    for shard in await log.ends(PUBLISH_TOPIC):
        expected = {each for each, at in told.at.items() if at.shard == shard}
        got = await take(log.open(PUBLISH_TOPIC, "earliest", [shard]), len(expected))
        assert {each.id for _, each in got} == expected


async def test_ends_tell_the_first_and_the_next_position(log: Log, driver: Driver) -> None:
    assert all(first == following for first, following in (await log.ends(PUBLISH_TOPIC)).values())
    told, stored = await fill(log, range(90))
    for shard, (first, following) in (await log.ends(PUBLISH_TOPIC)).items():
        got = [at for at in told.at.values() if at.shard == shard]
        assert all(first <= at < following for at in got)
        if got:
            newest = max(got)
            if driver.counts:
                assert newest.offset + newest.index + 1 == following.offset + following.index
            else:
                assert (newest.offset + 1, 0) == (following.offset, following.index)
    reader = log.open(PUBLISH_TOPIC, {shard: following for shard, (_, following) in (await log.ends(PUBLISH_TOPIC)).items()})
    waiting = asyncio.ensure_future(reader.next(1, 1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    reader.close()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_reader_that_has_all_is_at_the_ends(log: Log, driver: Driver) -> None:
    """By ``Batch.end``, over repeats too: that is how a start knows that it has replayed everything, and what is left is the lag.

    What comes after the ends were asked for, another node's record or a frame that was sent again, leads past them, never around them: so
    they are asked for anew until nothing has come between.
    """
    await fill(log, range(120))
    ends = {shard: end for shard, (first, end) in (await log.ends(PUBLISH_TOPIC)).items() if first != end}
    await fill(log, range(120, 180))
    reader = log.open(PUBLISH_TOPIC, "earliest")
    places = {shard: At(shard, 0, 0) for shard in ends}
    async with asyncio.timeout(10):
        while places != ends:
            while reader.lag() or any(places[shard] < end for shard, end in ends.items()):
                end = (await reader.next(7, BIG)).end
                places[end.shard] = At(end.shard, end.offset + end.index, 0) if driver.counts else end
                assert reader.lag() > 0 or not any(places[shard] < end for shard, end in ends.items())
            ends = {shard: end for shard, (_, end) in (await log.ends(PUBLISH_TOPIC)).items() if shard in places}
    reader.close()


async def test_pressure_counts_what_is_pending(log: Log) -> None:
    told = Told()
    for number in range(25):
        told.append(log, record(number, size=100))
    pressure = log.pressure()
    assert pressure.records == 25
    assert pressure.size >= 2500
    assert pressure.stalled_since == 0.0
    await told.wait(25)
    assert (log.pressure().records, log.pressure().size) == (0, 0)


async def test_closing_tells_every_record_and_later_ones_are_refused(driver: Driver) -> None:
    log = await driver.start()
    told = Told()
    for number in range(500):
        told.append(log, record(number))
    await log.close()
    assert told.count == 500
    told.append(log, record(500))
    await told.wait(501)
    assert (500).to_bytes(16, "big") in told.refusals


async def test_a_restart_keeps_records_and_goes_on_behind_them(driver: Driver) -> None:
    log = await driver.start()
    told, stored = await fill(log, range(100))
    before = await log.ends(PUBLISH_TOPIC)
    await log.close()
    log = await driver.start()
    try:
        assert await log.ends(PUBLISH_TOPIC) == before
        more, later = await fill(log, range(100, 150))
        for at in more.at.values():
            assert at >= before[at.shard][1]
        got = await take(log.open(PUBLISH_TOPIC, "earliest"), len(stored) + len(later))
        assert {each.id for _, each in got} == told.at.keys() | more.at.keys()
        for key in "abc":
            assert numbers(got, key) == sorted(numbers(got, key))
    finally:
        await log.close()


async def test_readers_keep_up_and_catch_up_while_records_come(log: Log) -> None:
    """Prompt and slow readers, from memory and from disk, see one order without gap or repeat."""
    told = Told()
    chance = random.Random(11)
    readers = [log.open(PUBLISH_TOPIC, "earliest") for _ in range(3)]

    async def read(reader: Reader, pause: float, got: list[int]) -> None:
        while True:
            got += [each.packet_id for each in (await reader.next(chance.choice((3, 50, BIG)), BIG)).records]
            await asyncio.sleep(pause)

    lists: list[list[int]] = [[], [], []]
    tasks = [asyncio.ensure_future(read(reader, pause, got)) for reader, pause, got in zip(readers, (0, 0, 0.003), lists, strict=True)]
    for number in range(1500):
        told.append(log, record(number))
        if number % 20 == 19:
            await asyncio.sleep(0)
    await told.wait(1500)
    expected = [number for number in range(1500) if number.to_bytes(16, "big") in told.at]
    async with asyncio.timeout(30):
        while any(len(got) < len(expected) for got in lists):
            await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert lists == [expected] * 3


async def test_a_record_that_cannot_be_written_spoils_no_other(driver: Driver) -> None:
    """A string that is not text reaches no log; neighbours of its group do."""
    if not driver.encodes:
        pytest.skip("nothing is encoded that could fail")
    log = await driver.start()
    told = Told()
    for number in range(10):
        told.append(log, record(number, "\ud800" if number == 4 else "k"))
    await told.wait(10)
    assert list(told.refusals) == [(4).to_bytes(16, "big")]
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 9), "k") == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    await log.close()
