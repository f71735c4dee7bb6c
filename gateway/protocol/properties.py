"""MQTT 5.0 properties (section 2.2.2): a struct with a field per property, its codec, and which packet may carry which.

RULES is the one table: identifier, field, wire type, where allowed, range, and the code for a value outside it. The rows are
in the order of the struct's fields. Knows nothing of packets but their types; rules that span a packet are in decode.py.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.protocol.errors import MalformedPacket, ProtocolError, Unencodable
from gateway.protocol.packet_types import PacketType
from gateway.protocol.strings import (
    MAX_VARINT,
    put_binary,
    put_string,
    put_varint,
    read_binary,
    read_string,
    read_varint,
    truncated,
)
from schemas.limits import Limits
from schemas.reasons import ReasonCode


class Properties(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """None (or an empty tuple) where a property is absent. User properties keep their order and repeats [MQTT-3.3.2-18]."""

    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifier: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_property: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifier_available: int | None = None
    shared_subscription_available: int | None = None


NONE = Properties()

WILL: Final = 0
"""Stands for a will among the packet types: its properties have a block of their own. 0 is no packet's type [MQTT-2.1.2]."""


BYTE: Final = 1
TWO: Final = 2
FOUR: Final = 4
VARINT: Final = 5
BINARY: Final = 6
STRING: Final = 7
PAIR: Final = 8
"""How a value is written (section 2.2.2.2). Integers of fixed size have their size as number."""


class Rule(msgspec.Struct, frozen=True):
    """A row of the table. Outside ``lowest`` to ``highest`` a value is a protocol error with ``refusal``."""

    identifier: int
    field: str
    wire: int
    allowed: tuple[int, ...]
    lowest: int = 0
    highest: int = 0xFFFFFFFF
    refusal: ReasonCode = ReasonCode.PROTOCOL_ERROR


_CONNECT, _CONNACK, _PUBLISH = PacketType.CONNECT, PacketType.CONNACK, PacketType.PUBLISH
_SUBSCRIBE, _DISCONNECT, _AUTH = PacketType.SUBSCRIBE, PacketType.DISCONNECT, PacketType.AUTH
_MESSAGE = (_PUBLISH, WILL)
_LOGIN = (_CONNECT, _CONNACK, _AUTH)
_ANSWERS = (
    _CONNACK,
    PacketType.PUBACK,
    PacketType.PUBREC,
    PacketType.PUBREL,
    PacketType.PUBCOMP,
    PacketType.SUBACK,
    PacketType.UNSUBACK,
    _DISCONNECT,
    _AUTH,
)
_ANYWHERE = (*_ANSWERS, _CONNECT, _PUBLISH, WILL, _SUBSCRIBE, PacketType.UNSUBSCRIBE)

RULES: Final[tuple[Rule, ...]] = (
    Rule(0x01, "payload_format_indicator", BYTE, _MESSAGE, highest=1),
    Rule(0x02, "message_expiry_interval", FOUR, _MESSAGE),
    Rule(0x03, "content_type", STRING, _MESSAGE),
    Rule(0x08, "response_topic", STRING, _MESSAGE),
    Rule(0x09, "correlation_data", BINARY, _MESSAGE),
    Rule(0x0B, "subscription_identifier", VARINT, (_PUBLISH, _SUBSCRIBE), lowest=1, highest=MAX_VARINT),
    Rule(0x11, "session_expiry_interval", FOUR, (_CONNECT, _CONNACK, _DISCONNECT)),
    Rule(0x12, "assigned_client_identifier", STRING, (_CONNACK,)),
    Rule(0x13, "server_keep_alive", TWO, (_CONNACK,), highest=0xFFFF),
    Rule(0x15, "authentication_method", STRING, _LOGIN),
    Rule(0x16, "authentication_data", BINARY, _LOGIN),
    Rule(0x17, "request_problem_information", BYTE, (_CONNECT,), highest=1),
    Rule(0x18, "will_delay_interval", FOUR, (WILL,)),
    Rule(0x19, "request_response_information", BYTE, (_CONNECT,), highest=1),
    Rule(0x1A, "response_information", STRING, (_CONNACK,)),
    Rule(0x1C, "server_reference", STRING, (_CONNACK, _DISCONNECT)),
    Rule(0x1F, "reason_string", STRING, _ANSWERS),
    Rule(0x21, "receive_maximum", TWO, (_CONNECT, _CONNACK), lowest=1, highest=0xFFFF),
    Rule(0x22, "topic_alias_maximum", TWO, (_CONNECT, _CONNACK), highest=0xFFFF),
    # An alias of 0 has a code of its own [MQTT-3.3.2-8].
    Rule(0x23, "topic_alias", TWO, (_PUBLISH,), lowest=1, highest=0xFFFF, refusal=ReasonCode.TOPIC_ALIAS_INVALID),
    Rule(0x24, "maximum_qos", BYTE, (_CONNACK,), highest=1),
    Rule(0x25, "retain_available", BYTE, (_CONNACK,), highest=1),
    Rule(0x26, "user_property", PAIR, _ANYWHERE),
    Rule(0x27, "maximum_packet_size", FOUR, (_CONNECT, _CONNACK), lowest=1),
    Rule(0x28, "wildcard_subscription_available", BYTE, (_CONNACK,), highest=1),
    Rule(0x29, "subscription_identifier_available", BYTE, (_CONNACK,), highest=1),
    Rule(0x2A, "shared_subscription_available", BYTE, (_CONNACK,), highest=1),
)

