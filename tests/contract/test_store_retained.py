"""Retained messages: the highest (time, id) stands, deletions are remembered, and a filter finds what it matches, in pages."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.records import Record
from schemas.sessions import PutRetained
from schemas.topics import matches
from streams.store import TOMBSTONE_MS, Store, Swept
from tests.contract.store_making import KINDS, NOW, made, record


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


def _put(topic: str, time: int = NOW, number: int = 1, *, expires_at: int = 0) -> PutRetained:
    found = record(number, time=time, topic=topic, expires_at=expires_at)
    return PutRetained(topic, time, found.id, found)


def _delete(topic: str, time: int = NOW, number: int = 1) -> PutRetained:
    return PutRetained(topic, time, record(number, time=time).id, None)


async def _all(store: Store, topic_filter: str = "#", limit: int = 2) -> list[str]:
    found: list[str] = []
    while page := await store.retained(topic_filter, found[-1] if found else "", limit):
        assert all(message.record.topic == message.topic for message in page)
        found += [message.topic for message in page]
        if len(page) < limit:
            break
    return found


async def _record(store: Store, topic: str) -> Record | None:
    page = await store.retained(topic, "", 10)
    assert len(page) <= 1
    return page[0].record if page else None


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_highest_time_and_id_stands_in_whatever_order_they_come(store: Store, order: tuple[int, ...], together: bool) -> None:
    """[MQTT-3.3.1-5]: routed again after a crash, an older message doesn't replace a newer one."""
    changes = [_put("a", NOW, 1), _put("a", NOW, 3), _put("a", NOW - 1, 9)]
    arranged = [changes[index] for index in order]
    for group in [arranged] if together else [[change] for change in arranged]:
        await store.commit(group)
    assert await _record(store, "a") == changes[1].record


async def test_an_equal_time_and_id_changes_nothing(store: Store) -> None:
    await store.commit([_put("a")])
    await store.commit([_delete("a")])
    assert await _record(store, "a") is not None


async def test_a_deletion_is_remembered_against_older_writes(store: Store) -> None:
    """[MQTT-3.3.1-6] [MQTT-3.3.1-7]"""
    await store.commit([_put("a"), _put("b")])
    await store.commit([_delete("a", NOW + 5), _delete("c", NOW + 5)])
    await store.commit([_put("a", NOW + 4), _put("c", NOW + 4)])
    assert await _all(store) == ["b"]
    assert (await store.counts()).retained == 1
    await store.commit([_put("c", NOW + 6)])
    assert await _all(store) == ["b", "c"]


TOPICS = [
    "a",
    "a/b",
    "a/b/c",
    "a!",
    "a/",
    "/a",
    "/",
    "b/a",
    "ab",
    "$SYS/load",
    "$SYS",
    "ä/b",
    "a/ü/c",
    "a/b/d/e",
    "\U0010ffff/x",
    "a/\U0010ffff",
    "A/b",
    "a//c",
]
FILTERS = [
    "#",
    "+",
    "a/#",
    "a/+",
    "a",
    "+/b",
    "a/+/c",
    "+/+/+",
    "/#",
    "/",
    "$SYS/#",
    "$SYS",
    "ä/#",
    "a/b/#",
    "+/#",
    "a/",
    "\U0010ffff/#",
    "none/#",
    "a/b/+/e",
    "/+",
]


@pytest.mark.parametrize("topic_filter", FILTERS)
async def test_a_filter_finds_what_it_matches_in_order(store: Store, topic_filter: str) -> None:
    """[MQTT-4.7.1-2] [MQTT-4.7.2-1]"""
    await store.commit([_put(topic) for topic in TOPICS])
    assert await _all(store, topic_filter) == sorted(topic for topic in TOPICS if matches(topic_filter, topic))


async def test_many_topics_of_which_few_match(store: Store) -> None:
    await store.commit([_put(f"plant/{number:04}/{'state' if number % 100 == 7 else 'other'}") for number in range(1800)])
    await store.commit([_delete("plant/0107/state", NOW + 1)])
    expected = [f"plant/{number:04}/state" for number in range(7, 1800, 100) if number != 107]
    assert await _all(store, "plant/+/state") == expected
    assert [message.topic for message in await store.retained("plant/+/state", "plant/0207/state", 3)] == expected[2:5]
    assert len(await store.retained("#", "", 1700)) == 1700


async def _sweep(store: Store, now: int, limit: int = 100) -> Swept:
    return await store.sweep(now, entries_per_box=10, entries_total=10, entry_age=10, limit=limit)


async def test_tombstones_go_after_an_hour(store: Store) -> None:
    await store.commit([_put("b"), _delete("a"), _delete("c", NOW + 1)])
    assert await _sweep(store, NOW + TOMBSTONE_MS - 1) == Swept()
    assert await _sweep(store, NOW + TOMBSTONE_MS) == Swept(tombstones=1)
    await store.commit([_put("a", NOW - 5), _put("c", NOW - 5)])
    assert await _all(store) == ["a", "b"]


async def test_expired_retained_messages_become_tombstones(store: Store) -> None:
    """[MQTT-3.3.2-5]"""
    await store.commit([_put("a", expires_at=NOW + 10), _put("b", expires_at=NOW + 20), _put("c")])
    assert await _sweep(store, NOW + 9) == Swept()
    assert await _sweep(store, NOW + 10) == Swept(expired_retained=1)
    assert await _all(store) == ["b", "c"]
    assert (await store.counts()).retained == 2
    await store.commit([_put("a", NOW - 1)])
    assert await _all(store) == ["b", "c"]
    await store.commit([_put("a", NOW + 1)])
    assert await _sweep(store, NOW + 15) == Swept()
    assert await _all(store) == ["a", "b", "c"]


async def test_a_sweep_takes_no_more_than_its_limit(store: Store) -> None:
    await store.commit([*(_put(f"a{n}", expires_at=NOW + n + 1) for n in range(5)), *(_delete(f"b{n}", NOW - TOMBSTONE_MS) for n in range(5))])
    assert await _sweep(store, NOW + 100, 3) == Swept(expired_retained=3, tombstones=3)
    assert await _all(store) == ["a3", "a4"]
    assert await _sweep(store, NOW + 100, 3) == Swept(expired_retained=2, tombstones=2)
