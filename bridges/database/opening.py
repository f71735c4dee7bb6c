"""Opens the SQLite file: makes it, refuses what is not ours, newer or damaged, and brings it to this program's version.

Knows what is peculiar to SQLite as a medium (modes, pragmas, WAL). Nothing of a file that is refused is changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DatabaseError

from bridges.database.failures import MEDIUM_ERRORS
from bridges.database.versions import migrate, reason, refuse_unknown, stored_versions
from schemas.errors import StartError

CHECKPOINT_PAGES: Final = 2000
"""The WAL is folded back into the file at the commit that takes it past so many pages of 4 KiB: 8 MiB."""
WAL_KEPT_BYTES: Final = 32 * 1024 * 1024
"""A WAL that one huge transaction blew up is cut back to this after its checkpoint."""
CACHE_KIB: Final = 4096
BUSY_SECONDS: Final = 5.0
"""How long a file that somebody else is writing is waited for."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}",
    f"PRAGMA cache_size=-{CACHE_KIB}",
    "PRAGMA temp_store=MEMORY",
)


def open_database(path: Path) -> Engine:
    """An engine whose connections are ready for use; StartError with one line where there can't be one."""
    _create(path)
    try:
        with _engine(path).connect() as connection:
            _refuse_foreign(path, connection)
        engine = _engine(path)
        event.listen(engine, "connect", _configure)
        with engine.begin() as connection:
            migrate(connection)
        return engine
    except MEDIUM_ERRORS as error:
        raise StartError(f"{path}: the database can't be opened: {reason(error)}") from error


def _create(path: Path) -> None:
    """Only its owner reads it; SQLite gives the files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StartError(f"{path}: the database can't be opened: {error.strerror}; name a folder that can be written") from error


def _engine(path: Path) -> Engine:
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin)
    return engine


def _leave_transactions_to_us(connection: Any, _: object) -> None:
    """The driver would begin before the first write only, and end what was begun before DDL."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes", True) else "BEGIN")


def _configure(connection: Any, _: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _refuse_foreign(path: Path, connection: Connection) -> None:
    """Before anything is written: the file is empty, or ours and of a version that this program knows."""
    connection = connection.execution_options(writes=False)
    try:
        versions = stored_versions(connection)
        damage = " ".join(str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()).split())
    except DatabaseError as error:
        raise StartError(f"{path}: the database is damaged: {reason(error)}; restore it from a backup") from error
    if damage != "ok":
        raise StartError(f"{path}: the database is damaged: {damage}; restore it from a backup")
    if versions is None:
        raise StartError(f"{path}: not a database of this program; name another data folder")
    refuse_unknown(str(path), versions)
