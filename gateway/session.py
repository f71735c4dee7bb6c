"""A live session: what it owes its client, in flight, queued or stored, and the acknowledgements that settle it.

Deliveries come in runs from streams/fanout.py and leave as bytes through the connection (gateway/connection.py). A persistent session (one that
outlives its connection) keeps what is unsettled in its box in the store; how stored entries come back is gateway/backlog.py. Nothing waits here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from gateway import exactly_once, failpoints, keeping, outbound
from gateway.keeping import BLOCK, SPILL_AT
from gateway.outbound import NO_LIMIT_PACKET
from gateway.protocol import hot
from schemas.identities import Principal
from schemas.positions import At
from schemas.records import Source
from schemas.sessions import BoxEntry, SessionState, Subscription
from streams.control import TokenBucket
from streams.expiry import is_expired
from streams.fanout import Delivery, Run

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node

UNLIMITED = 1 << 62
INFLOW = int(Source.INFLOW)


class Session:
    """One MQTT session, online or not."""

    __slots__ = (
        "active",
        "alias_limit",
        "aliases",
        "backlog",
        "box_writes",
        "claiming",
        "taken",
        "client",
        "connected_at",
        "connection",
        "epoch",
        "expires_at",
        "expiry",
        "fast",
        "hold",
        "id",
        "in_flight",
        "last_packet_id",
        "mailbox",
        "maximum_packet",
        "muted",
        "node",
        "ordered",
        "principal",
        "pulls",
        "queue",
        "received",
        "released",
        "reserved",
        "reserving",
        "stored",
        "stored_count",
        "subscriptions",
        "used",
        "version",
        "waiting",
        "window",
    )

    def __init__(self, node: Node, client: str, principal: Principal) -> None:
        self.node = node
        self.client = client
        self.principal = principal
        self.id = 0
        self.epoch = 0
        self.expiry = 0
        self.expires_at = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.received: dict[int, bool] | None = None
        """Inbound QoS 2 ids that await PUBREL: whether the publish is durable."""
        self.mailbox = 0
        self.stored_count = 0
        self.claiming: list[Delivery] | None = None
        self.taken = 0
        """The epoch under which it came here from another node: what was written under one before that, and is routed now, is late."""
        """While a connect claims the session: what is to be stored once the session's epoch is known again."""
        self.ordered = False
        self.pulls: TokenBucket | None = None
        self.connected_at: At | None = None  # where the event of its last connection lies in the log
        self.connection: Connection | None = None
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.in_flight: dict[int, Delivery] = {}
        self.released: set[int] | None = None
        self.stored: dict[int, int] | None = None
        self.queue: deque[Delivery] | None = None
        self.aliases: dict[str, int] | None = None
        self.alias_limit = 0  # none is sent, unless the client takes some [MQTT-3.1.2-27]
        self.maximum_packet = NO_LIMIT_PACKET
        self.window = 0
        self.version = 4
        self.fast = False
        self.hold = 0
        self.backlog = False
        self.muted = False
        """Connected, and sent nothing until it shows a token to read with; what it keeps is stored."""
        self.waiting: tuple[BoxEntry, ...] = ()
        """What was in flight before, while muted."""
        self.box_writes = 0
        self.active = False
        self.last_packet_id = 0
        self.used = 0
        self.reserved = UNLIMITED
        self.reserving = False

    def adopt(self, state: SessionState) -> None:
        """The session was claimed: from now on it writes under the claim's epoch, and its time doesn't run."""
        self.id, self.epoch, self.expiry, self.mailbox = state.id, state.epoch, state.expiry, state.mailbox
        if state.resume is not None:
            self.taken = state.epoch
        self.stored_count = state.queued + len(state.in_flight)
        self.expires_at = 0

    def attach(self, connection: Connection, state: SessionState | None) -> None:
        """Begin a connection; with ``state``, as the store has it."""
        self._forget_connection()
        self.connection = connection
        self.version = connection.version
        self.window = connection.send_maximum
        self.maximum_packet = connection.send_packet_maximum
        self.alias_limit = connection.send_alias_maximum
        tokens = self.principal.tokens
        self.muted = tokens is not None and not tokens.has("read")
        if state is not None and state.id:
            first = state.next_block if 0 < state.next_block <= 65535 else 1
            self.last_packet_id = first - 1
            keeping.reserve(self)

    def refresh(self) -> None:
        """Settle anew whether deliveries may go straight out; call it after any of these has changed."""
        connection = self.connection
        self.fast = (
            connection is not None
            and connection.ready
            and connection.writable
            and not self.queue
            and not self.hold
            and not self.muted
            and not (self.backlog and self.id)
            and not self.alias_limit
        )

    # Deliveries

    def availability(self) -> int:
        """See ``streams.fanout.Target``."""
        if self.connection is None or not self.connection.ready or self.muted:
            return 0
        return 2 if self.fast and len(self.in_flight) < self.window else 1

    def queue_length(self) -> int:
        """See ``streams.fanout.Target``."""
        return len(self.queue) if self.queue else 0

    def deliver(self, run: Run) -> None:
        """See ``streams.fanout.Target``. The way of almost all deliveries; whatever is out of the ordinary goes one by one."""
        deliveries = run.deliveries
        count = len(deliveries)
        in_flight = self.in_flight
        if (
            not self.fast
            or run.largest > self.maximum_packet
            or (run.qos and (len(in_flight) + count > self.window or self.used + count > self.reserved or (run.qos == 2 and self.id)))
        ):
            self._deliver_each(deliveries)
            return
        connection = self.connection
        assert connection is not None  # noqa: S101 - what fast means
        out = connection.out
        if run.qos == 0:
            if self.version == 5:
                out.append(run.wire5 if isinstance(run.wire5, bytes) else hot.joined5(run, self.node.clock.wall()))
            else:
                out.append(run.wire3 if isinstance(run.wire3, bytes) else hot.joined3(run))
        else:
            if self.version == 5:
                wire = run.wire5 if isinstance(run.wire5, list) else hot.wire5(run, self.node.clock.wall())
            else:
                wire = run.wire3 if isinstance(run.wire3, list) else hot.wire3(run)
            packet_id = self.last_packet_id
            ids = hot.PACKET_IDS
            add = out.append
            for delivery, (head, tail) in zip(deliveries, wire, strict=True):
                packet_id = packet_id + 1 if packet_id < 65535 else 1
                while packet_id in in_flight:
                    packet_id = packet_id + 1 if packet_id < 65535 else 1
                in_flight[packet_id] = delivery
                add(head)
                add(ids[packet_id])
                add(tail)
            self.last_packet_id = packet_id
            self.used += count
            if self.id or deliveries[0].mailbox:
                self._used_ids()
        self.node.counters.delivered += count
        if run.traced:
            self.node.trace.pushed(self.client, run.traced)
        if not connection.dirty:
            connection.mark()

    def _used_ids(self) -> None:
        if not self.active:
            keeping.watch(self)
        if self.reserved - self.used < BLOCK // 2 and not self.reserving:
            keeping.reserve_more(self)

    def _deliver_each(self, deliveries: list[Delivery]) -> None:
        connection = self.connection
        online = connection is not None and connection.ready and not self.muted
        for delivery in deliveries:
            keeps = keeping.keeps(self, delivery)
            if not online:
                if keeps:  # [MQTT-4.5.0-1]
                    keeping.store(self, delivery)
                else:
                    self.node.counters.dropped["offline"] += 1
            elif keeps and self.backlog:
                keeping.store(self, delivery)
                self.box_writes += 1
            elif self.queue or self.hold or not self._has_room(delivery):
                self.enqueue(delivery)
            else:
                self.send(delivery)

    def _has_room(self, delivery: Delivery) -> bool:
        connection = self.connection
        if connection is None or not connection.writable:
            return False
        # Without quota no more of QoS 1 and 2 [MQTT-4.9.0-2]
        return not delivery.qos or (len(self.in_flight) < self.window and self.used < self.reserved)

    def has_room(self) -> bool:
        """Whether a QoS 1 or 2 delivery could be sent now."""
        connection = self.connection
        return connection is not None and connection.writable and len(self.in_flight) < self.window and self.used < self.reserved

    def send(self, delivery: Delivery, box: int = 0) -> None:
        """Send one delivery now; there is room. ``box`` is where it is stored as QUEUED, 0 where it isn't."""
        now = self.node.clock.wall()
        record = delivery.record
        if is_expired(record.expires_at, now):
            self.node.counters.dropped["expired"] += 1
            if record.source == INFLOW:
                self.node.undelivered(record, "expired")
            keeping.drop(self, delivery, box)
            return
        if outbound.too_large(self, delivery, now):
            self.node.counters.dropped["packet_too_large"] += 1
            keeping.drop(self, delivery, box)
            return
        if not delivery.qos:
            outbound.write(self, delivery, 0, now)
            return
        packet_id = self._take_packet_id()
        self.in_flight[packet_id] = delivery
        if keeping.keeps(self, delivery):
            keeping.watch(self)
            if delivery.qos == 2 and self.id:
                exactly_once.begin(self, delivery, packet_id, box)
                return
        if box:
            self.stored_boxes()[packet_id] = -box
        outbound.write(self, delivery, packet_id, now)

    def _take_packet_id(self) -> int:
        packet_id = self.last_packet_id
        while True:
            packet_id = packet_id + 1 if packet_id < 65535 else 1  # [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
            if packet_id not in self.in_flight:
                break
        self.last_packet_id = packet_id
        self.used += 1
        if self.id and self.reserved - self.used < BLOCK // 2 and not self.reserving:
            keeping.reserve_more(self)
        return packet_id

    def enqueue(self, delivery: Delivery) -> None:
        node = self.node
        queue = self.queue
        if queue is None:
            queue = self.queue = deque()
        queue.append(delivery)
        self.fast = False
        node.queued_bytes += len(delivery.record.payload)
        full = node.queued_bytes > node.limits.queue_bytes_node
        if keeping.keeps(self, delivery):
            keeping.watch(self)
            if full or len(queue) > SPILL_AT:
                keeping.spill(self)
        elif full or len(queue) > node.limits.queue_messages:
            dropped = queue.pop() if keeping.keeps(self, queue[0]) else queue.popleft()
            node.queued_bytes -= len(dropped.record.payload)
            node.counters.dropped["queue_full"] += 1

    def detach(self, *, moved: bool = False) -> list[tuple[Delivery, bool]]:
        """The connection is gone: what is kept goes to the box, unless that moved. What is left of QoS 1 and 2, and whether it was sent."""
        left = keeping.abandon(self) if moved else keeping.keep_unsettled(self)
        self.connection = None
        self.node.registry.active.discard(self)
        self._forget_connection()
        return left

    def pump(self) -> None:
        """Send what waits, as far as window and socket allow."""
        queue = self.queue
        while queue and not self.hold:
            delivery = queue[0]
            if not self._has_room(delivery):
                return
            queue.popleft()
            self.node.queued_bytes -= len(delivery.record.payload)
            self.send(delivery)
        if not queue:
            self.queue = None
            self.refresh()
            if self.backlog:
                self.node.backlog.wake(self)

    # Acknowledgements

    def puback(self, packet_id: int) -> None:
        """[MQTT-4.3.2-3]: settled. An unknown id is ignored."""
        if failpoints.ARMED:
            failpoints.reach("delivered-before-ack")
        delivery = self.in_flight.get(packet_id)
        if delivery is None or delivery.qos != 1:
            return
        del self.in_flight[packet_id]
        if delivery.traced:
            self.node.trace.acknowledged(self.client, delivery)
        if self.stored:
            keeping.drop(self, delivery, abs(self.stored.pop(packet_id, 0)))

    def received_ids(self) -> dict[int, bool]:
        """``received``, made when it is first needed: most sessions never publish with QoS 2."""
        if self.received is None:
            self.received = {}
        return self.received

    def released_ids(self) -> set[int]:
        """Packet ids in flight for which PUBREC was seen."""
        if self.released is None:
            self.released = set()
        return self.released

    def stored_boxes(self) -> dict[int, int]:
        """By packet id, the box in which a delivery in flight is stored; negative while it is stored as QUEUED."""
        if self.stored is None:
            self.stored = {}
        return self.stored

    def committed(self, token: int) -> None:
        """The store has what had to be durable before the next step: a block of packet ids, or a step of QoS 2."""
        if self.connection is None:
            return
        if token < 0:
            if -token == self.epoch:
                self.reserving = False
                self.reserved += BLOCK
                self.pump()
        elif token >> 16 == self.epoch:
            exactly_once.committed(self, token & 0xFFFF)
