"""What a connected client sends: PUBLISH the fast way, and the packets that settle, subscribe and part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gateway import exactly_once, failpoints
from gateway.clock import COUNTER_BYTES
from gateway.controls import CONTROLS
from gateway.protocol import hot
from gateway.protocol.decode import decode_packet
from gateway.protocol.errors import MalformedPacket, ProtocolError
from gateway.protocol.packet_types import PacketType
from gateway.protocol.packets import MQTT_5_0, Ack, Disconnect, Packet, Publish, Subscribe, Unsubscribe
from gateway.protocol.properties import Properties, forwardable
from schemas.reasons import ReasonCode
from schemas.records import Flag, Kind, Record
from schemas.topics import is_topic_name
from streams.expiry import message_deadline

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.session import Session

MAX_TOPICS = 256
"""Topics a connection remembers as checked."""
P2P = int(Flag.P2P)
PERSISTENT = int(Flag.PERSISTENT)
RETAIN = int(Flag.RETAIN)
ORDERED = int(Flag.ORDERED)
DUP = int(Flag.DUP)
DUP_OF_QOS_2 = 0x0C
"""In a PUBLISH's first byte."""


class KnownTopic(NamedTuple):
    """A topic that this connection has published to: checked once. ``control``: a `$SYS` topic that we answer ourselves."""

    name: str
    allowed: bool
    flags: int
    control: bool


class Extras(NamedTuple):
    """What MQTT 5 properties of a PUBLISH come to."""

    raw: bytes
    expires_at: int


NO_EXTRAS = Extras(b"", 0)


def publish(connection: Connection, first: int, data: bytes, start: int, stop: int, now: int) -> None:
    """A PUBLISH at ``data[start:stop]``; ``now`` in ms. Raises PacketError."""
    if failpoints.ARMED:
        failpoints.reach("received")
    qos = first >> 1 & 3
    body = start + 2
    if stop < body or qos == 3 or first & 0x0E == 0x08:
        raise MalformedPacket("PUBLISH has bad flags or no topic")  # [MQTT-3.3.1-2] [MQTT-3.3.1-4]
    tail = body + (data[start] << 8 | data[start + 1])
    raw = data[body:tail]
    packet_id = 0
    if qos:
        if tail + 2 > stop:
            raise MalformedPacket("PUBLISH ends early")
        packet_id = data[tail] << 8 | data[tail + 1]
        tail += 2
        if packet_id == 0:
            raise MalformedPacket("PUBLISH has packet id 0")  # [MQTT-2.2.1-3]
    extras = NO_EXTRAS
    if connection.version == MQTT_5_0:
        if tail < stop and data[tail] == 0 and raw:
            tail += 1
        else:
            raw, extras, tail = _with_properties(connection, first, data[start:stop], start, now)
    if tail > stop:
        raise MalformedPacket("PUBLISH ends early")
    topics = connection.topics
    topic = topics.get(raw) if topics is not None else None
    if topic is None:
        topic = learn(connection, raw)
    flags = topic.flags
    if first & 1 and not flags & P2P:
        flags |= RETAIN
    if not topic.allowed or topic.control:
        apart(connection, topic, qos, packet_id, data[tail:stop])
        return
    session = connection.session
    assert session is not None  # noqa: S101 - connected
    if session.expiry:
        flags |= PERSISTENT
    if session.ordered:
        flags |= ORDERED
    if qos:
        if not _may_begin(connection, session, qos, packet_id):
            return
        if first & DUP_OF_QOS_2 == DUP_OF_QOS_2:
            flags |= DUP
    ids = connection.node.ids
    ids.counter += 1
    record_id = ids.prefix(now) + ids.counter.to_bytes(COUNTER_BYTES, "big")
    name, owner, payload, (raw, expires_at) = topic.name, connection.principal.name, data[tail:stop], extras
    # By place, in the order of the record's fields: the quickest way, on the one path where that counts
    connection.append(
        Record(0, record_id, now, session.client, name, payload, qos, flags, packet_id, session.id, session.epoch, owner, 0, expires_at, raw)
    )


