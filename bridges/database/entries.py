"""Changes of entries on their way to the tables: gathered by key, what undoes itself left out, and written in few statements.

The effect is that of applying them one after the other. A flush writes drops, then puts, then sets, then trims; a change
that this order would falsify has what is gathered flushed first. Knows no epochs; changes.py is its caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, bindparam, delete, literal_column, select, text, tuple_

from bridges.database.bodies import Body, put_bodies
from bridges.database.rows import encode, encode_identifiers
from bridges.database.sql import Bulk, Prepared
from bridges.database.tables import boxes, entries, sessions
from schemas.positions import At
from schemas.sessions import BoxEntry, BoxState
from streams.store import BODY_MS

Key = tuple[int, At]

BODY_BYTES: Final = 1024 * 1024
"""Encoded records beyond this are written before more are encoded."""

INSERT_ENTRIES: Final = Bulk(
    'INSERT INTO entries (box, shard, "offset", idx, body, qos, retain, identifiers, state, packet_id, expires_at)', 11, " ON CONFLICT DO NOTHING"
)
DELETE_ENTRIES: Final = Bulk('DELETE FROM entries WHERE (box, shard, "offset", idx) IN (SELECT * FROM (', 4, ") AS v)")
DELETE_QUEUED: Final = Bulk('DELETE FROM entries WHERE (box, shard, "offset", idx) IN (SELECT * FROM (', 4, ") AS v) AND state = 0")
SET_ENTRIES: Final = Bulk(
    "UPDATE entries SET state = v.column5, packet_id = v.column6 FROM (",
    6,
    ') AS v WHERE box = v.column1 AND shard = v.column2 AND "offset" = v.column3 AND idx = v.column4',
)
_oldest = entries.alias("oldest")
DELETE_OLDEST: Final = Prepared(
    delete(entries).where(
        tuple_(entries.c.box, entries.c.shard, entries.c.offset, entries.c.idx).in_(
            select(_oldest.c.box, _oldest.c.shard, _oldest.c.offset, _oldest.c.idx)
            .where(_oldest.c.box == bindparam("box"), text("state = 0"))
            .order_by(_oldest.c.shard, _oldest.c.offset, _oldest.c.idx)
            .limit(bindparam("count"))
        )
    )
)
_done = delete(entries).where(
    text("state = 3"),
    entries.c.shard == bindparam("shard"),
    tuple_(entries.c.offset, entries.c.idx) < tuple_(bindparam("offset"), bindparam("index")),
)
_finished = entries.alias("finished")
_boxes_with_done = select(_finished.c.box).where(
    text("finished.state = 3"),
    _finished.c.shard == bindparam("shard"),
    tuple_(_finished.c.offset, _finished.c.idx) < tuple_(bindparam("offset"), bindparam("index")),
)
DELETE_DONE: Final = Prepared(_done)
DELETE_DONE_OF: Final = Prepared(
    _done.where(
        entries.c.box.in_(
            select(sessions.c.id)
            .where(sessions.c.node_epoch == bindparam("owner"), sessions.c.resuming == literal_column("0"), sessions.c.id.in_(_boxes_with_done))
            .with_for_update(read=True)  # a claim under way reads our position when it is over, or takes the session out of this
        )
    )
)
QUEUED: Final = select(boxes.c.id, boxes.c.queued).where(boxes.c.id.in_(bindparam("ids", expanding=True)))


def record_time(record_id: bytes) -> int:
    """The milliseconds with which an id begins: ids sort by them."""
    return int.from_bytes(record_id[:6], "big")


class _Trim:
    """A box's pending TrimBox; ``late`` are QUEUED entries that were put after it, ``trimmed`` is where its count goes."""

    __slots__ = ("keep", "late", "trimmed")

    def __init__(self, keep: int, trimmed: dict[int, int]) -> None:
        self.keep = keep
        self.trimmed = trimmed
        self.late: dict[Key, BoxEntry] = {}