ALLOWED: Final[dict[int, dict[int, Rule]]] = {
    packet_type: {rule.identifier: rule for rule in RULES if packet_type in rule.allowed} for packet_type in _ANYWHERE
}
"""By packet type (or WILL) and identifier."""

_FORWARDED: Final = ("payload_format_indicator", "content_type", "response_topic", "correlation_data", "user_property")
_FORWARDED_RULES: Final = tuple(rule for rule in RULES if rule.field in _FORWARDED)


def decode_properties(data: bytes, start: int, packet_type: int, limits: Limits) -> tuple[Properties | None, int]:
    """The block that begins at ``start`` with its length, and the place behind it. None for an empty block.

    ``packet_type`` is a PacketType or WILL. A property unknown or not allowed there is malformed (section 2.2.2.2); one given
    twice is a protocol error, user properties and a PUBLISH's subscription identifiers aside.
    """
    length, at = read_varint(data, start, "property length")
    if not length:
        return None, at
    end = at + length
    if end > len(data):
        raise truncated("properties")
    if length > limits.properties_bytes:
        raise ProtocolError(f"properties: {length} bytes, at most {limits.properties_bytes}", ReasonCode.QUOTA_EXCEEDED)
    rules = ALLOWED[packet_type]
    values: dict[str, Any] = {}
    pairs: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while at < end:
        rule = rules.get(data[at])
        if rule is None:
            raise MalformedPacket(f"properties: 0x{data[at]:02X} is no property of this packet")
        at += 1
        field, wire = rule.field, rule.wire
        if wire == PAIR:
            if len(pairs) >= limits.user_properties:
                raise ProtocolError(f"user_property: more than {limits.user_properties}", ReasonCode.QUOTA_EXCEEDED)
            key, at = read_string(data, at, field)  # [MQTT-1.5.7-1]
            text, at = read_string(data, at, field)
            pairs.append((key, text))
        elif wire == VARINT:
            if identifiers and packet_type != _PUBLISH:
                raise ProtocolError(f"{field}: given twice")
            number, at = _read_number(rule, data, at)
            identifiers.append(number)
        elif field in values:
            raise ProtocolError(f"{field}: given twice")
        elif wire == STRING:
            values[field], at = read_string(data, at, field)  # [MQTT-3.3.2-13] [MQTT-3.3.2-19]
        elif wire == BINARY:
            values[field], at = read_binary(data, at, field)
        else:
            values[field], at = _read_number(rule, data, at)
    if at != end:
        raise MalformedPacket("properties: the last one does not end with the block")
    if pairs:
        values["user_property"] = tuple(pairs)
    if identifiers:
        values["subscription_identifier"] = tuple(identifiers)
    return Properties(**values), end


def _read_number(rule: Rule, data: bytes, at: int) -> tuple[int, int]:
    if rule.wire == VARINT:
        value, behind = read_varint(data, at, rule.field)
    else:
        behind = at + rule.wire
        if behind > len(data):
            raise truncated(rule.field)
        value = int.from_bytes(data[at:behind], "big")
    if not rule.lowest <= value <= rule.highest:
        raise ProtocolError(f"{rule.field}: {value} is not within {rule.lowest} to {rule.highest}", rule.refusal)
    return value, behind


Value = int | str | bytes | tuple[int, ...] | tuple[tuple[str, str], ...]


def encode_properties(properties: Properties | None) -> bytes:
    """The block with its length; a length of 0 where there are no properties [MQTT-2.2.2-1]."""
    block = encode_block(properties)
    out = bytearray()
    put_varint(out, len(block), "property length")
    return bytes(out + block)


def encode_block(properties: Properties | None) -> bytes:
    """The block without its length, in the order of RULES."""
    out = bytearray()
    if properties is not None:
        values: tuple[Value | None, ...] = msgspec.structs.astuple(properties)
        for index, value in enumerate(values):
            if value is not None and value != ():
                _put(out, RULES[index], value)
    return bytes(out)


def forwardable(properties: Properties | None) -> bytes:
    """What a server passes on with an application message, as ``encode_block`` writes it.

    Payload format [MQTT-3.3.2-4], content type [MQTT-3.3.2-20], response topic [MQTT-3.3.2-15], correlation data
    [MQTT-3.3.2-16], user properties in order [MQTT-3.3.2-17] [MQTT-3.3.2-18]; never alias, expiry or identifiers.
    """
    out = bytearray()
    if properties is not None:
        for rule in _FORWARDED_RULES:
            value: Value | None = getattr(properties, rule.field)
            if value is not None and value != ():
                _put(out, rule, value)
    return bytes(out)


def _put(out: bytearray, rule: Rule, value: Value) -> None:
    if isinstance(value, tuple):
        for item in value:
            if isinstance(item, tuple):
                out.append(rule.identifier)
                put_string(out, item[0], rule.field)
                put_string(out, item[1], rule.field)
            else:
                _put(out, rule, item)
        return
    out.append(rule.identifier)
    if isinstance(value, str):
        put_string(out, value, rule.field)
    elif isinstance(value, bytes):
        put_binary(out, value, rule.field)
    elif not rule.lowest <= value <= rule.highest:
        raise Unencodable(f"{rule.field}: {value} is not within {rule.lowest} to {rule.highest}")
    elif rule.wire == VARINT:
        put_varint(out, value, rule.field)
    else:
        out += value.to_bytes(rule.wire, "big")
