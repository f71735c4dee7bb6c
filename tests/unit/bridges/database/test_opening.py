"""What is opened, what is refused with one line, and that what is refused stays as it was."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from bridges.database.opening import open_database
from bridges.database.tables import metadata
from schemas.errors import StartError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def _opened(path: Path) -> None:
    open_database(path).dispose()


def _schema(connection: Connection) -> dict[str, list[str]]:
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema WHERE type IN ('table', 'index')")
    return {name: sorted(" ".join((sql or "").rstrip(")").split()).split(", ")) for name, sql in rows}  # a column that came later stands last


def _run(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_migrations_lead_to_the_tables(path: Path) -> None:
    engine = open_database(path)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = _schema(connection)
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert _schema(connection) == made
        connection.rollback()
    engine.dispose()


def test_only_the_owner_reads_what_is_made(path: Path) -> None:
    engine = open_database(path)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO properties VALUES ('a', 'b')")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    engine.dispose()
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_a_commit_is_synced(path: Path) -> None:
    engine = open_database(path)
    with engine.connect() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous", "wal_autocheckpoint")}
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 2000}


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a %(b)s ?#é 100%"
    folder.mkdir()
    _opened(folder / "store.db")
    _opened(folder / "store.db")


def test_a_newer_database_is_refused_and_stays_as_it_is(path: Path) -> None:
    _opened(path)
    _run(path, "UPDATE alembic_version SET version_num = '9001'")
    before = path.read_bytes()
    with pytest.raises(StartError, match=r"store\.db: the database has version 9001, this program knows up to \d{4}: run a newer program$"):
        open_database(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


def test_another_program_s_database_is_refused_and_stays_as_it_is(path: Path) -> None:
    _run(path, "CREATE TABLE cookies (a)")
    before = path.read_bytes()
    with pytest.raises(StartError, match=r"store\.db: not a database of this program"):
        open_database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["no database", "cut", "page"])
def test_a_damaged_database_is_refused_and_stays_as_it_is(path: Path, damage: str) -> None:
    engine = open_database(path)
    with engine.begin() as connection:
        for number in range(200):
            connection.exec_driver_sql("INSERT INTO bodies VALUES (?, 0, zeroblob(900))", (number,))
    engine.dispose()
    whole = path.read_bytes()
    broken = {"no database": b"garbage" * 1000, "cut": whole[: len(whole) // 2], "page": whole[:-8192] + b"\xff" * 8192}[damage]
    path.write_bytes(broken)
    with pytest.raises(StartError, match=r"store\.db: the database is damaged: [^\n]*; restore it from a backup$"):
        open_database(path)
    assert path.read_bytes() == broken


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere/store\.db: the database can't be opened: No such file or directory"):
        open_database(tmp_path / "nowhere" / "store.db")


def test_a_migration_that_fails_leaves_an_empty_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", fail)
        with pytest.raises(StartError, match=r"store\.db: the database can't be opened: database or disk is full"):
            open_database(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(0,)]
    connection.close()
    engine = open_database(path)
    assert "entries" in inspect(engine).get_table_names()
    engine.dispose()
