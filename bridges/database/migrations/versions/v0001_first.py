"""The first tables: sessions, boxes and bodies, retained messages, positions, presence, keys."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, text
from sqlalchemy.schema import SchemaItem

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")

_TRIGGERS: Final = (
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
"""Of SQLite. They count what is queued exactly, whatever statement changes it, so that no call has to count rows."""


def upgrade() -> None:
    _sessions()
    _boxes()
    _retained()
    _others()
    op.execute("INSERT INTO counters (name, value) VALUES ('box', 0), ('node epoch', 0), ('sessions', 0), ('queued', 0)")
    for trigger in _TRIGGERS:
        op.execute(trigger)


def _table(name: str, *columns: SchemaItem) -> None:
    """A table that lies in the order of its key."""
    op.create_table(name, *columns, sqlite_with_rowid=False)


def _index(name: str, table: str, columns: list[str], where: str | None = None) -> None:
    condition = text(where) if where else None
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def _sessions() -> None:
    op.create_table(
        "sessions",
        Column("id", _NUMBER, primary_key=True, autoincrement=False),
        Column("client", Text, nullable=False, unique=True),
        Column("principal", Text, nullable=False),
        Column("expiry", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("next_block", Integer, nullable=False),
    )
    _index("sessions_ending", "sessions", ["expires_at"], "expires_at > 0")
    _table("mailboxes", Column("client", Text, primary_key=True, nullable=False), Column("id", BigInteger, nullable=False))
    _table(
        "subscriptions",
        Column("session", BigInteger, primary_key=True, nullable=False),
        Column("filter", Text, primary_key=True, nullable=False),
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
        Column("id", _NUMBER, primary_key=True, autoincrement=False),
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
        Column("topic", Text, primary_key=True, nullable=False),
        Column("time", BigInteger, nullable=False),
        Column("id", LargeBinary, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("record", LargeBinary),
    )
    _index("retained_tombstones", "retained", ["time"], "record IS NULL")
    _index("retained_expiring", "retained", ["expires_at"], "expires_at > 0")


def _others() -> None:
    _table("counters", Column("name", Text, primary_key=True, nullable=False), Column("value", BigInteger, nullable=False))
    _table(
        "positions",
        Column("reader", Text, primary_key=True, nullable=False),
        Column("shard", Integer, primary_key=True, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("idx", Integer, nullable=False),
    )
    op.create_table("channels", Column("channel", Text, primary_key=True, nullable=False), Column("detail", LargeBinary, nullable=False))
    op.create_table(
        "statuses",
        Column("client", Text, primary_key=True, nullable=False),
        Column("status", LargeBinary, nullable=False),
        Column("state", LargeBinary, nullable=False),
    )
    op.create_table("access_keys", Column("id", Text, primary_key=True, nullable=False), Column("detail", LargeBinary, nullable=False))
    _table("properties", Column("name", Text, primary_key=True, nullable=False), Column("value", Text, nullable=False))
