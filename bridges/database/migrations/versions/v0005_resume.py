"""From where on a session that changed its node has to be brought up from the log."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer, LargeBinary, text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", Column("floor", LargeBinary))
    op.add_column("sessions", Column("resuming", Integer, nullable=False, server_default=text("0")))
