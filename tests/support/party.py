"""A client without a socket: packets in and out of a Connection through a transport that records, for tests/support/testbed.py.

What the gateway writes is decoded at once; with ``auto_ack`` the acknowledgements that a receiver owes go back with the next
round of the loop, as they would from a network. All waiting is ``bed.settle``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from gateway.connection import Connection
from gateway.node import Node
from gateway.protocol.decode import decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.packets import (
    Ack,
    Connack,
    Disconnect,
    Packet,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    WillMessage,
)
from gateway.protocol.properties import Properties
from gateway.transports.listeners import ListenerSpec
from schemas.reasons import ReasonCode
from tests.support.wire import LIMITS, connect_packet, split

if TYPE_CHECKING:
    from tests.support.testbed import Testbed

P = TypeVar("P")


class Party:
    """One network connection, seen from the client; also the transport that its Connection writes to."""

    def __init__(self, bed: Testbed, version: int, *, auto_ack: bool, host: str, certificate: bytes | None = None) -> None:
        self.bed = bed
        self.version = version
        self.auto_ack = auto_ack
        self.inbox: list[Packet] = []
        self.connack: Connack | None = None
        self.closed = False
        self.aborted = False
        self.connection: Connection
        self._host = host
        self._certificate = certificate
        self._incoming = bytearray()
        self._outgoing: list[bytes] = []
        self._reading = True
        self._last_id = 0
        self.aliases: dict[int, str] = {}

    def dial(self, node: Node, spec: ListenerSpec) -> None:
        self.connection = Connection(node, spec)
        self.connection.connection_made(self)  # type: ignore[arg-type]

    # The transport, as far as a Connection uses it

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": (self._host, 40_000), "ssl_object": self}.get(name, default)

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        """What TLS has verified, on a listener that has TLS."""
        return self._certificate

    def write(self, data: bytes) -> None:
        if self.closed:
            return
        self._incoming += data
        while (frame := split(self._incoming)) is not None:
            self._take(decode_packet(frame[0], frame[1], self.version, LIMITS, from_server=True))

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.bed.loop.call_soon(self._pass_on)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.bed.loop.call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """A test says when writing pauses: ``stop_reading``."""

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    # The client

    def _take(self, packet: Packet) -> None:
        if self.auto_ack and isinstance(packet, Publish) and packet.qos:
            kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
            self.bed.loop.call_soon(self.send, Ack(type=kind, packet_id=packet.packet_id))
        elif self.auto_ack and isinstance(packet, Ack) and packet.type == PacketType.PUBREL:
            self.bed.loop.call_soon(self.send, Ack(type=PacketType.PUBCOMP, packet_id=packet.packet_id))
            return
        self.inbox.append(packet)

    def write_bytes(self, data: bytes) -> None:
        self._outgoing.append(data)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._outgoing and self._reading and not self.closed:
            self.connection.data_received(self._outgoing.pop(0))

    def send(self, packet: Packet) -> None:
        self.write_bytes(encode_packet(packet, self.version))

    def next_id(self) -> int:
        self._last_id = self._last_id % 65_535 + 1
        return self._last_id

    def connect(self, client: str, **fields: Any) -> None:
        """``fields`` are those of connect_packet."""
        self.send(connect_packet(client, self.version, **fields))
        self.bed.settle()
        self.look_for_connack()

    def look_for_connack(self) -> None:
        self.connack = next((packet for packet in self.inbox if isinstance(packet, Connack)), None)
        if self.connack is not None:
            self.inbox.remove(self.connack)

    def take(self, kind: type[P]) -> list[P]:
        """All packets of a kind that have come, out of the inbox."""
        self.bed.settle()
        found = [packet for packet in self.inbox if isinstance(packet, kind)]
        self.inbox = [packet for packet in self.inbox if not isinstance(packet, kind)]
        return found

    def one(self, kind: type[P]) -> P:
        found = self.take(kind)
        assert len(found) == 1, (found, self.inbox)
        return found[0]

    def payloads(self) -> list[bytes]:
        """Of the deliveries that have come."""
        return [packet.payload for packet in self.take(Publish)]

    def deliveries(self) -> list[Publish]:
        return self.take(Publish)

    def acks(self, kind: PacketType) -> list[int]:
        found = [packet.packet_id for packet in self.inbox if isinstance(packet, Ack) and packet.type == kind]
        self.inbox = [packet for packet in self.inbox if not (isinstance(packet, Ack) and packet.type == kind)]
        return found

    def subscribe(self, *filters: str, qos: int = 1, identifier: int = 0, **options: Any) -> tuple[ReasonCode, ...]:
        """The reason codes; ``options`` are those of SubscriptionRequest."""
        properties = Properties(subscription_identifier=(identifier,)) if identifier else None
        requests = tuple(SubscriptionRequest(filter=wanted, qos=qos, **options) for wanted in filters)
        self.send(Subscribe(packet_id=self.next_id(), requests=requests, properties=properties))
        return self.one(Suback).reason_codes

    def unsubscribe(self, *filters: str) -> tuple[ReasonCode, ...]:
        self.send(Unsubscribe(packet_id=self.next_id(), filters=filters))
        return self.one(Unsuback).reason_codes

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, *, retain: bool = False, dup: bool = False, packet_id: int = 0, **properties: Any
    ) -> int:
        """Only the PUBLISH; its packet id."""
        number = packet_id or (self.next_id() if qos else 0)
        block = Properties(**properties) if properties else None
        self.send(Publish(topic=topic, payload=payload, qos=qos, retain=retain, dup=dup, packet_id=number, properties=block))
        return number

    def exchange(self, topic: str, payload: bytes = b"", qos: int = 1, **options: Any) -> None:
        """A PUBLISH and all of its acknowledgements."""
        number = self.publish(topic, payload, qos, **options)
        self.bed.settle()
        if qos == 1:
            assert self.acks(PacketType.PUBACK) == [number], self.inbox
        elif qos == 2:
            assert self.acks(PacketType.PUBREC) == [number], self.inbox
            self.ack(PacketType.PUBREL, number)
            self.bed.settle()
            assert self.acks(PacketType.PUBCOMP) == [number], self.inbox

    def ack(self, kind: PacketType, packet_id: int, reason: ReasonCode = ReasonCode.SUCCESS) -> None:
        self.send(Ack(type=kind, packet_id=packet_id, reason_code=reason))

    def disconnect(self, reason: ReasonCode = ReasonCode.SUCCESS, **properties: Any) -> None:
        self.send(Disconnect(reason_code=reason, properties=Properties(**properties) if properties else None))
        self.bed.settle()

    def drop(self) -> None:
        """The network is gone."""
        self.close()
        self.bed.settle()

    def vanish(self) -> None:
        """The gateway's process is gone, and this end hears nothing of it."""
        self.closed = True

    def stop_reading(self) -> None:
        self.connection.pause_writing()

    def read_on(self) -> None:
        self.connection.resume_writing()


def will(topic: str, payload: bytes = b"gone", *, qos: int = 1, retain: bool = False, delay: int = 0, **properties: Any) -> WillMessage:
    """A will; ``delay`` in seconds."""
    block = Properties(will_delay_interval=delay or None, **properties) if delay or properties else None
    return WillMessage(topic=topic, payload=payload, qos=qos, retain=retain, properties=block)
