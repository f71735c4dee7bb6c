"""Entries of boxes: idempotence, order, states, trimming. What is netted out inside a transaction shows nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from schemas.positions import At
from schemas.sessions import BoxEntry, BoxState, DropEntry, PutEntry, SetEntry, TrimBox
from streams.store import Change, FinishReplayed, Stale, Store
from tests.contract.store_making import KINDS, NOW, claimed, entry, made, place, put, queued, record

QUEUED, IN_FLIGHT, RELEASED, DONE = BoxState


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


async def test_an_entry_comes_back_as_it_was_put(store: Store) -> None:
    session = await claimed(store)
    full = BoxEntry(At(3, 2**40, 4095), record(7, payload=bytes(range(256)), expires_at=NOW + 1), 2, True, (1, 268_435_455))
    await put(store, session, full, entry(1))
    assert await store.entries(session.id, None, 10) == [entry(1), full]


async def test_an_entry_is_put_once(store: Store) -> None:
    """A replay of the log after a crash finds what it put before, in whatever state [MQTT-4.3.3-2]."""
    session = await claimed(store)
    await put(store, session, entry(1), entry(2, state=DONE), entry(3, state=IN_FLIGHT, packet_id=5))
    await put(store, session, *(BoxEntry(place(number), record(100 + number), 0) for number in (1, 2, 3, 1)))
    assert await store.entries(session.id, None, 10) == [entry(1)]
    assert (await claimed(store)).in_flight == (entry(3, state=IN_FLIGHT, packet_id=5),)


async def test_entries_come_in_log_order_in_pages(store: Store) -> None:
    session = await claimed(store)
    places = [At(shard, offset, index) for shard in (0, 1) for offset in (1, 9, 10, 200) for index in (0, 1, 10)]
    await put(store, session, *(entry(number, at=at) for number, at in enumerate(reversed(places))))
    await put(store, session, *(entry(90 + state, at=At(0, 9, 5 + state), state=state) for state in (IN_FLIGHT, RELEASED, DONE)))
    assert await queued(store, session.id) == places
    assert [each.at for each in await store.entries(session.id, At(0, 9, 5), 4)] == [At(0, 9, 10), At(0, 10, 0), At(0, 10, 1), At(0, 10, 10)]


async def test_entries_come_from_the_end_backwards(store: Store) -> None:
    session = await claimed(store)
    await put(store, session, *(entry(number) for number in range(25)))
    first = [each.at for each in await store.entries(session.id, None, 10, newest_first=True)]
    assert first == [place(number) for number in range(24, 14, -1)]
    then = [each.at for each in await store.entries(session.id, first[-1], 20, newest_first=True)]
    assert then == [place(number) for number in range(14, -1, -1)]


async def test_a_box_under_another_epoch_has_nothing_for_who_had_it_before(store: Store) -> None:
    """What the one that has it now puts there would be sent by both, and by the other out of order."""
    session = await claimed(store)
    await put(store, session, entry(1))
    assert await store.entries(session.id, None, 10, epoch=session.epoch) == [entry(1)]
    again = await claimed(store)
    await put(store, again, entry(2))
    for newest_first in (False, True):
        assert await store.entries(session.id, None, 10, newest_first=newest_first, epoch=session.epoch) == []
    assert await store.entries(session.id, None, 10, epoch=again.epoch) == await store.entries(session.id, None, 10) == [entry(1), entry(2)]
    assert await store.entries(987, None, 10, epoch=1) == []


async def test_what_leaves_a_mailbox_for_a_session_that_is_another_node_s_stays_there(store: Store) -> None:
    """It is not in the session's box then, which takes nothing under the old epoch."""
    mailbox = await store.mailbox("c1")
    session = await claimed(store)
    await store.commit([PutEntry(mailbox, 0, entry(number)) for number in (1, 2)])
    assert (await store.commit([DropEntry(mailbox, session.epoch, place(1), session.id), PutEntry(session.id, session.epoch, entry(1))])).stale == ()
    await claimed(store)
    late = await store.commit([DropEntry(mailbox, session.epoch, place(2), session.id), PutEntry(session.id, session.epoch, entry(2))])
    assert late.stale == (Stale(session.id, session.epoch),)
    assert (await queued(store, session.id), await queued(store, mailbox)) == ([place(1)], [place(2)])
    assert (await store.commit([DropEntry(mailbox, session.epoch, place(2), session.id)])).stale == (Stale(session.id, session.epoch),)
    assert await queued(store, mailbox) == [place(2)]


async def test_boxes_are_apart_and_a_record_may_lie_in_many(store: Store) -> None:
    boxes = [await claimed(store, f"c{number}") for number in range(5)]
    for each in boxes:
        await put(store, each, entry(1), entry(2))
    await store.commit([DropEntry(boxes[0].id, boxes[0].epoch, place(1))])
    assert await queued(store, boxes[0].id) == [place(2)]
    for each in boxes[1:]:
        assert [found.record for found in await store.entries(each.id, None, 10)] == [record(1), record(2)]
    assert await store.entries(987, None, 10) == []


