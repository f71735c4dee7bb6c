"""What a sweep removes: see ``streams.store.Store.sweep``. Every step finds its rows by an index and removes at most the limit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, null, select, text, update

from bridges.database.changes import DELETE_DOCUMENT
from bridges.database.claims import counter
from bridges.database.ending import remove_session
from bridges.database.entries import DELETE_OLDEST, drop_entries
from bridges.database.sql import Bulk, Prepared, Row, key_is
from bridges.database.tables import bodies, boxes, documents, entries, retained, sessions
from schemas.positions import At
from streams.store import BODY_MS, TOMBSTONE_MS, Swept

LOOKS: Final = 4
"""Boxes and bodies that one sweep looks at, in limits: they are visited in turn, over as many sweeps as it takes."""
ENTRIES_WITH_SESSIONS: Final = 50_000
"""A sweep ends no further session once the boxes of those it ended had so many queued entries."""

ENDING: Final = Prepared(
    select(sessions.c.id, sessions.c.client, boxes.c.queued)
    .select_from(sessions.join(boxes, boxes.c.id == sessions.c.id))
    .where(text("expires_at > 0"), sessions.c.expires_at <= bindparam("now"))
    .order_by(sessions.c.expires_at, sessions.c.id)
    .limit(bindparam("count"))
)
_KEY = (entries.c.box, entries.c.shard, entries.c.offset, entries.c.idx)
EXPIRED: Final = Prepared(
    select(*_KEY)
    .where(text("state = 0 AND expires_at > 0"), entries.c.expires_at <= bindparam("now"))
    .order_by(entries.c.expires_at, *_KEY)
    .limit(bindparam("count"))
)
OLDEST: Final = Prepared(
    select(*_KEY).where(text("state = 0"), entries.c.body < bindparam("before")).order_by(entries.c.body, *_KEY).limit(bindparam("count"))
)
OVERFULL: Final = Prepared(
    select(boxes.c.id, boxes.c.queued)
    .where(boxes.c.id > bindparam("after"), boxes.c.id <= bindparam("upto"), boxes.c.queued > bindparam("keep"))
    .order_by(boxes.c.id)
    .limit(bindparam("count"))
)
BODIES: Final = Prepared(
    select(bodies.c.id, exists(select(text("1")).select_from(entries).where(entries.c.body == bodies.c.id)))
    .where(bodies.c.id > bindparam("after"), bodies.c.id < bindparam("before"), bodies.c.keep_until <= bindparam("now"))
    .order_by(bodies.c.id)
    .limit(bindparam("count"))
)
DELETE_BODIES: Final = Bulk("DELETE FROM bodies WHERE id IN (SELECT * FROM (", 1, ") AS v)")
EXPIRED_RETAINED: Final = Prepared(
    select(retained.c.topic)
    .where(text("expires_at > 0"), retained.c.expires_at <= bindparam("now"))
    .order_by(retained.c.expires_at, retained.c.topic)
    .limit(bindparam("count"))
)
_BURY: Final = Prepared(update(retained).where(key_is(retained, "topic")).values(record=null(), expires_at=0))
TOMBSTONES: Final = Prepared(
    select(retained.c.topic)
    .where(text("record IS NULL"), retained.c.time <= bindparam("before"))
    .order_by(retained.c.time, retained.c.topic)
    .limit(bindparam("count"))
)
EXPIRED_DOCUMENTS: Final = Prepared(
    select(documents.c.kind, documents.c.name)
    .where(text("expires_at > 0"), documents.c.expires_at <= bindparam("now"))
    .order_by(documents.c.expires_at, documents.c.kind, documents.c.name)
    .limit(bindparam("count"))
)
_DELETE_RETAINED: Final = Prepared(delete(retained).where(key_is(retained, "topic")))

_AFTER_ALL_IDS: Final = b"\xff" * 17


@dataclass
class Cursors:
    """Where the next sweep goes on looking. Losing them is harmless: it starts over."""

    box: int = 0
    body: bytes = b""


def sweep(
    connection: Connection,
    epochs: dict[int, int],
    cursors: Cursors,
    now: int,
    *,
    entries_per_box: int,
    entries_total: int,
    entry_age: int,
    limit: int,
) -> Swept:
    """In the transaction of the caller, whose ``epochs`` are kept right."""
    return Swept(
        sessions=_sessions(connection, epochs, now, limit),
        expired_entries=_drop(connection, EXPIRED.all(connection, now=now, count=limit)),
        aged_entries=_drop(connection, OLDEST.all(connection, before=_id_after(now - entry_age * 1000), count=limit)),
        over_limit_entries=_over_limit(connection, cursors, entries_per_box, entries_total, limit),
        bodies=_bodies(connection, cursors, now, limit),
        expired_retained=_expire_retained(connection, now, limit),
        tombstones=_tombstones(connection, now, limit),
        expired_documents=_documents(connection, now, limit),
    )


def _id_after(time: int) -> bytes:
    """Below the ids of records later than ``time``, above all others: ids begin with their milliseconds."""
    return max(0, time + 1).to_bytes(6, "big")


def _drop(connection: Connection, keys: Sequence[Row]) -> int:
    drop_entries(connection, [(box, At(shard, offset, index)) for box, shard, offset, index in keys])
    return len(keys)


def _sessions(connection: Connection, epochs: dict[int, int], now: int, limit: int) -> tuple[tuple[int, str], ...]:
    ended: list[tuple[int, str]] = []
    gone = 0
    for number, client, queued in ENDING.all(connection, now=now, count=limit):
        if gone > ENTRIES_WITH_SESSIONS:
            break
        remove_session(connection, epochs, number)
        ended.append((number, client))
        gone += queued
    return tuple(ended)


def _over_limit(connection: Connection, cursors: Cursors, per_box: int, total: int, limit: int) -> int:
    dropped = 0
    queued = counter(connection, "queued")
    if queued > per_box:
        upto = cursors.box + LOOKS * limit
        for box, count in OVERFULL.all(connection, after=cursors.box, upto=upto, keep=per_box, count=limit):
            if dropped < limit:
                dropped += DELETE_OLDEST.run(connection, box=box, count=min(count - per_box, limit - dropped))
        if dropped < limit:
            cursors.box = upto if upto < counter(connection, "box") else 0
    excess = min(queued - dropped - total, limit - dropped)
    if excess > 0:
        dropped += _drop(connection, OLDEST.all(connection, before=_AFTER_ALL_IDS, count=excess))
    return dropped


def _bodies(connection: Connection, cursors: Cursors, now: int, limit: int) -> int:
    """From the cursor on, and once round where that is less than may be looked at."""
    before, start = _id_after(now - BODY_MS), cursors.body
    gone, looked = _unreferenced(connection, cursors, start, before, now, LOOKS * limit, limit)
    if not cursors.body and start:
        more, _ = _unreferenced(connection, cursors, b"", min(before, start + b"\x00"), now, LOOKS * limit - looked, limit - len(gone))
        gone += more
    DELETE_BODIES.run(connection, gone)
    return len(gone)


def _unreferenced(
    connection: Connection, cursors: Cursors, after: bytes, before: bytes, now: int, looks: int, limit: int
) -> tuple[list[bytes], int]:
    """Bodies that may go, and how many were looked at; the cursor stands where looking stopped, or is empty at the end of the range."""
    gone: list[bytes] = []
    looked = 0
    with closing(BODIES.each(connection, after=after, before=before, now=now, count=looks)) as rows:
        for body, referenced in rows:
            looked += 1
            if not referenced:
                gone.append(body)
            if len(gone) >= limit or looked >= looks:
                cursors.body = body
                return gone, looked
    cursors.body = b""
    return gone, looked


def _expire_retained(connection: Connection, now: int, limit: int) -> int:
    topics = EXPIRED_RETAINED.all(connection, now=now, count=limit)
    _BURY.many(connection, [{"the_topic": topic} for (topic,) in topics])
    return len(topics)


def _documents(connection: Connection, now: int, limit: int) -> int:
    expired = EXPIRED_DOCUMENTS.all(connection, now=now, count=limit)
    DELETE_DOCUMENT.many(connection, [{"the_kind": kind, "the_name": name} for kind, name in expired])
    return len(expired)


def _tombstones(connection: Connection, now: int, limit: int) -> int:
    topics = TOMBSTONES.all(connection, before=now - TOMBSTONE_MS, count=limit)
    _DELETE_RETAINED.many(connection, [{"the_topic": topic} for (topic,) in topics])
    return len(topics)
