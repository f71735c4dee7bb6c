"""Wills that fall due: published at once or after their delay, cancelled by a reconnect; each once (design: wills, presence).

A will's record has an id derived from its channel, and the channel's row in the store goes when the record is durable:
whatever a crash leaves undone is found again at start (gateway/recovery.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import LogError
from schemas.identities import Principal
from schemas.positions import At
from schemas.presence import Will
from schemas.records import PUBLISH_TOPIC, Flag, Kind, Record, Source
from streams.expiry import message_deadline
from streams.presence import will_id
from streams.store import DropChannel

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node
    from gateway.session import Session

FOLD_WITHIN = 60.0


class Due(NamedTuple):
    """A will and whose it is; ``at`` wall-clock ms, ``session`` the number of the session, 0 for one that ended with its connection."""

    channel: str
    client: str
    principal: Principal
    persistent: bool
    will: Will
    at: int
    session: int = 0


class Wills:
    """One delayed will per client id at most: a new connection settles the old one's."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._delayed: dict[str, Due] = {}
        self._publishing: dict[bytes, str] = {}
        self._early: dict[str, float] = {}
        """Channels whose will was settled before their tcpclean was folded, and when."""

    def fall_due(self, connection: Connection, session: Session, will: Will, at: int) -> None:
        """A connection with a will ended."""
        due = Due(connection.channel, session.client, connection.principal, session.expiry > 0, will, at, session.id)
        self.add(due, self._node.clock.wall())

    def add(self, due: Due, now: int) -> None:
        """Publish at once if it is due ``now``, else when its time has come."""
        if due.at <= now:
            self._publish(due)
        else:
            self._delayed[due.client] = due

    def reconnected(self, client: str, *, resumed: bool) -> None:
        """A new connection of the client id: a delayed will is dropped if the session goes on [MQTT-3.1.3-9], else published."""
        due = self._delayed.pop(client, None)
        if due is None:
            return
        if resumed:
            self._settled(due.channel)
        else:
            self._publish(due)

    def connected_elsewhere(self, client: str, session: int) -> None:
        """Likewise on another node, by that session."""
        due = self._delayed.get(client)
        if due is not None:
            self.reconnected(client, resumed=session != 0 and session == due.session)

    def session_ended(self, client: str) -> None:
        """The session ended before the delay passed: the will falls due [MQTT-3.1.2-8]."""
        due = self._delayed.pop(client, None)
        if due is not None:
            self._publish(due)

    def tick(self, now: int) -> None:
        """Publish what has become due; ``now`` wall-clock ms."""
        for due in [due for due in self._delayed.values() if due.at <= now]:
            del self._delayed[due.client]
            self._publish(due)

    def _publish(self, due: Due) -> None:
        node, will = self._node, due.will
        now = node.clock.wall()
        principal = node.token_watch.as_of(due.principal, now)
        if principal is None or not node.access.may(principal, "publish", will.topic):
            node.counters.refused["will_not_authorized"] += 1
            node.refusals.denied("will-denied", due.client, due.principal, will.topic)
            self._settled(due.channel)
            return
        p2p = node.is_p2p(will.topic)
        flags = (Flag.P2P if p2p else Flag.RETAIN if will.retain else 0) | (Flag.PERSISTENT if due.persistent else 0)
        record = Record(
            int(Kind.PUBLISH),
            will_id(due.channel, now),
            now,
            due.client,
            will.topic,
            will.payload,
            qos=will.qos,
            flags=int(flags),
            principal=due.principal.name,
            source=int(Source.WILL),
            expires_at=message_deadline(None if will.expiry < 0 else will.expiry, now),
            properties=will.properties,
        )
        self._publishing[record.id] = due.channel
        node.counters.wills += 1
        node.log.append(PUBLISH_TOPIC, due.client, record, self)

    def appended(self, records: Sequence[Record], first: At) -> None:
        """Durable: the channel is done with."""
        for record in records:
            self._settled(self._publishing.pop(record.id))

    def _settled(self, channel: str) -> None:
        """Published or cancelled: the channel's row goes, now or when its tcpclean is folded."""
        if self._node.presence.tcpclean_is_folded(channel):
            self._node.presence.forget_will(channel)
        else:
            self._early[channel] = self._node.monotonic()
        self._node.persistence.add(DropChannel(channel=channel))

    def settle_seen(self, channel: str) -> None:
        """At start: the log has this will already."""
        self._settled(channel)

    def is_settled(self, channel: str) -> bool:
        """Whether the will was settled before its tcpclean was folded; asked once, by the fold."""
        return self._early.pop(channel, None) is not None

    @property
    def early(self) -> list[str]:
        """Channels whose will was settled and whose tcpclean may not be folded yet."""
        return list(self._early)

    def folded(self, channel: str) -> None:
        """The fold has passed all that it could store of the channel: its row goes for good."""
        if self._early.pop(channel, None) is not None:
            self._node.persistence.add(DropChannel(channel=channel))

    def is_ahead_of_fold(self, now: float) -> bool:
        """Whether wills are settled of which the presence fold doesn't know: a crash now must find them in the log.

        A tcpclean that the log refused never comes: after ``FOLD_WITHIN`` seconds it isn't waited for.
        """
        for channel in [channel for channel, at in self._early.items() if at < now - FOLD_WITHIN]:
            del self._early[channel]
        return bool(self._early)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        """The channel's row stays: the next start publishes it."""
        for record in records:
            self._publishing.pop(record.id, None)
