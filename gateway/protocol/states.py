"""Which packets a client may send, by the state of its connection and the version: one table, and nothing else decides it.

A connection begins in AWAITING_CONNECT. What moves it from state to state lives with the connection. The server's own packets
(CONNACK, SUBACK, UNSUBACK, PINGRESP) stand nowhere in the table: no client may send them.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from gateway.protocol.errors import MalformedPacket, ProtocolError
from gateway.protocol.packet_types import MQTT_3_1_1, MQTT_5_0, PacketType


class ConnectionState(Enum):
    """How far a connection has come, seen from the server."""

    AWAITING_CONNECT = "awaiting connect"
    """Nothing has arrived; the version is not known yet."""
    CONNECTING = "connecting"
    """CONNECT is being worked on; what follows it waits for a CONNACK of success [MQTT-3.1.4-6]."""
    AUTHENTICATING = "authenticating"
    """CONNECT named an authentication method and CONNACK is not sent [MQTT-3.1.2-30]."""
    CONNECTED = "connected"
    REAUTHENTICATING = "reauthenticating"
    """As connected, and AUTH packets go to and fro: section 4.12.1."""
    DISCONNECTING = "disconnecting"
    """The client has sent DISCONNECT [MQTT-3.14.4-1], or we have: what arrives now is of no effect."""


_TRAFFIC: Final = frozenset(
    {
        PacketType.PUBLISH,
        PacketType.PUBACK,
        PacketType.PUBREC,
        PacketType.PUBREL,
        PacketType.PUBCOMP,
        PacketType.SUBSCRIBE,
        PacketType.UNSUBSCRIBE,
        PacketType.PINGREQ,
        PacketType.DISCONNECT,
    }
)
_NOTHING: Final[frozenset[PacketType]] = frozenset()
_CONNECT: Final = frozenset({PacketType.CONNECT})
_AUTH: Final = frozenset({PacketType.AUTH})
_LOGIN: Final = frozenset({PacketType.AUTH, PacketType.DISCONNECT})

MAY_SEND: Final[dict[int, dict[ConnectionState, frozenset[PacketType]]]] = {
    MQTT_3_1_1: {
        ConnectionState.AWAITING_CONNECT: _CONNECT,  # [MQTT-3.1.0-1]
        ConnectionState.CONNECTING: _TRAFFIC,
        ConnectionState.AUTHENTICATING: _NOTHING,
        ConnectionState.CONNECTED: _TRAFFIC,  # no second CONNECT [MQTT-3.1.0-2]
        ConnectionState.REAUTHENTICATING: _NOTHING,
        ConnectionState.DISCONNECTING: _NOTHING,
    },
    MQTT_5_0: {
        ConnectionState.AWAITING_CONNECT: _CONNECT,  # [MQTT-3.1.0-1]
        ConnectionState.CONNECTING: _TRAFFIC,
        ConnectionState.AUTHENTICATING: _LOGIN,  # [MQTT-3.1.2-30]
        ConnectionState.CONNECTED: _TRAFFIC | _AUTH,  # no second CONNECT [MQTT-3.1.0-2]
        ConnectionState.REAUTHENTICATING: _TRAFFIC | _AUTH,
        ConnectionState.DISCONNECTING: _NOTHING,  # [MQTT-3.14.4-1]
    },
}


def check_allowed(packet_type: int, state: ConnectionState, version: int) -> None:
    """Raises ProtocolError for a packet that the client may not send now, MalformedPacket for a type that its version doesn't have.

    Takes the upper four bits of the first byte, so that it can run before decoding. In AWAITING_CONNECT any version will do.
    """
    if packet_type in MAY_SEND[version][state]:
        return
    if packet_type == 0 or (packet_type == PacketType.AUTH and version != MQTT_5_0):
        raise MalformedPacket(f"packet type {packet_type} is reserved")
    raise ProtocolError(f"{PacketType(packet_type).name}: not allowed while {state.value}")
