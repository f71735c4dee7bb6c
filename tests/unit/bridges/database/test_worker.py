"""Transactions are shared, failures are told and stay with those they belong to, and a close finishes what was asked for."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from bridges.database import worker
from bridges.database.store import DatabaseStore
from schemas.errors import StoreError
from schemas.positions import At
from schemas.sessions import PutEntry
from tests.contract.store_making import claimed, entry, queued


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DatabaseStore]:
    opened = DatabaseStore.open(tmp_path / "store.db", asyncio.get_running_loop())
    yield opened
    await opened.close()


Hold = Callable[[], threading.Event]


@pytest.fixture
def hold(store: DatabaseStore) -> Hold:
    """Keeps the store's thread busy until the event is set, so that what is asked for meanwhile shares the next transaction."""

    def held() -> threading.Event:
        begun, released = threading.Event(), threading.Event()

        def work(_: object) -> None:
            begun.set()
            released.wait(10)

        store._worker.call(work)
        assert begun.wait(10)
        return released

    return held


def _count(store: DatabaseStore, what: str) -> list[object]:
    found: list[object] = []
    event.listen(store._engine, what, found.append)
    return found


async def test_what_is_asked_for_during_a_transaction_shares_the_next(store: DatabaseStore, hold: Hold) -> None:
    session = await claimed(store)
    commits = _count(store, "commit")
    told: list[int] = []
    settle = store._worker._settle
    store._worker._settle = lambda group, error: (told.append(len(group)), settle(group, error))  # type: ignore[method-assign]
    released = hold()
    asked = [store.commit([PutEntry(session.id, 1, entry(number))]) for number in range(50)]
    read = asyncio.ensure_future(store.entries(session.id, None, 100))
    await asyncio.sleep(0)
    asked += [store.commit([PutEntry(session.id, 1, entry(number))]) for number in range(50, 60)]
    released.set()
    await asyncio.gather(*asked)
    assert len(await read) == 50
    assert len(commits) == 2
    assert told == [1, 61]


async def test_whether_this_node_lives_is_asked_before_what_waits_and_fails_with_none_of_it(store: DatabaseStore, hold: Hold) -> None:
    epoch = await store.next_epoch()
    await store.cluster.join("node", epoch, "")
    told: list[tuple[int, bool]] = []
    settle = store._worker._settle
    store._worker._settle = lambda group, error: (told.append((len(group), error is None)), settle(group, error))  # type: ignore[method-assign]
    released = hold()
    failing = [store._worker.call(_refuse), store._worker.call(lambda _: None)]
    renewing = [asyncio.ensure_future(store.cluster.renew(epoch)) for _ in range(2)]
    await asyncio.sleep(0)
    last = store._worker.call(lambda _: None)
    closing = asyncio.ensure_future(store._worker.close())
    await asyncio.sleep(0)
    released.set()
    assert await asyncio.gather(*renewing) == [True, True]
    await asyncio.gather(last, closing)
    assert told == [(1, True), (2, True), (2, False), (1, True)]
    assert all(isinstance(each.exception(), StoreError) for each in failing)


async def test_a_transaction_has_a_limit_and_a_commit_is_never_divided(store: DatabaseStore, hold: Hold) -> None:
    session = await claimed(store)
    commits = _count(store, "commit")
    released = hold()
    asked = [store.commit([PutEntry(session.id, 1, entry(turn * 100 + number)) for number in range(100)]) for turn in range(30)]
    asked.append(store.commit([PutEntry(session.id, 1, entry(5000 + number)) for number in range(3000)]))
    released.set()
    await asyncio.gather(*asked)
    full = math.ceil(worker.GROUP_CHANGES / 100)
    assert len(commits) == 1 + math.ceil(30 / full)


