"""One network connection: bytes to packets on the way in, one write per loop tick on the way out.

The hot path (PUBLISH, PUBACK) is read here without making packets; every other packet is decoded by gateway/protocol and
answered by the module named for it (connecting, subscribing, inbound, ending). An asyncio protocol in shape, not by
inheritance; it uses of its transport only what gateway/transports gives on every listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from gateway import failpoints, inbound
from gateway.protocol import hot
from gateway.protocol.decode import decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError
from gateway.protocol.packets import MQTT_5_0, Connect, Disconnect, Packet
from gateway.transports.endpoints import ListenerSpec
from gateway.transports.peer import PeerInfo, describe
from schemas.errors import LogError
from schemas.identities import Principal
from schemas.positions import At
from schemas.reasons import ReasonCode
from schemas.records import PUBLISH_TOPIC, Kind, Record

if TYPE_CHECKING:
    from gateway.inbound import KnownTopic
    from gateway.node import Node
    from gateway.session import Session
    from schemas.presence import Will

PUBLISH = int(Kind.PUBLISH)
OVERHEAD = 64
"""Bytes that a pending record is counted for beside its payload."""
PINGRESP = b"\xd0\x00"
NOBODY = Principal("", "anonymous")
UNKNOWN_PEER = PeerInfo("", 0, "mqtt", is_loopback=False, is_secure=False)


class State(IntEnum):
    """Of a connection. CLOSED: nothing more is read or sent."""

    NEW = 0
    CONNECTING = 1
    CONNECTED = 2
    CLOSED = 3


class Connection:
    """From accept to close."""

    __slots__ = (
        "_buffer",
        "_need",
        "node",
        "_paused",
        "_spec",
        "_withheld",
        "aliases",
        "channel",
        "dirty",
        "ended",
        "keep_alive",
        "out",
        "peer",
        "pending",
        "pending_bytes",
        "principal",
        "problem_information",
        "ready",
        "seen",
        "send_alias_maximum",
        "send_maximum",
        "send_packet_maximum",
        "session",
        "slowed_until",
        "state",
        "topics",
        "transport",
        "version",
        "will",
        "writable",
    )

    def __init__(self, node: Node, spec: ListenerSpec) -> None:
        self.node = node
        self._spec = spec
        self.peer = UNKNOWN_PEER
        self.transport: asyncio.Transport | None = None
        self.state = State.NEW
        self.ready = False
        self.writable = True
        self.dirty = False
        self.ended = False
        self.out: list[bytes] = []
        self._buffer: bytearray | None = None
        self._need = 0
        self._paused = False
        self._withheld: list[int] | None = None
        self.slowed_until = 0.0
        self.pending = 0
        self.pending_bytes = 0
        self.version = 4
        self.keep_alive = 0
        self.seen = 0.0
        self.channel = ""
        self.principal = NOBODY
        self.session: Session | None = None
        self.will: Will | None = None
        self.topics: dict[bytes, KnownTopic] | None = None
        self.aliases: dict[int, bytes] | None = None
        self.send_maximum = 0
        self.send_packet_maximum = 0
        self.send_alias_maximum = 0
        self.problem_information = True

    # Called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.peer = describe(transport, self._spec)
        self.seen = self.node.monotonic()
        self.node.connections.opened(self)

    def data_received(self, data: bytes) -> None:
        node = self.node
        node.counters.bytes_in += len(data)
        self.seen = node.tick
        buffer = self._buffer
        if buffer is not None:
            buffer += data
            if len(buffer) < self._need:
                return
            data = bytes(buffer)
            self._buffer = None
        try:
            used = self._read(data)
        except PacketError as error:
            self.fail(error)
            return
        if used < len(data) and self.state != State.CLOSED:
            self._buffer = bytearray(data[used:] if used else data)
        session = self.session
        if session is not None:
            if session.queue:
                session.pump()
            elif session.backlog:
                self.node.backlog.wake(session)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable = False
        if self.session is not None:
            self.session.fast = False

    def resume_writing(self) -> None:
        self.writable = True
        session = self.session
        if session is not None and session.connection is self:
            session.refresh()
            session.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.state = State.CLOSED
        self.node.connections.closed(self)
        self.node.ending.end(self, "Socket IOException")

    # Reading

    def _read(self, data: bytes) -> int:
        """Handle the whole packets in ``data``; the number of bytes used. Sets ``_need`` for what is left."""
        position, end = 0, len(data)
        now = self.node.clock.wall()
        while end - position >= 2:
            if self.state == State.CONNECTING:
                self._need = 1 << 62  # until the connect is answered; reading is paused meanwhile
                return position
            first = data[position]
            size = data[position + 1]
            start = position + 2
            if size > 127:
                size, start = self._long_size(data, position)
                if start == 0:
                    break
            stop = start + size
            if stop > end:
                self._check_size(first, stop - position)
                self._need = stop - position
                return position
            if self.state == State.CONNECTED:
                if first & 0xF0 == 0x30:
                    if stop - position > self.node.limits.packet:
                        self._check_size(first, stop - position)
                    inbound.publish(self, first, data, start, stop, now)
                elif first == 0x40 and size == 2:
                    self.session.puback(data[start] << 8 | data[start + 1])  # type: ignore[union-attr]
                else:
                    self._check_size(first, stop - position)
                    self._packet(first, data[start:stop])
            elif self.state == State.NEW:
                self._check_size(first, stop - position)
                self._first_packet(first, data[start:stop])
            else:
                return end
            position = stop
        if self.state == State.NEW and end > position and data[position] != 0x10:
            raise ProtocolError("the first packet is not CONNECT")  # [MQTT-3.1.0-1]
        self._need = end - position + 1
        return position

    def _long_size(self, data: bytes, position: int) -> tuple[int, int]:
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

    def _check_size(self, first: int, size: int) -> None:
        """Refuse by the announced length, before anything of it is kept."""
        limits = self.node.limits
        if self.state == State.NEW:
            if first != 0x10:
                raise ProtocolError("the first packet is not CONNECT")  # [MQTT-3.1.0-1]
            if size > limits.connect_bytes:
                raise ProtocolError(f"CONNECT has more than {limits.connect_bytes} bytes", ReasonCode.PACKET_TOO_LARGE)
        elif size > limits.packet:
            raise ProtocolError(f"a packet has more than {limits.packet} bytes", ReasonCode.PACKET_TOO_LARGE)

    def _first_packet(self, first: int, body: bytes) -> None:
        packet = decode_packet(first, body, self.version, self.node.limits)
        if not isinstance(packet, Connect):
            raise ProtocolError("the first packet is not CONNECT")
        self.version = packet.version
        self.state = State.CONNECTING
        self.pause()
        self.node.connecting.start(self, packet)

    def _packet(self, first: int, body: bytes) -> None:
        session = self.session
        assert session is not None  # noqa: S101 - connected
        if first == 0x62 and len(body) == 2:
            inbound.pubrel(self, body[0] << 8 | body[1])
        elif first == 0xC0 and not body:
            self.send(PINGRESP)  # [MQTT-3.12.4-1]
        else:
            inbound.packet(self, decode_packet(first, body, self.version, self.node.limits))

    # Accepted publishes

    def append(self, record: Record) -> None:
        """Hand a publish to the log; the acknowledgement follows from ``appended``."""
        self.pending += record.qos & 1
        self.pending_bytes += len(record.payload) + OVERHEAD
        self.node.counters.published += 1
        if failpoints.ARMED:
            failpoints.reach("before-append")
        self.node.log.append(PUBLISH_TOPIC, record.client, record, self)
        if self.pending_bytes > self.node.limits.unacknowledged_bytes:
            self.pause()

    def appended(self, records: Sequence[Record], first: At) -> None:
        """Durable: acknowledge, in the order of the publishes [MQTT-4.6.0-2] [MQTT-4.6.0-3]."""
        if failpoints.ARMED:
            failpoints.reach("appended-before-ack")
        size = OVERHEAD * len(records)
        words: list[int] = []
        plain = 0
        for record in records:
            size += len(record.payload)
            if record.qos == 1:
                plain += 1
                words.append(hot.PUBACK | record.packet_id)
            elif record.qos == 2:
                words.append(inbound.second_step(self.session, record))
        self.pending -= plain
        self.pending_bytes -= size
        if words and self.state == State.CONNECTED:
            if self._withheld is not None or self.node.pressure.withhold or self.slowed_until:
                self._withhold(words)
            else:
                self._acknowledge(words)
        elif words and self.session is not None:
            inbound.acknowledge_elsewhere(self.session, records)
        if self._paused and self.state == State.CONNECTED and self.pending_bytes * 2 <= self.node.limits.unacknowledged_bytes:
            self.resume()

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        """Not durable: no acknowledgement; the client sends again on its next connection."""
        self.node.counters.refused["log"] += len(records)
        if self.session is not None:
            inbound.not_durable(self.session, records)
        self.close_without_will(ReasonCode.SERVER_BUSY, "log refused")

    def _acknowledge(self, words: list[int]) -> None:
        self.node.counters.acknowledged += len(words)
        self.out.append(hot.acknowledgements(words))
        if not self.dirty:
            self.mark()
        if failpoints.ARMED:
            failpoints.reach("ack-queued")

    def _withhold(self, words: list[int]) -> None:
        if self._withheld is None:
            self._withheld = []
            self.node.pressure.withheld.add(self)
        self._withheld += words

    def slow_down(self, until: float) -> None:
        """Hold acknowledgements back until then: most of its receivers are queueing."""
        self.slowed_until = until

    def release_withheld(self) -> None:
        """Send the acknowledgements that were held back."""
        words, self._withheld = self._withheld, None
        self.slowed_until = 0.0
        if words and self.state == State.CONNECTED:
            self._acknowledge(words)

    # Writing

    def mark(self) -> None:
        """Have ``out`` written at the end of this loop tick."""
        self.dirty = True
        self.node.flusher.add(self)

    def send(self, data: bytes) -> None:
        self.out.append(data)
        if not self.dirty:
            self.mark()

    def acknowledge(self, word: int) -> None:
        """Send a four-byte acknowledgement such as ``hot.PUBREL | packet id``."""
        self.send(word.to_bytes(4, "big"))

    def send_packet(self, packet: Packet) -> None:
        self.send(encode_packet(packet, self.version))

    def flush(self) -> None:
        self.dirty = False
        out = self.out
        if not out or self.transport is None or self.state == State.CLOSED:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.node.counters.bytes_out += len(data)
        self.transport.write(data)

    def pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def is_closed(self) -> bool:
        return self.state == State.CLOSED

    def cut(self) -> None:
        """End the transport at once, whatever it has not written."""
        if self.transport is not None:
            self.transport.abort()

    def is_connecting(self) -> bool:
        """Whether CONNECT still waits for its answer."""
        return self.state == State.CONNECTING

    @property
    def paused(self) -> bool:
        """Whether we keep the client from sending: its keep-alive stands still."""
        return self._paused

    def resume(self) -> None:
        """Read on, first what had come in meanwhile."""
        if not self._paused or self.transport is None or self.state == State.CLOSED:
            return
        self._paused = False
        self.seen = self.node.tick
        self.transport.resume_reading()
        if self._buffer is not None and self._need > 1 << 60:
            self._need = 0
            self.data_received(b"")

    # Ending

    def fail(self, error: PacketError) -> None:
        """The peer's bytes end the connection."""
        self.node.counters.refused[error.reason_code.name.lower()] += 1
        if self.state == State.NEW:
            self.node.connecting.refuse(self, error.reason_code)
            self.shut()
            return
        self.close(error.reason_code, "invalid param", reason_string=str(error))

    def close(self, reason: ReasonCode, words: str, *, reason_string: str = "") -> None:
        """Close from our side: DISCONNECT with the reason to a connected MQTT 5 client [MQTT-3.14.0-1]."""
        if self.state == State.CLOSED:
            return
        if self.state == State.CONNECTED and self.version == MQTT_5_0:
            self.send_packet(self.node.disconnect_packet(reason, reason_string if self.problem_information else ""))
        self.shut()
        self.node.ending.end(self, words)

    def close_without_will(self, reason: ReasonCode, words: str) -> None:
        """Close for a cause of our own: no will falls due from it."""
        self.will = None
        self.close(reason, words)

    def shut(self) -> None:
        """Write what is due and close the transport."""
        if self.state == State.CLOSED:
            return
        self.flush()
        self.state = State.CLOSED
        self.ready = False
        self._buffer = None
        if self.transport is not None:
            self.node.connections.closing(self)
            self.transport.close()

    def disconnected(self, packet: Disconnect) -> None:
        """The client said DISCONNECT."""
        self.node.ending.disconnect(self, packet)
        self.shut()
