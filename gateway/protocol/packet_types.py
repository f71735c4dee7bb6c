"""The types of packets and the versions of MQTT: the numbers that all of the codec shares."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MQTT_3_1_1: Final = 4
MQTT_5_0: Final = 5


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
