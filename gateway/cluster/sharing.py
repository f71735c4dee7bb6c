"""Shared subscriptions over many nodes: who accepts a record chooses the node whose member is to have it, and writes that into the record.

So all nodes read the same choice, whatever each of them knows, and it costs no second write. What a node has of which shared subscription is in
the route table of the store, by which the choice is made (streams/routing/); which of its members, the node says at delivery
(streams/shared.py). Where a choice can't be obeyed any more, passing.py goes on. Plain subscriptions are nobody's business here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.cluster.asking import Unanswered
from gateway.cluster.passing import Passing
from schemas.errors import StoreError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Flag, Kind, Record
from schemas.sessions import Subscription
from streams.cluster import NODES, POLL, ROUTES, Notice, TrimRoutes
from streams.expiry import is_expired
from streams.fanout import Delivery, Plan, fan_out_shared
from streams.log import Log, Pressure, Reader, Sink, Start
from streams.routing.node_routes import NodeRoutes
from streams.routing.own_routes import SHARE, OwnRoutes

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

SHARES: Final = "shares"
"""A question: whether the routes of a node are known up to a version."""
LIMIT: Final = 1_000
"""Routes read at a time."""
AGAIN: Final = 0.2
TURN: Final = 1.0
PUBLISH: Final = int(Kind.PUBLISH)
P2P: Final = int(Flag.P2P)

logger = logging.getLogger(__name__)


class SharingLog:
    """The log as a node of many writes to it."""

    def __init__(self, log: Log, sharing: Sharing) -> None:
        self._log = log
        self._sharing = sharing

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """See ``streams.log.Log``."""
        self._log.append(topic, key, self._sharing.stamped(record) if topic == PUBLISH_TOPIC else record, sink)

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        """See ``streams.log.Log``."""
        return self._log.open(topic, start, shards)

    def place(self, at: At) -> int:
        """See ``streams.log.Log``."""
        return self._log.place(at)

    async def ends(self, topic: str) -> Mapping[int, tuple[At, At]]:
        """See ``streams.log.Log``."""
        return await self._log.ends(topic)

    def pressure(self) -> Pressure:
        """See ``streams.log.Log``."""
        return self._log.pressure()

    async def close(self) -> None:
        """See ``streams.log.Log``."""
        await self._log.close()


class Sharing:
    """``routes`` are all nodes' shared subscriptions, ``own`` is what this node tells of its sessions."""

    def __init__(self, node: Node) -> None:
        self.routes = NodeRoutes()
        self.own = OwnRoutes(node.owner)
        self.passing = Passing(node, self.routes, self._give_here)
        self._node = node
        self._members: dict[str, dict[Session, None]] = {}
        self._online: dict[str, int] = {}
        """By shared subscription the members online, as told."""
        self._news = asyncio.Event()
        self._folding = asyncio.Lock()
        self._asked = self._known = 0
        """Versions of the own routes: up to where other nodes are asked, and up to where they know them."""
        self._answer: asyncio.Task[None] | None = None

    # What this node tells

    def joined(self, session: Session, subscribed: str) -> None:
        """A session here has the shared subscription; again is once."""
        members = self._members.setdefault(subscribed, {})
        if session not in members:
            members[session] = None
            self.own.add(subscribed)
            self._news.set()

    def parted(self, session: Session, subscribed: str, *, moved: bool) -> None:
        """It has it no more; ``moved``: another node has the session."""
        members = self._members.get(subscribed, {})
        if session not in members:
            return
        del members[session]
        if not members:
            del self._members[subscribed]
        if moved:
            self.own.moved(subscribed, self._node.clock.wall())
        else:
            self.own.remove(subscribed)
        self._news.set()

    @contextmanager
    def expected(self, subscriptions: Iterable[Subscription]) -> Iterator[None]:
        """Sessions are on their way here, which may take as long as this node is behind with the log: what is chosen meanwhile is for them."""
        shared = [each.filter for each in subscriptions if each.filter.startswith(SHARE)]
        for subscribed in shared:
            self.own.add(subscribed)
            self._news.set()
        try:
            yield
        finally:
            for subscribed in shared:
                self.own.remove(subscribed)
                self._news.set()

    def _tell(self) -> None:
        """Have the store tell others what changed."""
        for subscribed in {**self._members, **self._online}:
            count = sum(session.connection is not None for session in self._members.get(subscribed, ()))
            before = self._online.get(subscribed, 0)
            if count != before:
                self.own.online(subscribed, count - before)
                self._online[subscribed] = count
            if not count:
                self._online.pop(subscribed, None)
        for change in self.own.changes(self._node.clock.wall()):
            self._node.persistence.add(change)

    async def told(self) -> None:
        """Until other nodes choose by what was subscribed here before. Who doesn't answer in time is not waited for, and counted."""
        version = self.own.version
        while self._known < version:
            if self._answer is None:
                self._asked = self.own.version
                self._answer = self._node.loop.create_task(self._ask_others())
            await asyncio.shield(self._answer)

    async def _ask_others(self) -> None:
        try:
            self._tell()
            await self._node.persistence.barrier()
            await self.fold()
            assert self._node.everywhere is not None  # noqa: S101 - there are many
            replies = await self._node.everywhere.asking.ask(SHARES, f"{self.own.epoch} {self._asked}".encode())
            self._node.counters.refused["shared_unconfirmed"] += len(replies.silent)
            if not replies.silent:
                self._node.persistence.add(TrimRoutes(self.own.epoch, self._asked))
        except (Unanswered, StoreError) as error:
            self._node.counters.refused["shared_unconfirmed"] += 1
            logger.warning("shared-subscription-unconfirmed error=%s", error)
        finally:
            self._known, self._answer = max(self._known, self._asked), None

    # What other nodes tell

    async def answer(self, body: bytes) -> bytes:
        """Another node asks: what it told is known here when this returns."""
        epoch, _, version = body.partition(b" ")
        if self.routes.versions.get(int(epoch), 0) < int(version):
            await self.fold()
        return b"\x01"

    async def fold(self) -> None:
        """Take in what the store says now."""
        async with self._folding:
            cluster = self._node.store.cluster
            nodes = await cluster.nodes()
            self.routes.see(nodes)
            self.passing.listed = {node.epoch for node in nodes}
            while True:
                changes = await cluster.routes(self.routes.versions, LIMIT)
                self.routes.fold(changes)
                if len(changes.routes) < LIMIT:
                    return

    async def run(self) -> None:
        """Fold and tell for ever, and have what waits passed on."""
        stop = self._node.store.cluster.listen(self._heard)
        try:
            while True:
                try:
                    async with asyncio.timeout(TURN):
                        await self._news.wait()
                    self._news.clear()
                    await self.fold()
                except TimeoutError:
                    pass  # who came online and what has waited long enough is looked at all the same
                except StoreError as error:
                    logger.warning("routes-not-read error=%s", error)
                    await asyncio.sleep(AGAIN)
                    continue
                self._tell()
                self.passing.turn()
        finally:
            stop()

    def _heard(self, notice: Notice) -> None:
        if notice == POLL or notice.topic in (ROUTES, NODES):
            self._news.set()

    # The choice

    def stamped(self, record: Record) -> Record:
        """A publish that is about to be stored, with the nodes for the shared subscriptions that match."""
        if not len(self.routes) or record.kind != PUBLISH or record.flags & P2P:
            return record
        groups = self.routes.plan(record.topic).groups
        if not groups:
            return record
        chosen = [(group, (self.routes.choose(record.client, record.topic, group, epochs),)) for group, epochs in groups]
        return msgspec.structs.replace(record, shares=tuple(chosen))

    # What was chosen

    def deliver(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """Routed records of one topic, to members here that are to have them."""
        if not self._members and not any(record.shares for record in records):
            return
        plan = self._node.plan(records[0].topic)
        for record, at in zip(records, ats, strict=True):
            self.obey(plan, record, at)
            for group, _ in plan.groups:
                # Who accepted it did not know the subscription yet
                if all(group != named for named, _ in record.shares):
                    chosen = self.routes.choose_other(record.client, record.topic, group, ())
                    if chosen in (self.own.epoch, 0):
                        self._give(plan, group, record, at)

    def passed_on(self, record: Record, at: At) -> None:
        """A record that another node, or this one, couldn't give to a member."""
        self.obey(self._node.plan(record.topic), record, at)

    def obey(self, plan: Plan, record: Record, at: At) -> None:
        """What was chosen, of one record."""
        for group, epochs in record.shares:
            chosen = epochs[-1]
            if (chosen == self.own.epoch and not self._give(plan, group, record, at)) or self.passing.is_for_nobody(chosen):
                self.passing.put(record, at, group, epochs)

    def _give_here(self, record: Record, at: At, group: str) -> bool:
        return self._give(self._node.plan(record.topic), group, record, at)

    def _give(self, plan: Plan, group: str, record: Record, at: At) -> bool:
        """To the member here that is best placed; False where there is none."""
        members = next((members for name, members in plan.groups if name == group), None)
        if members is None:
            return False
        if is_expired(record.expires_at, self._node.clock.due()):
            self._node.counters.dropped["expired"] += 1
        else:
            fan_out_shared(plan, group, members, (record,), (at,), self._node.trace.chosen)
        return True

    def let_go(self, session: Session, waiting: Iterable[Delivery] = ()) -> None:
        """Another node has the session: what it was given here and has not acknowledged goes to another member, as far as nobody stored it.

        ``waiting``: what came while a connect claimed it.
        """
        unsettled = [*session.in_flight.values(), *(session.queue or ()), *self.passing.unstored(session), *waiting]
        for delivery in dict.fromkeys((delivery.record, delivery.at, delivery.group) for delivery in unsettled if delivery.group and delivery.qos):
            self.passing.put(*delivery, (self.own.epoch,))

    def lost(self, delivery: Delivery) -> None:
        """No member here is left for it."""
        self.passing.put(delivery.record, delivery.at, delivery.group, (self.own.epoch,))
