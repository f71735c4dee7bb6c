"""The end of a connection and of a session: what is kept, what is told, and what falls due."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from gateway.connection import Connection
from gateway.handover import hand_over
from gateway.protocol.errors import ProtocolError
from gateway.protocol.packets import Disconnect
from gateway.wills import Wills
from schemas.reasons import ReasonCode
from schemas.records import Kind
from schemas.sessions import EndConnection, RemoveSession
from streams.expiry import is_expired, session_deadline, will_due

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

logger = logging.getLogger(__name__)


class Ending:
    """Ends connections, once each."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.wills = Wills(node)

    def disconnect(self, connection: Connection, packet: Disconnect) -> None:
        """DISCONNECT came: the will is dropped [MQTT-3.14.4-3] unless the client asks for it [MQTT-3.1.2-10]."""
        session = connection.session
        assert session is not None  # noqa: S101 - connected
        asked = packet.properties.session_expiry_interval if packet.properties is not None else None
        if asked is not None:
            if asked and not session.expiry:
                raise ProtocolError("DISCONNECT makes a session outlive a connection that began without expiry")  # [MQTT-3.14.2-2]
            session.expiry = min(asked, self._node.limits.session_expiry)
        if packet.reason_code == ReasonCode.SUCCESS:
            connection.will = None
        self._node.presence.event(Kind.DISCONNECT, connection, session, reason="disconnected by client")
        self.end(connection, "closed by client")

    def end(self, connection: Connection, words: str) -> None:
        """The connection is over, for whatever reason: settle its session. Later calls do nothing."""
        session = connection.session
        if connection.ended or session is None or session.connection is not connection:
            return
        node = self._node
        now = node.clock.wall()
        node.backlog.ended(session)
        left = session.detach()
        self._ended(connection, session, words, now)
        if session.expiry and session.id:  # [MQTT-3.1.2-23]
            expires_at = session.expires_at = session_deadline(session.expiry, now)
            node.persistence.add(EndConnection(session=session.id, epoch=session.epoch, expiry=session.expiry, expires_at=expires_at))
        else:
            self.remove(session)
        if left:
            hand_over(node, left)

    def moved(self, connection: Connection) -> None:
        """Another node has the session of this connection: nothing of it is kept here. The caller closes the connection."""
        session = connection.session
        if connection.ended or session is None or session.connection is not connection:
            return
        self._node.backlog.ended(session)
        session.detach(moved=True)
        self._ended(connection, session, "clientId conflict", self._node.clock.wall())

    def _ended(self, connection: Connection, session: Session, words: str, now: int) -> None:
        """What is told of the end of a connection, and what falls due by it."""
        node = self._node
        connection.ended = True
        node.counters.disconnects[words] += 1
        if session.principal.expires:
            node.token_watch.ended(connection)
        if session.principal.tokens is not None:
            node.token_watch.ended(connection)
            session.principal = msgspec.structs.replace(session.principal, tokens=None)  # away, it is kept what its key may read
            if session.expiry:
                node.rights.narrowed(session)
        will = connection.will
        due = 0
        if will is not None:
            due = will_due(now, will.delay, session.expiry)
        node.presence.event(Kind.TCPCLEAN, connection, session, reason=words, will_due=due)
        if will is not None:
            self.wills.fall_due(connection, session, will, due)

    def remove(self, session: Session) -> None:
        """End a session, with its subscriptions and what waits for it."""
        node = self._node
        node.registry_remove(session)
        if session.id:
            node.persistence.add(RemoveSession(session=session.id, epoch=session.epoch))
        self.wills.session_ended(session.client)

    def expire(self, now: int) -> None:
        """End offline sessions, and no others [MQTT-4.1.0-1], whose time is up [MQTT-4.1.0-2]; ``now`` wall-clock ms. Called about once a second."""
        sessions = self._node.registry.sessions.values()
        for session in [s for s in sessions if is_expired(s.expires_at, now) and s.connection is None and s.claiming is None]:
            self.remove(session)
