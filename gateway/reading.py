"""Bytes to packets: the frames of one read, in order. PUBLISH and PUBACK are handled without making packets of them.

Every other packet is decoded by gateway/protocol and handled by the module named for it. Functions over a Connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import inbound
from gateway.protocol.decode import answer_version, decode_packet
from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError
from gateway.protocol.packets import Auth, Connect
from gateway.protocol.states import ConnectionState, check_allowed
from schemas.reasons import ReasonCode

if TYPE_CHECKING:
    from gateway.connection import Connection

PINGRESP = b"\xd0\x00"
AWAITING_CONNECT = ConnectionState.AWAITING_CONNECT
CONNECTING = ConnectionState.CONNECTING
CONNECTED = ConnectionState.CONNECTED
AUTHENTICATING = ConnectionState.AUTHENTICATING


def read(connection: Connection, data: bytes) -> int:
    """Handle the whole packets in ``data``; the number of bytes used. Sets ``need`` for what is left."""
    position, end = 0, len(data)
    now = connection.node.clock.wall()
    while end - position >= 2:
        if connection.state == CONNECTING:
            connection.need = 1 << 62  # until the connect is answered
            connection.pause()
            return position
        first = data[position]
        size = data[position + 1]
        start = position + 2
        if size > 127:
            size, start = _long_size(data, position)
            if start == 0:
                break
        stop = start + size
        if stop > end:
            _check_size(connection, first, stop - position)
            connection.need = stop - position
            return position
        if connection.state == CONNECTED:
            if first & 0xF0 == 0x30:
                if stop - position > connection.node.limits.packet:
                    _check_size(connection, first, stop - position)
                inbound.publish(connection, first, data, start, stop, now)
            elif first == 0x40 and size == 2:
                connection.session.puback(data[start] << 8 | data[start + 1])  # type: ignore[union-attr]
            else:
                _check_size(connection, first, stop - position)
                _packet(connection, first, data[start:stop])  # whatever the window [MQTT-3.3.4-10] [MQTT-4.9.0-3]
        elif connection.state == AWAITING_CONNECT:
            _check_size(connection, first, stop - position)
            _first_packet(connection, first, data[start:stop])
        elif connection.state == AUTHENTICATING:
            _check_size(connection, first, stop - position)
            _authentication(connection, first, data[start:stop])
        else:
            return end
        position = stop
    if connection.state == AWAITING_CONNECT and end > position and data[position] != 0x10:
        raise ProtocolError("the first packet is not CONNECT")  # [MQTT-3.1.0-1]
    connection.need = end - position + 1
    return position


def _long_size(data: bytes, position: int) -> tuple[int, int]:
    """A remaining length of two to four bytes, and where the packet's body starts; (0, 0) where bytes are missing."""
    size, shift = 0, 0
    for index in range(position + 1, min(position + 5, len(data))):
        byte = data[index]
        size |= (byte & 0x7F) << shift
        if byte < 128:
            if byte == 0 and shift:
                raise MalformedPacket("the remaining length is not in its shortest form")  # [MQTT-1.5.5-1]
            return size, index + 1
        shift += 7
    if len(data) >= position + 5:
        raise MalformedPacket("the remaining length has more than four bytes")
    return 0, 0


def _check_size(connection: Connection, first: int, size: int) -> None:
    """Refuse by the announced length, before anything of it is kept."""
    limits = connection.node.limits
    if connection.state in (AWAITING_CONNECT, AUTHENTICATING):
        if first != 0x10 and connection.state == AWAITING_CONNECT:
            raise ProtocolError("the first packet is not CONNECT")  # [MQTT-3.1.0-1]
        if size > limits.connect_bytes:
            raise ProtocolError(f"CONNECT has more than {limits.connect_bytes} bytes", ReasonCode.PACKET_TOO_LARGE)
    elif size > limits.packet:  # [MQTT-3.2.2-15]
        raise ProtocolError(f"a packet has more than {limits.packet} bytes", ReasonCode.PACKET_TOO_LARGE)


def _first_packet(connection: Connection, first: int, body: bytes) -> None:
    check_allowed(first >> 4, AWAITING_CONNECT, connection.version)
    try:
        packet = decode_packet(first, body, connection.version, connection.node.limits)
    except PacketError:
        connection.version = answer_version(body)
        raise
    assert isinstance(packet, Connect)  # noqa: S101 - by its first byte
    connection.version = packet.version
    connection.state = CONNECTING
    connection.node.connecting.start(connection, packet)


def _authentication(connection: Connection, first: int, body: bytes) -> None:
    """AUTH, or a DISCONNECT in its place [MQTT-3.1.2-30]."""
    check_allowed(first >> 4, AUTHENTICATING, connection.version)
    packet = decode_packet(first, body, connection.version, connection.node.limits)
    if isinstance(packet, Auth):
        connection.node.connecting.authenticating.answered(connection, packet)
    else:
        connection.node.connecting.authenticating.ended(connection)
        connection.shut()


def _packet(connection: Connection, first: int, body: bytes) -> None:
    if first == 0x62 and len(body) == 2:
        inbound.pubrel(connection, body[0] << 8 | body[1])
    elif first == 0xC0 and not body:
        connection.send(PINGRESP)  # [MQTT-3.12.4-1]
    else:
        check_allowed(first >> 4, CONNECTED, connection.version)
        inbound.packet(connection, decode_packet(first, body, connection.version, connection.node.limits))
