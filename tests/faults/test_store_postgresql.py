"""PostgreSQL is killed and restarted under a store: what was acknowledged is there, commits are whole, and nothing happened twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridges.database import postgresql
from bridges.database.store import DatabaseStore
from schemas.errors import StartError, StoreError
from schemas.identities import Secret
from schemas.positions import At
from schemas.sessions import PutEntry, SessionState, TrimBox
from tests.contract.store_making import claimed, entry, put, queued, record
from tests.support.postgresql import Databases, PostgreSQL, fresh

KILLS = 4
ENTRIES = 20
"""In each commit, beside the position that says which commit it was."""


@pytest.fixture
async def store(mortal_postgresql: PostgreSQL) -> AsyncIterator[DatabaseStore]:
    opened = DatabaseStore.connect(mortal_postgresql.url("postgres"), asyncio.get_running_loop())
    yield opened
    await opened.close()


class Writer:
    """Commits in order, one after the other, each again until it is acknowledged, as the gateway does."""

    def __init__(self, store: DatabaseStore, session: SessionState) -> None:
        self._store, self._session = store, session
        self.acknowledged = -1
        self.refused = 0
        self.stop = False
        self.moved = asyncio.Event()

    async def run(self) -> None:
        session, turn = self._session, 0
        while not self.stop:
            changes = [PutEntry(session.id, session.epoch, entry(turn * ENTRIES + n, at=At(0, turn, n))) for n in range(ENTRIES)]
            try:
                result = await self._store.commit(changes, {"node": At(0, turn, 0)})
            except StoreError as error:
                assert error.retryable
                self.refused += 1
                await asyncio.sleep(0.01)
            else:
                assert not result.stale
                self.acknowledged = turn
                turn += 1
            self.moved.set()

    async def beyond(self, turn: int) -> None:
        while self.acknowledged < turn:
            self.moved.clear()
            await asyncio.wait_for(self.moved.wait(), 20)


@pytest.mark.slow
async def test_kills_of_the_server_lose_nothing_and_double_nothing(store: DatabaseStore, mortal_postgresql: PostgreSQL) -> None:
    session = await claimed(store)
    writer = Writer(store, session)
    running = asyncio.ensure_future(writer.run())
    for kill in range(KILLS):
        await writer.beyond(writer.acknowledged + 3 + 7 * kill)
        await asyncio.to_thread(mortal_postgresql.kill_all)
        before = writer.refused
        while writer.refused == before:
            writer.moved.clear()
            await asyncio.wait_for(writer.moved.wait(), 20)
        await asyncio.to_thread(mortal_postgresql.start)
    await writer.beyond(writer.acknowledged + 3)
    writer.stop = True
    await running
    found = []
    while page := await store.entries(session.id, found[-1].at if found else None, 1000):
        found += page
    last = writer.acknowledged
    assert (await store.positions())["node"][0] == At(0, last, 0)
    assert [each.at for each in found] == [At(0, turn, number) for turn in range(last + 1) for number in range(ENTRIES)]
    assert [each.record for each in found] == [record(number) for number in range((last + 1) * ENTRIES)]
    assert (await claimed(store)).queued == (await store.counts()).entries == len(found)


async def test_a_restart_of_the_server_is_survived(store: DatabaseStore, mortal_postgresql: PostgreSQL) -> None:
    """SIGINT ends sessions of the server at once; a store that was idle meanwhile hears of it at its next call."""
    session = await claimed(store)
    await put(store, session, entry(1))
    mortal_postgresql.signal(signal.SIGINT)
    await asyncio.to_thread(mortal_postgresql.wait, 20)
    with pytest.raises(StoreError, match=r"the store failed: [^\n]*$"):
        await store.counts()
    with pytest.raises(StoreError, match=r"the store failed: [^\n]*[Cc]onnection refused"):
        await store.counts()
    await asyncio.to_thread(mortal_postgresql.start)
    assert len(await queued(store, session.id)) == 1


async def test_a_commit_whose_answer_was_lost_is_asked_for_again_and_happens_once(store: DatabaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server commits, and the connection breaks before it can say so."""
    session = await claimed(store)
    await put(store, session, *(entry(number) for number in range(5)))
    changes = [PutEntry(session.id, session.epoch, entry(number)) for number in range(5, 8)]
    worker, committed = store._worker, store._engine.dialect.do_commit

    def lose(connection: object) -> None:
        monkeypatch.undo()
        committed(connection)  # type: ignore[arg-type]
        raise postgresql.psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(store._engine.dialect, "do_commit", lose)
    with pytest.raises(StoreError):
        await store.commit([*changes, TrimBox(session.id, session.epoch, 6)], {"node": At(0, 9, 0)})
    assert worker._connection is None
    assert (await store.commit([*changes, TrimBox(session.id, session.epoch, 6)], {"node": At(0, 9, 0)})).stale == ()
    assert len(await queued(store, session.id)) == (await claimed(store)).queued == 6
    assert (await store.counts()).entries == 6


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StartError, match=r"^postgresql://127\.0\.0\.1/x: the database can't be opened: [^\n]*refused"):
        postgresql.open_postgresql("postgresql://u@127.0.0.1:1/x")


def test_a_database_that_is_not_there_is_named() -> None:
    url = fresh(empty=True)
    with pytest.raises(StartError, match=r'/nowhere: the database can\'t be opened: [^\n]*database "nowhere" does not exist'):
        postgresql.open_postgresql(Databases(url).url("nowhere"))


def test_a_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    server = PostgreSQL("postgresql", tmp_path / "guarded", password="right-secret").start()
    try:
        for wrong in (None, Secret("wrong-secret")):
            with pytest.raises(StartError) as caught:
                postgresql.open_postgresql(server.url("postgres"), wrong)
            assert "password" in str(caught.value) and "wrong-secret" not in str(caught.value)
            assert caught.value.__cause__ is None and caught.value.__suppress_context__
        postgresql.open_postgresql(server.url("postgres"), Secret("right-secret")).dispose()
    finally:
        server.remove()


@pytest.mark.parametrize("url", ["postgresql://u:secret@127.0.0.1/x", "host=127.0.0.1 password=secret"])
def test_a_password_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(StartError, match="store.password_file") as caught:
        postgresql.open_postgresql(url)
    assert "secret" not in str(caught.value)
