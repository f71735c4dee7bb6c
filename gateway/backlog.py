"""Stored deliveries on their way back to a connected session: from the client id's mailbox, then from the session's box.

Pace ``acknowledged``: the window paces, and live deliveries go behind what is stored. Pace ``batches``: thirty every five
seconds, live deliveries beside them, and 3.1.1 clients are sent unacknowledged messages again (streams/offline.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, NamedTuple

from gateway import keeping, outbound
from gateway.protocol.packets import MQTT_5_0
from schemas.errors import StoreError
from schemas.positions import At
from schemas.sessions import BoxEntry, BoxState, SetEntry
from streams.control import GetOffline
from streams.fanout import Delivery
from streams.offline import BATCH_EVERY, Pace, Pacing, Retry, next_load, retry

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

AGAIN = 0.2
"""Seconds after which a store that failed is asked again."""
SHORTLY = 0.001
"""A timer may be early by less than that."""


class Attempt(NamedTuple):
    """A delivery in flight under pace ``batches``: when it was sent last, and how often again."""

    delivery: Delivery
    sent_at: float
    tries: int


class Backlog:
    """At most one loading task a session."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.diverts = Pace(node.settings.offline.pace) is Pace.ACKNOWLEDGED
        """Whether live deliveries of a session with a backlog go behind it."""
        self._tasks: dict[Session, asyncio.Task[None]] = {}
        self._cursors: dict[Session, dict[int, dict[int, At]]] = {}
        """By session with a connection, by box and by shard: the last entry that was taken on this connection, the newest of all last."""

    def begin(self, session: Session) -> None:
        """A connection is answered; load what waits for it, if anything can."""
        session.mailbox = session.mailbox or self._node.mailboxes.get(session.client, 0)
        if session.muted:
            return
        if session.id or session.mailbox:
            self._cursors[session] = {}
            if not self.diverts:
                self._start(session, self._batches(session))
            else:
                session.backlog = True
                session.refresh()
                self.wake(session)

    async def put_back(self, session: Session, in_flight: tuple[BoxEntry, ...]) -> tuple[BoxEntry, ...]:
        """What of a claimed session's deliveries in flight is to be sent again at once.

        After a crash the box may hold queued deliveries older than some in flight: the client had acknowledged them, and the replay queued them
        again. QoS 1 deliveries in flight behind the first of them go back to the queue, so that what comes again comes in the log's order.
        """
        if not self.diverts or not any(entry.state == BoxState.IN_FLIGHT and entry.qos == 1 for entry in in_flight):
            return in_flight
        firsts: dict[int, At] = {}
        for shard in {entry.at.shard for entry in in_flight}:
            for queued in await self._node.store.entries(session.id, At(shard, -1, 0), 1, epoch=session.epoch):
                firsts[queued.at.shard] = queued.at
        kept = []
        for entry in in_flight:
            if entry.at > firsts.get(entry.at.shard, entry.at) and entry.qos == 1 and entry.state == BoxState.IN_FLIGHT:
                change = SetEntry(box=session.id, epoch=session.epoch, at=entry.at, state=BoxState.QUEUED, packet_id=0)
                self._node.persistence.add(change)
            else:
                kept.append(entry)
        return tuple(kept)

    def wake(self, session: Session) -> None:
        """There is room, or something new in the box."""
        if session.backlog and not session.muted and session not in self._tasks and session.connection is not None and self.diverts:
            self._cursors.setdefault(session, {})
            if len(session.in_flight) * 2 <= session.window and session.connection.writable:
                self._start(session, self._load(session))

    def mailbox_filled(self, session: Session, box: int) -> None:
        """A message was put into the mailbox of a session that is online."""
        session.mailbox = box
        session.box_writes += 1
        if session.muted:
            return
        self._cursors.setdefault(session, {})
        if self.diverts:
            session.backlog = True
            session.refresh()
            self.wake(session)

    def ended(self, session: Session) -> None:
        """The connection is gone."""
        self._cursors.pop(session, None)
        task = self._tasks.pop(session, None)
        if task is not None:
            task.cancel()

    def _start(self, session: Session, flow: Coroutine[None, None, None]) -> None:
        self._tasks[session] = self._node.loop.create_task(self._finish(session, flow))

    async def _finish(self, session: Session, flow: Coroutine[None, None, None]) -> None:
        """Leave in the step in which the flow ends: what wakes the session from then on starts a new one."""
        try:
            await flow
        finally:
            if self._tasks.get(session) is asyncio.current_task():
                del self._tasks[session]

    async def _load(self, session: Session) -> None:
        """Send stored entries until the window is full or nothing is left; then the session is live."""
        while session.backlog and session.has_room() and not session.hold:
            _, load = next_load(Pace.ACKNOWLEDGED, Pacing(), session.window - len(session.in_flight), 0.0)
            if await self._page(session, min(load.messages, session.reserved - session.used)):
                continue
            session.backlog = False
            session.refresh()
            session.pump()

    async def _page(self, session: Session, limit: int) -> bool:
        """Send up to ``limit`` entries; False where both boxes are empty and nothing was put into them meanwhile."""
        writes = session.box_writes
        await self._node.persistence.barrier()
        for box in (session.mailbox, session.id):
            if not box:
                continue
            entries = await self._following(session, box, limit)
            if entries:
                self._send(session, box, entries)
                return True
        return session.box_writes != writes

    async def _following(self, session: Session, box: int, limit: int) -> list[BoxEntry]:
        """Entries of one shard that were not taken yet. Boxes are in order of shards, and any shard may get more: after the last the first comes."""
        taken = self._cursors.get(session, {}).get(box, {})
        after, wrapped = self._cursor(session, box), len(self._node.routed) < 2
        epoch = keeping.epoch_of(session, box) if self._node.owner else 0  # another node may have it by now, and put there what is its to send
        while True:
            entries = await self._entries(box, after, limit, epoch=epoch)
            if entries:
                shard = entries[0].at.shard
                last = taken.get(shard)
                if last is None or entries[0].at > last:
                    return [entry for entry in entries if entry.at.shard == shard]
                after = last
            elif wrapped or after is None:
                return []
            else:
                after, wrapped = None, True

    async def _entries(self, box: int, after: At | None, limit: int, *, newest_first: bool = False, epoch: int) -> list[BoxEntry]:
        """From the store. While that fails the client waits, which has done nothing wrong; who asks here ends with its connection."""
        while True:
            try:
                return await self._node.store.entries(box, after, limit, newest_first=newest_first, epoch=epoch)
            except StoreError:
                await asyncio.sleep(AGAIN)

    def _cursor(self, session: Session, box: int) -> At | None:
        taken = self._cursors.get(session, {}).get(box)
        return next(reversed(taken.values())) if taken else None

    def _send(self, session: Session, box: int, entries: list[BoxEntry]) -> None:
        cursors = self._cursors.get(session)
        if cursors is None or session.connection is None:
            return
        mailbox = box == session.mailbox
        sent = {delivery.at for delivery in session.in_flight.values()} if mailbox or not self.diverts else ()
        principal = session.principal
        may_all = self._node.access.may_read_all(principal)
        taken = cursors.setdefault(box, {})
        for entry in entries:
            taken.pop(entry.at.shard, None)
            taken[entry.at.shard] = entry.at
            delivery = Delivery(entry.record, entry.at, entry.qos, entry.retain, entry.identifiers, mailbox)
            delivery.traced = self._node.trace.offline_mark(entry.record)
            if not may_all and not self._node.may_have(principal, entry.record):
                keeping.refuse(session, delivery, box)
            elif mailbox and session.id:
                session.send(delivery, keeping.move_in(session, delivery))
            elif entry.at not in sent:
                session.send(delivery, box)

    async def _batches(self, session: Session) -> None:
        """The pace of the model product (streams/offline.py says how much and when)."""
        connection, pacing = session.connection, Pacing()
        attempts: dict[int, Attempt] = {}
        while connection is not None and session.connection is connection and connection.ready:
            now = self._node.monotonic()
            pacing, load = next_load(Pace.BATCHES, pacing, session.window - len(session.in_flight), now)
            if load.messages:
                await self._page(session, load.messages)
            if session.version != MQTT_5_0:
                attempts = self._send_again(session, attempts, now)
            await asyncio.sleep(BATCH_EVERY if load.again_at is None else max(load.again_at - now, SHORTLY))

    def _send_again(self, session: Session, before: dict[int, Attempt], now: float) -> dict[int, Attempt]:
        """To 3.1.1 clients what is unacknowledged once more, under the same id, where it is time; what is in flight now."""
        wall = self._node.clock.wall()
        attempts: dict[int, Attempt] = {}
        for packet_id, delivery in session.in_flight.items():
            known = before.get(packet_id)
            if known is None or known.delivery is not delivery:
                known = Attempt(delivery, now, 0)
            elif not (session.released and packet_id in session.released) and retry(known.sent_at, known.tries, now) is Retry.SEND:
                known = Attempt(delivery, now, known.tries + 1)
                outbound.write(session, delivery, packet_id, wall, dup=True)
                self._node.counters.redelivered += 1
            attempts[packet_id] = known
        return attempts

    def pull(self, session: Session, wanted: GetOffline) -> None:
        """`$SYS/getOfflineMsg`: a batch of the asked size and order. With pace ``acknowledged`` they are on their way already."""
        if self.diverts or not session.id or session.muted:
            return
        self._start(session, self._pull(session, wanted))

    async def _pull(self, session: Session, wanted: GetOffline) -> None:
        await self._node.persistence.barrier()
        limit = min(wanted.max_push_num, session.window - len(session.in_flight))
        if limit <= 0:
            return
        newest = wanted.push_order == "DESC"
        after = None if newest else self._cursor(session, session.id)
        entries = await self._entries(session.id, after, limit, newest_first=newest, epoch=session.epoch)
        in_flight = {d.at for d in session.in_flight.values()}
        for entry in entries:
            if entry.at not in in_flight and session.has_room() and self._node.may_have(session.principal, entry.record):
                delivery = Delivery(entry.record, entry.at, entry.qos, entry.retain, entry.identifiers)
                delivery.traced = self._node.trace.offline_mark(entry.record)
                session.send(delivery, session.id)
