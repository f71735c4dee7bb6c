"""Packets to bytes, as short as the specification allows, in either direction.

encode_packet writes a packet; encode_within writes it for a peer, inside that peer's maximum packet size. A packet that has
no encoding is Unencodable: a mistake on this side. hot.py writes PUBLISH and its acknowledgements faster, to the same bytes.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from gateway.protocol.decode import FLAGS
from gateway.protocol.errors import Unencodable
from gateway.protocol.packet_types import MQTT_5_0, PacketType
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
    Unsuback,
    Unsubscribe,
)
from gateway.protocol.properties import Properties, encode_properties
from gateway.protocol.reason_tables import REASONS
from gateway.protocol.strings import put_binary, put_string, put_two, put_varint
from schemas.reasons import CONNECT_RETURN_CODES, ReasonCode


def encode_packet(packet: Packet, version: int) -> bytes:
    """The bytes of a packet. ``version`` is that of the connection, 4 or 5; a CONNECT names its own."""
    match packet:
        case Publish():
            return _publish(packet, version)
        case Ack():
            body = bytearray()
            _put_packet_id(body, packet.packet_id)
            if version == MQTT_5_0:
                _put_reason_and_properties(body, packet.type, packet.reason_code, packet.properties)
            return _framed(packet.type, body)
        case Subscribe():
            return _framed(PacketType.SUBSCRIBE, _subscribe(packet, version))
        case Suback():
            return _framed(PacketType.SUBACK, _suback(packet, version))
        case Unsubscribe():
            return _framed(PacketType.UNSUBSCRIBE, _unsubscribe(packet, version))
        case Unsuback():
            return _framed(PacketType.UNSUBACK, _unsuback(packet, version))
        case Connect():
            return _framed(PacketType.CONNECT, _connect(packet))
        case Connack():
            return _framed(PacketType.CONNACK, _connack(packet, version))
        case Disconnect():
            return _framed(PacketType.DISCONNECT, _disconnect(packet, version))
        case Auth():
            return _framed(PacketType.AUTH, _auth(packet, version))
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
        case _:
            assert_never(packet)


def encode_within(packet: Packet, version: int, maximum_packet_size: int, *, problem_information: bool = True) -> bytes | None:
    """The bytes of a packet that a peer can take, or None where it is not to be sent to it at all [MQTT-3.1.2-24] [MQTT-3.1.2-25].

    To fit, the reason string goes first, then the user properties: of CONNACK [MQTT-3.2.2-19] [MQTT-3.2.2-20],
    PUBACK [MQTT-3.4.2-2] [MQTT-3.4.2-3], PUBREC [MQTT-3.5.2-2] [MQTT-3.5.2-3], PUBREL [MQTT-3.6.2-2] [MQTT-3.6.2-3],
    PUBCOMP [MQTT-3.7.2-2] [MQTT-3.7.2-3], SUBACK [MQTT-3.9.2-1] [MQTT-3.9.2-2], UNSUBACK [MQTT-3.11.2-1] [MQTT-3.11.2-2],
    DISCONNECT [MQTT-3.14.2-3] [MQTT-3.14.2-4] and AUTH [MQTT-3.15.2-2] [MQTT-3.15.2-3];
    a PUBLISH loses nothing [MQTT-3.3.2-17]. Without ``problem_information`` neither is sent on other packets than PUBLISH,
    CONNACK and DISCONNECT [MQTT-3.1.2-29]. A refusal that 3.1.1 has no return code for is None too.
    """
    if isinstance(packet, Connack) and version != MQTT_5_0 and packet.reason_code not in CONNECT_RETURN_CODES:
        return None
    if not problem_information and isinstance(packet, Ack | Suback | Unsuback | Auth):
        packet = _without(_without(packet, reason_string=True), reason_string=False)
    encoded = encode_packet(packet, version)
    if len(encoded) <= maximum_packet_size:
        return encoded
    if isinstance(packet, Connack | Ack | Suback | Unsuback | Disconnect | Auth):
        for reason_string in (True, False):
            packet = _without(packet, reason_string=reason_string)
            encoded = encode_packet(packet, version)
            if len(encoded) <= maximum_packet_size:
                return encoded
    return None


_Answer = Connack | Ack | Suback | Unsuback | Disconnect | Auth


def _without(packet: _Answer, *, reason_string: bool) -> _Answer:
    """The packet without its reason string, or else without its user properties."""
    if packet.properties is None:
        return packet
    if reason_string:
        properties = msgspec.structs.replace(packet.properties, reason_string=None)
    else:
        properties = msgspec.structs.replace(packet.properties, user_property=())
    return msgspec.structs.replace(packet, properties=properties)


def _framed(packet_type: PacketType, body: bytearray) -> bytes:
    out = bytearray((packet_type << 4 | FLAGS[packet_type],))
    put_varint(out, len(body), "remaining length")
    return bytes(out + body)


def _put_packet_id(body: bytearray, packet_id: int) -> None:
    if not packet_id:
        raise Unencodable("packet identifier: 0")
    put_two(body, packet_id, "packet identifier")


def _put_reason_and_properties(body: bytearray, packet_type: PacketType, reason: ReasonCode, properties: Properties | None) -> None:
    """What is not needed at the end is left out: the property length of no properties, and a success before it."""
    _check_reason(packet_type, reason)
    block = encode_properties(properties)
    if len(block) > 1:
        body.append(reason)
        body += block
    elif reason:
        body.append(reason)


def _check_reason(packet_type: PacketType, reason: ReasonCode) -> None:
    if reason not in REASONS[packet_type]:
        raise Unencodable(f"{packet_type.name}: 0x{reason:02X} is no reason code of it")


def _publish(packet: Publish, version: int) -> bytes:
    body = bytearray()
    put_string(body, packet.topic, "topic name")
    if packet.qos:
        _put_packet_id(body, packet.packet_id)
    if version == MQTT_5_0:
        body += encode_properties(packet.properties)
    first = PacketType.PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain
    out = bytearray((first,))
    put_varint(out, len(body) + len(packet.payload), "remaining length")
    return b"".join((out, body, packet.payload))


def _connect(packet: Connect) -> bytearray:
    body = bytearray(b"\x00\x04MQTT")
    will = packet.will
    flags = packet.clean_start << 1
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
    flags |= (packet.password is not None) << 6 | (packet.user_name is not None) << 7
    body += bytes((packet.version, flags))
    put_two(body, packet.keep_alive, "keep alive")
    if packet.version == MQTT_5_0:
        body += encode_properties(packet.properties)
    put_string(body, packet.client_id, "client id")
    if will is not None:
        if packet.version == MQTT_5_0:
            body += encode_properties(will.properties)
        put_string(body, will.topic, "will topic")
        put_binary(body, will.payload, "will payload")
    if packet.user_name is not None:
        put_string(body, packet.user_name, "user name")
    if packet.password is not None:
        put_binary(body, packet.password, "password")
    return body


def _connack(packet: Connack, version: int) -> bytearray:
    if packet.session_present and packet.reason_code:  # [MQTT-3.2.2-6]
        raise Unencodable("CONNACK: session present in a refusal")
    if version == MQTT_5_0:
        _check_reason(PacketType.CONNACK, packet.reason_code)
        return bytearray((packet.session_present, packet.reason_code)) + encode_properties(packet.properties)
    code = CONNECT_RETURN_CODES.get(packet.reason_code)
    if code is None:
        raise Unencodable(f"CONNACK: 3.1.1 has no return code for 0x{packet.reason_code:02X}, close without it")
    return bytearray((packet.session_present, code))


def _subscribe(packet: Subscribe, version: int) -> bytearray:
    body = bytearray()
    _put_packet_id(body, packet.packet_id)
    if version == MQTT_5_0:
        body += encode_properties(packet.properties)
    for request in packet.requests:
        put_string(body, request.filter, "topic filter")
        options = request.qos
        if version == MQTT_5_0:
            options |= request.no_local << 2 | request.retain_as_published << 3 | request.retain_handling << 4
        body.append(options)
    return body


def _suback(packet: Suback, version: int) -> bytearray:
    body = bytearray()
    _put_packet_id(body, packet.packet_id)
    if version == MQTT_5_0:
        body += encode_properties(packet.properties)
    for reason in packet.reason_codes:
        _check_reason(PacketType.SUBACK, reason)
        body.append(reason if version == MQTT_5_0 else min(reason, ReasonCode.UNSPECIFIED_ERROR))  # 3.1.1: [MQTT-3.9.3-2]
    return body


def _unsubscribe(packet: Unsubscribe, version: int) -> bytearray:
    body = bytearray()
    _put_packet_id(body, packet.packet_id)
    if version == MQTT_5_0:
        body += encode_properties(packet.properties)
    for topic_filter in packet.filters:
        put_string(body, topic_filter, "topic filter")
    return body


def _unsuback(packet: Unsuback, version: int) -> bytearray:
    body = bytearray()
    _put_packet_id(body, packet.packet_id)
    if version == MQTT_5_0:
        body += encode_properties(packet.properties)
        for reason in packet.reason_codes:
            _check_reason(PacketType.UNSUBACK, reason)
            body.append(reason)
    return body


def _disconnect(packet: Disconnect, version: int) -> bytearray:
    body = bytearray()
    if version == MQTT_5_0:
        _put_reason_and_properties(body, PacketType.DISCONNECT, packet.reason_code, packet.properties)
    return body


def _auth(packet: Auth, version: int) -> bytearray:
    if version != MQTT_5_0:
        raise Unencodable("AUTH: not in 3.1.1")
    body = bytearray()
    _put_reason_and_properties(body, PacketType.AUTH, packet.reason_code, packet.properties)
    return body
