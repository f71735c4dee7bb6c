"""What goes with a session: its box and entries, subscriptions, received ids. Bodies stay for the sweep."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete

from bridges.database.sql import Prepared, key_is
from bridges.database.tables import boxes, entries, received, sessions, subscriptions

_DELETES: Final = (
    Prepared(delete(entries).where(key_is(entries, "box"))),
    Prepared(delete(subscriptions).where(key_is(subscriptions, "session"))),
    Prepared(delete(received).where(key_is(received, "session"))),
    Prepared(delete(boxes).where(key_is(boxes, "id"))),
    Prepared(delete(sessions).where(key_is(sessions, "id"))),
)


def remove_session(connection: Connection, epochs: dict[int, int], number: int) -> None:
    """From now on its number stands for nothing: ``epochs`` is told."""
    for statement in _DELETES:
        statement.run(connection, the_box=number, the_session=number, the_id=number)
    epochs.pop(number, None)