class EntryChanges:
    """What is gathered is bounded by the calls of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._drops: dict[Key, None] = {}
        self._puts: dict[Key, BoxEntry] = {}
        self._sets: dict[Key, tuple[int, int]] = {}
        self._trims: dict[int, _Trim] = {}

    def put(self, box: int, entry: BoxEntry) -> None:
        key = (box, entry.at)
        if self._trims and box in self._trims:
            if entry.state == BoxState.QUEUED:
                self._trims[box].late.setdefault(key, entry)
                return
            self.flush()
        if self._sets and key in self._sets and key not in self._puts:
            self.flush()
        self._puts.setdefault(key, entry)

    def set(self, box: int, at: At, state: int, packet_id: int) -> None:
        if box in self._trims:
            self.flush()
        self._sets[box, at] = (state, packet_id)

    def drop(self, box: int, at: At) -> None:
        key = (box, at)
        if box in self._trims:
            self.flush()
        self._puts.pop(key, None)
        self._sets.pop(key, None)
        self._drops[key] = None

    def trim(self, box: int, keep: int, trimmed: dict[int, int]) -> None:
        """Trims of one box that don't grow are one, at the end: what the first would have dropped the last drops as well."""
        trim = self._trims.get(box)
        if trim is not None and (
            keep > trim.keep or trim.trimmed is not trimmed or any(key in self._sets and key not in self._puts for key in trim.late)
        ):
            self.flush()
            trim = None
        if trim is None:
            self._trims[box] = _Trim(keep, trimmed)
            return
        trim.keep = keep
        for key, entry in trim.late.items():
            self._puts.setdefault(key, entry)
        trim.late = {}

    def finish(self, upto: At, owner: int) -> None:
        """DONE entries before ``upto`` go, with ``owner`` those in its sessions, unless they are still to be brought up from before there."""
        self.flush()
        place = {"shard": upto.shard, "offset": upto.offset, "index": upto.index}
        if owner:
            DELETE_DONE_OF.run(self._connection, owner=owner, **place)
        else:
            DELETE_DONE.run(self._connection, **place)

    def flush(self) -> None:
        """All that was gathered is in the tables."""
        drop_entries(self._connection, self._drops)
        self._drops = {}
        self._write_puts()
        if self._sets:
            values: list[object] = []
            for (box, at), (state, packet_id) in self._sets.items():
                values += (box, at.shard, at.offset, at.index, state, packet_id)
            SET_ENTRIES.run(self._connection, values)
            self._sets = {}
        if self._trims:
            trims, self._trims = self._trims, {}
            self._trim(trims)
            for trim in trims.values():
                self._puts.update(trim.late)
            self._write_puts()

    def _write_puts(self) -> None:
        """Bodies first, each once; a body that is there already stays as it is."""
        if not self._puts:
            return
        rows: list[object] = []
        bodies: list[Body] = []
        seen: set[bytes] = set()
        size = 0
        for (box, at), entry in self._puts.items():
            record = entry.record
            if record.id not in seen:
                seen.add(record.id)
                body = encode(record)
                size += len(body)
                bodies.append((record.id, record_time(record.id) + BODY_MS, body))
                if size > BODY_BYTES:
                    put_bodies(self._connection, bodies)
                    bodies, size = [], 0
            rows += (box, at.shard, at.offset, at.index, record.id, entry.qos, int(entry.retain))
            rows += (encode_identifiers(entry.identifiers), entry.state, entry.packet_id, record.expires_at)
        self._puts = {}
        put_bodies(self._connection, bodies)
        INSERT_ENTRIES.run(self._connection, rows)

    def _trim(self, trims: dict[int, _Trim]) -> None:
        numbers = list(trims)
        for start in range(0, len(numbers), 500):
            for box, queued in self._connection.execute(QUEUED, {"ids": numbers[start : start + 500]}):
                trim = trims[box]
                if queued > trim.keep:
                    count = DELETE_OLDEST.run(self._connection, box=box, count=queued - trim.keep)
                    trim.trimmed[box] = trim.trimmed.get(box, 0) + count


def drop_entries(connection: Connection, keys: Iterable[Key]) -> None:
    """Delete these where they are."""
    DELETE_ENTRIES.run(connection, _places(keys))


def drop_queued(connection: Connection, keys: Iterable[Key]) -> int:
    """Delete those of these whose delivery has not begun."""
    return DELETE_QUEUED.run(connection, _places(keys))


def _places(keys: Iterable[Key]) -> list[object]:
    values: list[object] = []
    for box, at in keys:
        values += (box, at.shard, at.offset, at.index)
    return values
