"""Documents: what is registered by kind and name, such as group ids, policies and identities."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text, text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "documents",
        Column("kind", Text, primary_key=True, nullable=False),
        Column("name", Text, primary_key=True, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    condition = text("expires_at > 0")
    op.create_index("documents_expiring", "documents", ["expires_at"], sqlite_where=condition, postgresql_where=condition)
