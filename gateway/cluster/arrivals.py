"""Sessions that come from other nodes: a client that connects here now, or a dead node's. They are brought up from the log, many at a time.

From the step in which a session arrives it is in the routes here, and the node's position waits until what the session is owed from
before is stored. What is owed, streams/resuming.py says. A reader for all that arrived meanwhile: a herd costs no more than one.

Whatever its client was told on another node is in the log: before it is answered here, routing has passed where the log ended when the
session came, so that its inbound QoS 2 ids are complete. An id that was released there is a new publish here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.cluster.departures import let_go
from gateway.recovery import install_session, load_session
from gateway.session import Session
from schemas.errors import LogError, StoreError
from schemas.identities import Principal
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Flag, Kind, Record
from schemas.sessions import DropReceived, PutReceived, Resumed, SessionState
from schemas.topics import parse_p2p
from streams.cluster import furthest
from streams.fanout import fan_out
from streams.log import Batch
from streams.repeats import Repeats
from streams.resuming import Gap, Progress

if TYPE_CHECKING:
    from gateway.downlink import LocalDownlink
    from gateway.node import Node

MAX_RECORDS: Final = 1024
MAX_BYTES: Final = 1024 * 1024
AGAIN: Final = 0.5
SHORTLY: Final = 0.003
PUBLISH: Final = int(Kind.PUBLISH)
RELEASE: Final = int(Kind.RELEASE)
P2P: Final = int(Flag.P2P)


class Arrivals:
    """``reached``: by shard, up to where live routing has gone in this step of the loop; ``repeats`` is what it has passed over on the way."""

    def __init__(
        self,
        node: Node,
        downlink: LocalDownlink,
        reached: Mapping[int, At],
        repeats: Repeats,
        principal_of: Callable[[str, str], Principal],
    ) -> None:
        assert node.sharing is not None  # noqa: S101 - there are many
        self._node, self._sharing = node, node.sharing
        self._downlink = downlink
        self._reached = reached
        self.repeats = repeats
        self._principal_of = principal_of
        self._waiting: list[tuple[Session, SessionState]] = []
        self._task: asyncio.Task[None] | None = None
        self._rounds: dict[Session, asyncio.Future[None]] = {}
        self._late_before: dict[Session, int] = {}
        """Of those that are being brought up: see SessionState."""
        self._late: list[tuple[Session, Record]] = []
        """QoS 2 records of sessions on their way, as they are routed live: to be folded behind what is read once more. A session that has no
        connection here has few: what its last node had accepted (``receive_maximum``)."""

    async def connecting(self, state: SessionState, principal: Principal) -> tuple[Session, SessionState]:
        """A client's session, claimed from another node: all that it is owed is stored when this returns."""
        with self._sharing.expected(state.subscriptions):
            await self._catch_up(state.resume or ())
            self._make_room(state)
            session = install_session(self._node, state, principal)
        await self._bring_up(session, state)
        return session, msgspec.structs.replace(state, queued=session.stored_count - len(state.in_flight))

    async def adopted(self, states: Iterable[SessionState]) -> None:
        """A dead node's sessions. Those whose clients have come meanwhile, here or elsewhere, have arrived."""
        states = list(states)
        with self._sharing.expected(subscription for state in states for subscription in state.subscriptions):
            resume = furthest(*(state.resume or () for state in states))
            if self._is_before(resume):
                await self._catch_up(resume)
                states = await self._still_ours(states)
            now, coming = self._node.clock.wall(), []
            for state in states:
                self._make_room(state)
                session = load_session(self._node, state, self._principal_of(state.principal, state.client), now)
                coming.append(self._bring_up(session, state))
        await asyncio.gather(*coming)

    async def _still_ours(self, states: Sequence[SessionState]) -> list[SessionState]:
        while True:
            try:
                owners = await self._node.store.cluster.owners([state.client for state in states])
                break
            except StoreError:
                await asyncio.sleep(AGAIN)
        now = {(owner.session, owner.epoch) for owner in owners.values()}
        return [state for state in states if (state.id, state.epoch) in now]

    def _make_room(self, state: SessionState) -> None:
        """What is known of the client here is of before it was elsewhere."""
        before = self._node.registry.get(state.client)
        if before is not None:
            let_go(self._node, before)

    async def settled(self, session: Session) -> None:
        """Wait for a session that is being brought up."""
        future = self._rounds.get(session)
        if future is not None:
            await asyncio.shield(future)

    def _bring_up(self, session: Session, state: SessionState) -> asyncio.Future[None]:
        node = self._node
        node.registry.resuming[session] = state.resume or ()
        future = self._rounds[session] = node.loop.create_future()
        self._waiting.append((session, state))
        if self._task is None:
            self._task = node.loop.create_task(self._run())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                # In one step: all of them are in the routes, and what is routed from here on they get live
                coming, self._waiting = self._waiting, []
                gap: Gap[Session] = Gap(self._reached)
                for session, state in coming:
                    gap.add(session, state.resume or (), session.subscriptions.values())
                self._late_before = {session: state.late_before for session, state in coming}
                await self._read(gap, {session.client: session for session, _ in coming})
                await self._pass_the_end()
                late, self._late = self._late, []
                for session, record in late:
                    self._received(session, record)
                for session, _ in coming:
                    self._node.persistence.add(Resumed(session=session.id, epoch=session.epoch))
                await self._node.persistence.barrier()
                for session, _ in coming:
                    self._node.registry.resuming.pop(session, None)
                    future = self._rounds.pop(session, None)
                    if future is not None and not future.done():
                        future.set_result(None)
        finally:
            self._task = None

    async def _pass_the_end(self) -> None:
        """Until live routing is where the log ends now."""
        while True:
            try:
                ends = {shard: end for shard, (_, end) in (await self._node.log.ends(PUBLISH_TOPIC)).items()}
                break
            except LogError:
                await asyncio.sleep(AGAIN)
        while self._is_before(ends.values()):  # noqa: ASYNC110 - the router tells nobody
            await asyncio.sleep(SHORTLY)

    def _is_before(self, places: Iterable[At]) -> bool:
        return any(self._reached.get(at.shard, at) < at for at in places)

    async def _catch_up(self, resume: Iterable[At]) -> None:
        """A session comes into the routes when live routing is where its last node's was: of what lies before that, what is settled is in the
        store no more, and would be sent again. The end is waited for, since a reader of RocketMQ may hold empty frames back until it is asked for."""
        if self._is_before(resume):
            await self._pass_the_end()

    def routed(self, session: Session, record: Record) -> bool:
        """A QoS 2 record of a session was routed live: whether it is folded here."""
        if session not in self._rounds:
            return False
        self._late.append((session, record))
        return True

    async def _read(self, gap: Gap[Session], sessions: Mapping[str, Session]) -> None:
        repeats = Repeats(self.repeats)
        await read_between(self._node, gap.ranges, lambda batch: self._take(gap, sessions, repeats, batch))

    def _take(self, gap: Gap[Session], sessions: Mapping[str, Session], repeats: Repeats, batch: Batch) -> None:
        for record, at in _placed(batch):
            if record.qos == 2 and record.session and repeats.is_repeat(record, at):
                continue
            sender = sessions.get(record.client)
            if record.qos == 2 and sender is not None and sender.id == record.session and gap.is_owed(sender, at):
                self._received(sender, record)
            if record.kind != PUBLISH:
                continue
            if record.flags & P2P:
                parsed = parse_p2p(record.topic)
                target = sessions.get(parsed.client) if parsed is not None else None
                if target is not None and gap.is_owed(target, at) and self._is_here(target):
                    self._downlink.deliver_p2p((record,), (at,))
                continue
            owed = [(session, held) for session, held in gap.owed(record.topic, at) if self._is_here(session)]
            if owed:
                fan_out(self._node.derive_plan(record.topic, owed), (record,), (at,))

    def _is_here(self, session: Session) -> bool:
        """Nobody has taken it meanwhile."""
        return self._node.registry.get(session.client) is session

    def _received(self, session: Session, record: Record) -> None:
        """Inbound QoS 2 ids, as the router folds them."""
        if record.epoch < self._late_before.get(session, 0):
            return
        if record.kind == PUBLISH:
            session.received_ids()[record.packet_id] = True
            self._node.persistence.add(PutReceived(session=session.id, packet_id=record.packet_id, owner=self._node.owner))
        elif record.kind == RELEASE:
            session.received_ids().pop(record.packet_id, None)
            self._node.persistence.add(DropReceived(session=session.id, packet_id=record.packet_id, owner=self._node.owner))


def _placed(batch: Batch) -> Sequence[tuple[Record, At]]:
    first = batch.first
    return [(record, At(first.shard, first.offset, first.index + index)) for index, record in enumerate(batch.records)]


async def read_between(node: Node, ranges: Callable[[Mapping[int, At]], dict[int, tuple[At, At]]], take: Callable[[Batch], None]) -> None:
    """Read `publish` once more: ``ranges`` says by shard from where and up to where, given the first positions that are left."""
    while True:
        try:
            firsts = {shard: first for shard, (first, _) in (await node.log.ends(PUBLISH_TOPIC)).items()}
            break
        except LogError:
            await asyncio.sleep(AGAIN)
    wanted = ranges(firsts)
    progress = Progress(wanted)
    if progress.done:
        return
    reader = node.log.open(PUBLISH_TOPIC, {shard: start for shard, (start, _) in wanted.items()}, list(wanted))
    try:
        while not progress.done:
            batch = await reader.next(MAX_RECORDS, MAX_BYTES)
            take(batch)
            progress.passed(batch.end)
            await node.persistence.room()
    finally:
        reader.close()
