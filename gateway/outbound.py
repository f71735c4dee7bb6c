"""One delivery to one session as a PUBLISH packet: its topic or alias, its size, its bytes on their way.

Functions over a Session (gateway/session.py), for the deliveries that go out one by one; runs of them leave in ``Session.deliver``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.protocol import hot
from streams.fanout import Delivery

if TYPE_CHECKING:
    from gateway.session import Session

NO_LIMIT_PACKET = 1 << 30


def too_large(session: Session, delivery: Delivery, now: int) -> bool:
    """Whether the client said that it takes no packet of that size [MQTT-3.1.2-24]."""
    if session.maximum_packet == NO_LIMIT_PACKET:
        return False
    alias = 1 if session.alias_limit else 0
    packet = hot.single(delivery, _topic(session, delivery), 1, version=session.version, dup=False, now=now, alias=alias)
    return len(packet) > session.maximum_packet


def write(session: Session, delivery: Delivery, packet_id: int, now: int, *, dup: bool = False) -> None:
    """Send it now, if the session has a connection; ``packet_id`` is 0 for QoS 0."""
    connection = session.connection
    if connection is None:
        return
    topic, alias = _topic(session, delivery), 0
    if session.alias_limit:
        topic, alias = _alias(session, topic)
    connection.send(hot.single(delivery, topic, packet_id, version=session.version, dup=dup, now=now, alias=alias))
    session.node.counters.delivered += 1
    if delivery.traced:
        session.node.trace.pushed(session.client, (delivery,))


def _topic(session: Session, delivery: Delivery) -> str:
    """The topic that the receiver sees."""
    return session.node.shown_topic(session.principal, delivery.record)


def _alias(session: Session, topic: str) -> tuple[str, int]:
    """The topic as sent and its alias: named once, then empty; 0 once all are taken [MQTT-3.1.2-26] [MQTT-3.3.2-11]."""
    aliases = session.aliases
    if aliases is None:
        aliases = session.aliases = {}
    known = aliases.get(topic)
    if known is not None:
        return "", known
    if len(aliases) >= session.alias_limit:
        return topic, 0
    aliases[topic] = len(aliases) + 1
    return topic, len(aliases)