async def test_states_change_in_place(store: Store) -> None:
    session = await claimed(store)
    await put(store, session, entry(1), entry(2), entry(3))
    ident = (session.id, session.epoch)
    await store.commit([SetEntry(*ident, place(2), IN_FLIGHT, 7), SetEntry(*ident, place(3), RELEASED, 8), SetEntry(*ident, place(9), IN_FLIGHT, 9)])
    assert await queued(store, session.id) == [place(1)]
    state = await claimed(store)
    assert state.in_flight == (entry(2, state=IN_FLIGHT, packet_id=7), entry(3, state=RELEASED, packet_id=8))
    assert state.queued == 1
    await store.commit([SetEntry(session.id, state.epoch, place(2), QUEUED, 0), SetEntry(session.id, state.epoch, place(3), DONE, 0)])
    assert await queued(store, session.id) == [place(1), place(2)]
    assert (await claimed(store)).in_flight == ()


async def test_finished_deliveries_stay_until_the_position_has_passed_them(store: Store) -> None:
    """[MQTT-4.3.3-2]: a replay that finds the row sends nothing again."""
    session = await claimed(store)
    places = [At(0, 1, 0), At(0, 1, 1), At(0, 2, 0), At(1, 0, 0)]
    await put(store, session, *(entry(number, at=at, state=DONE) for number, at in enumerate(places)))
    await put(store, session, entry(9, at=At(0, 0, 0)))
    await store.commit([FinishReplayed(At(0, 1, 1))])
    await put(store, session, *(entry(number, at=at) for number, at in enumerate(places)))
    assert await queued(store, session.id) == [At(0, 0, 0), At(0, 1, 0)]


async def test_a_trim_drops_the_oldest_queued_entries(store: Store) -> None:
    session = await claimed(store)
    await put(store, session, entry(0, state=IN_FLIGHT, packet_id=1), *(entry(number) for number in range(1, 8)), entry(8, state=DONE))
    result = await store.commit([TrimBox(session.id, session.epoch, 3)])
    assert result.trimmed == ((session.id, 4),)
    assert await queued(store, session.id) == [place(5), place(6), place(7)]
    assert len((await claimed(store)).in_flight) == 1
    assert (await store.commit([TrimBox(session.id, 0, 3)])).trimmed == ()
    assert (await store.commit([TrimBox(session.id, 0, 0)])).trimmed == ((session.id, 3),)


async def test_a_full_box_that_is_trimmed_at_every_put_keeps_the_newest(store: Store) -> None:
    session, other = await claimed(store, "c1"), await claimed(store, "c2")
    changes: list[Change] = []
    for number in range(30):
        changes += [PutEntry(session.id, 1, entry(number)), TrimBox(session.id, 1, 5), PutEntry(other.id, 1, entry(number))]
    result = await store.commit([*changes, PutEntry(session.id, 1, entry(30))])
    assert result.trimmed == ((session.id, 25),)
    assert await queued(store, session.id) == [place(number) for number in range(25, 31)]  # the last put has no trim behind it
    assert (await claimed(store, "c1")).queued == 6
    assert len(await queued(store, other.id)) == 30


PUT, OTHER_PUT, SET, OTHER_SET, DROP, TRIM = "PpSsDT"


@pytest.mark.parametrize("there", [False, True])
async def test_any_changes_of_one_entry_in_one_commit_are_as_one_after_the_other(store: Store, there: bool) -> None:
    session = await claimed(store)
    ident = (session.id, session.epoch)
    failures = []
    steps = [f"{a}{b}{c}" for a in "PpSsDT" for b in "PpSsDT" for c in "PpSsDT"] + ["STPT", "STPPT", "sTpT"]
    for number, word in enumerate(steps):
        at = place(number)
        make = {
            PUT: PutEntry(*ident, entry(number)),
            OTHER_PUT: PutEntry(*ident, entry(number + 1000, at=at, state=IN_FLIGHT, packet_id=1)),
            SET: SetEntry(*ident, at, IN_FLIGHT, 7),
            OTHER_SET: SetEntry(*ident, at, QUEUED, 0),
            DROP: DropEntry(*ident, at),
            TRIM: TrimBox(*ident, 0),
        }
        stored = entry(number + 2000, at=at, state=RELEASED, packet_id=3) if there else None
        await store.commit([PutEntry(*ident, stored)] if stored else [])
        await store.commit([make[letter] for letter in word])
        expected = _one_after_the_other(stored, [make[letter] for letter in word])
        state = await claimed(store)
        ident = (session.id, state.epoch)
        found = [*state.in_flight, *await store.entries(session.id, None, 10)]
        if found != ([expected] if expected else []):
            failures.append((word, found, expected))
        await store.commit([DropEntry(*ident, at)])
    assert failures == []


def _one_after_the_other(stored: BoxEntry | None, changes: list[PutEntry | SetEntry | DropEntry | TrimBox]) -> BoxEntry | None:
    for change in changes:
        if isinstance(change, PutEntry):
            stored = stored or change.entry
        elif isinstance(change, SetEntry):
            stored = stored and msgspec.structs.replace(stored, state=change.state, packet_id=change.packet_id)
        elif isinstance(change, DropEntry) or (stored is not None and stored.state == QUEUED):
            stored = None
    return stored


async def test_a_large_commit_is_one(store: Store) -> None:
    session = await claimed(store)
    ident = (session.id, session.epoch)
    await put(store, session, *(entry(number) for number in range(3001)))
    assert (await claimed(store)).queued == 3001
    ident = (session.id, 0)
    await store.commit([SetEntry(*ident, place(number), IN_FLIGHT, 1) for number in range(1, 3001)])
    assert await queued(store, session.id) == [place(0)]
    await store.commit([DropEntry(*ident, place(number)) for number in range(0, 3001, 2)])
    assert len((await claimed(store)).in_flight) == 1500
