"""The first tables: sessions, boxes and bodies, retained messages, positions, presence, keys."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, text
from sqlalchemy.schema import SchemaItem

from bridges.database.columns import NUMBER, TEXT

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQLITE: Final = (
    """CREATE TRIGGER entries_inserted AFTER INSERT ON entries WHEN new.state = 0 BEGIN
        UPDATE boxes SET queued = queued + 1 WHERE id = new.box;
        UPDATE counters SET value = value + 1 WHERE name = 'queued';
    END""",
    """CREATE TRIGGER entries_deleted AFTER DELETE ON entries WHEN old.state = 0 BEGIN
        UPDATE boxes SET queued = queued - 1 WHERE id = old.box;
        UPDATE counters SET value = value - 1 WHERE name = 'queued';
    END""",
    """CREATE TRIGGER entries_moved AFTER UPDATE OF state ON entries WHEN (old.state = 0) <> (new.state = 0) BEGIN
        UPDATE boxes SET queued = queued + (new.state = 0) - (old.state = 0) WHERE id = new.box;
        UPDATE counters SET value = value + (new.state = 0) - (old.state = 0) WHERE name = 'queued';
    END""",
    """CREATE TRIGGER sessions_inserted AFTER INSERT ON sessions BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'sessions';
    END""",
    """CREATE TRIGGER sessions_deleted AFTER DELETE ON sessions BEGIN
        UPDATE counters SET value = value - 1 WHERE name = 'sessions';
    END""",
)
"""They count what is queued exactly, whatever statement changes it, so that no call has to count rows."""


_MOVED: Final = """
    WITH moved AS (SELECT box, sum(n)::bigint AS n FROM ({changed}) AS changed GROUP BY box HAVING sum(n) <> 0),
        counted AS (UPDATE boxes SET queued = boxes.queued + moved.n FROM moved WHERE boxes.id = moved.box)
    INSERT INTO counters AS c (name, value) SELECT 'queued ' || pg_backend_pid() % 64, sum(n) FROM moved HAVING sum(n) <> 0
        ON CONFLICT (name) DO UPDATE SET value = c.value + excluded.value"""
_COUNTED: Final = """
    INSERT INTO counters AS c (name, value) SELECT 'sessions ' || pg_backend_pid() % 64, {sign}count(*) FROM {rows} HAVING count(*) > 0
        ON CONFLICT (name) DO UPDATE SET value = c.value + excluded.value"""
_PUT: Final = "SELECT box, count(*) AS n FROM put WHERE state = 0 GROUP BY box"
_GONE: Final = "SELECT box, -count(*) AS n FROM gone WHERE state = 0 GROUP BY box"
_PUTS, _GONES = "REFERENCING NEW TABLE AS put", "REFERENCING OLD TABLE AS gone"


def _postgresql(name: str, event: str, table: str, rows: str, statement: str) -> tuple[str, str]:
    """Once a statement, not a row: a row's trigger would write the same counter anew for each."""
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$",
        f"CREATE TRIGGER {name} AFTER {event} ON {table} {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
    )


_POSTGRESQL: Final = (
    "CREATE SEQUENCE box_numbers",
    *_postgresql("entries_inserted", "INSERT", "entries", _PUTS, _MOVED.format(changed=_PUT)),
    *_postgresql("entries_deleted", "DELETE", "entries", _GONES, _MOVED.format(changed=_GONE)),
    *_postgresql("entries_moved", "UPDATE", "entries", f"{_PUTS} {_GONES.split(' ', 1)[1]}", _MOVED.format(changed=f"{_PUT} UNION ALL {_GONE}")),
    *_postgresql("sessions_inserted", "INSERT", "sessions", _PUTS, _COUNTED.format(sign="", rows="put")),
    *_postgresql("sessions_deleted", "DELETE", "sessions", _GONES, _COUNTED.format(sign="-", rows="gone")),
)


