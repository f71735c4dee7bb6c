"""The medium fails: full, refusing writes, without room for the WAL. Calls say so, nothing is half applied, and it mends by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from bridges.database.opening import open_database
from bridges.database.store import DatabaseStore
from schemas.errors import StartError, StoreError
from schemas.positions import At
from schemas.sessions import BoxEntry, PutEntry
from tests.contract.store_making import claimed, entry, place, put, queued, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[DatabaseStore]:
    opened = DatabaseStore.open(path, asyncio.get_running_loop())
    yield opened
    await opened.close()


@asynccontextmanager
async def _full(store: DatabaseStore) -> AsyncIterator[None]:
    """Every connection finds that the file can't grow."""

    def limit(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1").close()  # which means: as it is

    await store._worker.call(lambda transaction: limit(transaction.connection.connection.driver_connection))
    event.listen(store._engine, "connect", limit)
    yield
    event.remove(store._engine, "connect", limit)
    await store._worker.call(lambda transaction: transaction.connection.exec_driver_sql("PRAGMA max_page_count=1000000"))


@contextmanager
def _no_file_beyond(size: int) -> Iterator[None]:
    """A write past ``size`` of any file fails, as on a medium that gives errors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _large(count: int) -> list[BoxEntry]:
    return [BoxEntry(place(number), record(number, payload=bytes(3000)), 1) for number in range(count)]


async def test_a_full_disk_refuses_and_service_resumes(store: DatabaseStore) -> None:
    session = await claimed(store)
    await put(store, session, entry(1000))
    await store.commit([], {"node": At(0, 1, 0)})
    async with _full(store):
        for _ in range(3):
            with pytest.raises(StoreError, match="the store failed: database or disk is full"):
                await store.commit([PutEntry(session.id, session.epoch, each) for each in _large(50)], {"node": At(0, 2, 0)})
        assert await queued(store, session.id) == [place(1000)]
        assert await store.positions() == {"node": {0: At(0, 1, 0)}}
    await put(store, session, *_large(50))
    assert len(await queued(store, session.id)) == 51
    assert (await claimed(store)).queued == 51
    assert store.failures == 3


async def test_a_failed_write_refuses_and_service_resumes(store: DatabaseStore, path: Path) -> None:
    session = await claimed(store)
    await put(store, session, entry(1000))
    wal = path.with_name("store.db-wal")
    with _no_file_beyond(wal.stat().st_size + 8192):
        for _ in range(2):
            with pytest.raises(StoreError, match="the store failed: (disk I/O error|database or disk is full)"):
                await store.commit([PutEntry(session.id, session.epoch, each) for each in _large(100)], {"node": At(0, 2, 0)})
        assert await queued(store, session.id) == [place(1000)]
    await put(store, session, *_large(100))
    assert len(await queued(store, session.id)) == 101
    assert await store.positions() == {}


async def test_what_failed_did_not_happen_after_a_restart_either(path: Path) -> None:
    loop = asyncio.get_running_loop()
    store = DatabaseStore.open(path, loop)
    session = await claimed(store)
    async with _full(store):
        with pytest.raises(StoreError):
            await store.commit([PutEntry(session.id, session.epoch, each) for each in _large(50)], {"node": At(0, 2, 0)})
    await store.close()
    again = DatabaseStore.open(path, loop)
    assert await again.positions() == {}
    assert (await claimed(again)).queued == 0
    await again.close()


def test_a_folder_without_room_for_the_wal_is_named(path: Path) -> None:
    """As in a folder that can't be written: the file is there, what belongs beside it can't be made."""
    path.with_name("store.db-wal").mkdir()
    with pytest.raises(StartError, match=r"store\.db: the database [^\n]*$"):
        open_database(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_can_t_be_written_is_named(path: Path) -> None:
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StartError, match=r"store\.db: the database can't be opened: Permission denied; name a folder that can be written"):
            open_database(path)
    finally:
        path.parent.chmod(mode)


def test_a_medium_that_refuses_to_make_the_file_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("bridges.database.opening.os.open", refuse)
    with pytest.raises(StartError, match=r"store\.db: the database can't be opened: Read-only file system; name a folder that can be written"):
        open_database(path)
    assert list(path.parent.iterdir()) == []
