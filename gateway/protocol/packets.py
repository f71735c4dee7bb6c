"""The packets of MQTT 3.1.1 and 5.0 as values. Both versions share them; what 3.1.1 lacks keeps its default.

Decoding is in decode.py, encoding in encode.py, properties in properties.py. PUBLISH, PUBACK and the like have a faster
way through hot.py, which reads and writes the same values or none at all.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.packet_types import MQTT_3_1_1 as MQTT_3_1_1
from gateway.protocol.packet_types import MQTT_5_0 as MQTT_5_0
from gateway.protocol.packet_types import PacketType as PacketType
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode


class WillMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties | None = None


class Connect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``version`` is 4 or 5; ``clean_start`` is clean session in 3.1.1; ``keep_alive`` seconds."""

    version: int
    clean_start: bool
    keep_alive: int
    client_id: str
    user_name: str | None = None
    password: bytes | None = None
    will: WillMessage | None = None
    properties: Properties | None = None


class Connack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    session_present: bool
    reason_code: ReasonCode
    properties: Properties | None = None


class Publish(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``packet_id`` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int = 0
    properties: Properties | None = None


class Ack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """PUBACK, PUBREC, PUBREL or PUBCOMP, by ``type``."""

    type: PacketType
    packet_id: int
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class SubscriptionRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    packet_id: int
    requests: tuple[SubscriptionRequest, ...]
    properties: Properties | None = None


class Suback(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``reason_codes`` one a request, in order [MQTT-3.8.4-6]; in 3.1.1 all failures are 0x80."""

    packet_id: int
    reason_codes: tuple[ReasonCode, ...]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """In 3.1.1 the reason codes are not sent."""

    packet_id: int
    reason_codes: tuple[ReasonCode, ...]
    properties: Properties | None = None


class Pingreq(msgspec.Struct, frozen=True, gc=False):
    pass


class Pingresp(msgspec.Struct, frozen=True, gc=False):
    pass


class Disconnect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class Auth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


Packet = Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Unsuback | Pingreq | Pingresp | Disconnect | Auth
