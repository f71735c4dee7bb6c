"""When rights change while clients are connected: within a tick, connections of principals that are gone are closed, checked topics are
forgotten, plans are derived anew, and what waits in memory for somebody who may no longer read it is dropped.

Subscriptions are kept, live and stored: what they bring is checked at each delivery, so a right that comes back brings messages back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from schemas.reasons import ReasonCode
from schemas.records import Flag
from schemas.topics import parse_subscription
from streams.fanout import Delivery

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node
    from gateway.session import Session


P2P = int(Flag.P2P)


class Rights:
    """Looked at by the tick (gateway/ticks.py)."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._version = node.access.version
        self._revoked = node.registers.mint.version

    def tick(self) -> None:
        """Nothing, unless something has changed; many changes within a tick cost as much as one."""
        version, revoked = self._node.access.version, self._node.registers.mint.version
        if version != self._version:
            self._version = version
            self.evaluate()
        elif revoked != self._revoked:
            self._node.token_watch.evaluate()
        self._revoked = revoked

    def evaluate(self) -> None:
        node = self._node
        for connection in node.connections.all():
            if not connection.ready:
                continue
            connection.topics = None
            if not self.stands(connection):
                connection.close(ReasonCode.NOT_AUTHORIZED, "not authorized")
        node.token_watch.evaluate()
        node.routes.forget()
        for session in node.registry.sessions.values():
            if session.queue:
                self.filter_queue(session)

    def stands(self, connection: Connection) -> bool:
        """Whether the principal is still there, and the certificate or the JWT's key that it came with, and its client id is not blocked."""
        certificate, principal, registers = connection.certificate, connection.principal, self._node.registers
        if registers.identities.is_blocked(principal.client) or not self._node.access.is_known(principal):
            return False
        if not registers.has_signer(principal):
            return False
        return not certificate or registers.certificates.is_current(certificate)

    def filter_queue(self, session: Session) -> None:
        """Drop what waits in memory and may no longer be sent."""
        node, kept = self._node, deque[Delivery]()
        allowed: dict[tuple[str, int], bool] = {}
        for delivery in session.queue or ():
            record = delivery.record
            key = (record.topic, record.flags & P2P)
            if key not in allowed:
                allowed[key] = node.may_have(session.principal, record)
            if allowed[key]:
                kept.append(delivery)
            else:
                node.queued_bytes -= len(record.payload)
                node.counters.dropped["not_authorized"] += 1
        session.queue = kept or None
        session.refresh()

    def narrowed(self, session: Session) -> None:
        """What one session may read has changed: plans that concern it are derived anew, and what waited for a token comes."""
        node = self._node
        for subscribed, subscription in session.subscriptions.items():
            parsed = parse_subscription(subscribed)
            if parsed is not None:
                node.routes_add(parsed, session, subscription)
        if session.queue:
            self.filter_queue(session)
        tokens = session.principal.tokens
        if session.muted and (tokens is None or tokens.has("read")):
            session.muted = False
            waiting, session.waiting = session.waiting, ()
            node.connecting.resume(session, waiting)
