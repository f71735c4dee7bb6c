"""Two stores on one PostgreSQL database, as two nodes have them: the newer epoch's writes count, and nobody undoes another's work.

One store's transaction is held open where the other's would do harm. Whether that one waits is asked of PostgreSQL, not of a clock.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from bridges.database import bodies, sweeps
from bridges.database.claims import claim, next_number, open_mailbox
from bridges.database.locks import learn_epochs
from bridges.database.store import DatabaseStore
from bridges.database.worker import Transaction
from schemas.errors import StoreBusy, StoreError
from schemas.sessions import BoxState, DropEntry, EndConnection, PutEntry, SessionState, SetEntry
from streams.store import BODY_MS, Stale, Swept
from tests.contract.store_making import MANY, NOW, claimed, entry, place, put, queued
from tests.support.postgresql import fresh

Work = Callable[[Transaction], Any]


@pytest.fixture
def url() -> str:
    return fresh()


@pytest.fixture
async def one(url: str) -> AsyncIterator[DatabaseStore]:
    store = DatabaseStore.connect(url, asyncio.get_running_loop())
    yield store
    await store.close()


@pytest.fixture
async def two(url: str) -> AsyncIterator[DatabaseStore]:
    store = DatabaseStore.connect(url, asyncio.get_running_loop())
    yield store
    await store.close()


class Held:
    """A transaction of a store that does its work, stands still, and commits when it is let go."""

    def __init__(self, store: DatabaseStore, work: Work, then: Work | None = None) -> None:
        self._done, self._go = threading.Event(), threading.Event()
        self._work, self._then = work, then
        self.outcome = store._worker.call(self._run)

    def _run(self, transaction: Transaction) -> Any:
        result = self._work(transaction)
        self._done.set()
        assert self._go.wait(20)
        return self._then(transaction) if self._then else result

    async def begun(self) -> Held:
        waiting = asyncio.ensure_future(asyncio.to_thread(self._done.wait, 20))
        await asyncio.wait([self.outcome, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert self._done.is_set(), self.outcome
        return self

    async def go(self) -> Any:
        self._go.set()
        return await self.outcome


@pytest.fixture
def until_waiting(url: str) -> Callable[[Awaitable[Any]], Awaitable[asyncio.Future[Any]]]:
    """Asks, and returns once PostgreSQL says that somebody waits for a lock."""

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").fetchall():
                threading.Event().wait(0.005)

    async def ask(asked: Awaitable[Any]) -> asyncio.Future[Any]:
        future = asyncio.ensure_future(asked)
        await asyncio.wait_for(asyncio.to_thread(look), 10)
        assert not future.done()
        return future

    return ask


UntilWaiting = Callable[[Awaitable[Any]], Awaitable[asyncio.Future[Any]]]


def _claim(store: DatabaseStore, client: str = "c1", *, clean_start: bool = False) -> Work:
    return lambda transaction: claim(
        transaction.connection,
        transaction.epochs,
        store._connections,
        client,
        "p1",
        clean_start=clean_start,
        expiry=3600,
        now=NOW,
        limit=MANY,
        owner=0,
        told=transaction.told,
    )


def _commit(*changes: Any) -> Work:
    def work(transaction: Transaction) -> None:
        learn_epochs(transaction.connection, transaction.epochs, {change.box for change in changes})
        for change in changes:
            transaction.changes.put_entry(change, None)  # type: ignore[arg-type]
        transaction.changes.flush()

    return work


async def test_a_write_that_meets_a_claim_waits_for_it_and_is_stale(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    session = await claimed(one)
    claiming = await Held(two, _claim(two)).begun()
    late = await until_waiting(one.commit([PutEntry(session.id, session.epoch, entry(1))]))
    assert (await claiming.go()).epoch == session.epoch + 1
    assert (await late).stale == (Stale(session.id, session.epoch),)
    assert await queued(two, session.id) == []


async def test_a_claim_that_meets_a_write_waits_for_it_and_has_it(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    session = await claimed(one)
    writing = await Held(one, _commit(PutEntry(session.id, session.epoch, entry(1)))).begun()
    claiming = await until_waiting(claimed(two))
    await writing.go()
    assert (await claiming).queued == 1
    assert (await one.commit([PutEntry(session.id, session.epoch, entry(2))])).stale


async def test_a_session_that_two_make_is_one(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    making = await Held(one, _claim(one)).begun()
    other = await until_waiting(claimed(two))
    first: SessionState = await making.go()
    second: SessionState = await other
    assert (second.id, second.epoch, second.present) == (first.id, first.epoch + 1, True)
    assert (await one.counts()).sessions == 1


async def test_a_claim_that_waited_takes_the_session_that_is_there_then(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    old = await claimed(one)
    replacing = await Held(one, _claim(one, clean_start=True)).begun()
    other = await until_waiting(claimed(two))
    new: SessionState = await replacing.go()
    found: SessionState = await other
    assert new.id != old.id
    assert (found.id, found.epoch, found.present) == (new.id, new.epoch + 1, True)


async def test_no_two_claims_have_one_epoch(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    """Also of a session that was not known when the transaction took its locks."""
    session = await claimed(one)
    claiming = await Held(one, _claim(one)).begun()
    other = await until_waiting(two._worker.call(_claim(two)))
    assert [(await claiming.go()).epoch, (await other).epoch] == [session.epoch + 1, session.epoch + 2]


async def test_a_mailbox_that_two_make_is_one(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    making = await Held(one, lambda transaction: open_mailbox(transaction.connection, transaction.epochs, "c1")).begun()
    other = await until_waiting(two.mailbox("c1"))
    assert await making.go() == await other
    assert len(await one.mailboxes()) == 1


async def _sweep(store: DatabaseStore, now: int = NOW, *, per_box: int = 1000, age: int = 10**6) -> Swept:
    return await store.sweep(now, entries_per_box=per_box, entries_total=10**6, entry_age=age, limit=100)


class Pause:
    """In the place of a function: its first call about something, which its last argument says, waits, having said so."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._begun, self._go = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if arguments[-1] and not self._begun.is_set():
            self._begun.set()
            assert self._go.wait(20)
        return self._function(*arguments, **options)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 20)

    def go(self) -> None:
        self._go.set()


