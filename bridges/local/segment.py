"""One segment: an SQLite file with a table of frames for each topic, and where each topic stood when it was begun.

A row is a frame: first record number, next record number, newest time, crc32, body. While a segment is written it is in
WAL mode, synchronous=FULL; once sealed it has its final numbers in ``ends``, no WAL beside it, and never changes again.
Blocking, and without threads: writer.py, keeper.py and recovery.py call it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import urllib.parse
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from schemas.errors import LogDamaged
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC

FORMAT: Final = 1
"""In the file's header as ``user_version``; a file of a higher one is left alone."""
PAGE: Final = 8192
"""Measured with groups of 250 B to 800 KB: 4 KiB costs large groups a third, 16 KiB small ones a tenth."""
TOPICS: Final = (PRESENCE_TOPIC, PUBLISH_TOPIC)
SUFFIX: Final = ".segment"
_SPILL_PAGES: Final = 16
"""Cache while the write-ahead log is widened; what exceeds it is written."""
_COMPANIONS: Final = ("", "-wal", "-shm", "-journal")

_FRAMES: Final = "first INTEGER PRIMARY KEY, next INTEGER NOT NULL, time INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL"
_SCHEMA: Final = f"""
BEGIN;
PRAGMA user_version = {FORMAT};
CREATE TABLE ends (topic TEXT PRIMARY KEY, base INTEGER NOT NULL, crc INTEGER NOT NULL, next INTEGER);
CREATE TABLE publish ({_FRAMES});
CREATE TABLE presence ({_FRAMES});
COMMIT;
"""


class _Statements(NamedTuple):
    insert: str
    first: str
    last: str
    start: str
    read: str
    bisect: str
    cut: str


def _statements(topic: str) -> _Statements:
    return _Statements(
        *(
            sql.replace("$", topic)
            for sql in (
                "INSERT INTO $ VALUES (?, ?, ?, ?, ?)",
                "SELECT min(first) FROM $",
                "SELECT first, next, time, crc, body FROM $ ORDER BY first DESC LIMIT ?",
                "SELECT first FROM $ WHERE first <= ? ORDER BY first DESC LIMIT 1",
                "SELECT first, next, time, crc, body FROM $ WHERE first >= ? AND first < ? ORDER BY first",
                "SELECT first, next, time FROM $ WHERE first <= ? ORDER BY first DESC LIMIT 1",
                "DELETE FROM $ WHERE first >= ?",
            )
        )
    )


_SQL: Final = {topic: _statements(topic) for topic in TOPICS}
_BEGIN_SEGMENT: Final = "INSERT INTO ends VALUES (?, ?, ?, NULL)"


class Row(NamedTuple):
    """A frame as it is stored."""

    topic: str
    first: int
    next: int
    time: int
    crc: int
    body: bytes


class Segment:
    """What is known of one file. ``end`` is where its records end for each topic, and stays behind the truth while it is written."""

    __slots__ = ("base", "end", "number", "path", "sealed", "size", "time")

    def __init__(self, number: int, path: Path, base: Mapping[str, int], end: Mapping[str, int], time: Mapping[str, int]) -> None:
        self.number = number
        self.path = path
        self.base = dict(base)
        self.end = dict(end)
        self.time = dict(time)
        self.sealed = False
        self.size = 0

    @property
    def empty(self) -> bool:
        return self.base == self.end


_HEAD: Final = struct.Struct("<qqq")


def make_row(topic: str, first: int, count: int, time: int, body: bytes) -> Row:
    return Row(topic, first, first + count, time, _crc(first, first + count, time, body), body)


def _crc(first: int, following: int, time: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(first, following, time)))


def _base_crc(topic: str, base: int) -> int:
    return zlib.crc32(f"{topic} {base}".encode())


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}{SUFFIX}"


def remove(path: Path) -> None:
    """Unlink a segment; its companions first, so that what is left after a crash is a whole segment or none."""
    for companion in reversed(_COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{companion}").unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create(path: Path, vfs: str) -> None:
    """Make an unused segment. It gets its name when all of it is durable, so a file of that name is whole."""
    fresh = path.with_suffix(".new")
    remove(fresh)
    database = apsw.Connection(str(fresh), vfs=vfs or None)
    try:
        database.pragma("page_size", PAGE)
        # The file has no name yet that a crash could leave half made: one sync at the end is enough.
        database.pragma("journal_mode", "memory")
        database.execute(_SCHEMA)
    finally:
        database.close()
    fresh.rename(path)
    sync_folder(path.parent)


def connect(path: Path, vfs: str) -> apsw.Connection:
    """A connection that writes, checkpoints, or reads a segment that is still written. Checkpoints happen only when asked for."""
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs or None)
    try:
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        database.set_busy_timeout(5000)
        database.pragma("journal_mode", "wal")
        database.pragma("synchronous", "full")
        database.pragma("wal_autocheckpoint", 0)
    except BaseException:
        database.close()
        raise
    return database


