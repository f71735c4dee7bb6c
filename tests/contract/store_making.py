"""Makes stores and what is put into them. A store of another kind is added to ``KINDS`` and to ``made``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridges.database.store import DatabaseStore
from schemas.positions import At
from schemas.records import Kind, Record
from schemas.sessions import BoxEntry, BoxState, PutEntry, SessionState
from streams.memory.store import MemoryStore
from streams.store import Store
from tests.support.postgresql import fresh

DATABASES = ("database", "postgresql")
"""SQLite, and PostgreSQL in a database of the test's own."""
KINDS = ("memory", *DATABASES)
NOW = 1_700_000_000_000
MANY = 1_000_000


def opened(kind: str, folder: Path, loop: asyncio.AbstractEventLoop) -> DatabaseStore:
    """Of one of ``DATABASES``; what was there before in the folder is there again."""
    if kind == "database":
        return DatabaseStore.open(folder / "store.db", loop)
    note = folder / "postgresql.url"
    if not note.exists():
        note.write_text(fresh())
    return DatabaseStore.connect(note.read_text(), loop)


@asynccontextmanager
async def made(kind: str, folder: Path) -> AsyncIterator[Store]:
    store: Store = MemoryStore() if kind == "memory" else opened(kind, folder, asyncio.get_running_loop())
    try:
        yield store
    finally:
        await store.close()


def record(number: int, *, time: int = NOW, topic: str = "plant/1/state", payload: bytes = b"", expires_at: int = 0) -> Record:
    """The same number and time give the same record."""
    identity = time.to_bytes(6, "big") + number.to_bytes(10, "big")
    return Record(
        kind=Kind.PUBLISH,
        id=identity,
        time=time,
        client="sender",
        topic=topic,
        payload=payload or b"payload %d" % number,
        qos=1,
        expires_at=expires_at,
    )


def entry(number: int, *, qos: int = 1, state: int = BoxState.QUEUED, packet_id: int = 0, at: At | None = None, time: int = NOW) -> BoxEntry:
    """By default at the place that its number says."""
    return BoxEntry(at or place(number), record(number, time=time), qos, state=state, packet_id=packet_id)


def place(number: int) -> At:
    """Ten records a frame."""
    return At(0, number // 10, number % 10)


async def claimed(
    store: Store, client: str = "c1", *, principal: str = "p1", clean_start: bool = False, expiry: int = 3600, now: int = NOW
) -> SessionState:
    state = await store.claim(client, principal, clean_start=clean_start, expiry=expiry, now=now, limit=MANY)
    assert isinstance(state, SessionState)
    return state


async def put(store: Store, session: SessionState, *entries: BoxEntry) -> None:
    result = await store.commit([PutEntry(session.id, session.epoch, each) for each in entries])
    assert not result.stale


async def queued(store: Store, box: int) -> list[At]:
    """Where all QUEUED entries lie, read in pages."""
    found: list[At] = []
    while page := await store.entries(box, found[-1] if found else None, 3):
        found += [each.at for each in page]
    return found
