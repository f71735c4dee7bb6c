"""A segment of the trace: one SQLite file with its indexes. Blocking; called on the thread of store.py alone.

Rows go in as one JSON text that SQLite takes apart, so that a batch costs the interpreter one turn and not one a row. Nothing is
synced: a killed process loses nothing that was committed, a machine without power may lose the newest segment.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from schemas.traces import FIRST_OF_MESSAGES, WORDS, Row, TraceAction, TraceEvent, TraceGap, TraceQuery

SUFFIX: Final = ".db"
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (time INTEGER NOT NULL, action INTEGER NOT NULL, kind INTEGER NOT NULL, client TEXT NOT NULL,
    message TEXT NOT NULL, channel TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_client ON events (client, kind, time);
CREATE INDEX IF NOT EXISTS by_message ON events (message) WHERE message <> '';
CREATE TABLE IF NOT EXISTS gaps (begin INTEGER NOT NULL, end INTEGER NOT NULL, messages INTEGER NOT NULL, events INTEGER NOT NULL);
"""
INSERT: Final = f"""
INSERT INTO events SELECT value ->> 0, value ->> 1, (value ->> 1) >= {FIRST_OF_MESSAGES}, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(?)
"""  # noqa: S608 - made of constants
JOIN_MS: Final = 1_000
"""A gap that begins within this time of the last one's end continues it: an hour of too many messages is one row."""

_encode = msgspec.json.Encoder().encode


class Segment:
    """``begin``: ms at which it was begun, its name."""

    def __init__(self, folder: Path, begin: int) -> None:
        self.begin = begin
        self.path = folder / f"{begin:015d}{SUFFIX}"
        self.size = self._measure()
        self._database: apsw.Connection | None = None

    def _measure(self) -> int:
        return sum(path.stat().st_size for path in self.files() if path.exists())

    def files(self) -> list[Path]:
        return [self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))]

    def open(self) -> None:
        """For writing. apsw.Error where it isn't a segment."""
        database = apsw.Connection(str(self.path))
        try:
            for pragma in ("journal_mode = WAL", "synchronous = OFF", "journal_size_limit = 4194304", "cache_size = -8192"):
                database.execute(f"PRAGMA {pragma}")
            database.execute(SCHEMA)
        except apsw.Error:
            database.close()
            raise
        self._database = database

    def write(self, rows: Sequence[Row], gap: TraceGap | None) -> None:
        """All of it or nothing."""
        database = self._database
        assert database is not None  # noqa: S101 - open
        with database:
            if rows:
                database.execute(INSERT, (_encode(rows).decode(),))
            if gap is not None:
                self._note(database, gap)
        self.size = self._measure()

    @staticmethod
    def _note(database: apsw.Connection, gap: TraceGap) -> None:
        last = "rowid = (SELECT max(rowid) FROM gaps) AND end >= ?"
        changes = (gap.end, gap.messages, gap.events, gap.begin - JOIN_MS)
        database.execute(f"UPDATE gaps SET end = ?, messages = messages + ?, events = events + ? WHERE {last}", changes)  # noqa: S608
        if not database.changes():
            database.execute("INSERT INTO gaps VALUES (?, ?, ?, ?)", (gap.begin, gap.end, gap.messages, gap.events))

    def find(self, query: TraceQuery, skip: int, limit: int) -> tuple[int, list[TraceEvent], list[TraceGap]]:
        """How many match, those behind the first ``skip``, and the gaps."""
        condition, values = _condition(query)
        database = self._database or apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            total = int(_one(database.execute(f"SELECT count(*) FROM events WHERE {condition}", values)))  # noqa: S608 - made of constants
            events: list[TraceEvent] = []
            if limit > 0 and skip < total:
                order = "time DESC, rowid DESC" if query.newest_first else "time, rowid"
                columns = "time, action, client, message, channel, detail"
                statement = f"SELECT {columns} FROM events WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
                events = [_event(*row) for row in database.execute(statement, (*values, limit, skip))]
            found = database.execute("SELECT begin, end, messages, events FROM gaps WHERE end >= ? AND begin <= ?", (query.begin, query.end))
            gaps = [TraceGap(begin=begin, end=end, messages=messages, events=lost) for begin, end, messages, lost in found]
            return total, events, gaps
        finally:
            if database is not self._database:
                database.close()

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
            self.size = self._measure()

    def remove(self) -> None:
        self.close()
        for path in self.files():
            path.unlink(missing_ok=True)


def _condition(query: TraceQuery) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = ["time BETWEEN ? AND ?"]
    values: list[Any] = [query.begin, query.end]
    if query.message:
        parts.append("message <> '' AND message = ?")
        values.append(base64.b64encode(query.message).decode())
    if query.client:
        parts.append("client = ?")
        values.append(query.client)
    if query.actions:
        kinds = sorted({int(action >= FIRST_OF_MESSAGES) for action in query.actions})
        parts.append(f"kind IN ({', '.join(map(str, kinds))}) AND action IN ({', '.join(str(int(action)) for action in query.actions)})")
    return " AND ".join(parts), tuple(values)


def _one(rows: Iterator[tuple[Any, ...]]) -> Any:
    return next(iter(rows))[0]


def _event(time: int, action: int, client: str, message: str, channel: str, detail: str) -> TraceEvent:
    word, message_id = WORDS[TraceAction(action)], base64.b64decode(message).hex().upper()
    return TraceEvent(time=time, action=word, client_id=client, message_id=message_id, channel_id=channel, detail=detail)
