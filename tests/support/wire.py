"""A raw MQTT client for tests, both versions: sends any packet or any bytes, expects packets within a time, acknowledges or not.

Splits the stream itself and leaves the packets to the codec. What comes from the server waits in ``inbox`` until the test asks
for it; with ``auto_ack`` the acknowledgements that a receiver owes are sent at once, and PUBREL does not show.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.protocol.decode import decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.packet_types import MQTT_5_0, PacketType
from gateway.protocol.packets import (
    Ack,
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
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.gateway import Endpoint

P = TypeVar("P")
WITHIN = 5.0
"""Seconds that an answer may take. Nothing waits for it when all is well."""
MAX_INBOX = 1_000_000
LIMITS = Limits(packet=256 * 1024 * 1024, topic_bytes=65_535, client_id_bytes=65_535, user_properties=10_000, properties_bytes=256 * 1024 * 1024)
"""A client takes whatever the server may say; judging it is the test's part."""


class Wire(asyncio.Protocol):
    def __init__(self, version: int, auto_ack: bool) -> None:
        self.version = version
        self.auto_ack = auto_ack
        self.inbox: deque[Packet] = deque()
        self.on_packet: Callable[[Packet], None] | None = None
        """Takes packets in the place of the inbox, for clients that are machines of their own."""
        self.connack: Connack | None = None
        self.lost = asyncio.Event()
        self._arrived = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._last_id = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (frame := split(self._buffer)) is not None:
            first, body = frame
            self._take(decode_packet(first, body, self.version, LIMITS, from_server=True))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._arrived.set()

    def _take(self, packet: Packet) -> None:
        if self.auto_ack and isinstance(packet, Publish) and packet.qos:
            self.ack(PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC, packet.packet_id)
        elif self.auto_ack and isinstance(packet, Ack) and packet.type is PacketType.PUBREL:
            self.ack(PacketType.PUBCOMP, packet.packet_id)
            return
        if self.on_packet is not None:
            self.on_packet(packet)
            return
        assert len(self.inbox) < MAX_INBOX
        self.inbox.append(packet)
        self._arrived.set()

    # Sending

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def write(self, data: bytes) -> None:
        """Into the void when the connection is gone, as with any socket a moment before that is known."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def send(self, packet: Packet) -> None:
        self.write(encode_packet(packet, self.version))

    def ack(self, kind: PacketType, packet_id: int, reason: ReasonCode = ReasonCode.SUCCESS) -> None:
        self.send(Ack(type=kind, packet_id=packet_id, reason_code=reason))

    def next_id(self) -> int:
        self._last_id = self._last_id % 65_535 + 1
        return self._last_id

    # Receiving

    async def wait_for(self, wanted: Callable[[Packet], bool], within: float = WITHIN, what: str = "the packet") -> Packet:
        """Takes the first packet that is wanted; the others stay where they are."""
        try:
            async with asyncio.timeout(within):
                while True:
                    for index, packet in enumerate(self.inbox):
                        if wanted(packet):
                            del self.inbox[index]
                            return packet
                    assert not self.lost.is_set(), f"closed by the server before {what}; unread: {list(self.inbox)[:5]}"
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} within {within} s; unread: {list(self.inbox)[:5]}") from None

    async def receive(self, within: float = WITHIN) -> Packet:
        """The next packet, whatever it is."""
        return await self.wait_for(lambda _: True, within, "any packet")

    async def expect(self, kind: type[P], within: float = WITHIN) -> P:
        """The next packet, which must be of this kind."""
        packet = await self.wait_for(lambda _: True, within, kind.__name__)
        assert isinstance(packet, kind), f"{packet} in the place of {kind.__name__}"
        return packet

    async def expect_ack(self, kind: PacketType, packet_id: int, within: float = WITHIN) -> Ack:
        """This acknowledgement; deliveries that came before it stay in the inbox."""
        packet = await self.wait_for(
            lambda packet: isinstance(packet, Ack) and packet.type is kind and packet.packet_id == packet_id, within, f"{kind.name} {packet_id}"
        )
        assert isinstance(packet, Ack)
        return packet

    async def publishes(self, count: int, within: float = WITHIN) -> list[Publish]:
        """The next ``count`` deliveries."""
        return [await self._publish(within) for _ in range(count)]

    async def _publish(self, within: float) -> Publish:
        packet = await self.wait_for(lambda packet: isinstance(packet, Publish), within, "PUBLISH")
        assert isinstance(packet, Publish)
        return packet

    async def silence(self) -> None:
        """Nothing more has come, and the server has had the time to send it: it answers a ping first."""
        await self.ping()
        assert not self.inbox, f"unexpected {list(self.inbox)[:5]}"

    async def closed(self, within: float = WITHIN) -> None:
        """The server closes the connection; what it said before stays in the inbox."""
        try:
            await asyncio.wait_for(self.lost.wait(), within)
        except TimeoutError:
            raise AssertionError(f"not closed within {within} s") from None

    async def expect_disconnect(self, reason: ReasonCode, within: float = WITHIN) -> None:
        """MQTT 5: DISCONNECT with this reason, then the close. 3.1.1: the close alone."""
        if self.version == MQTT_5_0:
            packet = await self.wait_for(lambda packet: isinstance(packet, Disconnect), within, "DISCONNECT")
            assert isinstance(packet, Disconnect)
            assert packet.reason_code == reason, packet
        await self.closed(within)

    # Exchanges

    async def subscribe(self, topic_filter: str, qos: int = 0, *, properties: Properties | None = None, **options: Any) -> Suback:
        """``options`` are those of SubscriptionRequest. The answer is not judged."""
        packet_id = self.next_id()
        requests = (SubscriptionRequest(filter=topic_filter, qos=qos, **options),)
        self.send(Subscribe(packet_id=packet_id, requests=requests, properties=properties))
        packet = await self.wait_for(lambda packet: isinstance(packet, Suback) and packet.packet_id == packet_id, what="SUBACK")
        assert isinstance(packet, Suback)
        return packet

    async def unsubscribe(self, *filters: str) -> Unsuback:
        packet_id = self.next_id()
        self.send(Unsubscribe(packet_id=packet_id, filters=filters))
        packet = await self.wait_for(lambda packet: isinstance(packet, Unsuback) and packet.packet_id == packet_id, what="UNSUBACK")
        assert isinstance(packet, Unsuback)
        return packet

    async def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, *, retain: bool = False, properties: Properties | None = None, within: float = WITHIN
    ) -> Ack | None:
        """The whole exchange. Returns PUBACK, PUBCOMP, or a PUBREC that refuses; None for QoS 0."""
        packet_id = self.next_id() if qos else 0
        self.send(Publish(topic=topic, payload=payload, qos=qos, retain=retain, dup=False, packet_id=packet_id, properties=properties))
        if qos == 0:
            return None
        answer = await self.expect_ack(PacketType.PUBACK if qos == 1 else PacketType.PUBREC, packet_id, within)
        if qos == 1 or answer.reason_code >= ReasonCode.UNSPECIFIED_ERROR:
            return answer
        self.ack(PacketType.PUBREL, packet_id)
        return await self.expect_ack(PacketType.PUBCOMP, packet_id, within)

    async def ping(self, within: float = WITHIN) -> None:
        self.send(Pingreq())
        await self.wait_for(lambda packet: isinstance(packet, Pingresp), within, "PINGRESP")

    async def disconnect(self, reason: ReasonCode = ReasonCode.SUCCESS, properties: Properties | None = None) -> None:
        self.send(Disconnect(reason_code=reason, properties=properties))
        self.transport.close()
        await self.lost.wait()

    def abort(self) -> None:
        """Gone without DISCONNECT: the will is due."""
        self.transport.abort()


def split(buffer: bytearray) -> tuple[int, bytes] | None:
    """Takes one packet off the front, or leaves an incomplete one."""
    length = shift = 0
    for index in range(1, min(len(buffer), 5)):
        length |= (buffer[index] & 0x7F) << shift
        shift += 7
        if not buffer[index] & 0x80:
            start = index + 1
            if len(buffer) < start + length:
                return None
            frame = buffer[0], bytes(buffer[start : start + length])
            del buffer[: start + length]
            return frame
    assert len(buffer) < 5, "the server sent a remaining length of five bytes"
    return None


async def dial(
    endpoint: Endpoint, version: int = MQTT_5_0, *, auto_ack: bool = True, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> Wire:
    """A connection on which nothing has been said yet."""
    plain = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET)
    try:
        plain.setblocking(False)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plain, tuple(endpoint))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, wire = await loop.create_connection(
            lambda: Wire(version, auto_ack), sock=plain, ssl=tls, server_hostname="localhost" if tls is not None else None
        )
    except BaseException:
        plain.close()
        raise
    return wire


def connect_packet(
    client_id: str,
    version: int = MQTT_5_0,
    *,
    clean_start: bool = True,
    keep_alive: int = 0,
    session_expiry: int | None = None,
    will: WillMessage | None = None,
    user_name: str | None = None,
    password: bytes | None = None,
    properties: Properties | None = None,
) -> Connect:
    """``session_expiry`` stands for the one property most tests set; a 3.1.1 session lives by ``clean_start`` alone."""
    if session_expiry is not None and version == MQTT_5_0:
        assert properties is None or properties.session_expiry_interval is None
        fields = {} if properties is None else {name: getattr(properties, name) for name in properties.__struct_fields__}
        properties = Properties(**fields | {"session_expiry_interval": session_expiry})
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


class Clients:
    """The wires of one test; close() ends them all, whatever the test left them in."""

    def __init__(self) -> None:
        self._wires: list[Wire] = []

    async def dial(self, endpoint: Endpoint, version: int = MQTT_5_0, **options: Any) -> Wire:
        wire = await dial(endpoint, version, **options)
        self._wires.append(wire)
        return wire

    async def connect(
        self, endpoint: Endpoint, client_id: str, version: int = MQTT_5_0, *, auto_ack: bool = True, within: float = WITHIN, **fields: Any
    ) -> Wire:
        """Connected: the CONNACK, a success, is in ``connack``. ``fields`` are those of connect_packet."""
        wire = await self.dial(endpoint, version, auto_ack=auto_ack)
        wire.send(connect_packet(client_id, version, **fields))
        wire.connack = await wire.expect(Connack, within)
        assert wire.connack.reason_code == ReasonCode.SUCCESS, wire.connack
        return wire

    async def close(self) -> None:
        for wire in self._wires:
            wire.abort()
        for wire in self._wires:
            await wire.lost.wait()
        self._wires.clear()
