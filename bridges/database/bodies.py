"""Bodies go into the table each once, and stay there for whoever is about to refer to them.

On PostgreSQL the sweep of another node may be about to drop a body that is there already. So a body that was there is locked
before anything refers to it, and one that has gone meanwhile is put again; the sweep drops none that is locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from bridges.database.locks import is_shared
from bridges.database.sql import Bulk

INSERT_BODIES: Final = Bulk("INSERT INTO bodies (id, keep_until, record)", 3, " ON CONFLICT DO NOTHING")
_INSERT_SHARED: Final = Bulk("INSERT INTO bodies (id, keep_until, record)", 3, " ON CONFLICT DO NOTHING RETURNING id")
_KEEP: Final = Bulk("SELECT id FROM bodies WHERE id IN (SELECT * FROM (", 1, ") AS v) FOR KEY SHARE OF bodies")
DELETE_BODIES: Final = Bulk("DELETE FROM bodies WHERE id IN (SELECT * FROM (", 1, ") AS v)")
_TAKE: Final = Bulk("SELECT id FROM bodies WHERE id IN (SELECT * FROM (", 1, ") AS v) FOR UPDATE OF bodies SKIP LOCKED")
_DELETE_SHARED: Final = Bulk(
    "DELETE FROM bodies WHERE id IN (SELECT * FROM (", 1, ") AS v) AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.body = bodies.id)"
)

Body = tuple[bytes, int, bytes]
"""Id, keep_until, record."""


def put_bodies(connection: Connection, bodies: Sequence[Body]) -> None:
    """A body that is there already stays as it is."""
    if not is_shared(connection):
        INSERT_BODIES.run(connection, _flat(bodies))
        return
    missing = sorted(bodies)  # two nodes that put the same ones don't wait for each other
    while missing:
        there = {body[0] for body in missing}.difference(row[0] for row in _INSERT_SHARED.all(connection, _flat(missing)))
        there.difference_update(row[0] for row in _KEEP.all(connection, list(there)))
        missing = [body for body in missing if body[0] in there]


def drop_bodies(connection: Connection, ids: Sequence[bytes]) -> int:
    """Those that nobody refers to, or is about to."""
    if not is_shared(connection):
        DELETE_BODIES.run(connection, ids)
        return len(ids)
    free = [row[0] for row in _TAKE.all(connection, ids)]
    return _DELETE_SHARED.run(connection, free)


def _flat(bodies: Sequence[Body]) -> list[Any]:
    return [part for body in bodies for part in body]
