"""Opens a PostgreSQL database: refuses what can't serve, isn't ours or is newer, and brings the rest to this program's version.

Knows what is peculiar to PostgreSQL as a medium. The driver is psycopg 3, whose calls block: the worker's thread has nothing else
to do, and a statement costs a quarter of what it does where an event loop stands between thread and socket. URLs are libpq's own.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format
from psycopg.rows import RowFactory
from psycopg.types.numeric import Int8BinaryDumper
from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from bridges.database.versions import migrate, reason, refuse_unknown, stored_versions
from schemas.errors import StartError
from schemas.identities import Secret

Error: Final = psycopg.Error
OLDEST: Final = 15
CONNECT_SECONDS: Final = 5
LOCK_SECONDS: Final = 3
"""How long a row that another node holds is waited for; then the transaction fails and may be asked for again. The one thread that waits
renews the node's lease as well: no wait may outlast it, or one node that stands still has others taken for dead."""
IDLE_SECONDS: Final = 2
"""A node that stands still inside a transaction loses it after this, and with it the rows it held, before those who wait give up."""
MIGRATION_SECONDS: Final = 30
"""How long a start waits for another's that migrates."""
TRANSACTION_SECONDS: Final = 60
_MIGRATION_LOCK: Final = 0x51_75_1C_E1

_SETTINGS: Final = {
    "application_name": "sluiceway",
    "client_encoding": "UTF8",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    # Every statement here finds its rows by an index, whatever the statistics of the moment say.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_DURABLE: Final = "SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', false) END"
"""A server may ask for more than that, never for less."""
_KEEPALIVE: Final[dict[str, Any]] = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

logger = logging.getLogger(__name__)


class _Cursor(RawCursor[Any]):
    """Numbered parameters as they are, and results in binary: nothing is parsed or quoted here."""

    def __init__(self, connection: psycopg.Connection[Any], *, row_factory: RowFactory[Any]) -> None:
        super().__init__(connection, row_factory=row_factory)
        self.format = Format.BINARY


def open_postgresql(url: str, password: Secret | None = None) -> Engine:
    """An engine whose connections are ready for use; StartError with one line where there can't be one."""
    name = described(url)
    engine = create_engine(
        "postgresql+psycopg://", creator=partial(connect, url, password), poolclass=NullPool, paramstyle="numeric_dollar", use_native_hstore=False
    )
    try:
        with engine.begin() as connection:
            _refuse_unfit(name, connection)
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")  # nodes that start together migrate one by one
            versions = stored_versions(connection)
            if versions is None:
                raise StartError(f"{name}: not a database of this program; name an empty one in store.url")
            refuse_unknown(name, versions)
            migrate(connection)
    except (psycopg.Error, SQLAlchemyError) as error:
        raise StartError(f"{name}: the database can't be opened: {reason(error)}") from None
    return engine


def described(url: str) -> str:
    """Host and database, for messages; StartError where the URL is none, or holds a password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise StartError(f"store.url is not a URL of PostgreSQL like postgresql://user@host:5432/database: {reason(error)}") from None
    if "password" in parts:
        raise StartError("store.url holds a password: put it into a file that store.password_file names, or into PGPASSWORD")
    return f"postgresql://{parts.get('host', '')}/{parts.get('dbname', '')}"


def connect(url: str, password: Secret | None, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """One connection with our settings."""
    secret: dict[str, Any] = {"password": password.reveal()} if password else {}
    connection = psycopg.connect(url, connect_timeout=CONNECT_SECONDS, cursor_factory=_Cursor, autocommit=True, **secret, **_KEEPALIVE)
    try:
        connection.adapters.register_dumper(int, Int8BinaryDumper)  # one type whatever the value: a statement is prepared once
        settings = dict(_SETTINGS)
        if connection.info.server_version >= 170_000:
            settings["transaction_timeout"] = f"{TRANSACTION_SECONDS}s"
        values = ", ".join(f"set_config('{setting}', '{value}', false)" for setting, value in settings.items())
        connection.execute(f"SELECT {values}")
        connection.execute(_DURABLE)
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_to_listen(url: str, password: Secret | None) -> psycopg.AsyncConnection[Any]:
    """A connection for notices alone: it waits on the loop for what comes."""
    secret: dict[str, Any] = {"password": password.reveal()} if password else {}
    return await psycopg.AsyncConnection.connect(
        url, connect_timeout=CONNECT_SECONDS, autocommit=True, application_name="sluiceway notices", **secret, **_KEEPALIVE
    )


def _refuse_unfit(name: str, connection: Connection) -> None:
    version, encoding, standby, fsync = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(), current_setting('fsync')"
    ).one()
    if version < OLDEST * 10_000:
        raise StartError(f"{name}: the server is PostgreSQL {version // 10_000}, this program needs {OLDEST} or newer")
    if encoding != "UTF8":
        raise StartError(f"{name}: the database's encoding is {encoding}: create it with ENCODING 'UTF8'")
    if standby:
        raise StartError(f"{name}: the server is a standby: name the primary in store.url, or several with target_session_attrs=read-write")
    if fsync != "on":
        logger.warning("store-not-durable fsync=%s: what the database commits may be lost with its machine", fsync)
