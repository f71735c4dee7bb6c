"""A live session: what it owes its client, in flight, queued or stored, and the acknowledgements that settle it.

Deliveries come in runs from streams/fanout.py and leave as bytes through the connection (gateway/connection.py). A
persistent session (one that outlives its connection) keeps what is unsettled in its box in the store; how stored entries
come back is gateway/backlog.py. Nothing here waits: what must be durable first goes through ``Persistence.add_then``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from gateway import failpoints
from gateway.protocol import hot
from schemas.identities import Principal
from schemas.positions import At
from schemas.sessions import BoxEntry, BoxState, DropEntry, PutEntry, ReserveBlock, SessionState, SetEntry, Subscription, TrimBox
from streams.fanout import Delivery, Run

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node

BLOCK = 1024
"""Packet ids reserved in the store at a time; a crash starts a new block (design: QoS 2)."""
UNLIMITED = 1 << 62
NO_LIMIT_PACKET = 1 << 30
SPILL_AT = 5_000
"""A persistent session's queue in memory beyond which it moves to the store."""


class Session:
    """One MQTT session, online or not."""

    __slots__ = (
        "_node",
        "active",
        "alias_limit",
        "aliases",
        "backlog",
        "box_writes",
        "client",
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
        "ordered",
        "principal",
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
        "window",
    )

    def __init__(self, node: Node, client: str, principal: Principal) -> None:
        self._node = node
        self.client = client
        self.principal = principal
        self.id = 0
        self.epoch = 0
        self.expiry = 0
        self.expires_at = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.received: dict[int, bool] = {}
        """Inbound QoS 2 ids that await PUBREL: whether the publish is durable."""
        self.mailbox = 0
        self.stored_count = 0
        self.ordered = False
        self.connection: Connection | None = None
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.in_flight: dict[int, Delivery] = {}
        self.released: set[int] | None = None
        self.stored: dict[int, int] | None = None
        self.queue: deque[Delivery] | None = None
        self.aliases: dict[str, int] | None = None
        self.alias_limit = 0
        self.maximum_packet = NO_LIMIT_PACKET
        self.window = 0
        self.version = 4
        self.fast = False
        self.hold = 0
        self.backlog = False
        self.box_writes = 0
        self.active = False
        self.last_packet_id = 0
        self.used = 0
        self.reserved = UNLIMITED
        self.reserving = False

    # Attaching and detaching

    def attach(self, connection: Connection, state: SessionState | None) -> None:
        """Begin a connection; with ``state``, as the store has it."""
        self._forget_connection()
        self.connection = connection
        self.version = connection.version
        self.window = connection.send_maximum
        self.maximum_packet = connection.send_packet_maximum or NO_LIMIT_PACKET
        self.alias_limit = connection.send_alias_maximum
        if state is not None:
            self.id, self.epoch, self.expiry, self.mailbox = state.id, state.epoch, state.expiry, state.mailbox
            self.stored_count = state.queued + len(state.in_flight)
            if state.id:
                first = state.next_block if 0 < state.next_block <= 65535 else 1
                self.last_packet_id = first - 1
                self.reserve()
        self.expires_at = 0

    def reserve(self) -> None:
        """Take the next block of packet ids; the first is asked for with the connect, so it is durable before CONNACK."""
        self.reserved = self.used + BLOCK
        following = (self.last_packet_id + BLOCK) % 65535 + 1
        self._node.persistence.add(ReserveBlock(session=self.id, epoch=self.epoch, next_block=following))

    def refresh(self) -> None:
        """Settle anew whether deliveries may go straight out; call it after any of these has changed."""
        connection = self.connection
        self.fast = (
            connection is not None
            and connection.ready
            and connection.writable
            and not self.queue
            and not self.hold
            and not (self.backlog and self.id)
            and not self.alias_limit
        )

    def detach(self) -> None:
        """The connection is gone: what is kept goes to the box, the rest is forgotten."""
        add = self._node.persistence.add
        for packet_id, delivery in self.in_flight.items():
            if not self._keeps(delivery):
                continue
            box = self.stored.get(packet_id, 0) if self.stored else 0
            if box == 0:
                self._store(delivery, BoxState.IN_FLIGHT, packet_id)
            elif box < 0:
                add(SetEntry(box=-box, epoch=self._epoch_of(-box), at=delivery.at, state=BoxState.IN_FLIGHT, packet_id=packet_id))
        for delivery in self.queue or ():
            if self._keeps(delivery):
                self._store(delivery)
            elif delivery.qos:
                self._node.counters.dropped["session_ended"] += 1
        self.connection = None
        self._node.registry.active.discard(self)
        self._forget_connection()

    # Deliveries

    def availability(self) -> int:
        """See ``streams.fanout.Target``."""
        if self.connection is None or not self.connection.ready:
            return 0
        return 2 if self.fast and len(self.in_flight) < self.window else 1

    def deliver(self, run: Run) -> None:
        """See ``streams.fanout.Target``. The way of almost all deliveries; whatever is out of the ordinary goes one by one."""
        deliveries = run.deliveries
        count = len(deliveries)
        in_flight = self.in_flight
        if (
            not self.fast
            or run.largest > self.maximum_packet - 1024
            or (run.qos and (len(in_flight) + count > self.window or self.used + count > self.reserved or (run.qos == 2 and self.id)))
        ):
            self._deliver_each(deliveries)
            return
        connection = self.connection
        assert connection is not None  # noqa: S101 - what fast means
        out = connection.out
        if run.qos == 0:
            if self.version == 5:
                out.append(run.wire5 if isinstance(run.wire5, bytes) else hot.joined5(run, self._node.clock.wall()))
            else:
                out.append(run.wire3 if isinstance(run.wire3, bytes) else hot.joined3(run))
        else:
            if self.version == 5:
                wire = run.wire5 if isinstance(run.wire5, list) else hot.wire5(run, self._node.clock.wall())
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
            if self.id:
                self._used_ids()
        self._node.counters.delivered += count
        if not connection.dirty:
            connection.mark()

    def _used_ids(self) -> None:
        if not self.active:
            self.active = True
            self._node.registry.active.add(self)
        if self.reserved - self.used < BLOCK // 2 and not self.reserving:
            self.reserve_more()

    def reserve_more(self) -> None:
        """Ask for another block; it may be used once the store has it."""
        target = self.reserved + BLOCK
        following = (self.last_packet_id + (target - self.used)) % 65535 + 1
        change = ReserveBlock(session=self.id, epoch=self.epoch, next_block=following)
        self.reserving = True
        self._node.persistence.add_then(change, self, -self.epoch)

    def _deliver_each(self, deliveries: list[Delivery]) -> None:
        connection = self.connection
        online = connection is not None and connection.ready
        for delivery in deliveries:
            keeps = self._keeps(delivery)
            if not online:
                if keeps:
                    self._store(delivery)
                else:
                    self._node.counters.dropped["offline"] += 1
            elif keeps and self.backlog:
                self._store(delivery)
                self.box_writes += 1
            elif self.queue or self.hold or not self._has_room(delivery):
                self._enqueue(delivery)
            else:
                self.send(delivery)

    def _has_room(self, delivery: Delivery) -> bool:
        connection = self.connection
        if connection is None or not connection.writable:
            return False
        return not delivery.qos or (len(self.in_flight) < self.window and self.used < self.reserved)

    def has_room(self) -> bool:
        """Whether a QoS 1 or 2 delivery could be sent now."""
        connection = self.connection
        return connection is not None and connection.writable and len(self.in_flight) < self.window and self.used < self.reserved

    def send(self, delivery: Delivery, box: int = 0) -> None:
        """Send one delivery now; there is room. ``box`` is where it is stored as QUEUED, 0 where it isn't."""
        connection = self.connection
        assert connection is not None  # noqa: S101
        now = self._node.clock.wall()
        record = delivery.record
        if record.expires_at and record.expires_at <= now:
            self._node.counters.dropped["expired"] += 1
            self._drop_stored(delivery, box)
            return
        if not delivery.qos:
            self._write(delivery, 0, now)
            return
        if self._too_large(delivery, now):
            self._node.counters.dropped["packet_too_large"] += 1
            self._drop_stored(delivery, box)
            return
        packet_id = self._take_packet_id()
        self.in_flight[packet_id] = delivery
        if self._keeps(delivery):
            self._mark_active()
        if box:
            self._stored()[packet_id] = -box
        if delivery.qos == 2 and self.id:
            # Durable before it is sent: a resend must find the id [MQTT-4.3.3-1]
            if box:
                self._stored()[packet_id] = box
                change = SetEntry(box=box, epoch=self.epoch, at=delivery.at, state=BoxState.IN_FLIGHT, packet_id=packet_id)
                self._node.persistence.add_then(change, self, self._token(packet_id))
            else:
                self._stored()[packet_id] = self.id
                self._node.persistence.add_then(self._put(delivery, BoxState.IN_FLIGHT, packet_id), self, self._token(packet_id))
            return
        self._write(delivery, packet_id, now)

    def _too_large(self, delivery: Delivery, now: int) -> bool:
        """Whether the client said that it takes no packet of that size [MQTT-3.1.2-24]."""
        if self.maximum_packet == NO_LIMIT_PACKET:
            return False
        return len(hot.single(delivery, self._topic(delivery), 1, version=self.version, dup=False, now=now)) > self.maximum_packet

    def _topic(self, delivery: Delivery) -> str:
        return delivery.record.real_topic or delivery.record.topic

    def _write(self, delivery: Delivery, packet_id: int, now: int, *, dup: bool = False) -> None:
        connection = self.connection
        if connection is None:
            return
        topic, alias = self._topic(delivery), 0
        if self.alias_limit:
            topic, alias = self._alias(topic)
        data = hot.single(delivery, topic, packet_id, version=self.version, dup=dup, now=now, alias=alias)
        if not delivery.qos and len(data) > self.maximum_packet:
            self._node.counters.dropped["packet_too_large"] += 1
            return
        connection.send(data)
        self._node.counters.delivered += 1

    def _alias(self, topic: str) -> tuple[str, int]:
        """The topic as sent and its alias: named once, then empty; 0 once all aliases are taken [MQTT-3.1.2-26]."""
        aliases = self.aliases
        if aliases is None:
            aliases = self.aliases = {}
        known = aliases.get(topic)
        if known is not None:
            return "", known
        if len(aliases) >= self.alias_limit:
            return topic, 0
        aliases[topic] = len(aliases) + 1
        return topic, len(aliases)

    def _take_packet_id(self) -> int:
        packet_id = self.last_packet_id
        while True:
            packet_id = packet_id + 1 if packet_id < 65535 else 1
            if packet_id not in self.in_flight:
                break
        self.last_packet_id = packet_id
        self.used += 1
        if self.id and self.reserved - self.used < BLOCK // 2 and not self.reserving:
            self.reserve_more()
        return packet_id

    def _enqueue(self, delivery: Delivery) -> None:
        node = self._node
        queue = self.queue
        if queue is None:
            queue = self.queue = deque()
        queue.append(delivery)
        self.fast = False
        node.queued_bytes += len(delivery.record.payload)
        if self._keeps(delivery):
            self._mark_active()
            if len(queue) > SPILL_AT:
                self.spill()
        elif len(queue) > node.limits.queue_messages or node.queued_bytes > node.limits.queue_bytes_node:
            oldest = queue.popleft()
            node.queued_bytes -= len(oldest.record.payload)
            node.counters.dropped["queue_full"] += 1

    def spill(self) -> None:
        """Move what is queued and kept to the box; it comes back through the backlog, in order."""
        queue, self.queue = self.queue, None
        for delivery in queue or ():
            self._node.queued_bytes -= len(delivery.record.payload)
            if self._keeps(delivery):
                self._store(delivery)
                self.box_writes += 1
            else:
                self._enqueue(delivery)
        self.backlog = True
        self.refresh()
        self._node.backlog.wake(self)

    def pump(self) -> None:
        """Send what waits, as far as window and socket allow."""
        queue = self.queue
        while queue and not self.hold:
            delivery = queue[0]
            if not self._has_room(delivery):
                return
            queue.popleft()
            self._node.queued_bytes -= len(delivery.record.payload)
            self.send(delivery)
        if not queue:
            self.queue = None
            self.refresh()
            if self.backlog:
                self._node.backlog.wake(self)

    # Acknowledgements

    def puback(self, packet_id: int) -> None:
        """[MQTT-4.3.2-3]: settled. An unknown id is ignored."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None or delivery.qos != 1:
            return
        del self.in_flight[packet_id]
        self._settle(packet_id, delivery)

    def _settle(self, packet_id: int, delivery: Delivery) -> None:
        if self.stored:
            box = abs(self.stored.pop(packet_id, 0))
            self._drop_stored(delivery, box)

    def _drop_stored(self, delivery: Delivery, box: int) -> None:
        if box:
            self.stored_count -= 1
            self._node.persistence.add(DropEntry(box=box, epoch=self._epoch_of(box), at=delivery.at))

    def pubrec(self, packet_id: int, *, refused: bool) -> bool:
        """QoS 2, first half [MQTT-4.3.3-4]. False where the id is unknown and the peer is to be told."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None or delivery.qos != 2:
            return False
        if refused:
            del self.in_flight[packet_id]
            self._settle(packet_id, delivery)
            return True
        released = self.released
        if released is None:
            released = self.released = set()
        if packet_id in released or not self.id:
            released.add(packet_id)
            self._release(packet_id)
            return True
        released.add(packet_id)
        if failpoints.ARMED:
            failpoints.reach("pubrec-recorded")
        change = SetEntry(box=self.id, epoch=self.epoch, at=delivery.at, state=BoxState.RELEASED, packet_id=packet_id)
        self._node.persistence.add_then(change, self, self._token(packet_id))
        return True

    def _release(self, packet_id: int) -> None:
        if self.connection is not None:
            self.connection.acknowledge(hot.PUBREL | packet_id)

    def pubcomp(self, packet_id: int) -> None:
        """QoS 2, done: the packet id is free again [MQTT-4.3.3-6]."""
        if self.released is None or packet_id not in self.released:
            return
        self.released.discard(packet_id)
        delivery = self.in_flight.pop(packet_id)
        if self.id:
            if self.stored:
                self.stored.pop(packet_id, 0)
            self.stored_count -= 1
            self._node.persistence.add(SetEntry(box=self.id, epoch=self.epoch, at=delivery.at, state=BoxState.DONE, packet_id=packet_id))

    def committed(self, token: int) -> None:
        """The store has what had to be durable before the next step."""
        if token < 0:
            if -token == self.epoch and self.connection is not None:
                self.reserving = False
                self.reserved += BLOCK
                self.pump()
            return
        packet_id = token & 0xFFFF
        if token >> 16 != self.epoch or self.connection is None or packet_id not in self.in_flight:
            return
        if self.released and packet_id in self.released:
            self._release(packet_id)
        else:
            self._write(self.in_flight[packet_id], packet_id, self._node.clock.wall())

    # The box

    def _token(self, packet_id: int) -> int:
        return self.epoch << 16 | packet_id

    def _keeps(self, delivery: Delivery) -> bool:
        """Whether the delivery outlives the connection: by the session, or in the client id's mailbox."""
        return delivery.qos > 0 and (self.id != 0 or (delivery.mailbox and self.mailbox != 0))

    def _box(self) -> int:
        return self.id or self.mailbox

    def _epoch_of(self, box: int) -> int:
        return self.epoch if box == self.id else 0

    def _put(self, delivery: Delivery, state: int, packet_id: int) -> PutEntry:
        box = self._box()
        entry = BoxEntry(delivery.at, delivery.record, delivery.qos, delivery.retain, delivery.identifiers, state, packet_id)
        return PutEntry(box=box, epoch=self._epoch_of(box), entry=entry)

    def _store(self, delivery: Delivery, state: int = BoxState.QUEUED, packet_id: int = 0) -> None:
        node = self._node
        node.persistence.add(self._put(delivery, state, packet_id))
        node.counters.offline_stored += 1
        self.stored_count += 1
        limit = node.limits.offline_messages if self.id else node.limits.mailbox_messages
        if self.stored_count > limit:
            box = self._box()
            node.persistence.add(TrimBox(box=box, epoch=self._epoch_of(box), keep=limit))
            self.stored_count = limit

    def _stored(self) -> dict[int, int]:
        if self.stored is None:
            self.stored = {}
        return self.stored

    def _mark_active(self) -> None:
        if not self.active:
            self.active = True
            self._node.registry.active.add(self)

    def settle(self, mark: At) -> bool:
        """Store as in flight what was routed before ``mark`` and is unacknowledged; False where nothing is left to watch."""
        stored = self._stored()
        for packet_id, delivery in self.in_flight.items():
            if delivery.at >= mark:
                break
            box = stored.get(packet_id, 0)
            if box > 0 or not self._keeps(delivery):
                continue
            if box == 0:
                stored[packet_id] = self._box()
                self._store(delivery, BoxState.IN_FLIGHT, packet_id)
            else:
                stored[packet_id] = -box
                change = SetEntry(box=-box, epoch=self._epoch_of(-box), at=delivery.at, state=BoxState.IN_FLIGHT, packet_id=packet_id)
                self._node.persistence.add(change)
        if self.queue and any(d.at < mark and self._keeps(d) for d in self.queue):
            self.spill()
        return bool(self.in_flight or self.queue)

    def resume(self, entries: tuple[BoxEntry, ...]) -> None:
        """Send again what was in flight: same id, DUP, or PUBREL where PUBREC was seen [MQTT-4.4.0-1]."""
        now = self._node.clock.wall()
        for entry in entries:
            delivery = Delivery(entry.record, entry.at, entry.qos, entry.retain, entry.identifiers)
            self.in_flight[entry.packet_id] = delivery
            self._stored()[entry.packet_id] = self.id
            if entry.state == BoxState.RELEASED:
                if self.released is None:
                    self.released = set()
                self.released.add(entry.packet_id)
                self._release(entry.packet_id)
            else:
                self._write(delivery, entry.packet_id, now, dup=True)
                self._node.counters.redelivered += 1
