"""Whose sessions are: takes over those of a dead node in chunks, and says who owns which. Inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, literal_column, select, update

from bridges.database.locks import AT_ONCE
from bridges.database.membership import NODE_ALIVE, NODE_DEAD, declare_dead, holds
from bridges.database.names import may_be_there
from bridges.database.reads import routed, session_numbered
from bridges.database.rows import decode_floor, encode
from bridges.database.sql import Prepared, key_is
from bridges.database.tables import boxes, sessions
from schemas.sessions import SessionState
from streams.cluster import NodeFence, Owner, raised
from streams.store import Refused

_LEFT: Final = (
    select(sessions.c.id, boxes.c.epoch, sessions.c.floor, sessions.c.resuming)
    .select_from(sessions.join(boxes, boxes.c.id == sessions.c.id))
    .order_by(sessions.c.id)
    .limit(bindparam("count"))
    .with_for_update(key_share=True, skip_locked=True, of=boxes)
)
LEFT: Final = Prepared(_LEFT.where(sessions.c.node_epoch == bindparam("owner"), sessions.c.node_epoch > 0))
_LEFT_BY_ONE_ALONE: Final = Prepared(_LEFT.where(sessions.c.node_epoch == literal_column("0")))
_TAKE: Final = Prepared(
    update(sessions)
    .where(key_is(sessions, "id"), sessions.c.node_epoch == bindparam("owner"))
    .values(node_epoch=bindparam("node_epoch"), floor=bindparam("floor"), resuming=literal_column("1"))
)
_SET_EPOCH: Final = Prepared(update(boxes).where(key_is(boxes, "id")).values(epoch=bindparam("epoch")))
_OWNERS: Final = (
    select(sessions.c.client, sessions.c.id, boxes.c.epoch, sessions.c.node_epoch)
    .select_from(sessions.join(boxes, boxes.c.id == sessions.c.id))
    .where(sessions.c.client.in_(bindparam("clients", expanding=True)))
)


def adopt(connection: Connection, epochs: dict[int, int], dead: int, epoch: int, limit: int) -> list[SessionState] | Refused:
    """Sessions that another transaction works with are passed by: they are taken next time, or have been taken."""
    if not holds(connection, NodeFence(epoch)):
        return Refused(NODE_DEAD)
    if dead and not declare_dead(connection, dead):
        return Refused(NODE_ALIVE)
    taken: list[SessionState] = []
    left = LEFT.all(connection, owner=dead, count=limit) if dead else _LEFT_BY_ONE_ALONE.all(connection, count=limit)
    reached = routed(connection, dead) if left else ()
    for number, current, floor, resuming in left:
        after = encode(raised(decode_floor(floor), resuming, reached, current + 1))
        if not _TAKE.run(connection, the_id=number, owner=dead, node_epoch=epoch, floor=after):
            continue  # it was taken between being found and being locked
        _SET_EPOCH.run(connection, the_id=number, epoch=current + 1)
        epochs[number] = current + 1
        state = session_numbered(connection, number, owner=dead)
        if state is not None:
            taken.append(state)
    return taken


def owners(connection: Connection, clients: Sequence[str]) -> Mapping[str, Owner]:
    found: dict[str, Owner] = {}
    clients = [client for client in clients if may_be_there(connection, client)]
    for start in range(0, len(clients), AT_ONCE):
        rows = connection.execute(_OWNERS, {"clients": clients[start : start + AT_ONCE]}).all()
        found |= {client: Owner(number, epoch, node) for client, number, epoch, node in rows}
    return found