def _may_begin(connection: Connection, session: Session, qos: int, packet_id: int) -> bool:
    """Whether a QoS 1 or 2 publish is to be taken; a QoS 2 id that awaits PUBREL is a repeat [MQTT-4.3.3-10], expired or not [MQTT-4.3.3-13].

    No QoS 1 id is: behind its PUBACK it is a new publish, whatever DUP says [MQTT-4.3.2-5].
    """
    if qos == 2:
        durable = session.received.get(packet_id) if session.received else None
        if durable is not None:
            if durable:
                connection.acknowledge(hot.PUBREC | packet_id)
            return False
    maximum = connection.node.limits.receive_maximum
    unreleased = len(session.received) if session.received else 0
    if connection.pending + unreleased >= maximum:
        if connection.version == MQTT_5_0:
            raise ProtocolError("more publishes than the receive maximum", ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)  # [MQTT-3.3.4-7]
        if unreleased >= maximum:
            raise ProtocolError(f"more than {maximum} QoS 2 publishes without PUBREL", ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
    if qos == 2:
        session.received_ids()[packet_id] = False
    return True


def _with_properties(connection: Connection, first: int, body: bytes, start: int, now: int) -> tuple[bytes, Extras, int]:
    """The topic, what the properties come to, and where the payload starts, for an MQTT 5 PUBLISH that has properties."""
    packet = decode_packet(first, body, MQTT_5_0, connection.node.limits)
    assert isinstance(packet, Publish)  # noqa: S101 - by its first byte
    raw = packet.topic.encode()
    properties = packet.properties or Properties()
    alias = properties.topic_alias
    if alias is not None:
        raw = _aliased(connection, alias, raw)
    elif not raw:
        raise ProtocolError("PUBLISH has neither topic nor alias")
    if properties.subscription_identifier:
        raise ProtocolError("a client's PUBLISH has a subscription identifier")  # [MQTT-3.3.4-6]
    expires_at = message_deadline(properties.message_expiry_interval, now)
    return raw, Extras(forwardable(properties), expires_at), start + len(body) - len(packet.payload)


def _aliased(connection: Connection, alias: int, raw: bytes) -> bytes:
    aliases = connection.aliases
    if aliases is None:
        aliases = connection.aliases = {}
    if not 0 < alias <= connection.node.limits.topic_alias_maximum:
        raise ProtocolError("the topic alias is over the maximum", ReasonCode.TOPIC_ALIAS_INVALID)  # [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
    if raw:
        aliases[alias] = raw  # any up to the maximum [MQTT-3.3.2-12]
        return raw
    known = aliases.get(alias)
    if known is None:
        raise ProtocolError("the topic alias is not known")  # section 3.3.4: 0x82, not the 0x94 of an alias out of range
    return known


def learn(connection: Connection, raw: bytes) -> KnownTopic:
    """Check a topic name once for this connection: form, limits, permission, P2P. Raises PacketError for a bad form."""
    node = connection.node
    try:
        name = raw.decode()  # [MQTT-1.5.4-1]
    except UnicodeDecodeError as error:
        raise MalformedPacket("the topic name is not UTF-8") from error
    limits = node.limits
    if not is_topic_name(name):
        raise ProtocolError("the topic name is empty or has wildcards", ReasonCode.TOPIC_NAME_INVALID)  # [MQTT-3.3.2-2]
    if len(raw) > limits.topic_bytes or name.count("/") >= limits.topic_levels:
        raise ProtocolError("the topic name is longer or deeper than the limit", ReasonCode.TOPIC_NAME_INVALID)
    flags = 0
    if node.is_p2p(name):
        flags = P2P
    control = name in CONTROLS
    allowed = control or node.access.may(connection.principal, "publish", name)
    topics = connection.topics
    if topics is None or len(topics) >= MAX_TOPICS:
        topics = connection.topics = {}
    topic = topics[raw] = KnownTopic(name, allowed, flags, control)
    return topic


def apart(connection: Connection, topic: KnownTopic, qos: int, packet_id: int, payload: bytes) -> None:
    """A publish that does not go to the log: refused, or to a control topic."""
    session = connection.session
    assert session is not None  # noqa: S101 - connected
    is_repeat = qos == 2 and packet_id in session.received_ids()
    if (is_repeat or (qos and topic.control)) and not _may_begin(connection, session, qos, packet_id):
        return
    reason = ReasonCode.SUCCESS
    if topic.control:
        reason = CONTROLS[topic.name](connection, payload)
        if reason:
            connection.node.counters.refused["control"] += 1
    else:
        reason = ReasonCode.NOT_AUTHORIZED
        connection.node.counters.refused["publish_not_authorized"] += 1
        connection.node.refusals.denied("publish-denied", session.client, connection.principal, topic.name)
        if connection.node.strict or connection.version != MQTT_5_0:
            # 3.1.1 can't be told, and an acknowledgement would be untrue [MQTT-3.3.5-2]
            connection.node.token_watch.refused(connection, "publish")
            connection.close(ReasonCode.NOT_AUTHORIZED, "resource auth failed")
            return
    if qos == 1:
        if connection.version == MQTT_5_0 and reason:
            connection.send_packet(Ack(type=PacketType.PUBACK, packet_id=packet_id, reason_code=reason))
        else:
            connection.acknowledge(hot.PUBACK | packet_id)
    elif qos == 2:
        if connection.version == MQTT_5_0 and reason:
            session.received_ids().pop(packet_id, None)  # the next publish of that id is a new one [MQTT-4.3.3-9]
            connection.send_packet(Ack(type=PacketType.PUBREC, packet_id=packet_id, reason_code=reason))
        else:
            session.received_ids()[packet_id] = True
            connection.acknowledge(hot.PUBREC | packet_id)


def second_step(session: Session | None, record: Record) -> int:
    """What a durable QoS 2 record is answered with: PUBREC to the publish [MQTT-4.3.3-8], PUBCOMP to the release."""
    if record.kind == Kind.PUBLISH:
        if session is not None and session.received and record.packet_id in session.received:
            session.received[record.packet_id] = True
        return hot.PUBREC | record.packet_id
    if session is not None and session.received and session.received.get(record.packet_id):
        # From now on the id is a new publish [MQTT-4.3.3-12]
        del session.received[record.packet_id]  # unless a PUBREL that came twice is late, and the id in use again
    return hot.PUBCOMP | record.packet_id


def acknowledge_elsewhere(session: Session, records: Sequence[Record]) -> None:
    """Durable once the connection was gone: a client that is back and has sent again was told nothing, so it gets its PUBREC now."""
    connection = session.connection
    if connection is not None and connection.ready:
        for record in records:
            if record.qos == 2 and record.kind == Kind.PUBLISH and record.packet_id in session.received_ids():
                connection.acknowledge(hot.PUBREC | record.packet_id)


def not_durable(session: Session, records: Sequence[Record]) -> None:
    """The log refused: a QoS 2 publish that comes again is a first one."""
    for record in records:
        if record.qos == 2 and record.kind == Kind.PUBLISH:
            session.received_ids().pop(record.packet_id, None)


def pubrel(connection: Connection, packet_id: int) -> None:
    """The client releases a QoS 2 id [MQTT-4.3.3-11]; a persistent session's release goes to the log first."""
    session = connection.session
    assert session is not None  # noqa: S101
    if failpoints.ARMED:
        failpoints.reach("pubrel-seen")
    if packet_id == 0:
        raise MalformedPacket("PUBREL has packet id 0")
    received = session.received_ids()
    if packet_id not in received:
        if connection.version == MQTT_5_0:
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            connection.send_packet(Ack(type=PacketType.PUBCOMP, packet_id=packet_id, reason_code=code))
        else:
            connection.acknowledge(hot.PUBCOMP | packet_id)
        return
    if not session.id:
        del received[packet_id]
        connection.acknowledge(hot.PUBCOMP | packet_id)
        return
    node = connection.node
    now = node.clock.wall()
    connection.append(
        Record(int(Kind.RELEASE), node.ids.next(now), now, session.client, qos=2, packet_id=packet_id, session=session.id, epoch=session.epoch)
    )


def packet(connection: Connection, received: Packet) -> None:
    """Any packet but PUBLISH and the plain PUBACK, PUBREL and PINGREQ."""
    session = connection.session
    assert session is not None  # noqa: S101
    if isinstance(received, Ack):
        _acknowledged(connection, session, received)
    elif isinstance(received, Subscribe):
        connection.node.subscribing.subscribe(connection, received)
    elif isinstance(received, Unsubscribe):
        connection.node.subscribing.unsubscribe(connection, received)
    elif isinstance(received, Disconnect):
        connection.disconnected(received)
    else:
        raise ProtocolError(f"a client may not send {type(received).__name__.upper()} here")  # AUTH, for one [MQTT-4.12.0-7] [MQTT-4.12.1-2]


def _acknowledged(connection: Connection, session: Session, ack: Ack) -> None:
    """A refusal settles like an acknowledgement [MQTT-4.4.0-2], in a shared subscription too [MQTT-4.8.2-6]."""
    refused = ack.reason_code >= 0x80
    if ack.type == PacketType.PUBACK:
        session.puback(ack.packet_id)
    elif ack.type == PacketType.PUBREC:
        if not exactly_once.pubrec(session, ack.packet_id, refused=refused) and not refused:
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if connection.version == MQTT_5_0 else ReasonCode.SUCCESS
            connection.send_packet(Ack(type=PacketType.PUBREL, packet_id=ack.packet_id, reason_code=code))
    elif ack.type == PacketType.PUBREL:
        pubrel(connection, ack.packet_id)
    else:
        exactly_once.pubcomp(session, ack.packet_id)
