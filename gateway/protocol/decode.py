"""Bytes to packets: the body of one packet, framed by gateway/reading.py, in either direction.

Any bytes give a packet or a PacketError with the reason code to answer with. Checks what a packet says by itself; what depends
on the connection (states.py, aliases, quotas, permissions) is judged elsewhere. ``from_server`` is for clients: tools and tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.protocol.errors import MalformedPacket, ProtocolError
from gateway.protocol.packet_types import MQTT_3_1_1, MQTT_5_0, PacketType
from gateway.protocol.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    WillMessage,
)
from gateway.protocol.properties import WILL, Properties, decode_properties
from gateway.protocol.reason_tables import AUTH_FROM_CLIENT, DISCONNECT_FROM_CLIENT, REASONS, RETURN_CODES, SUBACK_3_1_1
from gateway.protocol.strings import read_binary, read_byte, read_string, read_two
from schemas.limits import Limits
from schemas.reasons import ReasonCode

FLAGS: Final[dict[PacketType, int]] = {
    packet_type: 2 if packet_type in (PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE) else 0
    for packet_type in PacketType
    if packet_type != PacketType.PUBLISH
}
"""The lower four bits of the first byte, fixed for all but PUBLISH [MQTT-2.1.3-1]: table 2-2.

PUBREL [MQTT-3.6.1-1], SUBSCRIBE [MQTT-3.8.1-1] and UNSUBSCRIBE [MQTT-3.10.1-1] have 2, DISCONNECT [MQTT-3.14.1-1] and AUTH [MQTT-3.15.1-1] 0.
"""


def decode_packet(first_byte: int, body: bytes, version: int, limits: Limits, *, from_server: bool = False) -> Packet:
    """The packet of ``first_byte`` and ``body``, which is all that follows the remaining length.

    ``version`` is that of the connection, 4 or 5; a CONNECT names its own. Raises MalformedPacket or ProtocolError, nothing else.
    """
    kind = first_byte >> 4
    if kind == PacketType.PUBLISH:
        return _publish(first_byte, body, version, limits, from_server)
    decoder = _DECODERS.get(kind)
    if decoder is None or (kind == PacketType.AUTH and version != MQTT_5_0):
        raise MalformedPacket(f"packet type {kind} is reserved")
    packet_type = PacketType(kind)
    if first_byte & 0x0F != FLAGS[packet_type]:
        raise MalformedPacket(f"{packet_type.name}: flags {first_byte & 0x0F:#x}, not {FLAGS[packet_type]:#x}")
    return decoder(packet_type, body, version, limits, from_server)


def answer_version(body: bytes) -> int:
    """The version in which a CONNECT with this body is answered, well formed or not: 5 for levels of 5 and more, else 4."""
    return MQTT_5_0 if body[:6] == b"\x00\x04MQTT" and len(body) > 6 and body[6] >= MQTT_5_0 else MQTT_3_1_1


def _publish(first_byte: int, body: bytes, version: int, limits: Limits, from_server: bool) -> Publish:
    qos = first_byte >> 1 & 3
    dup = first_byte & 8 != 0
    if qos == 3:
        raise MalformedPacket("PUBLISH: both QoS bits are set")  # [MQTT-3.3.1-4]
    if dup and not qos:
        raise MalformedPacket("PUBLISH: DUP with QoS 0")  # [MQTT-3.3.1-2]
    topic, at = read_string(body, 0, "topic name")  # [MQTT-3.3.2-1]
    if "+" in topic or "#" in topic:  # [MQTT-3.3.2-2] [MQTT-4.7.0-1]
        raise MalformedPacket("topic name: holds a wildcard", ReasonCode.TOPIC_NAME_INVALID)
    packet_id = 0
    if qos:  # [MQTT-2.2.1-2]
        packet_id, at = _packet_id(body, at)
    properties = None
    if version == MQTT_5_0:
        properties, at = decode_properties(body, at, PacketType.PUBLISH, limits)
        if properties is not None:
            if properties.subscription_identifier and not from_server:  # [MQTT-3.3.4-6]
                raise ProtocolError("subscription_identifier: not for a client's PUBLISH")
            _check_response_topic(properties)
    if not topic:  # [MQTT-4.7.3-1]; MQTT 5.0 section 3.3.2.1
        if version != MQTT_5_0:
            raise MalformedPacket("topic name: empty", ReasonCode.TOPIC_NAME_INVALID)
        if properties is None or properties.topic_alias is None:
            raise ProtocolError("topic name: empty without a topic alias")
    return Publish(
        topic=topic,
        payload=body[at:],
        qos=qos,
        retain=first_byte & 1 != 0,
        dup=dup,
        packet_id=packet_id,
        properties=properties,
    )


def _packet_id(body: bytes, at: int) -> tuple[int, int]:
    """Never 0 [MQTT-2.2.1-3] [MQTT-2.2.1-4]."""
    packet_id, at = read_two(body, at, "packet identifier")
    if not packet_id:
        raise ProtocolError("packet identifier: 0")
    return packet_id, at


def _check_response_topic(properties: Properties) -> None:
    """A topic name: no wildcard [MQTT-3.3.2-14], not empty [MQTT-4.7.3-1]."""
    topic = properties.response_topic
    if topic is not None and (not topic or "+" in topic or "#" in topic):
        raise ProtocolError("response_topic: not a topic name")


def _check_end(packet_type: PacketType, body: bytes, at: int) -> None:
    if at != len(body):
        raise MalformedPacket(f"{packet_type.name}: {len(body) - at} bytes too many")


def _reason(packet_type: PacketType, value: int) -> ReasonCode:
    reason = REASONS[packet_type].get(value)
    if reason is None:
        raise ProtocolError(f"{packet_type.name}: 0x{value:02X} is no reason code of it")
    return reason


# CONNECT


def _connect(packet_type: PacketType, body: bytes, _: int, limits: Limits, __: bool) -> Connect:
    version, at = _protocol(body)
    flags, at = read_byte(body, at, "connect flags")
    _check_connect_flags(flags, version)
    keep_alive, at = read_two(body, at, "keep alive")
    properties: Properties | None = None
    if version == MQTT_5_0:
        properties, at = decode_properties(body, at, packet_type, limits)
        _check_authentication(properties)
    # The order of the payload's fields is fixed [MQTT-3.1.3-1].
    client_id, at = read_string(body, at, "client id")  # [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    clean_start = flags & 0x02 != 0
    if not client_id and not clean_start and version == MQTT_3_1_1:  # 3.1.1: [MQTT-3.1.3-7] [MQTT-3.1.3-8]
        raise ProtocolError("client id: empty without clean session", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
    will: WillMessage | None = None
    if flags & 0x04:
        will, at = _will(body, at, flags, version, limits)
    user_name: str | None = None
    if flags & 0x80:  # [MQTT-3.1.2-17] [MQTT-3.1.3-12]
        user_name, at = read_string(body, at, "user name")
    password: bytes | None = None
    if flags & 0x40:  # [MQTT-3.1.2-19]
        password, at = read_binary(body, at, "password")
    _check_end(packet_type, body, at)  # no user name [MQTT-3.1.2-16] and no password [MQTT-3.1.2-18] without its flag
    return Connect(
        version=version,
        clean_start=clean_start,
        keep_alive=keep_alive,
        client_id=client_id,
        user_name=user_name,
        password=password,
        will=will,
        properties=properties,
    )


def _protocol(body: bytes) -> tuple[int, int]:
    """The version and the place behind it [MQTT-3.1.2-1] [MQTT-3.1.2-2]; MQTT 3.1 (`MQIsdp`) is refused like any other."""
    name, at = read_binary(body, 0, "protocol name")
    level, at = read_byte(body, at, "protocol version")
    if name != b"MQTT" or level not in (MQTT_3_1_1, MQTT_5_0):
        raise ProtocolError(f"protocol version: {level}, or another protocol's name", ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
    return level, at


def _check_connect_flags(flags: int, version: int) -> None:
    if flags & 0x01:  # [MQTT-3.1.2-3]
        raise MalformedPacket("connect flags: the reserved bit is set")
    if flags & 0x18 == 0x18:  # [MQTT-3.1.2-12]
        raise MalformedPacket("connect flags: will QoS 3")
    if flags & 0x38 and not flags & 0x04:  # [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        raise MalformedPacket("connect flags: will QoS or will retain without a will")
    if flags & 0xC0 == 0x40 and version == MQTT_3_1_1:  # 3.1.1: [MQTT-3.1.2-22]
        raise MalformedPacket("connect flags: a password without a user name")


def _check_authentication(properties: Properties | None) -> None:
    """Data without a method is a protocol error: section 3.1.2.11.10."""
    if properties is not None and properties.authentication_data is not None and properties.authentication_method is None:
        raise ProtocolError("authentication_data: without authentication_method")


def _will(body: bytes, at: int, flags: int, version: int, limits: Limits) -> tuple[WillMessage, int]:
    """The fields that a will has to have [MQTT-3.1.2-9]; its topic obeys the rules of a topic name [MQTT-3.1.3-11]."""
    properties: Properties | None = None
    if version == MQTT_5_0:
        properties, at = decode_properties(body, at, WILL, limits)
        if properties is not None:
            _check_response_topic(properties)
    topic, at = read_string(body, at, "will topic")
    if not topic or "+" in topic or "#" in topic:
        raise ProtocolError("will topic: not a topic name", ReasonCode.TOPIC_NAME_INVALID)
    payload, at = read_binary(body, at, "will payload")
    will = WillMessage(topic=topic, payload=payload, qos=flags >> 3 & 3, retain=flags & 0x20 != 0, properties=properties)
    return will, at


# Acknowledgements


def _connack(packet_type: PacketType, body: bytes, version: int, limits: Limits, _: bool) -> Connack:
    flags, at = read_byte(body, 0, "connect acknowledge flags")
    if flags > 1:  # [MQTT-3.2.2-1]
        raise MalformedPacket("connect acknowledge flags: a reserved bit is set")
    code, at = read_byte(body, at, "reason code")
    properties: Properties | None = None
    if version == MQTT_5_0:
        reason = _reason(packet_type, code)
        properties, at = decode_properties(body, at, packet_type, limits)
        _check_authentication(properties)
    elif code < len(RETURN_CODES):
        reason = RETURN_CODES[code]
    else:
        raise ProtocolError(f"CONNACK: {code} is no return code")
    _check_end(packet_type, body, at)
    if flags and reason:  # [MQTT-3.2.2-6]
        raise ProtocolError("CONNACK: session present in a refusal")
    return Connack(session_present=flags == 1, reason_code=reason, properties=properties)


def _ack(packet_type: PacketType, body: bytes, version: int, limits: Limits, _: bool) -> Ack:
    packet_id, at = _packet_id(body, 0)
    reason, properties = ReasonCode.SUCCESS, None
    if version == MQTT_5_0:
        reason, properties, at = _reason_and_properties(packet_type, body, at, limits)
    _check_end(packet_type, body, at)
    return Ack(type=packet_type, packet_id=packet_id, reason_code=reason, properties=properties)


def _reason_and_properties(packet_type: PacketType, body: bytes, at: int, limits: Limits) -> tuple[ReasonCode, Properties | None, int]:
    """Both may be left out at the end of a packet: no reason code is success, no property length no properties."""
    if at == len(body):
        return ReasonCode.SUCCESS, None, at
    reason, at = _reason(packet_type, body[at]), at + 1
    if at == len(body):
        return reason, None, at
    properties, at = decode_properties(body, at, packet_type, limits)
    return reason, properties, at


def _suback(packet_type: PacketType, body: bytes, version: int, limits: Limits, _: bool) -> Suback:
    packet_id, at = _packet_id(body, 0)
    properties: Properties | None = None
    if version == MQTT_5_0:
        properties, at = decode_properties(body, at, packet_type, limits)
    reasons = tuple(_reason(packet_type, code) for code in body[at:])
    if version == MQTT_3_1_1 and not SUBACK_3_1_1.issuperset(reasons):  # 3.1.1: [MQTT-3.9.3-2]
        raise ProtocolError("SUBACK: a return code that is reserved")
    if not reasons:
        raise MalformedPacket("SUBACK: without reason codes")
    return Suback(packet_id=packet_id, reason_codes=reasons, properties=properties)


def _unsuback(packet_type: PacketType, body: bytes, version: int, limits: Limits, _: bool) -> Unsuback:
    packet_id, at = _packet_id(body, 0)
    if version == MQTT_3_1_1:
        _check_end(packet_type, body, at)
        return Unsuback(packet_id=packet_id, reason_codes=())
    properties, at = decode_properties(body, at, packet_type, limits)
    reasons = tuple(_reason(packet_type, code) for code in body[at:])
    if not reasons:
        raise MalformedPacket("UNSUBACK: without reason codes")
    return Unsuback(packet_id=packet_id, reason_codes=reasons, properties=properties)


# SUBSCRIBE, UNSUBSCRIBE


def _subscribe(packet_type: PacketType, body: bytes, version: int, limits: Limits, _: bool) -> Subscribe:
    packet_id, at = _packet_id(body, 0)
    properties: Properties | None = None
    if version == MQTT_5_0:
        properties, at = decode_properties(body, at, packet_type, limits)
    requests: list[SubscriptionRequest] = []
    while at < len(body):
        _check_count(len(requests), limits)
        topic_filter, at = _filter(body, at)
        options, at = read_byte(body, at, "subscription options")
        requests.append(_request(topic_filter, options, version))
    if not requests:  # [MQTT-3.8.3-2]
        raise ProtocolError("SUBSCRIBE: without a topic filter")
    return Subscribe(packet_id=packet_id, requests=tuple(requests), properties=properties)


def _request(topic_filter: str, options: int, version: int) -> SubscriptionRequest:
    if options & (0xC0 if version == MQTT_5_0 else 0xFC):  # [MQTT-3.8.3-5], 3.1.1: [MQTT-3-8.3-4]
        raise MalformedPacket("subscription options: a reserved bit is set")
    qos, no_local, retain_handling = options & 3, options & 0x04 != 0, options >> 4
    if qos == 3:
        raise ProtocolError("subscription options: QoS 3")
    if retain_handling == 3:
        raise ProtocolError("subscription options: retain handling 3")
    if no_local and topic_filter.startswith("$share/"):  # [MQTT-3.8.3-4]
        raise ProtocolError("subscription options: no local on a shared subscription")
    return SubscriptionRequest(
        filter=topic_filter,
        qos=qos,
        no_local=no_local,
        retain_as_published=options & 0x08 != 0,
        retain_handling=retain_handling,
    )


def _unsubscribe(packet_type: PacketType, body: bytes, version: int, limits: Limits, _: bool) -> Unsubscribe:
    packet_id, at = _packet_id(body, 0)
    properties: Properties | None = None
    if version == MQTT_5_0:
        properties, at = decode_properties(body, at, packet_type, limits)
    filters: list[str] = []
    while at < len(body):
        _check_count(len(filters), limits)
        topic_filter, at = _filter(body, at)
        filters.append(topic_filter)
    if not filters:  # [MQTT-3.10.3-2]
        raise ProtocolError("UNSUBSCRIBE: without a topic filter")
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters), properties=properties)


def _filter(body: bytes, at: int) -> tuple[str, int]:
    """UTF-8 [MQTT-3.8.3-1] [MQTT-3.10.3-1], not empty [MQTT-4.7.3-1]; its form is judged filter by filter where it is served."""
    topic_filter, at = read_string(body, at, "topic filter")
    if not topic_filter:
        raise MalformedPacket("topic filter: empty")
    return topic_filter, at


def _check_count(count: int, limits: Limits) -> None:
    if count >= limits.filters_per_subscribe:
        raise ProtocolError(f"topic filters: more than {limits.filters_per_subscribe}", ReasonCode.QUOTA_EXCEEDED)


# PINGREQ, PINGRESP, DISCONNECT, AUTH


def _ping(packet_type: PacketType, body: bytes, _: int, __: Limits, ___: bool) -> Pingreq | Pingresp:
    _check_end(packet_type, body, 0)
    return Pingreq() if packet_type == PacketType.PINGREQ else Pingresp()


def _disconnect(packet_type: PacketType, body: bytes, version: int, limits: Limits, from_server: bool) -> Disconnect:
    if version == MQTT_3_1_1:
        _check_end(packet_type, body, 0)
        return Disconnect()
    reason, properties, at = _reason_and_properties(packet_type, body, 0, limits)
    _check_end(packet_type, body, at)
    if not from_server and reason not in DISCONNECT_FROM_CLIENT:  # [MQTT-3.14.2-1]
        raise ProtocolError(f"DISCONNECT: 0x{reason:02X} is not for clients")
    if from_server and properties is not None and properties.session_expiry_interval is not None:  # [MQTT-3.14.2-2]
        raise ProtocolError("session_expiry_interval: not for a server's DISCONNECT")
    return Disconnect(reason_code=reason, properties=properties)


def _auth(packet_type: PacketType, body: bytes, version: int, limits: Limits, from_server: bool) -> Auth:
    reason, properties, at = _reason_and_properties(packet_type, body, 0, limits)
    _check_end(packet_type, body, at)
    if not from_server and reason not in AUTH_FROM_CLIENT:  # [MQTT-3.15.2-1]
        raise ProtocolError(f"AUTH: 0x{reason:02X} is not for clients")
    # Section 3.15.2.2.2 asks for the method, section 3.15.2.1 lets an empty packet stand for success.
    if body and (properties is None or properties.authentication_method is None):
        raise ProtocolError("authentication_method: missing in AUTH")
    return Auth(reason_code=reason, properties=properties)


_Decoder = Callable[[PacketType, bytes, int, Limits, bool], Packet]

_DECODERS: Final[dict[int, _Decoder]] = {
    PacketType.CONNECT: _connect,
    PacketType.CONNACK: _connack,
    PacketType.PUBACK: _ack,
    PacketType.PUBREC: _ack,
    PacketType.PUBREL: _ack,
    PacketType.PUBCOMP: _ack,
    PacketType.SUBSCRIBE: _subscribe,
    PacketType.SUBACK: _suback,
    PacketType.UNSUBSCRIBE: _unsubscribe,
    PacketType.UNSUBACK: _unsuback,
    PacketType.PINGREQ: _ping,
    PacketType.PINGRESP: _ping,
    PacketType.DISCONNECT: _disconnect,
    PacketType.AUTH: _auth,
}