async def test_a_failure_is_told_to_all_of_its_transaction_and_to_nobody_else(store: DatabaseStore, hold: Hold) -> None:
    session = await claimed(store)
    released = hold()
    asked = [store.commit([PutEntry(session.id, 1, entry(number))], {"node": At(0, number, 0)}) for number in range(5)]
    claim = asyncio.ensure_future(claimed(store))
    await asyncio.sleep(0)

    commits = iter([None, sqlite3.OperationalError("disk I/O error")])

    @event.listens_for(store._engine, "commit")
    def fail_the_second(_: object) -> None:
        if (error := next(commits, None)) is not None:
            raise error

    released.set()
    outcomes = await asyncio.gather(*asked, claim, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the store failed: disk I/O error"] * 6
    assert all(isinstance(outcome, StoreError) and outcome.retryable for outcome in outcomes)
    assert store.failures == 6
    assert await queued(store, session.id) == []
    assert await store.positions() == {}
    assert (await claimed(store)).epoch == session.epoch + 1
    assert store.failures == 6


def _refuse(_: object) -> None:
    raise sqlite3.OperationalError("disk I/O error")


async def test_a_failure_that_nobody_waits_for_makes_no_noise(store: DatabaseStore, caplog: pytest.LogCaptureFixture) -> None:
    session = await claimed(store)
    noise: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    event.listen(store._engine, "commit", _refuse, once=True)
    store.commit([PutEntry(session.id, 1, entry(1))])
    with pytest.raises(StoreError):
        await store.counts()
    await store.counts()
    gc.collect()
    await asyncio.sleep(0)
    assert noise == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert store.failures >= 1


async def test_a_call_that_can_t_be_done_fails_alone(store: DatabaseStore, hold: Hold, caplog: pytest.LogCaptureFixture) -> None:
    session = await claimed(store)
    released = hold()
    asked = [store.commit([PutEntry(session.id, 1, entry(1))])]
    asked.append(store.commit([PutEntry(session.id, 1, entry(2)), PutEntry(2**70, 1, entry(2))]))
    asked.append(store.commit([PutEntry(session.id, 1, entry(3))]))
    released.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, True, False]
    assert [at.index for at in await queued(store, session.id)] == [1, 3]
    assert [record.message for record in caplog.records] == ["store-call-failed"]


async def test_giving_up_the_wait_does_not_undo_the_work(store: DatabaseStore, hold: Hold) -> None:
    session = await claimed(store)
    released = hold()
    waiting = asyncio.ensure_future(asyncio.wait_for(store.commit([PutEntry(session.id, 1, entry(1))]), 10))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(await queued(store, session.id)) == 1


async def test_what_waits_is_bounded(store: DatabaseStore, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await claimed(store)
    released = hold()
    monkeypatch.setattr(worker, "PENDING_CHANGES", worker.CALL_COST + 3)
    asked = [store.commit([PutEntry(session.id, 1, entry(number))]) for number in range(4)]
    with pytest.raises(StoreError, match="19 changes are waiting for the store"):
        await asked[3]
    released.set()
    await asyncio.gather(*asked[:3])
    await store.commit([PutEntry(session.id, 1, entry(9))])
    assert len(await queued(store, session.id)) == 4


async def test_a_close_finishes_what_was_asked_for(tmp_path: Path) -> None:
    store = DatabaseStore.open(tmp_path / "store.db", asyncio.get_running_loop())
    session = await claimed(store)
    for number in range(2000):
        store.commit([PutEntry(session.id, 1, entry(number))])
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.commit([PutEntry(session.id, 1, entry(1))])
    with pytest.raises(StoreError, match="closed"):
        await store.counts()
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]  # the WAL went into it
    again = DatabaseStore.open(tmp_path / "store.db", asyncio.get_running_loop())
    assert (await claimed(again)).queued == 2000
    await again.close()


async def test_the_wal_is_folded_back_as_it_grows(store: DatabaseStore, tmp_path: Path) -> None:
    session = await claimed(store)
    for turn in range(60):
        await store.commit([PutEntry(session.id, 1, entry(turn * 1000 + number)) for number in range(1000)])
    assert (tmp_path / "store.db-wal").stat().st_size < 16 * 1024 * 1024
    assert (tmp_path / "store.db").stat().st_size > 8 * 1024 * 1024


def test_a_loop_that_is_gone_does_not_keep_the_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> DatabaseStore:
        return DatabaseStore.open(tmp_path / "store.db", loop)

    store = loop.run_until_complete(begin())
    loop.run_until_complete(store.counts())
    loop.close()
    store._worker._calls.put(None)
    store._worker._thread.join(10)
    assert not store._worker._thread.is_alive()
    assert "store-loop-closed" in caplog.messages
