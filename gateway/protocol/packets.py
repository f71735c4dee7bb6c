"""The packets of MQTT 3.1.1 and 5.0 as values. Both versions share them; what 3.1.1 lacks keeps its default.

Decoding is in decode.py, encoding in encode.py, properties in properties.py. PUBLISH, PUBACK and the like have a faster
way through hot.py, which reads and writes the same values or none at all.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode

MQTT_3_1_1 = 4
MQTT_5_0 = 5


class PacketType(IntEnum):
    """The upper four bits of a packet's first byte: MQTT 5.0 table 2-1."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class WillMessage(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties | None = None


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` is 4 or 5; ``clean_start`` is clean session in 3.1.1; ``keep_alive`` seconds."""

    version: int
    clean_start: bool
    keep_alive: int
    client_id: str
    user_name: str | None = None
    password: bytes | None = None
    will: WillMessage | None = None
    properties: Properties | None = None


class Connack(msgspec.Struct, frozen=True, kw_only=True):
    session_present: bool
    reason_code: ReasonCode
    properties: Properties | None = None


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """``packet_id`` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int = 0
    properties: Properties | None = None


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """PUBACK, PUBREC, PUBREL or PUBCOMP, by ``type``."""

    type: PacketType
    packet_id: int
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class SubscriptionRequest(msgspec.Struct, frozen=True, kw_only=True):
    filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    packet_id: int
    requests: tuple[SubscriptionRequest, ...]
    properties: Properties | None = None


class Suback(msgspec.Struct, frozen=True, kw_only=True):
    """``reason_codes`` one a request, in order [MQTT-3.8.4-6]; in 3.1.1 all failures are 0x80."""

    packet_id: int
    reason_codes: tuple[ReasonCode, ...]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True):
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, frozen=True, kw_only=True):
    """In 3.1.1 the reason codes are not sent."""

    packet_id: int
    reason_codes: tuple[ReasonCode, ...]
    properties: Properties | None = None


class Pingreq(msgspec.Struct, frozen=True):
    pass


class Pingresp(msgspec.Struct, frozen=True):
    pass


class Disconnect(msgspec.Struct, frozen=True, kw_only=True):
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


Packet = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
