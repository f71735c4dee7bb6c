"""Many nodes: who they are, what each has leased and routes, and which node a session belongs to."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, text

from bridges.database.columns import TEXT

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", Column("node_epoch", BigInteger, nullable=False, server_default=text("0")))
    owned = text("node_epoch > 0")
    op.create_index("sessions_owned", "sessions", ["node_epoch", "id"], sqlite_where=owned, postgresql_where=owned)
    op.create_table(
        "nodes",
        Column("epoch", BigInteger, primary_key=True, nullable=False),
        Column("node", TEXT, nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("dead", Integer, nullable=False),
        Column("routes", BigInteger, nullable=False),
        Column("detail", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        Column("name", TEXT, primary_key=True, nullable=False),
        Column("token", BigInteger, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "routes",
        Column("epoch", BigInteger, primary_key=True, nullable=False),
        Column("filter", TEXT, primary_key=True, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("routes_changed", "routes", ["epoch", "version"])
