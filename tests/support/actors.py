"""Clients of a fault run: a publisher with a window and a persistent subscriber, each keeping its MQTT state over connections.

They write the ledger and follow the protocol to the letter, so that what the checker finds is the gateway's doing. Faults that
show at once (a session that is gone, a packet id used again too early, a refusal) are collected in ``problems``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.protocol.packet_types import PacketType
from gateway.protocol.packets import Ack, Disconnect, Packet, Publish
from schemas.reasons import ReasonCode
from tests.support.gateway import Endpoint
from tests.support.ledger import Ledger, Sent, Subscriber, stamp
from tests.support.wire import Clients, Wire

SESSION_EXPIRY = 3600
TICK = 0.01
ENDINGS = (ReasonCode.SESSION_TAKEN_OVER, ReasonCode.SERVER_SHUTTING_DOWN)
"""What a server may say to a client that did nothing wrong; the tests that expect it look for themselves."""


class Actor:
    """A client id with a session that outlives its connections."""

    def __init__(self, ledger: Ledger, clients: Clients, name: str, version: int) -> None:
        self.ledger = ledger
        self.name = name
        self.version = version
        self.problems: list[str] = []
        self.endings = ENDINGS
        self.wire: Wire | None = None
        self._clients = clients
        self._established = False

    @property
    def online(self) -> bool:
        return self.wire is not None and not self.wire.lost.is_set()

    async def connect(self, endpoint: Endpoint) -> None:
        """Resumes the session, and does what the kind of actor owes."""
        raise NotImplementedError

    async def _connect(self, endpoint: Endpoint) -> Wire:
        wire = await self._clients.connect(
            endpoint, self.name, self.version, auto_ack=False, clean_start=False, session_expiry=SESSION_EXPIRY, within=10.0
        )
        assert wire.connack is not None
        if self._established and not wire.connack.session_present:
            self.problems.append(f"{self.name}: its session is gone")
        self._established = True
        return wire

    def _attend(self, wire: Wire) -> None:
        """What has come goes first, in its order; from now on packets are taken as they come."""
        for packet in wire.inbox:
            self._take(packet)
        wire.inbox.clear()
        wire.on_packet = self._take

    def _take(self, packet: Packet) -> None:
        raise NotImplementedError

    def pending(self) -> dict[int, int]:
        """By packet id, the numbers of its publishes that are not settled."""
        return {}

    async def leave(self) -> None:
        """With DISCONNECT; the session stays."""
        assert self.wire is not None
        await self.wire.disconnect()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


@dataclass
class _Unfinished:
    seq: int
    packet: Publish
    received: bool = False
    """PUBREC was here: PUBREL is what goes again."""
    released_again: bool = False
    """PUBREL went twice, so the server may know nothing of the id any more (MQTT 5.0 section 3.7.2.1)."""


class Publisher(Actor):
    """Publishes stamps to its topics in turn. ``resends`` False: what was unacknowledged at a loss stays indeterminate (QoS 1 alone)."""

    def __init__(
        self,
        ledger: Ledger,
        clients: Clients,
        name: str,
        topics: Sequence[str],
        *,
        version: int = 5,
        window: int = 20,
        retain: bool = False,
        resends: bool = True,
        size: int = 128,
    ) -> None:
        super().__init__(ledger, clients, name, version)
        self.seq = 0
        self.last_acked = -1
        self._topics = topics
        self._window = window
        self._retain = retain
        self._resends = resends
        self._size = size
        self._unfinished: dict[int, _Unfinished] = {}
        self._last_id = 0

    @property
    def finished(self) -> bool:
        return not self._unfinished

    def pending(self) -> dict[int, int]:
        return {packet_id: entry.seq for packet_id, entry in self._unfinished.items()}

    async def connect(self, endpoint: Endpoint) -> None:
        """Resumes: what is unfinished goes again first, in its order [MQTT-4.4.0-1] [MQTT-4.6.0-1]."""
        wire = self.wire = await self._connect(endpoint)
        for packet_id, entry in list(self._unfinished.items()):
            if entry.received:
                entry.released_again = True
                wire.ack(PacketType.PUBREL, packet_id)
            elif entry.packet.qos == 2 or self._resends:
                self.ledger.resend(self.name, entry.seq)
                packet = entry.packet
                wire.send(Publish(topic=packet.topic, payload=packet.payload, qos=packet.qos, retain=packet.retain, dup=True, packet_id=packet_id))
            else:
                del self._unfinished[packet_id]
        self._attend(wire)

    async def run(self, qos: int, rate: float) -> None:
        """Publishes until it is cancelled or the connection is gone."""
        start, count = self._now(), 0
        while self.online:
            due = int((self._now() - start) * rate) + 1
            while count < due and len(self._unfinished) < self._window:
                self.publish(qos)
                count += 1
            await asyncio.sleep(TICK)

    def publish(self, qos: int) -> None:
        assert self.wire is not None
        seq, self.seq = self.seq, self.seq + 1
        topic = self._topics[seq % len(self._topics)]
        payload = stamp(self.name, seq, self._size)
        packet_id = self._free_id() if qos else 0
        packet = Publish(topic=topic, payload=payload, qos=qos, retain=self._retain, dup=False, packet_id=packet_id)
        if qos:
            self._unfinished[packet_id] = _Unfinished(seq, packet)
        self.ledger.send(self.name, seq, topic, qos, payload, self._now())
        self.wire.send(packet)

    async def finish(self, within: float) -> None:
        """Everything is acknowledged."""
        async with asyncio.timeout(within):
            while self._unfinished and self.online:
                await asyncio.sleep(TICK)
        assert self.finished, f"{self.name}: the connection was lost with {len(self._unfinished)} publishes unfinished"

    def _free_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._unfinished:
                return self._last_id

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Disconnect) and packet.reason_code in self.endings:
            return
        if not isinstance(packet, Ack):
            self.problems.append(f"{self.name}: {packet}")
            return
        entry = self._unfinished.get(packet.packet_id)
        if entry is None:
            self.problems.append(f"{self.name}: {packet.type.name} {packet.packet_id} answers nothing")
            return
        done_before = packet.type is PacketType.PUBCOMP and entry.released_again and packet.reason_code == ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        if packet.reason_code >= ReasonCode.UNSPECIFIED_ERROR and not done_before:
            self.problems.append(f"{self.name}: {packet.type.name} {packet.reason_code!r}")
        if packet.type in (PacketType.PUBACK, PacketType.PUBREC):
            self.ledger.ack(self.name, entry.seq, self._now())
            self.last_acked = max(self.last_acked, entry.seq)
        if packet.type is PacketType.PUBREC:
            entry.received = True
            assert self.wire is not None
            self.wire.ack(PacketType.PUBREL, packet.packet_id)
        else:
            del self._unfinished[packet.packet_id]


class PersistentSubscriber(Actor):
    """Subscribes once, at its first connection, and acknowledges what it gets. Under QoS 2 a repeated packet id is the same message."""

    def __init__(
        self, ledger: Ledger, clients: Clients, name: str, filters: Sequence[str], wants: Callable[[Sent], bool], *, version: int, qos: int
    ) -> None:
        super().__init__(ledger, clients, name, version)
        self.record: Subscriber = ledger.subscribe(name, wants, qos)
        self.held: set[bytes] = set()
        """Digests of what has come."""
        self.takeovers = 0
        self._filters = filters
        self._qos = qos
        self._unreleased: dict[int, bytes] = {}

    async def connect(self, endpoint: Endpoint) -> None:
        """Also the takeover: an older connection of ours, if there is one, has to be closed by the gateway."""
        old, first = self.wire if self.online else None, not self._established
        wire = await self._connect(endpoint)
        self.wire = wire
        if old is not None:
            self.ledger.disrupt(self._now(), self.name)
            self.takeovers += 1
            old.on_packet = lambda _: None
        for topic_filter in self._filters if first else ():
            granted = await wire.subscribe(topic_filter, self._qos)
            assert granted.reason_codes[0] == self._qos, granted
        self._attend(wire)
        if old is not None and not old.lost.is_set():
            await old.closed(5.0)

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Publish):
            self._receive(packet)
        elif isinstance(packet, Ack) and packet.type is PacketType.PUBREL:
            self._unreleased.pop(packet.packet_id, None)
            self._ack(PacketType.PUBCOMP, packet.packet_id)
        elif not isinstance(packet, Disconnect) or packet.reason_code not in self.endings:
            self.problems.append(f"{self.name}: {packet}")

    def _receive(self, packet: Publish) -> None:
        digest = hashlib.sha256(packet.payload).digest()
        known = self._unreleased.get(packet.packet_id) if packet.qos == 2 else None
        if known is not None and known != digest:
            self.problems.append(f"{self.name}: packet id {packet.packet_id} carries another message before its release")
        if known is None:
            # Taken before it is acknowledged: the acknowledgement fails where the gateway is dead already
            self.ledger.receive(self.name, packet.topic, packet.qos, packet.payload, self._now())
            self.held.add(digest)
        if packet.qos == 2:
            self._unreleased[packet.packet_id] = digest
            self._ack(PacketType.PUBREC, packet.packet_id)
        elif packet.qos == 1:
            self._ack(PacketType.PUBACK, packet.packet_id)

    def _ack(self, kind: PacketType, packet_id: int) -> None:
        assert self.wire is not None
        self.wire.ack(kind, packet_id)

    def lacks(self, entries: Sequence[Sent]) -> list[Sent]:
        """Those acknowledged publishes that have not come yet."""
        return [entry for entry in entries if entry.digest not in self.held and self.record.wants(entry)]
