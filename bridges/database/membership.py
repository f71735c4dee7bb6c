"""Nodes, leases and fences in the tables, inside the caller's transaction. See ``streams.cluster``; cluster.py is the caller.

Who stands on a node or a lease locks its row against those who would take it, and nobody else: a renewal passes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, literal_column, select, text, update

from bridges.database.locks import is_shared
from bridges.database.sql import Prepared, key_is, upsert
from bridges.database.tables import leases, nodes, positions, routes, sessions
from streams.cluster import NODES, ROUTES, Fence, Lease, NodeFence, NodeState, Notice, routing_reader
from streams.store import Refused

JOIN_LOCK: Final = 0x51_75_1C_E3

_CLOCK: Final = Prepared(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
_ONE_JOINS: Final = Prepared(text(f"SELECT count(pg_advisory_xact_lock({JOIN_LOCK}))"))
_IN_USE: Final = Prepared(
    select(func.count()).where(
        nodes.c.node == bindparam("the_node"), nodes.c.epoch != bindparam("the_epoch"), text("dead = 0"), nodes.c.until > bindparam("now")
    )
)
_ADD: Final = upsert(nodes)
_JOIN: Final = Prepared(
    update(nodes).where(key_is(nodes, "epoch"), text("dead = 0")).values(node=bindparam("node"), detail=bindparam("detail"), until=bindparam("until"))
)
_RENEW: Final = Prepared(update(nodes).where(key_is(nodes, "epoch"), text("dead = 0")).values(until=bindparam("until")))
_ALL: Final = Prepared(select(nodes.c.epoch, nodes.c.node, nodes.c.until, nodes.c.dead, nodes.c.detail, nodes.c.routes).order_by(nodes.c.epoch))
_NODE: Final = select(nodes.c.until, nodes.c.dead).where(key_is(nodes, "epoch"))
_LOOK: Final = Prepared(_NODE)
_STAND_ON_NODE: Final = Prepared(_NODE.with_for_update(read=True, key_share=True))
_TAKE_NODE: Final = Prepared(_NODE.with_for_update())
_DECLARE: Final = Prepared(update(nodes).where(key_is(nodes, "epoch")).values(dead=1))
_OWNS: Final = Prepared(select(sessions.c.id).where(sessions.c.node_epoch == bindparam("epoch"), text("node_epoch > 0")).limit(literal_column("1")))
_DROP_NODE: Final = Prepared(delete(nodes).where(key_is(nodes, "epoch")))
_DROP_ROUTES: Final = Prepared(delete(routes).where(key_is(routes, "epoch")))
_DROP_POSITIONS: Final = Prepared(
    delete(positions).where(
        (positions.c.reader == bindparam("name")) | ((positions.c.reader >= bindparam("low")) & (positions.c.reader < bindparam("high")))
    )
)
_FREE_LEASES: Final = Prepared(
    update(leases).where(leases.c.epoch == bindparam("the_epoch")).values(token=leases.c.token + literal_column("1"), epoch=literal_column("0"))
)
_ADD_LEASE: Final = upsert(leases)
_LEASE: Final = select(leases.c.token, leases.c.epoch).where(key_is(leases, "name"))
_STAND_ON_LEASE: Final = Prepared(_LEASE.with_for_update(read=True, key_share=True))
_TAKE_LEASE: Final = Prepared(_LEASE.with_for_update())
_SET_LEASE: Final = Prepared(update(leases).where(key_is(leases, "name")).values(token=bindparam("token"), epoch=bindparam("epoch")))
_LEASES: Final = Prepared(select(leases.c.name, leases.c.token, leases.c.epoch).order_by(leases.c.name))

_NAME: Final = Prepared(text("SELECT count(set_config('application_name', :name, false))"))
_END: Final = Prepared(
    text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = :name AND datname = current_database() AND pid <> pg_backend_pid()"
    )
)
_END_SILENT: Final = Prepared(
    text(
        "SELECT count(pg_terminate_backend(activity.pid)) FROM nodes JOIN pg_stat_activity AS activity"
        " ON activity.application_name = :name || nodes.epoch"
        " WHERE nodes.until <= :now AND activity.datname = current_database() AND activity.pid <> pg_backend_pid()"
    )
)

NODE_IN_USE: Final = "node id in use"
NODE_DEAD: Final = "this node is dead"
NODE_ALIVE: Final = "that node is alive"

Told = dict[Notice, None]

_NODES_NAME: Final = "sluiceway/"


def application(epoch: int) -> str:
    """The name that PostgreSQL shows for a node's connection."""
    return f"{_NODES_NAME}{epoch}"


def call_it(connection: Connection, fences: Iterable[Fence]) -> None:
    """Let PostgreSQL know whose connection this is, once the transaction is committed."""
    for fence in fences:
        if isinstance(fence, NodeFence):
            _NAME.number(connection, name=application(fence.epoch))


