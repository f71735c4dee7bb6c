"""What every backend promises (streams/backend.py), on the reference and on each real one."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import pytest

from schemas.errors import BackendError
from streams.backend import Backend, Incoming, Outgoing, Source
from tests.contract.backend_drivers import DRIVERS, DROPPING, PARAMS, Driver
from tests.support.brokers.fixtures import unique

WITHIN = 20.0
ANSWER = 10.0
"""What the port says of a failure."""
NOW = int(time.time() * 1000)
BIG = 1 << 20


@pytest.fixture(params=PARAMS)
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    driver = DRIVERS[request.param](request)
    yield driver
    await driver.backend.close()


@pytest.fixture
def backend(driver: Driver) -> Backend:
    return driver.backend


@pytest.fixture
async def topic(backend: Backend) -> str:
    name = unique("contract")
    await backend.create_topic(name, 4)
    return name


def outgoing(topic: str, number: int, **options: object) -> Outgoing:
    fields = {"body": b"body %d" % number, "properties": (("number", str(number)),), "id": f"{number:032X}", "time": NOW + number, **options}
    return Outgoing(topic=topic, **fields)  # type: ignore[arg-type]


async def take(source: Source, count: int, max_messages: int = 1000, max_bytes: int = BIG) -> list[Incoming]:
    got: list[Incoming] = []
    async with asyncio.timeout(WITHIN):
        while len(got) < count:
            got += await source.next(max_messages, max_bytes)
    return got


async def sent(backend: Backend, messages: Sequence[Outgoing]) -> None:
    target = backend.target("rule", ordered=True)
    assert list(await target.send(messages)) == []
    await target.close()


def numbers(messages: Sequence[Incoming]) -> list[int]:
    return [int(message.id, 16) for message in messages]


async def quiet(source: Source) -> bool:
    """Nothing more comes."""
    try:
        async with asyncio.timeout(0.3):
            await source.next(1, BIG)
    except TimeoutError:
        return True
    return False


# What is carried


async def test_a_message_comes_as_it_was_sent(driver: Driver, topic: str) -> None:
    properties = (("mqttSecondTopic", "a/b"), ("clientId", "GID@@@1"), ("mqttSecondTopic", "ü"), ("empty", ""))
    body = bytes(range(256))
    message = outgoing(topic, 7, body=body, properties=properties, key="the key", lane="lane", tag="tag")
    await sent(driver.backend, [message])
    (got,) = await take(driver.backend.source("rule", topic, {}), 1)
    assert (got.topic, got.body, got.id, got.time) == (topic, body, message.id, message.time)
    assert [pair for pair in got.properties if pair in properties] == list(properties)
    assert got.key == ("the key" if "key" in driver.carries else got.key)
    assert got.tag == ("tag" if "tag" in driver.carries else "")


async def test_an_empty_body_and_no_key_stay_so(driver: Driver, topic: str) -> None:
    await sent(driver.backend, [outgoing(topic, 1, body=b"", properties=())])
    (got,) = await take(driver.backend.source("rule", topic, {}), 1)
    assert (got.body, got.id) == (b"", f"{1:032X}")
    if "key" in driver.carries:
        assert got.key is None


async def test_no_messages_are_no_work(backend: Backend) -> None:
    target = backend.target("rule", ordered=False)
    assert list(await target.send([])) == []
    await target.close()


# Order


async def test_a_lane_stays_in_one_queue_and_in_order(backend: Backend, topic: str) -> None:
    target = backend.target("rule", ordered=True)
    for start in range(0, 3000, 1000):
        assert list(await target.send([outgoing(topic, number, lane=f"client {number % 20}") for number in range(start, start + 1000)])) == []
    got = await take(backend.source("rule", topic, {}), 3000)
    lanes: dict[int, list[Incoming]] = defaultdict(list)
    for message in got:
        lanes[int(message.id, 16) % 20].append(message)
    assert len({message.queue for message in got}) > 1
    for lane, messages in lanes.items():
        assert numbers(messages) == list(range(lane, 3000, 20))
        assert len({message.queue for message in messages}) == 1


async def test_messages_without_a_lane_use_all_queues(backend: Backend, topic: str) -> None:
    target = backend.target("rule", ordered=False)
    for number in range(40):
        await target.send([outgoing(topic, number)])
    got = await take(backend.source("rule", topic, {}), 40)
    assert sorted(numbers(got)) == list(range(40))
    assert len({message.queue for message in got}) == 4


async def test_one_call_may_name_several_topics(backend: Backend, topic: str) -> None:
    other = unique("contract")
    await backend.create_topic(other, 1)
    await sent(backend, [outgoing((topic, other)[number % 2], number, lane="l") for number in range(10)])
    assert numbers(await take(backend.source("rule", topic, {}), 5)) == [0, 2, 4, 6, 8]
    assert numbers(await take(backend.source("rule", other, {}), 5)) == [1, 3, 5, 7, 9]


# Refusals


@pytest.mark.parametrize("place", [0, 1, 15, 30, 31])
async def test_what_is_refused_is_named_and_the_others_arrive_in_order(driver: Driver, topic: str, place: int) -> None:
    messages = [outgoing(topic, number, lane="lane") for number in range(32)]
    messages[place] = outgoing(topic, place, lane="lane", body=bytes(driver.too_large))
    target = driver.backend.target("rule", ordered=True)
    (rejected,) = await target.send(messages)
    assert rejected.index == place
    assert rejected.reason
    assert list(await target.send([outgoing(topic, 32, lane="lane")])) == []
    got = numbers(await take(driver.backend.source("rule", topic, {}), 32))
    assert got == [number for number in range(33) if number != place]


async def test_several_are_refused_at_once(driver: Driver, topic: str) -> None:
    bad = {0, 1, 7, 31}
    messages = [outgoing(topic, number, lane=str(number % 3), body=bytes(driver.too_large if number in bad else 10)) for number in range(32)]
    target = driver.backend.target("rule", ordered=True)
    assert [each.index for each in await target.send(messages)] == sorted(bad)
    got = numbers(await take(driver.backend.source("rule", topic, {}), 28))
    assert sorted(got) == sorted(set(range(32)) - bad)


# Topics


async def test_a_topic_is_described_and_nothing_makes_one_unasked(backend: Backend, topic: str) -> None:
    description = await backend.describe(topic)
    assert description is not None
    assert description.queues == 4
    missing = unique("missing")
    target, source = backend.target("rule", ordered=False), backend.source("rule", missing, {})
    for _ in range(2):
        assert await backend.describe(missing) is None
        with pytest.raises(BackendError, match=missing):
            await target.send([outgoing(missing, 1)])
        with pytest.raises(BackendError, match=missing):
            await source.next(1, 1)
        with pytest.raises(BackendError, match=missing):
            await backend.resolve(missing, "now")
    assert backend.trouble == ""
    assert missing in backend.creation_hint(missing)


async def test_a_topic_that_is_there_is_not_made_again(backend: Backend, topic: str) -> None:
    with pytest.raises(BackendError, match=topic):
        await backend.create_topic(topic, 1)


async def test_a_target_goes_on_when_its_topic_was_made(backend: Backend) -> None:
    name = unique("later")
    target, source = backend.target("rule", ordered=False), backend.source("rule", name, {})
    with pytest.raises(BackendError):
        await target.send([outgoing(name, 1)])
    with pytest.raises(BackendError):
        await source.next(1, 1)
    await backend.create_topic(name, 1)
    assert list(await target.send([outgoing(name, 1)])) == []
    assert numbers(await take(source, 1)) == [1]


# Positions


async def test_a_source_begins_at_its_positions_and_at_the_first_of_others(backend: Backend, topic: str) -> None:
    await sent(backend, [outgoing(topic, number, lane=str(number)) for number in range(200)])
    everything = await take(backend.source("rule", topic, {}), 200)
    queue = everything[0].queue
    at = sum(message.queue == queue for message in everything) // 2
    got = await take(backend.source("rule", topic, {queue: at}), 200 - at)
    assert {(each.queue, each.offset) for each in got} == {
        (each.queue, each.offset) for each in everything if each.queue != queue or each.offset >= at
    }


async def test_positions_are_found_by_end_and_time(driver: Driver, topic: str) -> None:
    backend, middle = driver.backend, NOW + 50_000
    messages = [outgoing(topic, number, lane=str(number), time=NOW + 1000 * number) for number in range(100)]
    await sent(backend, messages[:50])
    if not driver.senders_time:
        await asyncio.sleep(0.002)
        middle = int(time.time() * 1000)
    await sent(backend, messages[50:])
    earliest, now = await backend.resolve(topic, "earliest"), await backend.resolve(topic, "now")
    assert set(earliest.values()) == {0}
    assert len(earliest) == len(now) == 4
    assert sum(now.values()) == 100
    half = await backend.resolve(topic, middle)
    assert sorted(numbers(await take(backend.source("rule", topic, half), 50))) == list(range(50, 100))
    assert await backend.resolve(topic, NOW + 1_000_000) == now
    assert await backend.resolve(topic, 0) == earliest
    (queue, *_) = now
    assert await backend.resolve(topic, {queue: 3}) == {**earliest, queue: 3}


async def test_from_now_on_old_messages_do_not_come(backend: Backend, topic: str) -> None:
    await sent(backend, [outgoing(topic, number) for number in range(10)])
    source = backend.source("rule", topic, await backend.resolve(topic, "now"))
    assert await quiet(source)
    await sent(backend, [outgoing(topic, 10)])
    assert numbers(await take(source, 1)) == [10]


async def test_a_batch_keeps_its_limits_and_holds_one_message_at_least(backend: Backend, topic: str) -> None:
    await sent(backend, [outgoing(topic, number, lane="l", body=bytes(100)) for number in range(50)])
    source = backend.source("rule", topic, {})
    got: list[Incoming] = []
    for max_messages, max_bytes, most in ((7, BIG, 7), (50, 350, 3), (50, 1, 1)):
        for _ in range(4):
            async with asyncio.timeout(WITHIN):
                batch = await source.next(max_messages, max_bytes)
            assert 1 <= len(batch) <= most
            got += batch
    got += await take(source, 50 - len(got))
    assert numbers(got) == list(range(50))


async def test_ends_are_the_first_kept_and_the_one_behind_the_last(backend: Backend, topic: str) -> None:
    source = backend.source("rule", topic, {})
    assert set((await source.ends()).values()) == {(0, 0)}
    await sent(backend, [outgoing(topic, number, lane="l") for number in range(5)])
    assert sorted((await source.ends()).values()) == [(0, 0), (0, 0), (0, 0), (0, 5)]


async def test_telling_positions_is_harmless(backend: Backend, topic: str) -> None:
    source = backend.source("rule", topic, {})
    await source.commit({"0": 1} if "0" in await source.ends() else {})
    await source.commit(dict.fromkeys(await source.ends(), 0))


@pytest.mark.parametrize("driver", DROPPING, indirect=True)
async def test_what_the_backend_dropped_is_counted_exactly(driver: Driver, topic: str) -> None:
    await sent(driver.backend, [outgoing(topic, number, lane="l") for number in range(20)])
    source = driver.backend.source("rule", topic, {})
    first = await take(source, 5, max_messages=5)
    queue = first[0].queue
    await source.close()
    await driver.drop(topic, queue, 12)
    source = driver.backend.source("rule", topic, {queue: 5})
    assert numbers(await take(source, 8)) == list(range(12, 20))
    assert source.skipped == 7
    assert await driver.backend.resolve(topic, "earliest") == {name: 12 * (name == queue) for name in await source.ends()}


async def test_an_offset_beyond_the_end_goes_on_at_the_first(backend: Backend, topic: str) -> None:
    """As of a topic that was made anew."""
    await sent(backend, [outgoing(topic, number, lane="l") for number in range(3)])
    source = backend.source("rule", topic, dict.fromkeys(await backend.resolve(topic, "now"), 1000))
    assert numbers(await take(source, 3)) == [0, 1, 2]
    assert source.skipped == 0


# Waiting and ending


async def test_what_comes_later_wakes_a_waiting_receiver(backend: Backend, topic: str) -> None:
    source = backend.source("rule", topic, {})
    waiting = asyncio.ensure_future(take(source, 1))
    await source.ends()
    assert not waiting.done()
    await sent(backend, [outgoing(topic, 1)])
    assert numbers(await waiting) == [1]


async def test_closing_cancels_a_waiting_receiver(backend: Backend, topic: str) -> None:
    source = backend.source("rule", topic, {})
    waiting = asyncio.ensure_future(source.next(1, 1))
    await source.ends()
    await source.close()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(ANSWER):
            await waiting


async def test_a_receiver_that_was_cancelled_goes_on(backend: Backend, topic: str) -> None:
    source = backend.source("rule", topic, {})
    assert await quiet(source)
    await sent(backend, [outgoing(topic, number, lane="l") for number in range(3)])
    assert numbers(await take(source, 3)) == [0, 1, 2]


async def test_queues_that_come_later_are_found(driver: Driver, topic: str) -> None:
    source = driver.backend.source("rule", topic, {})
    await sent(driver.backend, [outgoing(topic, number, lane=str(number)) for number in range(50)])
    got = await take(source, 50)
    waiting = asyncio.ensure_future(take(source, 50))
    await driver.add_queues(topic, 4)
    await sent(driver.backend, [outgoing(topic, number, lane=str(number)) for number in range(50, 100)])
    async with asyncio.timeout(30):
        got += await waiting
    assert sorted(numbers(got)) == list(range(100))
    assert len({message.queue for message in got}) > 4


# Nobody there


async def test_a_backend_that_is_away_says_so_in_time(driver: Driver) -> None:
    backend = driver.unreachable()
    target, source = backend.target("rule", ordered=True), backend.source("rule", "topic", {"0": 5})
    calls = [
        lambda: target.send([outgoing("topic", 1)]),
        lambda: source.next(1, 1),
        lambda: source.ends(),
        lambda: backend.describe("topic"),
        lambda: backend.resolve("topic", "now"),
        lambda: backend.create_topic("topic", 1),
    ]
    for call in calls:
        with pytest.raises(BackendError) as raised:
            async with asyncio.timeout(ANSWER):
                await call()
        assert raised.value.retryable
        assert backend.trouble
    await source.commit({"0": 6})
    await source.close()
    await target.close()
    await backend.close()
