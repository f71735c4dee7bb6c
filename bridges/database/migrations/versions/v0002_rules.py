"""Rules, where they stand, and their dead letters."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("rules", Column("id", Text, primary_key=True, nullable=False), Column("detail", LargeBinary, nullable=False))
    op.create_table("rule_states", Column("rule", Text, primary_key=True, nullable=False), Column("detail", LargeBinary, nullable=False))
    op.create_table(
        "dead_letters",
        Column("rule", Text, primary_key=True, nullable=False),
        Column("number", BigInteger, primary_key=True, nullable=False),
        Column("detail", LargeBinary, nullable=False),
    )
