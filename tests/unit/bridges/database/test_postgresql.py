"""What PostgreSQL database is opened, what is refused with one line, and that its statements find their rows by an index."""

from __future__ import annotations

import asyncio
import logging
import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, Text, create_engine, inspect

from bridges.database import adopting, bodies, entries, reads, routing, sweeps
from bridges.database.postgresql import IDLE_SECONDS, LOCK_SECONDS, connect, open_postgresql
from bridges.database.sql import BULK_SIZES
from bridges.database.store import DatabaseStore
from bridges.database.tables import metadata
from schemas.errors import StartError, StoreError
from schemas.sessions import PutEntry, PutRetained
from streams.cluster import LEASE_MS, RENEW_MS
from tests.contract.store_making import NOW, claimed, entry, queued, record
from tests.support.postgresql import fresh


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


def _reflecting(url: str) -> Engine:
    """With cursors as SQLAlchemy expects them when it reads catalogues."""
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))


def test_the_migrations_lead_to_the_tables() -> None:
    engine = _reflecting(fresh())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = {name: sorted(str(index) for index in inspect(connection).get_indexes(name)) for name in metadata.tables}
        connection.exec_driver_sql("CREATE SCHEMA other")
        connection.exec_driver_sql("SET LOCAL search_path TO other")
        metadata.create_all(connection)
        assert {name: sorted(str(index) for index in inspect(connection).get_indexes(name, "other")) for name in metadata.tables} == made
    engine.dispose()


def test_all_text_compares_by_code_point() -> None:
    """Topics are paged through by ranges, and a locale's order would lose some of them."""
    engine = _reflecting(fresh())
    with engine.connect() as connection:
        for name in metadata.tables:
            for column in inspect(connection).get_columns(name):
                if isinstance(column["type"], Text):
                    assert column["type"].collation == "C", f"{name}.{column['name']}"
    engine.dispose()


def test_nodes_that_start_together_migrate_once() -> None:
    url = fresh(empty=True)
    with ThreadPoolExecutor(4) as pool:
        for engine in pool.map(lambda _: open_postgresql(url), range(4)):
            engine.dispose()


def test_a_newer_database_is_refused() -> None:
    url = fresh()
    _run(url, "UPDATE alembic_version SET version_num = '9001'")
    with pytest.raises(StartError, match=r"the database has version 9001, this program knows up to \d{4}: run a newer program$"):
        open_postgresql(url)


def test_another_program_s_database_is_refused_and_stays_as_it_is() -> None:
    url = fresh(empty=True)
    _run(url, "CREATE TABLE cookies (a int)")
    with pytest.raises(StartError, match="not a database of this program; name an empty one in store.url"):
        open_postgresql(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == [("cookies",)]


def test_a_database_of_another_encoding_is_refused() -> None:
    url = fresh(empty=True)
    name = url.rpartition("/")[2] + "_latin"
    _run(url, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StartError, match="the database's encoding is LATIN1: create it with ENCODING 'UTF8'"):
        open_postgresql(url + "_latin")
    _run(url, f"DROP DATABASE {name}")


def test_a_server_that_doesn_t_sync_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_postgresql(fresh()).dispose()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["store-not-durable fsync=off"]


def test_a_commit_is_synced_whatever_the_database_says() -> None:
    url = fresh()
    _run(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    with connect(url, None) as connection:
        assert connection.execute("SELECT current_setting('synchronous_commit')").fetchone() == ("on",)


async def test_a_url_that_is_none_is_named() -> None:
    with pytest.raises(StartError, match=r"^store\.url is not a URL of PostgreSQL like postgresql://user@host:5432/database: "):
        DatabaseStore.connect("postgresql://[", asyncio.get_running_loop())


async def test_what_the_database_can_t_hold_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """MQTT has no U+0000 in topics and ids [MQTT-1.5.4-2], and no program should: what has it is refused and harms nobody else."""
    store = DatabaseStore.connect(fresh(), asyncio.get_running_loop())
    session = await claimed(store)
    worst = record(7)
    asked = [
        store.commit([PutEntry(session.id, 1, entry(1))]),
        store.commit([PutRetained("a\0b", NOW, worst.id, worst)]),
        store.commit([PutEntry(2**70, 1, entry(2))]),
        store.commit([PutEntry(session.id, 1, entry(3))]),
    ]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, True, True, False]
    assert [at.index for at in await queued(store, session.id)] == [1, 3]
    assert [each.message for each in caplog.records if each.name.endswith("worker")] == ["store-call-failed"] * 2
    await store.close()


PREPARED = {
    "entries": reads.ENTRIES,
    "entries backwards": reads.ENTRIES_BACKWARDS,
    "in flight": reads.IN_FLIGHT,
    "topics": reads.TOPICS,
    "oldest of a box": entries.DELETE_OLDEST,
    "done": entries.DELETE_DONE,
    "done of a node": entries.DELETE_DONE_OF,
    "ending": sweeps.ENDING,
    "expired": sweeps.EXPIRED,
    "oldest": sweeps.OLDEST,
    "overfull": sweeps.OVERFULL,
    "bodies": sweeps.BODIES,
    "expired retained": sweeps.EXPIRED_RETAINED,
    "tombstones": sweeps.TOMBSTONES,
    "left behind": adopting.LEFT,
    "routes": routing.CHANGED,
}
BULK = {
    "delete entries": entries.DELETE_ENTRIES,
    "delete queued": entries.DELETE_QUEUED,
    "set entries": entries.SET_ENTRIES,
    "keep bodies": bodies._KEEP,
    "take bodies": bodies._TAKE,
    "delete bodies": bodies._DELETE_SHARED,
}


def test_no_wait_for_another_node_s_rows_outlasts_a_lease(database: str) -> None:
    """The thread that waits is the one that renews it; and whose rows are waited for has lost them before that fails."""
    assert IDLE_SECONDS < LOCK_SECONDS < (LEASE_MS - RENEW_MS) / 1_000
    with connect(database, None) as connection:
        names = ("lock_timeout", "idle_in_transaction_session_timeout")
        shown = [psycopg.Cursor(connection).execute(f"SHOW {name}").fetchone() for name in names]
    assert shown == [(f"{LOCK_SECONDS}s",), (f"{IDLE_SECONDS}s",)]


@pytest.fixture(scope="module")
def database() -> str:
    return fresh()


@pytest.mark.parametrize("what", [*PREPARED, *BULK])
def test_a_statement_finds_its_rows_by_an_index(database: str, what: str) -> None:
    engine = open_postgresql(database)
    prepared = PREPARED.get(what)
    texts = [prepared.compiled(engine.dialect).text] if prepared else [BULK[what].text(size, "postgresql") for size in BULK_SIZES]
    engine.dispose()
    with connect(database, None) as connection:
        for text in texts:
            if what in BULK:
                text = re.sub(r"(\$\d+)", r"\1::bytea" if "bodies" in what else r"\1::bigint", text)
            plan = "\n".join(row[0] for row in psycopg.Cursor(connection).execute(f"EXPLAIN (GENERIC_PLAN) {text}"))
            assert "Seq Scan" not in plan
            assert "Index" in plan