@pytest.fixture
def found_then(monkeypatch: pytest.MonkeyPatch) -> Pause:
    """Between what a sweep finds and what it locks."""
    pause = Pause(sweeps.hold_free)
    monkeypatch.setattr(sweeps, "hold_free", pause)
    return pause


async def test_a_session_that_is_claimed_while_it_is_swept_stays(one: DatabaseStore, two: DatabaseStore, found_then: Pause) -> None:
    session = await claimed(one)
    await one.commit([EndConnection(session.id, session.epoch, 1, NOW)])
    sweeping = asyncio.ensure_future(_sweep(one))
    await found_then.begun()
    again = await claimed(two, now=NOW - 1)
    found_then.go()
    assert (await sweeping).sessions == ()
    assert (await two.commit([PutEntry(again.id, again.epoch, entry(1))])).stale == ()


async def test_a_delivery_that_begins_while_it_is_swept_stays(one: DatabaseStore, two: DatabaseStore, found_then: Pause) -> None:
    session = await claimed(one)
    await put(one, session, entry(1), entry(2))
    sweeping = asyncio.ensure_future(_sweep(one, NOW + 10_000, age=1))
    await found_then.begun()
    await two.commit([SetEntry(session.id, session.epoch, place(1), BoxState.IN_FLIGHT, 7)])
    found_then.go()
    assert (await sweeping).aged_entries == 1
    assert [each.at for each in (await claimed(two)).in_flight] == [place(1)]
    assert (await two.counts()).entries == 0


async def test_a_box_that_was_emptied_while_it_is_swept_keeps_what_its_limit_allows(
    one: DatabaseStore, two: DatabaseStore, found_then: Pause
) -> None:
    session = await claimed(one)
    await put(one, session, *(entry(number) for number in range(6)))
    sweeping = asyncio.ensure_future(_sweep(one, per_box=4))
    await found_then.begun()
    await two.commit([DropEntry(session.id, session.epoch, place(number)) for number in range(4)])
    found_then.go()
    assert (await sweeping).over_limit_entries == 0
    assert await queued(two, session.id) == [place(4), place(5)]


async def test_a_sweep_passes_by_what_is_in_use(one: DatabaseStore, two: DatabaseStore) -> None:
    used, idle = await claimed(one, "c1"), await claimed(one, "c2")
    for session in (used, idle):
        await put(one, session, entry(1))
        await one.commit([EndConnection(session.id, session.epoch, 1, NOW)])
    using = await Held(two, _commit(PutEntry(used.id, used.epoch, entry(2)))).begun()
    assert (await _sweep(one)).sessions == ((idle.id, "c2"),)
    await using.go()
    assert (await _sweep(one)).sessions == ((used.id, "c1"),)


