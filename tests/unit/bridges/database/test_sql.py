"""Statements: compiled once, many rows at a time, and each finds its rows by an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, select

from bridges.database import bodies, entries, reads, sweeps
from bridges.database.opening import open_database
from bridges.database.sql import BULK_SIZES, Bulk, Prepared, upsert
from bridges.database.tables import counters, properties


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = open_database(tmp_path / "store.db")
    with engine.connect() as opened, opened.begin():
        yield opened
    engine.dispose()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 31, 32, 63, 64, 65, 255, 256, 511, 512, 513, 1000, 1025])
def test_bulk_writes_every_row_once(connection: Connection, count: int) -> None:
    insert = Bulk("INSERT INTO properties (name, value)", 2, " ON CONFLICT DO NOTHING")
    values: list[object] = [part for number in range(count) for part in (f"{number:05}", str(number * 2))]
    insert.run(connection, values)
    found = Prepared(select(properties.c.name, properties.c.value).order_by(properties.c.name)).all(connection)
    assert [tuple(row) for row in found] == [(f"{number:05}", str(number * 2)) for number in range(count)]


def test_bulk_needs_few_statements() -> None:
    """One a row would hand the interpreter lock over once a row."""
    from bridges.database.sql import _statement_size

    for count in (1000, 512, 100, 60, 8):
        left, statements = count, 0
        while left > 0:
            left -= _statement_size(left)
            statements += 1
        assert statements <= 6
    assert max(BULK_SIZES) * 11 <= 32_766  # the parameters that a statement may have


def test_a_missing_parameter_is_an_error(connection: Connection) -> None:
    statement = Prepared(select(counters.c.value).where(counters.c.name == bindparam("the_name")))
    assert statement.number(connection, the_name="nothing") == 0
    with pytest.raises(KeyError, match="the_name"):
        statement.number(connection, name="box")


def test_upsert_replaces_where_it_is_told_to_and_else_leaves(connection: Connection) -> None:
    upsert(properties).run(connection, name="a", value="1")
    upsert(properties).run(connection, name="a", value="2")
    read = Prepared(select(properties.c.value))
    assert read.all(connection) == [("1",)]
    upsert(properties, "value", higher=("value",)).many(connection, [{"name": "a", "value": "0"}, {"name": "a", "value": "3"}])
    assert read.all(connection) == [("3",)]


def test_upsert_speaks_postgresql_as_well() -> None:
    from sqlalchemy.dialects.postgresql import asyncpg

    text = upsert(properties, "value", higher=("value",)).compiled(asyncpg.dialect()).text
    assert "ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE" in text


PLANS = {
    "entries": (reads.ENTRIES, "SEARCH entries USING PRIMARY KEY (box=? AND (shard,offset,idx)>(?,?,?))"),
    "entries backwards": (reads.ENTRIES_BACKWARDS, "SEARCH entries USING PRIMARY KEY (box=? AND (shard,offset,idx)<(?,?,?))"),
    "in flight": (reads.IN_FLIGHT, "SEARCH entries USING INDEX entries_started (box=? AND state=?)"),
    "topics": (reads.TOPICS, "SEARCH retained USING COVERING INDEX sqlite_autoindex_retained_1 (topic>? AND topic<?)"),
    "oldest of a box": (entries.DELETE_OLDEST, "SEARCH oldest USING PRIMARY KEY (box=?)"),
    "done": (entries.DELETE_DONE, "SEARCH entries USING INDEX entries_done (shard=? AND (offset,idx)<(?,?))"),
    "ending": (sweeps.ENDING, "SEARCH sessions USING INDEX sessions_ending (expires_at>? AND expires_at<?)"),
    "expired": (sweeps.EXPIRED, "SEARCH entries USING INDEX entries_expiring (expires_at>? AND expires_at<?)"),
    "oldest": (sweeps.OLDEST, "SEARCH entries USING INDEX entries_body (body<?)"),
    "overfull": (sweeps.OVERFULL, "SEARCH boxes USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    "bodies": (sweeps.BODIES, "SEARCH entries USING COVERING INDEX entries_body (body=?)"),
    "expired retained": (sweeps.EXPIRED_RETAINED, "SEARCH retained USING INDEX retained_expiring (expires_at>? AND expires_at<?)"),
    "tombstones": (sweeps.TOMBSTONES, "SEARCH retained USING INDEX retained_tombstones (time<?)"),
}
BULK_PLANS = {
    "delete queued": (entries.DELETE_QUEUED, "SEARCH entries USING PRIMARY KEY (box=? AND shard=? AND offset=? AND idx=?)"),
    "delete entries": (entries.DELETE_ENTRIES, "SEARCH entries USING PRIMARY KEY (box=? AND shard=? AND offset=? AND idx=?)"),
    "set entries": (entries.SET_ENTRIES, "SEARCH entries USING PRIMARY KEY (box=? AND shard=? AND offset=? AND idx=?)"),
    "delete bodies": (bodies.DELETE_BODIES, "SEARCH bodies USING INDEX sqlite_autoindex_bodies_1 (id=?)"),
}


def _plan(connection: Connection, text: str) -> list[str]:
    rows = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {text}", (0,) * text.count("?")).fetchall()
    return [row[3] for row in rows]


@pytest.mark.parametrize("what", PLANS)
def test_a_statement_finds_its_rows_by_an_index(connection: Connection, what: str) -> None:
    statement, expected = PLANS[what]
    plan = _plan(connection, statement.compiled(connection.dialect).text)
    assert expected in plan
    assert what == "in flight" or "USE TEMP B-TREE FOR ORDER BY" not in plan  # of those at most a window's worth is sorted


@pytest.mark.parametrize("size", BULK_SIZES)
@pytest.mark.parametrize("what", BULK_PLANS)
def test_a_bulk_statement_finds_its_rows_by_an_index(connection: Connection, what: str, size: int) -> None:
    """The planner once took a list of keys for a reason to read the whole table."""
    statement, expected = BULK_PLANS[what]
    assert expected in _plan(connection, statement.text(size))
