"""A connect claims its session in the store, which says whose it is and as what it goes on. For connecting.py, one connect of a client at a time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from gateway import keeping
from gateway.cluster.departures import forget
from schemas.errors import StoreBusy
from schemas.identities import Principal
from schemas.sessions import SessionState
from streams.fanout import Delivery
from streams.store import Refused

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

CLAIMS = 3
"""Times that a session is asked for while another node holds its rows: 9 s with PostgreSQL, less than clients wait for a CONNACK."""


async def claim(node: Node, existing: Session | None, client: str, principal: Principal, *, clean_start: bool, expiry: int) -> SessionState | Refused:
    """What arrives for the session meanwhile waits: before it is known whether the claim came first, no epoch is right for it."""
    waiting: list[Delivery] = []
    if existing is not None:
        existing.claiming = waiting
        node.registry.claiming.add(existing)
    state: SessionState | Refused | None = None
    try:
        await node.persistence.barrier()
        for _ in range(CLAIMS - 1):
            with suppress(StoreBusy):  # a node that stands still, or died a moment ago, may hold the rows for some seconds
                return (state := await _ask(node, client, principal, clean_start=clean_start, expiry=expiry))
        return (state := await _ask(node, client, principal, clean_start=clean_start, expiry=expiry))
    finally:
        if existing is not None:
            _claimed(node, existing, state, waiting)


async def _ask(node: Node, client: str, principal: Principal, *, clean_start: bool, expiry: int) -> SessionState | Refused:
    # Clean start is done by the store [MQTT-3.1.4-4]
    now, limit = node.clock.due(), node.limits.sessions
    return await node.store.claim(client, principal.name, clean_start=clean_start, expiry=expiry, now=now, limit=limit, owner=node.owner)


def _claimed(node: Node, existing: Session, state: SessionState | Refused | None, waiting: list[Delivery]) -> None:
    existing.claiming = None
    node.registry.claiming.discard(existing)
    if isinstance(state, SessionState) and state.resume is not None:
        if node.sharing is not None:
            node.sharing.let_go(existing, waiting)
        forget(node, existing)  # it has been elsewhere meanwhile, and what it is owed is in the log
        waiting.clear()
    elif isinstance(state, SessionState) and state.present:
        existing.adopt(state)
    for delivery in waiting:
        keeping.store(existing, delivery)