def upgrade() -> None:
    _sessions()
    _boxes()
    _retained()
    _others()
    op.execute("INSERT INTO counters (name, value) VALUES ('box', 0), ('node epoch', 0), ('sessions', 0), ('queued', 0)")
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def _table(name: str, *columns: SchemaItem) -> None:
    """A table that lies in the order of its key."""
    op.create_table(name, *columns, sqlite_with_rowid=False)


def _index(name: str, table: str, columns: list[str], where: str | None = None) -> None:
    condition = text(where) if where else None
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def _sessions() -> None:
    op.create_table(
        "sessions",
        Column("id", NUMBER, primary_key=True, autoincrement=False),
        Column("client", TEXT, nullable=False, unique=True),
        Column("principal", TEXT, nullable=False),
        Column("expiry", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("next_block", Integer, nullable=False),
    )
    _index("sessions_ending", "sessions", ["expires_at"], "expires_at > 0")
    _table("mailboxes", Column("client", TEXT, primary_key=True, nullable=False), Column("id", BigInteger, nullable=False))
    _table(
        "subscriptions",
        Column("session", BigInteger, primary_key=True, nullable=False),
        Column("filter", TEXT, primary_key=True, nullable=False),
        Column("detail", LargeBinary, nullable=False),
    )
    _table(
        "received",
        Column("session", BigInteger, primary_key=True, nullable=False),
        Column("packet_id", Integer, primary_key=True, nullable=False),
    )


def _boxes() -> None:
    op.create_table(
        "boxes",
        Column("id", NUMBER, primary_key=True, autoincrement=False),
        Column("epoch", BigInteger, nullable=False),
        Column("queued", BigInteger, nullable=False),
    )
    _table(
        "entries",
        Column("box", BigInteger, primary_key=True, nullable=False),
        Column("shard", Integer, primary_key=True, nullable=False),
        Column("offset", BigInteger, primary_key=True, nullable=False),
        Column("idx", Integer, primary_key=True, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("qos", Integer, nullable=False),
        Column("retain", Integer, nullable=False),
        Column("identifiers", LargeBinary),
        Column("state", Integer, nullable=False),
        Column("packet_id", Integer, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
    )
    _index("entries_body", "entries", ["body"])
    _index("entries_started", "entries", ["box", "state"], "state <> 0")
    _index("entries_done", "entries", ["shard", "offset", "idx"], "state = 3")
    _index("entries_expiring", "entries", ["expires_at"], "state = 0 AND expires_at > 0")
    op.create_table(
        "bodies",
        Column("id", LargeBinary, primary_key=True, nullable=False),
        Column("keep_until", BigInteger, nullable=False),
        Column("record", LargeBinary, nullable=False),
    )


def _retained() -> None:
    op.create_table(
        "retained",
        Column("topic", TEXT, primary_key=True, nullable=False),
        Column("time", BigInteger, nullable=False),
        Column("id", LargeBinary, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("record", LargeBinary),
    )
    _index("retained_tombstones", "retained", ["time"], "record IS NULL")
    _index("retained_expiring", "retained", ["expires_at"], "expires_at > 0")


def _others() -> None:
    _table("counters", Column("name", TEXT, primary_key=True, nullable=False), Column("value", BigInteger, nullable=False))
    _table(
        "positions",
        Column("reader", TEXT, primary_key=True, nullable=False),
        Column("shard", Integer, primary_key=True, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("idx", Integer, nullable=False),
    )
    op.create_table("channels", Column("channel", TEXT, primary_key=True, nullable=False), Column("detail", LargeBinary, nullable=False))
    op.create_table(
        "statuses",
        Column("client", TEXT, primary_key=True, nullable=False),
        Column("status", LargeBinary, nullable=False),
        Column("state", LargeBinary, nullable=False),
    )
    op.create_table("access_keys", Column("id", TEXT, primary_key=True, nullable=False), Column("detail", LargeBinary, nullable=False))
    _table("properties", Column("name", TEXT, primary_key=True, nullable=False), Column("value", TEXT, nullable=False))
