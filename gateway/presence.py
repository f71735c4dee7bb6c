"""Presence events of this node's connections into the log, and their fold into channels and status in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import LogError
from schemas.positions import At
from schemas.presence import Presence, encode_presence
from schemas.records import PRESENCE_TOPIC, Kind, Record
from streams.presence import tcpclean_id

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node
    from gateway.session import Session


class _Waiting:
    """Turns the log's answer into a future, for the one event that somebody waits for."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def appended(self, records: Sequence[Record], first: At) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class PresenceEvents:
    """Makes the events. A record's ``epoch`` is the node's: it tells after a crash whose channels are left over."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def connected(self, connection: Connection, session: Session, expiry: int) -> None:
        """The connect event, durable when this returns. Raises LogError."""
        future: asyncio.Future[None] = self._node.loop.create_future()
        presence = Presence(connection.channel, connection.peer.address, session_expiry=expiry, will=connection.will)
        record = self._record(Kind.CONNECT, connection, session, presence)
        self._node.log.append(PRESENCE_TOPIC, session.client, record, _Waiting(future))
        await future

    def event(self, kind: Kind, connection: Connection, session: Session, *, reason: str, will_due: int = 0) -> None:
        """A disconnect or tcpclean event; nobody waits for it."""
        presence = Presence(connection.channel, connection.peer.address, reason=reason, will_due=will_due)
        self._node.log.append(PRESENCE_TOPIC, session.client, self._record(kind, connection, session, presence), self)

    def _record(self, kind: Kind, connection: Connection, session: Session, presence: Presence) -> Record:
        node = self._node
        now = node.clock.wall()
        record_id = tcpclean_id(connection.channel) if kind == Kind.TCPCLEAN else node.ids.next(now)
        return Record(
            int(kind),
            record_id,
            now,
            session.client,
            payload=encode_presence(presence),
            session=session.id,
            epoch=node.epoch,
            principal=session.principal.name,
        )

    def appended(self, records: Sequence[Record], first: At) -> None:
        """Nothing waits."""

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        """The next start finds the channel open and cleans it."""
        self._node.counters.refused["presence_log"] += len(records)
