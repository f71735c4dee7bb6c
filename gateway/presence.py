"""Presence events of this node's connections into the log, and their fold into channels and status in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

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
STORM: Final = 2
"""Connects that wait for the log, from which on the next ones gather."""
GATHER: Final = 0.002
"""Seconds for which they do: a group of the log has one sync, and costs its threads and the loop's three turns, whatever it holds."""


class PresenceEvents:
    """Makes the events. A record's ``epoch`` is the node's: it tells after a crash whose channels are left over."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.fold: PresenceFold
        self._waiting = 0
        """Connect events that are not durable yet."""
        self._gathered: list[tuple[Record, Sink]] = []

    async def connected(self, connection: Connection, session: Session, expiry: int) -> None:
        """The connect event, durable when this returns. Raises LogError."""
        waiting = Waiting(self._node.loop)
        peer, certificates = connection.peer.address, _certificates(connection)
        will = connection.will
        rights = b"" if will is None else will_rights.encode(connection.principal)
        presence = Presence(connection.channel, peer, session_expiry=expiry, will=will, certificates=certificates, rights=rights)
        record = self._record(Kind.CONNECT, presence, session.client, session.id, session.principal.name, self._node.clock.wall())
        session.connected_at = None
        await self._durable(record, waiting)
        if self._node.owner:  # other nodes ask which connect came first
            session.connected_at = waiting.at

    def event(self, kind: Kind, connection: Connection, session: Session, *, reason: str, will_due: int = 0) -> None:
        """A disconnect or tcpclean event; nobody waits for it."""
        peer, certificates = connection.peer.address, _certificates(connection)
        presence = Presence(connection.channel, peer, reason=reason, will_due=will_due, certificates=certificates)
        self.append(kind, presence, session.client, session.id, session.principal.name, self._node.clock.wall())

    async def _durable(self, record: Record, waiting: Waiting) -> None:
        """In a storm of connects many share a group of the log, since the groups that it makes of itself would be small."""
        node = self._node
        if self._waiting < STORM and not self._gathered:
            node.log.append(PRESENCE_TOPIC, record.client, record, waiting)
        else:
            if not self._gathered:
                node.loop.call_later(GATHER, self._append_gathered)
            self._gathered.append((record, waiting))
        self._waiting += 1
        try:
            await waiting.future
        finally:
            self._waiting -= 1

    def _append_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        for record, sink in gathered:
            self._node.log.append(PRESENCE_TOPIC, record.client, record, sink)

    def append(self, kind: Kind, presence: Presence, client: str, session: int, principal: str, now: int) -> None:
        """One event into the log, for which nobody waits; ``session`` is its number."""
        self._node.log.append(PRESENCE_TOPIC, client, self._record(kind, presence, client, session, principal, now), self)

    def _record(self, kind: Kind, presence: Presence, client: str, session: int, principal: str, now: int) -> Record:
        node = self._node
        record_id = tcpclean_id(presence.channel) if kind == Kind.TCPCLEAN else node.ids.next(now)
        payload = encode_presence(presence)
        return Record(int(kind), record_id, now, client, payload=payload, session=session, epoch=node.epoch, principal=principal)

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

    def folded(self, records: Sequence[Record], events: Sequence[Presence]) -> None:
        """See ``streams.runtime.PresenceSink``."""
        self._node.trace.presence(records, events)

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
