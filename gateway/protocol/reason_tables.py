"""Which packet may carry which reason code (MQTT 5.0 tables 3-1 to 3-13), and the codes of 3.1.1. Data for decode.py and encode.py."""

from __future__ import annotations

from typing import Final

from gateway.protocol.packet_types import PacketType
from schemas.reasons import ReasonCode


def _codes(*values: int) -> dict[int, ReasonCode]:
    return {value: ReasonCode(value) for value in values}


_PUBLISHED: Final = _codes(0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
_RELEASED: Final = _codes(0x00, 0x92)

DISCONNECT_FROM_CLIENT: Final = frozenset(_codes(0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99).values())
_DISCONNECT_FROM_SERVER: Final = _codes(
    *(0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99),
    *(0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2),
)
AUTH_FROM_CLIENT: Final = frozenset(_codes(0x18, 0x19).values())

REASONS: Final[dict[PacketType, dict[int, ReasonCode]]] = {
    PacketType.CONNACK: _codes(  # [MQTT-3.2.2-8]
        *(0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99),
        *(0x9A, 0x9B, 0x9C, 0x9D, 0x9F),
    ),
    PacketType.PUBACK: _PUBLISHED,  # [MQTT-3.4.2-1]
    PacketType.PUBREC: _PUBLISHED,  # [MQTT-3.5.2-1]
    PacketType.PUBREL: _RELEASED,  # [MQTT-3.6.2-1]
    PacketType.PUBCOMP: _RELEASED,  # [MQTT-3.7.2-1]
    PacketType.SUBACK: _codes(0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2),  # [MQTT-3.9.3-2]
    PacketType.UNSUBACK: _codes(0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91),  # [MQTT-3.11.3-2]
    PacketType.DISCONNECT: _DISCONNECT_FROM_SERVER | {code: code for code in DISCONNECT_FROM_CLIENT},  # [MQTT-3.14.2-1]
    PacketType.AUTH: _codes(0x00, 0x18, 0x19),  # [MQTT-3.15.2-1]
}

SUBACK_3_1_1: Final = frozenset(_codes(0x00, 0x01, 0x02, 0x80).values())

RETURN_CODES: Final = (
    ReasonCode.SUCCESS,
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    ReasonCode.SERVER_UNAVAILABLE,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    ReasonCode.NOT_AUTHORIZED,
)
"""3.1.1 CONNACK return code to reason: the inverse, as far as there is one, of schemas.reasons.CONNECT_RETURN_CODES."""