def connect_sealed(path: Path, vfs: str) -> apsw.Connection:
    """A connection that reads a sealed segment: no locks, no companions."""
    address = f"file:{urllib.parse.quote(str(path))}?immutable=1"
    return apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs or None)


def widen_wal(database: apsw.Connection, size: int) -> None:
    """Give the WAL its size beforehand: a large transaction spills into it and is rolled back."""
    if size <= 0:
        return
    cache = database.pragma("cache_size")
    database.pragma("cache_size", _SPILL_PAGES)
    database.execute("BEGIN; CREATE TABLE filler (body)")
    try:
        database.execute("INSERT INTO filler VALUES (zeroblob(?))", (size + 2 * _SPILL_PAGES * PAGE,))
    finally:
        database.execute("ROLLBACK")
        database.pragma("cache_size", cache)


def write(cursor: apsw.Cursor, rows: Sequence[Row], begins: Mapping[str, int] | None) -> None:
    """One transaction, one sync. ``begins``: where the topics stand, with a segment's first group.

    A single row needs no BEGIN: one call into SQLite, and one hand-over of the interpreter lock each way.
    """
    if begins is None and len(rows) == 1:
        cursor.execute(_SQL[rows[0].topic].insert, rows[0][1:])
        return
    statements, bindings = ["BEGIN IMMEDIATE"], []
    for topic, base in (begins or {}).items():
        statements.append(_BEGIN_SEGMENT)
        bindings += [topic, base, _base_crc(topic, base)]
    for row in rows:
        statements.append(_SQL[row.topic].insert)
        bindings += row[1:]
    statements.append("COMMIT")
    try:
        cursor.execute(";".join(statements), bindings)
    finally:
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")


def seal(path: Path, ends: Mapping[str, int], vfs: str) -> None:
    """Drop what was never acknowledged, write down where the topics end, and let go of the WAL."""
    database = connect(path, vfs)
    try:
        with database:
            for topic, end in ends.items():
                database.execute(_SQL[topic].cut, (end,))
                database.execute("UPDATE ends SET next = ? WHERE topic = ?", (end, topic))
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        database.pragma("journal_mode", "delete")
    finally:
        database.close()


def read_ends(database: apsw.Connection) -> dict[str, tuple[int, int | None]]:
    """By topic: where it stood when the segment was begun, and where it ends if sealed. Empty: never used."""
    ends = {}
    for topic, base, crc, following in database.execute("SELECT topic, base, crc, next FROM ends"):
        if topic not in _SQL or crc != _base_crc(topic, base):
            raise LogDamaged(f"the log's {database.filename} does not say where its topics begin: restore the data folder from a copy")
        ends[topic] = (base, following)
    return ends


def last_rows(database: apsw.Connection, topic: str, count: int) -> list[Row]:
    """The last frames of a topic, newest first, checked."""
    return [check(Row(topic, *values)) for values in database.execute(_SQL[topic].last, (count,))]


def first_record(database: apsw.Connection, topic: str) -> int | None:
    """Where the first frame of a topic begins."""
    first: int | None = database.execute(_SQL[topic].first).get
    return first


def read(database: apsw.Connection, topic: str, number: int, below: int) -> Generator[Row, None, None]:
    """Frames of a topic in order from the one that holds record ``number``, checked; close it when it was not read to its end."""
    sql = _SQL[topic]
    start = database.execute(sql.start, (number,)).get
    expected = start
    for values in database.execute(sql.read, (number if start is None else start, below)):
        row = check(Row(topic, *values))
        if expected is not None and row.first != expected:
            raise LogDamaged(f"the log's topic {topic} lacks records {expected} to {row.first}: restore the data folder from a copy")
        expected = row.next
        yield row


def check(row: Row) -> Row:
    """The row, if its checksum holds; a damaged one may hold anything, of any type."""
    try:
        sound = row.crc == _crc(row.first, row.next, row.time, row.body)
    except (TypeError, struct.error):
        sound = False
    if not sound:
        raise LogDamaged(f"the log's frame {row.first} of topic {row.topic} is damaged: restore the data folder from a copy")
    return row


def find_time(database: apsw.Connection, topic: str, time: int, low: int, high: int) -> int:
    """The first record number of the first frame whose time is not before ``time``, in [low, high]; times grow along a topic."""
    while low < high:
        row = database.execute(_SQL[topic].bisect, ((low + high) // 2,)).get
        if row is None:
            return low
        first, following, newest = row
        if newest >= time:
            high = first
        else:
            low = following
    return low
