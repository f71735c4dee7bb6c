"""From routed records to sessions: plans from the routes, runs to targets, P2P to its one device, and what that costs publishers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from gateway.persistence import PENDING_LIMIT, RETRY_AFTER
from gateway.retained_room import RetainedRoom
from schemas.errors import StoreError
from schemas.positions import At
from schemas.records import Flag, Record, Source
from schemas.sessions import BoxEntry, DropReceived, PutEntry, PutReceived, PutRetained, TrimBox
from schemas.topics import parse_p2p
from streams.expiry import is_expired
from streams.fanout import Plan, Variant, fan_out, make_run
from streams.p2p import Place, place
from streams.resuming import is_since
from streams.store import Change

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

SECOND = 1000
"""In ms."""
SLOW_AT = 2000
"""Queued deliveries from which a receiver counts as queueing."""
SLOW_FOR = 0.05
"""Seconds for which a publisher's acknowledgements are held back when most of its receivers are queueing."""
PERSISTENT = int(Flag.PERSISTENT)
INFLOW = int(Source.INFLOW)
P2P_VARIANT = Variant(2, retain_as_published=False, identifiers=())


class LocalDownlink:
    """The downlink of a node that owns all sessions: a call."""

    _shares = True
    """Whether members of shared subscriptions are all here."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.replaying = True
        """At start: subscriptions that came later than a record don't match it; plans are not kept."""
        self._new_mailboxes: list[tuple[str, BoxEntry]] = []
        self._by_number: dict[int, Session] | None = None
        self._retained_room = RetainedRoom(node)

    def begin(self, records: Sequence[Record]) -> None:
        """See ``streams.runtime.router.Downlink``. What a start replays was traced before."""
        if not self.replaying:
            self._node.trace.routed(records)

    def deliver(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """See ``streams.runtime.router.Downlink``."""
        topic = records[0].topic
        if self.replaying:
            for record, at in zip(records, ats, strict=True):
                fan_out(self._plan_at(topic, at), (record,), (at,))
            return
        plan = self._node.routes.match_cached(topic, partial(self._node.derive_plan, topic))
        if self._node.clock.last - records[0].time >= SECOND:
            records, ats = self._unexpired(records, ats, plan.receivers(shared=self._shares))
            if not records:
                return
        fan_out(plan, records, ats, self._node.trace.chosen, shared=self._shares)
        if self._mostly_queueing(plan):
            self._slow_down(records)

    def _unexpired(self, records: Sequence[Record], ats: Sequence[At], receivers: int) -> tuple[Sequence[Record], Sequence[At]]:
        """Without what expired on its way here, counted for each receiver [MQTT-3.3.2-5]. Younger than a second is never expired."""
        due = self._node.clock.due()
        left = [(record, at) for record, at in zip(records, ats, strict=True) if not is_expired(record.expires_at, due)]
        self._node.counters.dropped["expired"] += (len(records) - len(left)) * receivers
        return [record for record, _ in left], [at for _, at in left]

    def _plan_at(self, topic: str, at: At) -> Plan:
        matches = self._node.routes.match(topic)
        return self._node.derive_plan(topic, [match for match in matches if is_since(match[1].since, at)])

    def _mostly_queueing(self, plan: Plan) -> bool:
        total = queueing = 0
        for _, targets in plan.variants:
            total += len(targets)
            for target in targets:
                if target.queue_length() > SLOW_AT:
                    queueing += 1
        return queueing * 2 > total

    def _slow_down(self, records: Sequence[Record]) -> None:
        until = self._node.monotonic() + SLOW_FOR
        for client in {record.client for record in records}:
            session = self._node.registry.get(client)
            if session is not None and session.connection is not None:
                session.connection.slow_down(until)

    def deliver_p2p(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """See ``streams.runtime.router.Downlink``."""
        node, first = self._node, records[0]
        parsed = parse_p2p(first.topic)
        if parsed is None:
            return
        if node.clock.last - first.time >= SECOND:
            records, ats = self._unexpired(records, ats, 1)
            if not records:
                return
        session = node.registry.get(parsed.client)
        if session is not None and not node.may_have(session.principal, first):
            node.counters.dropped["not_authorized"] += len(records)
            return
        keeps = first.flags & PERSISTENT != 0 and first.qos > 0
        where = place(
            known=session is not None,
            online=session is not None and session.availability() > 0,
            persistent_target=session is not None and session.id != 0,
            keeps=keeps,
            qos=first.qos,
            strict=node.strict,
        )
        if where == Place.NOWHERE or session is None:
            if where == Place.MAILBOX:
                self._to_mailbox(parsed.client, records, ats)
            else:
                node.counters.dropped["p2p_no_target"] += len(records)
                for record in records:
                    if record.source == INFLOW:
                        node.undelivered(record, "the client is not connected")
            return
        if keeps and not session.id and not self._has_mailbox(session):
            self._to_mailbox(parsed.client, records, ats)
            return
        if any(record.real_topic for record in records):
            shown = [node.shown_topic(session.principal, record) for record in records]
            each = zip(shown, records, ats, strict=True)
            runs = [make_run(topic, {}, P2P_VARIANT, (record,), (at,), node.trace.chosen) for topic, record, at in each]
        else:
            runs = [make_run(first.topic, {}, P2P_VARIANT, records, ats, node.trace.chosen)]
        for run in runs:
            if keeps:
                for delivery in run.deliveries:
                    delivery.mailbox = True
            session.deliver(run)
        if session.queue_length() > SLOW_AT:
            self._slow_down(records)

    def _has_mailbox(self, session: Session) -> bool:
        """A device without a persistent session keeps what it was sent in its mailbox until it acknowledges."""
        session.mailbox = session.mailbox or self._node.mailboxes.get(session.client, 0)
        return session.mailbox != 0

    def _to_mailbox(self, client: str, records: Sequence[Record], ats: Sequence[At]) -> None:
        box = self._node.mailboxes.get(client, 0)
        for record, at in zip(records, ats, strict=True):
            entry = BoxEntry(at, record, record.qos)
            if box:
                self._put(box, entry)
            else:
                self._new_mailboxes.append((client, entry))

    def _put(self, box: int, entry: BoxEntry) -> None:
        node = self._node
        node.counters.offline_stored += 1
        node.persistence.add(PutEntry(box=box, epoch=0, entry=entry))
        node.persistence.add(TrimBox(box=box, epoch=0, keep=node.limits.mailbox_messages))

    def change(self, change: Change) -> None:
        """See ``streams.runtime.router.Downlink``."""
        if self.replaying and isinstance(change, PutReceived | DropReceived):
            self._restore_received(change)
        if isinstance(change, PutRetained):
            self._node.retained_present = True
            self._node.subscribing.retained_changed(change.topic)
            self._node.counters.retained_set += 1
            if not self._retained_room.admits(change):
                return
        self._node.persistence.add(change)

    def _restore_received(self, change: PutReceived | DropReceived) -> None:
        """The inbound QoS 2 ids of a session are those it was stored with, and what the log says since: complete before any CONNACK."""
        if self._by_number is None:
            self._by_number = {session.id: session for session in self._node.registry.sessions.values()}
        session = self._by_number.get(change.session)
        if session is not None:
            if isinstance(change, PutReceived):
                session.received_ids()[change.packet_id] = True
            else:
                session.received_ids().pop(change.packet_id, None)

    async def settle(self, end: At) -> None:
        """See ``streams.runtime.router.Downlink``."""
        node = self._node
        if self._new_mailboxes:
            new, self._new_mailboxes = self._new_mailboxes, []
            for client, entry in new:
                await self._open_mailbox(client, entry)
        await self._retained_room.settle()
        node.routed[end.shard] = end
        while node.flusher.holds_back():  # noqa: ASYNC110 - rare, and it ends when the store answers or the process does
            await asyncio.sleep(RETRY_AFTER)
        if node.persistence.pending >= PENDING_LIMIT:
            await node.persistence.room()
        elif node.busy():
            await asyncio.sleep(0)

    async def _open_mailbox(self, client: str, entry: BoxEntry) -> None:
        """A client id's first message: make the mailbox, put it there, and let the owner, if there is one now, load it."""
        node = self._node
        while not (box := node.mailboxes.get(client, 0)):
            try:
                box = node.mailboxes[client] = await node.store.mailbox(client)
            except StoreError:
                await asyncio.sleep(RETRY_AFTER)
        self._put(box, entry)
        session = node.registry.get(client)
        if session is not None and session.connection is not None and session.connection.ready:
            node.backlog.mailbox_filled(session, box)
