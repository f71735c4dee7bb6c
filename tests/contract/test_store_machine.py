"""Any sequence of calls leaves the database and the reference in the same state, in one transaction or in many, restarts between or not.

Two figures may differ: an entry that is put again after it was trimmed is counted once or twice, and a body that no
transaction left referred to is never written.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.sessions import (
    BoxEntry,
    BoxState,
    DropEntry,
    DropReceived,
    DropSubscription,
    EndConnection,
    PutEntry,
    PutReceived,
    PutRetained,
    PutSubscription,
    RemoveSession,
    ReserveBlock,
    SessionState,
    SetEntry,
    Subscription,
    TrimBox,
)
from streams.memory.store import MemoryStore
from streams.store import CommitResult, DropChannel, FinishReplayed, OpenChannel, PutChannel, PutStatus, Store, Swept
from tests.contract.store_making import NOW, opened, record

SECOND = 1000
CLIENTS = st.sampled_from(["c1", "c2", "c3"])
PRINCIPALS = st.sampled_from(["p1", "p1", "p1", "p2"])
NUMBERS = st.sampled_from([1, 1, 1, 1, 2, 2, 3, 4, 5])
"""Two sessions and a mailbox are there from the beginning, and one box is where most happens."""
EPOCHS = st.sampled_from([0, 0, 0, 0, 1, 2])
PLACES = st.sampled_from([At(0, 0, 0), At(0, 0, 1), At(0, 1, 0), At(0, 1, 1), At(0, 1, 2), At(1, 0, 0)])
STATES = st.sampled_from([BoxState.QUEUED, *BoxState])
TIMES = st.integers(-3, 3).map(lambda seconds: NOW + seconds * SECOND)


def _record(number: int, time: int) -> Any:
    return record(number, time=time, topic=f"plant/{number}", expires_at=time + 5 * SECOND if number % 3 == 0 else 0)


def _entry(at: At, number: int, time: int, qos: int, state: int, packet_id: int) -> BoxEntry:
    return BoxEntry(at, _record(number, time), qos, number % 2 == 0, (number,) * (number % 3), state, packet_id)


ENTRIES = st.builds(
    _entry,
    PLACES,
    st.integers(1, 8),
    TIMES,
    st.integers(1, 2),
    STATES,
    st.integers(0, 3),
)
FILTERS = st.sampled_from(["plant/#", "plant/+", "$share/g/#"])
TOPICS = st.sampled_from(["plant/1", "plant/2", "plant", "$SYS/x"])
RETAINED = st.builds(
    lambda topic, number, time, gone: PutRetained(topic, time, _record(number, time).id, None if gone else _record(number, time)),
    TOPICS,
    st.integers(1, 8),
    TIMES,
    st.booleans(),
)
CHANNELS = st.builds(lambda name, due: OpenChannel(name, "c1", 1, "p1", "", 1, NOW, 0, None, due), st.sampled_from("abc"), st.integers(0, 2))
PUT = st.builds(PutEntry, NUMBERS, EPOCHS, ENTRIES)
BOX_CHANGES = st.one_of(
    PUT,
    PUT,
    PUT,
    st.builds(SetEntry, NUMBERS, EPOCHS, PLACES, STATES, st.integers(0, 3)),
    st.builds(DropEntry, NUMBERS, EPOCHS, PLACES),
    st.builds(TrimBox, NUMBERS, EPOCHS, st.integers(0, 4)),
)
OTHER_CHANGES = st.one_of(
    st.builds(FinishReplayed, PLACES),
    st.builds(PutSubscription, NUMBERS, EPOCHS, st.builds(Subscription, FILTERS, st.integers(0, 2))),
    st.builds(DropSubscription, NUMBERS, EPOCHS, FILTERS),
    st.builds(EndConnection, NUMBERS, EPOCHS, st.integers(0, 5), st.one_of(st.just(0), TIMES)),
    st.builds(RemoveSession, NUMBERS, EPOCHS),
    st.builds(ReserveBlock, NUMBERS, EPOCHS, st.sampled_from([1025, 2049])),
    st.builds(PutReceived, NUMBERS, st.integers(1, 3)),
    st.builds(DropReceived, NUMBERS, st.integers(1, 3)),
    RETAINED,
    st.builds(PutChannel, CHANNELS),
    st.builds(DropChannel, st.sampled_from("abc")),
    st.builds(lambda client, online: PutStatus(ClientStatus(client, online, "", "", NOW), b"x"), CLIENTS, st.booleans()),
)
CHANGES = st.one_of(st.lists(BOX_CHANGES, min_size=4, max_size=20), st.lists(st.one_of(BOX_CHANGES, OTHER_CHANGES), max_size=12))
POSITIONS = st.dictionaries(st.sampled_from(["router", "node"]), PLACES, max_size=2)

Call = Callable[[Store], Awaitable[Any]]


def _claim(client: str, principal: str, clean_start: bool, expiry: int, time: int) -> Call:
    return lambda store: store.claim(client, principal, clean_start=clean_start, expiry=expiry, now=time, limit=3)


CALLS = st.one_of(
    st.builds(lambda changes, positions: lambda store: store.commit(changes, positions), CHANGES, POSITIONS),
    st.builds(lambda changes, positions: lambda store: store.commit(changes, positions), CHANGES, POSITIONS),
    st.builds(_claim, CLIENTS, PRINCIPALS, st.booleans(), st.sampled_from([0, 5, 60]), TIMES),
    st.builds(lambda client: lambda store: store.mailbox(client), CLIENTS),
    st.builds(lambda box, at: lambda store: store.entries(box, at, 3), NUMBERS, st.one_of(st.none(), PLACES)),
)


def _alike(outcome: Any) -> Any:
    """Without what may differ: the numbers of connections that keep no session, and the figures named above."""
    if isinstance(outcome, SessionState) and not outcome.id:
        return msgspec.structs.replace(outcome, epoch=0)
    if isinstance(outcome, CommitResult):
        return msgspec.structs.replace(outcome, trimmed=tuple(box for box, _ in outcome.trimmed))
    if isinstance(outcome, Swept):
        return msgspec.structs.replace(outcome, bodies=0)
    return outcome


class StoresAgree(RuleBasedStateMachine):
    kind = "database"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.reference = MemoryStore()
        self.database = opened(self.kind, Path(self.folder.name), self.loop)
        self._both(_claim("c1", "p1", False, 60, NOW))
        self._both(_claim("c2", "p1", False, 60, NOW))
        self._both(lambda store: store.mailbox("c1"))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    def _both(self, *calls: Call) -> None:
        """All asked for at once, so that the database takes them into one transaction."""

        async def ask(store: Store) -> list[Any]:
            return [_alike(outcome) for outcome in await asyncio.gather(*(call(store) for call in calls))]

        assert self.loop.run_until_complete(ask(self.database)) == self.loop.run_until_complete(ask(self.reference))

    @rule(calls=st.lists(CALLS, min_size=1, max_size=5))
    def call(self, calls: list[Call]) -> None:
        self._both(*calls)

    @rule(time=st.integers(-2, 9), per_box=st.integers(1, 4), total=st.integers(2, 8), age=st.integers(2, 9), limit=st.integers(2, 9))
    def sweep(self, time: int, per_box: int, total: int, age: int, limit: int) -> None:
        self._both(lambda store: store.sweep(NOW + time * SECOND, entries_per_box=per_box, entries_total=total, entry_age=age, limit=limit))

    @rule()
    def sweep_all_bodies(self) -> None:
        """Whatever is left must not need them."""
        self._both(lambda store: store.sweep(NOW + 10**9, entries_per_box=99, entries_total=99, entry_age=10**7, limit=99))

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.database.close())
        self.database = opened(self.kind, Path(self.folder.name), self.loop)

    @invariant()
    def agree(self) -> None:
        self._both(
            lambda store: store.sessions(0, 99),
            lambda store: store.positions(),
            lambda store: store.channels(),
            lambda store: store.counts(),
            lambda store: store.mailboxes(),
            lambda store: store.retained("#", "", 99),
            lambda store: store.statuses(["c1", "c2", "c3"]),
            *((lambda store, box=box: store.entries(box, None, 99)) for box in range(1, 12)),
        )


class StoresAgreeOnPostgresql(StoresAgree):
    kind = "postgresql"


StoresAgree.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None, derandomize=True, database=None)
StoresAgreeOnPostgresql.TestCase.settings = settings(StoresAgree.TestCase.settings, max_examples=8)
TestStoresAgree = StoresAgree.TestCase
TestStoresAgreeOnPostgresql = StoresAgreeOnPostgresql.TestCase
