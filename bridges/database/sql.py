"""How a statement is compiled, once, and run; what differs between databases stands here and in opening.py, nowhere else.

``Prepared`` is one statement with named parameters, ``upsert`` makes the INSERT that tolerates or replaces its like, and
``Bulk`` takes many rows in one statement: the driver lets other threads run once a statement, and with a statement a row the
event loop's thread and the store's would wait for each other once a row. Compiled statements run on the driver's cursor:
SQLAlchemy's results cost more than most of these statements do.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from sqlalchemy import ClauseElement, Connection, Dialect, Table, and_, bindparam, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor

Row = tuple[Any, ...]

BULK_SIZES: Final = (1, 8, 64, 512)
"""Rows a bulk statement may have: few texts to compile and keep, and at most 512 * 11 parameters, below every driver's limit."""

_INSERT: Final[Mapping[str, Callable[[Table], Any]]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Prepared:
    """A statement whose text is compiled at its first use with a dialect. Parameters go by name."""

    def __init__(self, build: ClauseElement | Callable[[str], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, **values: object) -> int:
        """The number of rows it changed."""
        with closing(self._execute(connection, values)) as cursor:
            return cursor.rowcount

    def all(self, connection: Connection, **values: object) -> Sequence[Row]:
        with closing(self._execute(connection, values)) as cursor:
            return cursor.fetchall()

    def each(self, connection: Connection, **values: object) -> Generator[Row]:
        """Row by row; who stops early has to close it."""
        with closing(self._execute(connection, values)) as cursor:
            while (row := cursor.fetchone()) is not None:
                yield row

    def first(self, connection: Connection, **values: object) -> Row | None:
        with closing(self._execute(connection, values)) as cursor:
            row: Row | None = cursor.fetchone()
            return row

    def number(self, connection: Connection, **values: object) -> int:
        """The one value of the one row; 0 where there is none."""
        row = self.first(connection, **values)
        return int(row[0]) if row is not None else 0

    def many(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            compiled = self.compiled(connection.dialect)
            with closing(connection.connection.cursor()) as cursor:
                cursor.executemany(compiled.text, [compiled.row(row) for row in rows])

    def _execute(self, connection: Connection, values: Mapping[str, object]) -> DBAPICursor:
        compiled = self.compiled(connection.dialect)
        cursor = connection.connection.cursor()
        cursor.execute(compiled.text, compiled.row(values))
        return cursor

    def compiled(self, dialect: Dialect) -> _Compiled:
        found = self._compiled.get(dialect.name)
        if found is None:
            clause = self._build if isinstance(self._build, ClauseElement) else self._build(dialect.name)
            found = self._compiled[dialect.name] = _Compiled(clause, dialect)
        return found


class _Compiled:
    """A text, the names of its parameters in their order, and the values of those that SQLAlchemy added of itself."""

    __slots__ = ("_names", "_own", "text")

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        self.text = str(compiled)
        self._names = list(getattr(compiled, "positiontup", None) or ())
        self._own = {name: value for name, value in compiled.params.items() if value is not None}

    def row(self, values: Mapping[str, object]) -> Row:
        own = self._own
        return tuple([values[name] if name in values else own[name] for name in self._names])


def inserting(dialect: str, table: Table) -> Any:
    """An INSERT that may say what becomes of a row whose key is there."""
    return _INSERT[dialect](table)


def upsert(table: Table, *replaced: str, higher: Sequence[str] = ()) -> Prepared:
    """Insert a row of all columns; where its key is there, set the ``replaced`` columns, if the ``higher`` ones are higher than there."""

    def build(dialect: str) -> ClauseElement:
        statement = inserting(dialect, table).values({column.name: bindparam(column.name) for column in table.columns})
        key = [column.name for column in table.primary_key]
        if not replaced:
            return statement.on_conflict_do_nothing(index_elements=key)  # type: ignore[no-any-return]
        where = tuple_(*(statement.excluded[name] for name in higher)) > tuple_(*(table.c[name] for name in higher)) if higher else None
        return statement.on_conflict_do_update(  # type: ignore[no-any-return]
            index_elements=key, set_={name: statement.excluded[name] for name in replaced}, where=where
        )

    return Prepared(build)


def key_is(table: Table, *names: str) -> Any:
    """The condition that columns have the values of parameters named ``the_<column>``."""
    return and_(*(table.c[name] == bindparam(f"the_{name}") for name in names))


def indexed(table: str, index: str, dialect: str) -> str:
    """The table in a FROM, with the index to use where the planner can't know better: no statistics are kept here."""
    return f"{table} INDEXED BY {index}" if dialect == "sqlite" else table


class Bulk:
    """A statement with a list of VALUES of ``width`` columns between ``head`` and ``tail``.

    The last row is repeated to fill a statement up to the next of ``BULK_SIZES``, unless that would do harm (``once``).
    """

    def __init__(self, head: str, width: int, tail: str, *, once: bool = False) -> None:
        self.width = width
        self._once = once
        self._head, self._tail = head, tail
        self._texts = {dialect: {size: self.text(size, dialect) for size in BULK_SIZES} for dialect in _INSERT}

    def text(self, size: int, dialect: str = "sqlite") -> str:
        """Parameters are `?`, and `$1`, `$2` and so on for PostgreSQL."""
        width = self.width
        marks = ["?"] * (size * width) if dialect == "sqlite" else [f"${number}" for number in range(1, size * width + 1)]
        rows = ", ".join(f"({', '.join(marks[start : start + width])})" for start in range(0, size * width, width))
        return f"{self._head} VALUES {rows}{self._tail}"

    def run(self, connection: Connection, values: Sequence[object]) -> int:
        """``values`` are those of all rows, one after the other. The number of rows that it changed."""
        changed = 0
        for cursor in self._executed(connection, values):
            changed += cursor.rowcount
        return changed

    def all(self, connection: Connection, values: Sequence[object]) -> list[Row]:
        """The rows that it returned."""
        return [row for cursor in self._executed(connection, values) for row in cursor.fetchall()]

    def _executed(self, connection: Connection, values: Sequence[object]) -> Iterator[DBAPICursor]:
        texts = self._texts[connection.dialect.name]
        width, done, count = self.width, 0, len(values) // self.width
        while done < count:
            size = _most(count - done) if self._once else _statement_size(count - done)
            part = tuple(values[done * width : (done + size) * width])
            done += size
            if done > count:
                part += part[-width:] * (done - count)
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(texts[size], part)
                yield cursor


def _statement_size(rows: int) -> int:
    """The smallest that holds all rows if at least half of it is used, else the largest that is filled."""
    for size in BULK_SIZES:
        if rows <= size <= 2 * rows:
            return size
    return _most(rows)


def _most(rows: int) -> int:
    """The largest that is filled."""
    return max(size for size in BULK_SIZES if size <= rows)
