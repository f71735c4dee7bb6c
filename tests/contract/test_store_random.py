"""Long random runs of dense commits, several a transaction: the database nets changes out, the reference doesn't, and nobody can tell.

Seeded, so a failure comes back. What a run can't reach by small steps, the state machine beside this file looks for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.positions import At
from schemas.sessions import (
    BoxEntry,
    BoxState,
    DropEntry,
    DropReceived,
    EndConnection,
    PutEntry,
    PutReceived,
    PutSubscription,
    RemoveSession,
    ReserveBlock,
    SetEntry,
    Subscription,
    TrimBox,
)
from streams.store import Change, CommitResult, FinishReplayed, Store
from tests.contract.store_making import DATABASES, NOW, claimed, made, record

PLACES = [At(0, 0, 0), At(0, 0, 1), At(0, 1, 0), At(0, 1, 1), At(1, 0, 0)]
STATES = [BoxState.QUEUED, BoxState.QUEUED, BoxState.QUEUED, BoxState.IN_FLIGHT, BoxState.RELEASED, BoxState.DONE]


class Mill:
    """Makes changes of two boxes, mostly of one; epochs are sometimes old."""

    def __init__(self, seed: int, session: int, epoch: int, mailbox: int) -> None:
        self.random = random.Random(seed)
        self.boxes = [(session, epoch), (session, epoch), (session, epoch), (session, 0), (session, epoch - 1), (mailbox, 0)]
        self.session = session
        self.number = 0

    def commit(self) -> list[Change]:
        return [self.change() for _ in range(self.random.randint(1, 14))]

    def change(self) -> Change:
        weights = {self.put: 40, self.set: 15, self.drop: 12, self.trim: 20, self.other: 10}
        made_by: Callable[[], Change] = self.random.choices(list(weights), list(weights.values()))[0]
        return made_by()

    def put(self) -> Change:
        self.number += 1
        state = self.random.choice(STATES)
        found = BoxEntry(self.random.choice(PLACES), record(self.number), self.random.randint(0, 2), state=state, packet_id=self.number % 9)
        return PutEntry(*self.random.choice(self.boxes), found)

    def set(self) -> Change:
        return SetEntry(*self.random.choice(self.boxes), self.random.choice(PLACES), self.random.choice(STATES), self.random.randint(1, 9))

    def drop(self) -> Change:
        return DropEntry(*self.random.choice(self.boxes), self.random.choice(PLACES))

    def trim(self) -> Change:
        return TrimBox(*self.random.choice(self.boxes), self.random.randint(0, 3))

    def other(self) -> Change:
        session, epoch = self.random.choice(self.boxes[:5])
        filter_ = self.random.choice("ab")
        choices: list[Change] = [
            FinishReplayed(self.random.choice(PLACES)),
            PutSubscription(session, epoch, Subscription(filter_, self.random.randint(0, 2))),
            PutReceived(session, self.random.randint(1, 3), self.random.choice((0, 0, 7))),
            DropReceived(session, self.random.randint(1, 3)),
            EndConnection(session, epoch, self.random.randint(1, 9), 0),
            ReserveBlock(session, epoch, self.random.randint(1, 9)),
        ]
        return self.random.choice(choices)


async def _everything(store: Store, boxes: set[int]) -> object:
    """The state of every entry comes from a claim's ``in_flight`` and the QUEUED ones; DONE ones are looked for by putting over them."""
    return await store.sessions(0, 9), [await store.entries(box, None, 99) for box in sorted(boxes)], await store.counts()


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("seed", range(6))
async def test_the_database_is_as_the_reference_after_every_transaction(seed: int, kind: str, tmp_path: Path) -> None:
    async with made(kind, tmp_path) as database, made("memory", tmp_path) as reference:
        stores = (database, reference)
        states = [(await claimed(store), await store.mailbox("other")) for store in stores]
        assert states[0] == states[1]
        (session, box), *_ = states
        mill = Mill(seed, session.id, session.epoch, box)
        for turn in range(120):
            if turn % 5 == 4:
                claims = [await claimed(store) for store in stores]
                assert claims[0] == claims[1]
                mill = Mill(seed * 1000 + turn, session.id, claims[0].epoch, box)
            commits = [mill.commit() for _ in range(mill.random.randint(1, 4))]
            outcomes: list[list[CommitResult]] = [await asyncio.gather(*(store.commit(changes) for changes in commits)) for store in stores]
            for written, expected in zip(*outcomes, strict=True):
                assert written.stale == expected.stale
                trimmed = dict(expected.trimmed)
                # put again after it was trimmed, and trimmed again: the reference counts two
                assert all(0 < count <= trimmed[number] for number, count in written.trimmed)
                assert {number for number, _ in written.trimmed} == set(trimmed)
            assert await _everything(database, {session.id, box}) == await _everything(reference, {session.id, box})


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_session_that_ends_amid_a_commit(kind: str, tmp_path: Path) -> None:
    """What was put before its end goes with it, what comes after is stale, all inside one transaction."""
    async with made(kind, tmp_path) as database, made("memory", tmp_path) as reference:
        for store in (database, reference):
            session = await claimed(store)
            puts: list[Change] = [PutEntry(session.id, 1, BoxEntry(at, record(number), 1)) for number, at in enumerate(PLACES)]
            ends: list[Change] = [PutSubscription(session.id, 1, Subscription("a", 1)), PutReceived(session.id, 4), RemoveSession(session.id, 1)]
            result = await store.commit([*puts, *ends, *puts])
            assert [(stale.session, stale.epoch) for stale in result.stale] == [(session.id, 1)]
            assert await _everything(store, {session.id}) == ([], [[]], await store.counts())
            assert (await store.counts()).entries == 0
            again = await claimed(store, now=NOW)
            assert (again.subscriptions, again.received, again.queued) == ((), (), 0)
