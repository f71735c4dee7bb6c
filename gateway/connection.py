"""One network connection: bytes to packets on the way in, one write per loop tick on the way out.

What comes in is taken apart by reading.py; accepted publishes go to the log from here, and their acknowledgements come
back here. In state DISCONNECTING nothing more is read or sent. An asyncio protocol in shape, not by inheritance; it uses
of its transport only what gateway/transports gives on every listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway import failpoints, inbound
from gateway.outbound import NO_LIMIT_PACKET
from gateway.protocol import hot
from gateway.protocol.encode import encode_within
from gateway.protocol.errors import PacketError
from gateway.protocol.packets import MQTT_5_0, Disconnect, Packet
from gateway.protocol.states import ConnectionState
from gateway.reading import read
from gateway.transports.endpoints import ListenerSpec
from gateway.transports.peer import PeerInfo, describe
from schemas.errors import LogError
from schemas.identities import Principal
from schemas.positions import At
from schemas.reasons import ReasonCode
from schemas.records import PUBLISH_TOPIC, Record

if TYPE_CHECKING:
    from gateway.inbound import KnownTopic
    from gateway.node import Node
    from gateway.session import Session
    from schemas.presence import Will

OVERHEAD = 64
"""Bytes that a pending record is counted for beside its payload."""
NOBODY = Principal("", "anonymous")
UNKNOWN_PEER = PeerInfo("", 0, "mqtt", is_loopback=False, is_secure=False)


class Connection:
    """From accept to close."""

    __slots__ = (
        "_buffer",
        "_paused",
        "_unread",
        "_spec",
        "_withheld",
        "_withheld_bytes",
        "aliases",
        "certificate",
        "channel",
        "dirty",
        "ended",
        "keep_alive",
        "need",
        "node",
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
        "throttled",
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
        self.state = ConnectionState.AWAITING_CONNECT
        self.ready = False
        self.writable = True
        self.dirty = False
        self.ended = False
        self.out: list[bytes] = []
        self._buffer: bytearray | None = None
        self.need = 0
        self._paused = False
        self._unread = 0
        self._withheld: list[int] | None = None
        self._withheld_bytes = 0
        self.slowed_until = 0.0
        self.throttled = False
        self.pending = 0
        self.pending_bytes = 0
        self.version = 4
        self.keep_alive = 0
        self.seen = 0.0
        self.channel = ""
        self.certificate = ""
        self.principal = NOBODY
        self.session: Session | None = None
        self.will: Will | None = None
        self.topics: dict[bytes, KnownTopic] | None = None
        self.aliases: dict[int, bytes] | None = None  # of this connection alone [MQTT-3.3.2-7]
        self.send_maximum = 0
        self.send_packet_maximum = NO_LIMIT_PACKET
        self.send_alias_maximum = 0
        self.problem_information = True

    # Called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(self.node.limits.write_buffer)
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
            if len(buffer) < self.need:
                return
            data = bytes(buffer)
            self._buffer = None
        published = node.counters.published
        try:
            used = read(self, data)
        except PacketError as error:
            self.fail(error)
            return
        if node.guarding.is_rating and self.ready:
            node.guarding.charge(self, node.counters.published - published, len(data))
        if used < len(data) and self.state != ConnectionState.DISCONNECTING:
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
        self._unread = 0
        if self._paused and self.state == ConnectionState.CONNECTED and self.pending_bytes * 2 <= self.node.limits.unacknowledged_bytes:
            self.resume()
        session = self.session
        if session is not None and session.connection is self:
            session.refresh()
            session.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.state = ConnectionState.DISCONNECTING
        self.node.connections.closed(self)
        self.node.connecting.authenticating.ended(self)
        self.node.ending.end(self, "Socket IOException")

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
        """Durable: acknowledge as the QoS asks [MQTT-3.3.4-1] [MQTT-4.3.2-4], in the order of the publishes [MQTT-4.6.0-2] [MQTT-4.6.0-3]."""
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
        if self.state != ConnectionState.CONNECTED:
            if words and self.session is not None:
                inbound.acknowledge_elsewhere(self.session, records)
            return
        if self._withheld is not None or self.node.pressure.withhold or self.slowed_until:
            self._withhold(words, size)
            return
        self.pending_bytes -= size
        if words:
            self._acknowledge(words)
        if self._paused:
            self._resume_if_few()

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

    def _resume_if_few(self) -> None:
        if self.state == ConnectionState.CONNECTED and self.pending_bytes * 2 <= self.node.limits.unacknowledged_bytes:
            self.resume()

    def _withhold(self, words: list[int], size: int) -> None:
        """Hold acknowledgements back; what they are for still counts as unacknowledged, so that QoS 0 is stopped as well."""
        if self._withheld is None:
            self._withheld = []
            self._withheld_bytes = 0
            self.node.pressure.withheld.add(self)
        self._withheld += words
        self._withheld_bytes += size

    def slow_down(self, until: float) -> None:
        """Hold acknowledgements back until then: most of its receivers are queueing."""
        self.slowed_until = until

    def release_withheld(self) -> None:
        """Send the acknowledgements that were held back."""
        words, self._withheld = self._withheld, None
        self.slowed_until = 0.0
        if words is None:
            return
        self.pending_bytes -= self._withheld_bytes
        if words and self.state == ConnectionState.CONNECTED:
            self._acknowledge(words)
        if self._paused:
            self._resume_if_few()

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
        """Send an answer as the client can take it [MQTT-3.1.2-24] [MQTT-3.1.2-29]; one that it waits for and can't take ends the connection."""
        data = encode_within(packet, self.version, self.send_packet_maximum, problem_information=self.problem_information)
        if data is None:
            self.close(ReasonCode.PACKET_TOO_LARGE, "invalid param")
        else:
            self.send(data)

    def flush(self) -> None:
        self.dirty = False
        out = self.out
        if not out or self.transport is None or self.state == ConnectionState.DISCONNECTING:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.node.counters.bytes_out += len(data)
        self.transport.write(data)
        if not self.writable:
            self._unread += len(data)
            if self._unread > self.node.limits.write_buffer:
                self.pause()  # what is left to write are answers: who reads none is asked nothing more

    def pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def throttle(self, seconds: float) -> None:
        """Read nothing for so long: the client has sent more than its rate."""
        if not self.throttled and self.state == ConnectionState.CONNECTED:
            self.throttled = True
            self.pause()
            self.node.loop.call_later(seconds, self._unthrottle)

    def _unthrottle(self) -> None:
        """Read on, unless what is not acknowledged or not taken still forbids it: that ends the pause then."""
        self.throttled = False
        if self._unread <= self.node.limits.write_buffer:
            self._resume_if_few()

    @property
    def listener(self) -> str:
        """Where it came in."""
        return str(self._spec)

    def is_closed(self) -> bool:
        return self.state == ConnectionState.DISCONNECTING

    def cut(self) -> None:
        """End the transport at once, whatever it has not written."""
        if self.transport is not None:
            self.transport.abort()

    def is_connecting(self) -> bool:
        """Whether CONNECT still waits for its answer."""
        return self.state == ConnectionState.CONNECTING

    @property
    def paused(self) -> bool:
        """Whether we keep the client from sending, though it reads: its keep-alive stands still."""
        return self._paused and self.writable

    def resume(self) -> None:
        """Read on, first what had come in meanwhile; a gateway that drains reads nothing more."""
        if not self._paused or self.throttled or self.transport is None or self.state == ConnectionState.DISCONNECTING or self.node.draining:
            return
        self._paused = False
        self.seen = self.node.tick
        self.transport.resume_reading()
        if self._buffer is not None and self.need > 1 << 60:
            self.need = 0
            self.data_received(b"")

    # Ending

    def fail(self, error: PacketError) -> None:
        """The peer's bytes end the connection [MQTT-4.13.1-1], before CONNACK too [MQTT-3.1.4-1]."""
        self.node.counters.refused[error.reason_code.name.lower()] += 1
        if self.state == ConnectionState.AWAITING_CONNECT:
            self.node.connecting.refuse(self, error.reason_code)
            self.shut()
            return
        self.close(error.reason_code, "invalid param", reason_string=str(error))

    def close(self, reason: ReasonCode, words: str, *, reason_string: str = "", reference: str = "") -> None:
        """Close from our side: DISCONNECT with the reason to a connected MQTT 5 client [MQTT-3.14.0-1]."""
        if self.state == ConnectionState.DISCONNECTING:
            return
        if self.state == ConnectionState.CONNECTED and self.version == MQTT_5_0:
            self.send_packet(self.node.disconnect_packet(reason, reason_string if self.problem_information else "", reference))
        self.shut()  # [MQTT-3.14.4-2] [MQTT-4.13.2-1]
        self.node.ending.end(self, words)

    def close_without_will(self, reason: ReasonCode, words: str, reference: str = "") -> None:
        """Close for a cause of our own: no will falls due from it. ``reference``: where the client may go."""
        self.will = None
        self.close(reason, words, reference=reference)

    def shut(self) -> None:
        """Write what is due and close the transport."""
        if self.state == ConnectionState.DISCONNECTING:
            return
        if not self.node.flusher.holds_back():
            self.flush()
        self.state = ConnectionState.DISCONNECTING  # nothing is sent from now on [MQTT-3.14.4-1]
        self.ready = False
        self._buffer = None
        if self.transport is not None:
            self.node.connections.closing(self)
            self.transport.close()

    def disconnected(self, packet: Disconnect) -> None:
        """The client said DISCONNECT."""
        self.node.ending.disconnect(self, packet)
        self.shut()
