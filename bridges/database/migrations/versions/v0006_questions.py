"""What nodes ask each other, and what they answer."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary

from bridges.database.columns import TEXT

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "questions",
        Column("epoch", BigInteger, primary_key=True, nullable=False),
        Column("number", BigInteger, primary_key=True, nullable=False),
        Column("kind", TEXT, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("until", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "answers",
        Column("epoch", BigInteger, primary_key=True, nullable=False),
        Column("number", BigInteger, primary_key=True, nullable=False),
        Column("node_epoch", BigInteger, primary_key=True, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("until", BigInteger, nullable=False),
    )
