"""Presence events of this node's connections into the log, and their fold into channels and status in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.auth import will_rights
from gateway.waiting import Waiting
from schemas.errors import LogError
from schemas.positions import At
from schemas.presence import Presence, encode_presence
from schemas.records import PRESENCE_TOPIC, Kind, Record
from streams.log import Sink
from streams.presence import tcpclean_id
from streams.runtime import PresenceFold
from streams.store import Change

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node
    from gateway.session import Session

PRESENCE_READER = "presence"


class PresenceEvents:
    """Makes the events. A record's ``epoch`` is the node's: it tells after a crash whose channels are left over."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.fold: PresenceFold

    async def connected(self, connection: Connection, session: Session, expiry: int) -> None:
        """The connect event, durable when this returns. Raises LogError."""
        waiting = Waiting(self._node.loop)
        peer, certificates = connection.peer.address, _certificates(connection)
        will = connection.will
        rights = b"" if will is None else will_rights.encode(connection.principal)
        presence = Presence(connection.channel, peer, session_expiry=expiry, will=will, certificates=certificates, rights=rights)
        self.append(Kind.CONNECT, presence, session.client, session.id, session.principal.name, self._node.clock.wall(), waiting)
        session.connected_at = None
        await waiting.future
        if self._node.owner:  # other nodes ask which connect came first
            session.connected_at = waiting.at

    def event(self, kind: Kind, connection: Connection, session: Session, *, reason: str, will_due: int = 0) -> None:
        """A disconnect or tcpclean event; nobody waits for it."""
        peer, certificates = connection.peer.address, _certificates(connection)
        presence = Presence(connection.channel, peer, reason=reason, will_due=will_due, certificates=certificates)
        self.append(kind, presence, session.client, session.id, session.principal.name, self._node.clock.wall())

    def append(self, kind: Kind, presence: Presence, client: str, session: int, principal: str, now: int, sink: Sink | None = None) -> None:
        """One event into the log; ``session`` is its number, ``sink`` who waits for it."""
        node = self._node
        record_id = tcpclean_id(presence.channel) if kind == Kind.TCPCLEAN else node.ids.next(now)
        payload = encode_presence(presence)
        record = Record(int(kind), record_id, now, client, payload=payload, session=session, epoch=node.epoch, principal=principal)
        node.log.append(PRESENCE_TOPIC, client, record, sink or self)

    def appended(self, records: Sequence[Record], first: At) -> None:
        """Nothing waits."""

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        """The next start finds the channel open and cleans it."""
        self._node.counters.refused["presence_log"] += len(records)

    # What the fold asks and tells

    async def presence_changes(self, changes: Sequence[Change], ends: Sequence[At]) -> None:
        """See ``streams.runtime.PresenceSink``: one transaction, since all are added in one go."""
        persistence = self._node.persistence
        for change in changes:
            persistence.add(change)
        for end in ends:
            persistence.position(PRESENCE_READER, end)
        await persistence.barrier()

    def folded(self, records: Sequence[Record]) -> None:
        """See ``streams.runtime.PresenceSink``."""
        self._node.trace.presence(records)

    def will_is_settled(self, channel: str) -> bool:
        """See ``streams.runtime.PresenceSink``."""
        return self._node.ending.wills.is_settled(channel)

    def tcpclean_is_folded(self, channel: str) -> bool:
        return self.fold.tcpclean_is_folded(channel)

    def forget_will(self, channel: str) -> None:
        self.fold.forget_will(channel)


def _certificates(connection: Connection) -> str:
    authority, _, serial = connection.certificate.partition("/")
    return f"{serial},{authority}" if serial else ""
