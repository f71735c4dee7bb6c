"""A sweep ends what is past its time or over a limit, and touches no delivery that has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.positions import At
from schemas.sessions import BoxEntry, BoxState, DropEntry, EndConnection, PutEntry, PutReceived, PutSubscription, RemoveSession, Subscription
from streams.store import BODY_MS, Counts, Stale, Store, Swept
from tests.contract.store_making import KINDS, NOW, claimed, entry, made, place, put, queued, record


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


async def _sweep(store: Store, now: int = NOW, *, per_box: int = 1000, total: int = 1000, age: int = 1000, limit: int = 100) -> Swept:
    return await store.sweep(now, entries_per_box=per_box, entries_total=total, entry_age=age, limit=limit)


async def test_sessions_past_their_time_end_with_all_that_belongs_to_them(store: Store) -> None:
    """[MQTT-3.1.2-23]"""
    sessions = [await claimed(store, f"c{number}") for number in range(4)]
    for number, session in enumerate(sessions[:3]):
        await put(store, session, entry(number), entry(10 + number, state=BoxState.IN_FLIGHT))
        await store.commit([PutSubscription(session.id, 1, Subscription("a", 1)), PutReceived(session.id, 1)])
        await store.commit([EndConnection(session.id, 1, 10, NOW + 10 - number)])
    assert await _sweep(store, NOW + 7) == Swept()
    assert (await _sweep(store, NOW + 9)).sessions == ((sessions[2].id, "c2"), (sessions[1].id, "c1"))
    assert [state.client for state in await store.sessions(0, 10)] == ["c0", "c3"]
    assert await store.counts() == Counts(sessions=2, entries=1, retained=0, open_channels=0)
    assert (await store.commit([DropEntry(sessions[1].id, 1, place(1))])).stale == (Stale(sessions[1].id, 1),)
    assert not (await claimed(store, "c1")).present


async def test_sessions_end_a_limit_at_a_time(store: Store) -> None:
    for number in range(5):
        session = await claimed(store, f"c{number}")
        await store.commit([EndConnection(session.id, 1, 1, NOW)])
    swept = [[client for _, client in (await _sweep(store, limit=2)).sessions] for _ in range(4)]
    assert swept == [["c0", "c1"], ["c2", "c3"], ["c4"], []]


def _expiring(number: int, expires_at: int, state: int = BoxState.QUEUED) -> BoxEntry:
    return BoxEntry(place(number), record(number, expires_at=expires_at), 1, state=state)


async def test_expired_deliveries_go_unless_they_have_begun(store: Store) -> None:
    """[MQTT-3.3.2-5] [MQTT-4.3.3-7]"""
    session = await claimed(store)
    await put(store, session, _expiring(1, NOW + 1), _expiring(2, NOW + 3), _expiring(3, 0), _expiring(4, NOW + 1, BoxState.IN_FLIGHT))
    await put(store, session, _expiring(5, NOW + 2))
    assert await _sweep(store, NOW) == Swept()
    assert await _sweep(store, NOW + 3, limit=2) == Swept(expired_entries=2)
    assert await queued(store, session.id) == [place(2), place(3)]
    assert await _sweep(store, NOW + 3, limit=2) == Swept(expired_entries=1)
    assert len((await claimed(store)).in_flight) == 1


async def test_old_deliveries_go_unless_they_have_begun(store: Store) -> None:
    session, other = await claimed(store, "c1"), await claimed(store, "c2")
    await put(store, session, entry(1, time=NOW - 3000), entry(2, time=NOW - 2000), entry(3, time=NOW - 1999), entry(4, time=NOW))
    await put(store, other, entry(5, time=NOW - 2500), entry(6, time=NOW - 9000, state=BoxState.IN_FLIGHT))
    assert await _sweep(store, NOW, age=2, limit=2) == Swept(aged_entries=2)
    assert await queued(store, session.id) == [place(2), place(3), place(4)]
    assert await _sweep(store, NOW, age=2, limit=2) == Swept(aged_entries=1)
    assert await queued(store, session.id) == [place(3), place(4)]
    assert (await claimed(store, "c2")).queued == 0


async def test_a_box_over_its_limit_loses_its_oldest(store: Store) -> None:
    boxes = [(await claimed(store, "c1")).id, await store.mailbox("c2"), (await claimed(store, "c3")).id]
    for box, count in zip(boxes, (6, 5, 2), strict=True):
        await store.commit([PutEntry(box, 0, entry(number)) for number in range(count)])
    await store.commit([PutEntry(boxes[0], 0, entry(99, state=BoxState.IN_FLIGHT))])
    assert await _sweep(store, per_box=2, limit=5) == Swept(over_limit_entries=5)
    assert await _sweep(store, per_box=2, limit=5) == Swept(over_limit_entries=2)
    assert await _sweep(store, per_box=2, limit=5) == Swept()
    assert [await queued(store, box) for box in boxes] == [[place(4), place(5)], [place(3), place(4)], [place(0), place(1)]]


async def test_over_the_total_the_oldest_of_all_boxes_go(store: Store) -> None:
    first, second = await claimed(store, "c1"), await claimed(store, "c2")
    await put(store, first, *(entry(number, time=NOW - number) for number in range(0, 10, 2)))
    await put(store, second, *(entry(number, time=NOW - number) for number in range(1, 10, 2)), entry(11, time=0, state=BoxState.RELEASED))
    assert await _sweep(store, total=4, limit=3) == Swept(over_limit_entries=3)
    assert await _sweep(store, total=4, limit=100) == Swept(over_limit_entries=3)
    assert await queued(store, first.id) == [place(0), place(2)]
    assert await queued(store, second.id) == [place(1), place(3)]


async def test_one_limit_holds_for_both_kinds_of_surplus(store: Store) -> None:
    first, second = await claimed(store, "c1"), await claimed(store, "c2")
    await put(store, first, *(entry(number) for number in range(6)))
    await put(store, second, *(entry(number) for number in range(3)))
    assert await _sweep(store, per_box=4, total=5, limit=3) == Swept(over_limit_entries=3)
    assert (len(await queued(store, first.id)), len(await queued(store, second.id))) == (4, 2)
    assert await _sweep(store, per_box=4, total=5, limit=3) == Swept(over_limit_entries=1)


async def test_a_body_goes_when_nothing_refers_to_it_and_it_is_old(store: Store) -> None:
    """Delivered to the last box, a record waits ten minutes for another one."""
    first, second = await claimed(store, "c1"), await claimed(store, "c2")
    for session in (first, second):
        await put(store, session, *(entry(number) for number in range(6)))
    await store.commit([DropEntry(first.id, 0, place(number)) for number in range(6)])
    assert (await _sweep(store, NOW + BODY_MS)).bodies == 0
    await store.commit([DropEntry(second.id, 0, place(number)) for number in range(1, 6)])
    assert (await _sweep(store, NOW + BODY_MS - 1)).bodies == 0
    assert [(await _sweep(store, NOW + BODY_MS, limit=2)).bodies for _ in range(4)] == [2, 2, 1, 0]
    assert (await store.entries(second.id, None, 10)) == [entry(0)]
    await put(store, first, entry(3))
    assert (await store.entries(first.id, None, 10)) == [entry(3)]
    await store.commit([RemoveSession(second.id, 0)])
    assert (await _sweep(store, NOW + BODY_MS)).bodies == 1


async def test_bodies_behind_many_that_are_referred_to_are_found_in_turn(store: Store) -> None:
    session = await claimed(store)
    await put(store, session, *(entry(number) for number in range(55)))
    await store.commit([DropEntry(session.id, 0, place(number)) for number in (3, 54)])
    assert sum([(await _sweep(store, NOW + BODY_MS, limit=1)).bodies for _ in range(30)]) == 2
    assert len(await queued(store, session.id)) == 53


async def test_boxes_behind_many_are_found_in_turn(store: Store) -> None:
    boxes = [await store.mailbox(f"c{number}") for number in range(25)]
    await store.commit([PutEntry(box, 0, entry(number)) for number in range(3) for box in (boxes[2], boxes[24])])
    assert sum([(await _sweep(store, per_box=2, limit=1)).over_limit_entries for _ in range(15)]) == 2
    assert await queued(store, boxes[24]) == [At(0, 0, 1), At(0, 0, 2)]
