"""The tables of the store, as the newest migration leaves them (a test compares the two).

Columns are what SQL selects or orders by; the rest of a row is one msgpack blob (rows.py). Neighbours: migrations/ makes
the tables and the triggers that keep ``boxes.queued`` and the counters exact, statements.py speaks to them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, text

from bridges.database.columns import NUMBER, TEXT

metadata = MetaData()

counters = Table(
    "counters",
    metadata,
    Column("name", TEXT, primary_key=True, nullable=False),
    Column("value", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""`node epoch`; kept by triggers: `sessions`, `queued`; and `box`, the last number given to a session or mailbox.

On PostgreSQL the first of these is a row, `box` a sequence, and what triggers keep is spread over rows such as `queued 7`,
so that transactions of several nodes don't wait for each other at one row.
"""

boxes = Table(
    "boxes",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("queued", BigInteger, nullable=False),
)
"""Every session and mailbox. ``epoch`` guards a session's, and is 0 for a mailbox; ``queued`` is kept by triggers."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=False),
    Column("client", TEXT, nullable=False, unique=True),
    Column("principal", TEXT, nullable=False),
    Column("expiry", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("next_block", Integer, nullable=False),
    Column("node_epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("floor", LargeBinary),
    Column("resuming", Integer, nullable=False, server_default=text("0")),
    Index("sessions_owned", "node_epoch", "id", sqlite_where=text("node_epoch > 0"), postgresql_where=text("node_epoch > 0")),
    Index("sessions_ending", "expires_at", sqlite_where=text("expires_at > 0"), postgresql_where=text("expires_at > 0")),
)

"""``floor``: positions before which all is settled or stored, whichever node had the session then, as of its last change of node;
``resuming``: 1 until the session has what it is owed from there on.
"""

mailboxes = Table(
    "mailboxes",
    metadata,
    Column("client", TEXT, primary_key=True, nullable=False),
    Column("id", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("session", BigInteger, primary_key=True, nullable=False),
    Column("filter", TEXT, primary_key=True, nullable=False),
    Column("detail", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

received = Table(
    "received",
    metadata,
    Column("session", BigInteger, primary_key=True, nullable=False),
    Column("packet_id", Integer, primary_key=True, nullable=False),
    sqlite_with_rowid=False,
)

_QUEUED_TO_EXPIRE = text("state = 0 AND expires_at > 0")
_STARTED = text("state <> 0")
_DONE = text("state = 3")

entries = Table(
    "entries",
    metadata,
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
    Index("entries_body", "body"),
    Index("entries_started", "box", "state", sqlite_where=_STARTED, postgresql_where=_STARTED),
    Index("entries_done", "shard", "offset", "idx", sqlite_where=_DONE, postgresql_where=_DONE),
    Index("entries_expiring", "expires_at", sqlite_where=_QUEUED_TO_EXPIRE, postgresql_where=_QUEUED_TO_EXPIRE),
    sqlite_with_rowid=False,
)
"""Deliveries that wait. ``body`` is a record id; ids begin with their time, so their order is also that of age."""

bodies = Table(
    "bodies",
    metadata,
    Column("id", LargeBinary, primary_key=True, nullable=False),
    Column("keep_until", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
)
"""A record once, however many boxes refer to it. With a rowid: large rows don't belong in the nodes of a key tree."""

_TOMBSTONE = text("record IS NULL")
_RETAINED_TO_EXPIRE = text("expires_at > 0")

retained = Table(
    "retained",
    metadata,
    Column("topic", TEXT, primary_key=True, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("record", LargeBinary),
    Index("retained_tombstones", "time", sqlite_where=_TOMBSTONE, postgresql_where=_TOMBSTONE),
    Index("retained_expiring", "expires_at", sqlite_where=_RETAINED_TO_EXPIRE, postgresql_where=_RETAINED_TO_EXPIRE),
)
"""``record`` is NULL in a tombstone, which keeps (time, id) against late writes. Topics compare by code point."""

positions = Table(
    "positions",
    metadata,
    Column("reader", TEXT, primary_key=True, nullable=False),
    Column("shard", Integer, primary_key=True, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("idx", Integer, nullable=False),
    sqlite_with_rowid=False,
)

channels = Table(
    "channels",
    metadata,
    Column("channel", TEXT, primary_key=True, nullable=False),
    Column("detail", LargeBinary, nullable=False),
)

statuses = Table(
    "statuses",
    metadata,
    Column("client", TEXT, primary_key=True, nullable=False),
    Column("status", LargeBinary, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("id", TEXT, primary_key=True, nullable=False),
    Column("detail", LargeBinary, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("kind", TEXT, primary_key=True, nullable=False),
    Column("name", TEXT, primary_key=True, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("documents_expiring", "expires_at", sqlite_where=text("expires_at > 0"), postgresql_where=text("expires_at > 0")),
    sqlite_with_rowid=False,
)

rules = Table(
    "rules",
    metadata,
    Column("id", TEXT, primary_key=True, nullable=False),
    Column("detail", LargeBinary, nullable=False),
)

rule_states = Table(
    "rule_states",
    metadata,
    Column("rule", TEXT, primary_key=True, nullable=False),
    Column("detail", LargeBinary, nullable=False),
)
"""Apart from the rules: written several times a second."""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("rule", TEXT, primary_key=True, nullable=False),
    Column("number", BigInteger, primary_key=True, nullable=False),
    Column("detail", LargeBinary, nullable=False),
)

properties = Table(
    "properties",
    metadata,
    Column("name", TEXT, primary_key=True, nullable=False),
    Column("value", TEXT, nullable=False),
    sqlite_with_rowid=False,
)

nodes = Table(
    "nodes",
    metadata,
    Column("epoch", BigInteger, primary_key=True, nullable=False),
    Column("node", TEXT, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("dead", Integer, nullable=False),
    Column("routes", BigInteger, nullable=False),
    Column("detail", TEXT, nullable=False),
    sqlite_with_rowid=False,
)
"""``until`` is when the lease ends, in ms of the database's clock; ``routes`` the version of the node's newest route."""

leases = Table(
    "leases",
    metadata,
    Column("name", TEXT, primary_key=True, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

routes = Table(
    "routes",
    metadata,
    Column("epoch", BigInteger, primary_key=True, nullable=False),
    Column("filter", TEXT, primary_key=True, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("routes_changed", "epoch", "version"),
    sqlite_with_rowid=False,
)
"""``epoch`` in these three is a node's."""

questions = Table(
    "questions",
    metadata,
    Column("epoch", BigInteger, primary_key=True, nullable=False),
    Column("number", BigInteger, primary_key=True, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("until", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

answers = Table(
    "answers",
    metadata,
    Column("epoch", BigInteger, primary_key=True, nullable=False),
    Column("number", BigInteger, primary_key=True, nullable=False),
    Column("node_epoch", BigInteger, primary_key=True, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""What nodes ask each other: ``epoch`` and ``number`` are those of the question, ``until`` its end in ms of the database's clock."""