def clock(connection: Connection) -> int:
    """Ms of the database's clock. SQLite has this machine's."""
    return _CLOCK.number(connection) if is_shared(connection) else time.time_ns() // 1_000_000


def holds(connection: Connection, fence: Fence) -> bool:
    """To the end of the transaction."""
    if isinstance(fence, NodeFence):
        node = _STAND_ON_NODE.first(connection, the_epoch=fence.epoch)
        return node is not None and not node[1]
    lease = _STAND_ON_LEASE.first(connection, the_name=fence.name)
    return lease is not None and bool(lease[0] == fence.token)


def end_silent(connection: Connection) -> None:
    """Roll back what nodes whose lease is over have begun. One that lives after all does it again; one that stands still holds no rows any more."""
    if is_shared(connection):
        _END_SILENT.number(connection, name=_NODES_NAME, now=clock(connection))


def join(connection: Connection, told: Told, node: str, epoch: int, detail: str, lease_ms: int) -> NodeState | Refused:
    if is_shared(connection):
        _ONE_JOINS.number(connection)
    now = clock(connection)
    if _IN_USE.number(connection, the_node=node, the_epoch=epoch, now=now):
        return Refused(NODE_IN_USE)
    _ADD.run(connection, epoch=epoch, node=node, until=0, dead=0, routes=0, detail="")
    if not _JOIN.run(connection, the_epoch=epoch, node=node, detail=detail, until=now + lease_ms):
        return Refused(NODE_DEAD)
    told[Notice(NODES)] = None
    return next(state for state in all_nodes(connection) if state.epoch == epoch)


def renew(connection: Connection, epoch: int, lease_ms: int) -> bool:
    return bool(_RENEW.run(connection, the_epoch=epoch, until=clock(connection) + lease_ms))


def leave(connection: Connection, told: Told, epoch: int) -> None:
    _RENEW.run(connection, the_epoch=epoch, until=0)
    told[Notice(NODES)] = None


def all_nodes(connection: Connection) -> list[NodeState]:
    now = clock(connection)
    return [NodeState(epoch, node, not dead and until > now, detail, newest) for epoch, node, until, dead, detail, newest in _ALL.all(connection)]


def declare_dead(connection: Connection, epoch: int) -> bool:
    """Whether it is so: a node that lives isn't to be declared dead. One that is not registered is."""
    node = _LOOK.first(connection, the_epoch=epoch)
    if node is None or node[1]:
        return True
    if node[0] > clock(connection):
        return False
    if is_shared(connection):
        # One that stands still inside a transaction would hold its rows for ever: in a pipeline no timeout of the server counts. See end_silent
        _END.number(connection, name=application(epoch))
    node = _TAKE_NODE.first(connection, the_epoch=epoch)  # its commits under way are over now
    if node is not None and node[0] > clock(connection):
        return False
    _DECLARE.run(connection, the_epoch=epoch)
    return True


def bury(connection: Connection, told: Told, epoch: int) -> bool:
    if not declare_dead(connection, epoch) or _OWNS.first(connection, epoch=epoch) is not None:
        return False
    _DROP_ROUTES.run(connection, the_epoch=epoch)
    _FREE_LEASES.run(connection, the_epoch=epoch)
    reader = routing_reader(epoch)
    _DROP_POSITIONS.run(connection, name=reader, low=reader + ":", high=reader + ";")  # the character behind the colon
    _DROP_NODE.run(connection, the_epoch=epoch)
    told[Notice(NODES)] = told[Notice(ROUTES, str(epoch))] = None
    return True


def acquire(connection: Connection, told: Told, name: str, epoch: int) -> Lease | None:
    mine, now = _STAND_ON_NODE.first(connection, the_epoch=epoch), clock(connection)
    if mine is None or mine[1] or mine[0] <= now:
        return None
    _ADD_LEASE.run(connection, name=name, token=0, epoch=0)
    lease = _TAKE_LEASE.first(connection, the_name=name)
    if lease is None:  # nobody drops leases
        return None
    token, holder = lease
    if holder != epoch:
        other = _LOOK.first(connection, the_epoch=holder) if holder else None
        if other is not None and not other[1] and other[0] > now:
            return None
        token += 1
        _SET_LEASE.run(connection, the_name=name, token=token, epoch=epoch)
        told[Notice(NODES)] = None
    return Lease(name, token, epoch)


def release(connection: Connection, told: Told, name: str, epoch: int) -> None:
    lease = _TAKE_LEASE.first(connection, the_name=name)
    if lease is not None and lease[1] == epoch:
        _SET_LEASE.run(connection, the_name=name, token=lease[0] + 1, epoch=0)
        told[Notice(NODES)] = None


def all_leases(connection: Connection) -> list[Lease]:
    return [Lease(*row) for row in _LEASES.all(connection)]
