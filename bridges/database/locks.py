"""Which boxes a transaction has for itself. A box's lock is its session's too: whoever changes either has it.

SQLite has one writer, and its transaction has everything. On PostgreSQL rows are locked, in the order of their numbers so that
two transactions don't wait for each other, and read with the lock: an epoch that was read without may be old by the time it counts.
What else is read of a box or session is read by a later statement, which sees all that was committed before the lock was had.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, select

from bridges.database.tables import boxes, sessions

AT_ONCE: Final = 500
"""Numbers in a statement."""

_EPOCHS: Final = select(boxes.c.id, boxes.c.epoch).where(boxes.c.id.in_(bindparam("numbers", expanding=True)))
_LOCKED: Final = _EPOCHS.order_by(boxes.c.id).with_for_update(key_share=True)
_FREE: Final = _EPOCHS.order_by(boxes.c.id).with_for_update(key_share=True, skip_locked=True)
_OF_CLIENTS: Final = select(sessions.c.id).where(sessions.c.client.in_(bindparam("clients", expanding=True)))


def is_shared(connection: Connection) -> bool:
    """Whether others write to this database as well."""
    return connection.dialect.name == "postgresql"


def is_gone(connection: Connection) -> bool:
    """Whether the way to the server is cut: its transaction is rolled back, unless it was asked to commit."""
    return is_shared(connection) and (connection.invalidated or bool(connection.connection.driver_connection.closed))  # type: ignore[union-attr]


def learn_epochs(connection: Connection, epochs: dict[int, int], numbers: Iterable[int]) -> None:
    """Exact from now on to the end of the transaction: whoever changes an epoch in it, or ends a session, changes it in ``epochs`` too."""
    _read(connection, _LOCKED if is_shared(connection) else _EPOCHS, epochs, numbers)


def learn_clients(connection: Connection, clients: Iterable[str]) -> list[int]:
    """The sessions that claims will speak of, if others may have changed them."""
    found: list[int] = []
    if is_shared(connection):
        names = sorted(set(clients))
        for start in range(0, len(names), AT_ONCE):
            found += connection.execute(_OF_CLIENTS, {"clients": names[start : start + AT_ONCE]}).scalars()
    return found


def hold_free(connection: Connection, epochs: dict[int, int], numbers: Collection[int]) -> Collection[int]:
    """Those of the boxes that are to be had without waiting. A box that somebody works with has to wait for the next sweep."""
    if not is_shared(connection):
        return numbers
    _read(connection, _FREE, epochs, numbers)
    return [number for number in numbers if number in epochs]


def _read(connection: Connection, query: Select[Any], epochs: dict[int, int], numbers: Iterable[int]) -> None:
    wanted = sorted({number for number in numbers if number not in epochs})
    for start in range(0, len(wanted), AT_ONCE):
        found = connection.execute(query, {"numbers": wanted[start : start + AT_ONCE]}).all()
        epochs.update((number, epoch) for number, epoch in found)
