"""Alembic's entry: runs the versions on the connection that opening.py hands over, in that connection's transaction."""

from __future__ import annotations

from alembic import context

from bridges.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