async def test_one_sweeps_at_a_time(one: DatabaseStore, two: DatabaseStore) -> None:
    session = await claimed(one)
    await one.commit([EndConnection(session.id, session.epoch, 1, NOW)])
    alone = await Held(two, lambda transaction: sweeps._ALONE.number(transaction.connection)).begun()
    assert await _sweep(one) == Swept()
    await alone.go()
    assert len((await _sweep(one)).sessions) == 1


async def test_a_body_that_is_about_to_be_referred_to_stays(one: DatabaseStore, two: DatabaseStore) -> None:
    session = await claimed(one)
    await put(one, session, entry(1))
    await one.commit([DropEntry(session.id, 0, place(1))])
    writing = await Held(one, lambda transaction: bodies.put_bodies(transaction.connection, [(entry(1).record.id, 0, b"")])).begun()
    assert (await _sweep(two, NOW + BODY_MS)).bodies == 0
    await writing.go()
    assert (await _sweep(two, NOW + BODY_MS)).bodies == 1


async def test_a_body_that_goes_before_it_is_referred_to_is_put_again(
    one: DatabaseStore, two: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await claimed(one)
    await put(one, session, entry(1))
    await one.commit([DropEntry(session.id, 0, place(1))])
    pause = Pause(bodies._KEEP.all)
    monkeypatch.setattr(bodies._KEEP, "all", pause)
    writing = asyncio.ensure_future(put(one, session, entry(1)))
    await pause.begun()
    assert (await _sweep(two, NOW + BODY_MS)).bodies == 1
    pause.go()
    await writing
    assert await two.entries(session.id, None, 10) == [entry(1)]


async def test_transactions_that_wait_for_each_other_are_done_again_and_once(one: DatabaseStore, two: DatabaseStore) -> None:
    first, second = await claimed(one, "c1"), await claimed(one, "c2")
    before = await one.next_epoch()

    def taking(mine: int, other: int) -> tuple[Work, Work]:
        return (
            lambda transaction: learn_epochs(transaction.connection, transaction.epochs, [mine]),
            lambda transaction: (
                learn_epochs(transaction.connection, transaction.epochs, [other]),
                next_number(transaction.connection, "node epoch"),
            )[1],
        )

    held = [await Held(one, *taking(first.id, second.id)).begun(), await Held(two, *taking(second.id, first.id)).begun()]
    assert sorted(await asyncio.gather(*(each.go() for each in held))) == [before + 1, before + 2]
    assert (one.failures, two.failures) == (0, 0)


async def test_a_node_that_stands_still_loses_its_transaction(one: DatabaseStore, url: str) -> None:
    session = await claimed(one)
    frozen = DatabaseStore.connect(url, asyncio.get_running_loop())
    await frozen._worker.call(lambda transaction: transaction.connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 50"))

    def epoch(transaction: Transaction) -> int:
        learn_epochs(transaction.connection, transaction.epochs, [session.id])
        return transaction.epochs[session.id]

    standing = await Held(frozen, epoch).begun()
    again = await claimed(one)
    assert await standing.go() == again.epoch  # done again on another connection, and the session is another's by now
    assert frozen.failures == 0
    assert (await frozen.commit([PutEntry(session.id, session.epoch, entry(1))])).stale
    assert await queued(one, again.id) == []
    await frozen.close()


async def test_a_row_that_another_node_holds_for_long_is_told_apart_from_a_failing_store(one: DatabaseStore, two: DatabaseStore) -> None:
    session = await claimed(one)
    await two._worker.call(lambda transaction: transaction.connection.exec_driver_sql("SET lock_timeout = 50"))
    holding = await Held(one, _commit(PutEntry(session.id, session.epoch, entry(1)))).begun()
    with pytest.raises(StoreBusy):
        await claimed(two)
    await holding.go()
    assert (await claimed(two)).id == session.id


@pytest.mark.parametrize("where", ["before", "at the commit"])
async def test_a_connection_that_the_server_ends_is_replaced_where_it_is_certain_that_nothing_was_committed(
    one: DatabaseStore, two: DatabaseStore, where: str
) -> None:
    session = await claimed(one)
    pid = await one._worker.call(lambda transaction: transaction.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    def end(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")

    def learn(transaction: Transaction) -> None:
        transaction.epochs.clear()
        learn_epochs(transaction.connection, transaction.epochs, [session.id])

    standing = await Held(one, learn, learn if where == "before" else None).begun()
    await two._worker.call(end)
    if where == "before":
        await standing.go()
        assert one.failures == 0
    else:
        with pytest.raises(StoreError) as caught:
            await standing.go()
        assert caught.value.retryable
    assert not (await one.commit([PutEntry(session.id, session.epoch, entry(1))])).stale
