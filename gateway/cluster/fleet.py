"""One node's part in a fleet of many: dead nodes' sessions come to the living, and one node leads in what is done once for all.

A turn comes about once a second, and when the store says that nodes or leases changed. The leader folds presence, cleans up after dead
nodes' connections, sees to messages for devices that are nowhere, and buries the dead; another lease has the rules. Who has a lease keeps
it for life: where it loses one, it ends (gateway/membership.py). What of this a node does is up to its roles.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Final

from gateway.cluster.absent import Absent
from gateway.cluster.arrivals import Arrivals, read_between
from gateway.cluster.presence import SharedPresence
from gateway.cluster.roles import said
from gateway.presence import PRESENCE_READER
from gateway.recovery import clean_channels, starting_positions
from schemas.errors import LogError, StoreError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, Flag, Kind, Source
from schemas.topics import parse_p2p
from streams.cluster import NODES, NodeState, Notice, routing_reader
from streams.log import Batch
from streams.repeats import Repeats
from streams.resuming import Gap, places
from streams.runtime import PresenceFold
from streams.store import OpenChannel, Refused

if TYPE_CHECKING:
    from gateway.auth.keys import KeyRing
    from gateway.membership import Membership
    from gateway.node import Node

LEAD: Final = "presence"
RULES: Final = "rules"
TURN: Final = 1.0
CHUNK: Final = 500
"""Sessions that are taken over in one transaction."""
FOLD_WITHIN: Final = 10.0
TELL_WITHIN: Final = 10.0
SETTLED_MS: Final = 600_000
"""So long after it was due a will is settled, whoever had it."""
PUBLISH: Final = int(Kind.PUBLISH)
WILL: Final = int(Source.WILL)
P2P: Final = int(Flag.P2P)
KEPT: Final = int(Flag.PERSISTENT)

logger = logging.getLogger(__name__)


class Fleet:
    """``rules`` starts them here, ``elsewhere`` is told who else has them; ``run`` is given what has to run as long as the process does."""

    def __init__(
        self,
        node: Node,
        membership: Membership,
        keyring: KeyRing,
        arrivals: Arrivals,
        presence: SharedPresence,
        absent: Absent,
        reached: Mapping[int, At],
        rules: Callable[[], Awaitable[None]],
        elsewhere: Callable[[str], None],
        run: Callable[[str, Coroutine[None, None, None]], None],
    ) -> None:
        self._node = node
        self._membership = membership
        self._keyring = keyring
        self._arrivals = arrivals
        self._presence = presence
        self._absent = absent
        self._reached = reached
        self._start_rules = rules
        self._tell_elsewhere = elsewhere
        self._start = run
        self._news = asyncio.Event()
        self._roles = frozenset(node.settings.node.roles)
        self._leads = self._has_rules = False
        self._fold: PresenceFold | None = None
        assert node.sharing is not None  # noqa: S101 - there are many
        self._sharing, self._passing = node.sharing, node.sharing.passing
        self._shared_until: dict[int, float] = {}
        """By dead node that had shared subscriptions: until when its routes are kept, for those who took its sessions to tell theirs."""
        self._cleaned: set[str] = set()
        """Channels after which this leader has cleaned up."""
        self._living: frozenset[int] = frozenset()
        self._swept: frozenset[int] = frozenset()
        """The nodes that lived and those that were dead when it did."""

    async def run(self) -> None:
        """Take turns for ever."""
        stop = self._node.store.cluster.listen(self._heard)
        try:
            while True:
                try:
                    await self.turn()
                except (StoreError, LogError) as error:
                    logger.warning("fleet-turn-failed error=%s", error)
                try:
                    async with asyncio.timeout(TURN):
                        await self._news.wait()
                except TimeoutError:
                    pass
                self._news.clear()
        finally:
            stop()

    def _heard(self, notice: Notice) -> None:
        if notice.topic == NODES:
            self._news.set()
        self._absent.heard(notice)

    async def turn(self) -> None:
        """Look at who lives, and do what follows."""
        cluster = self._node.store.cluster
        nodes = await cluster.nodes()
        silent = [node for node in nodes if not node.alive and node.epoch != self._node.epoch]
        if not self._membership.is_steady():
            # The store may have been away for all: who hasn't come back yet is given the time
            silent = [node for node in silent if self._membership.is_before(node)]
        dead = [node.epoch for node in silent]
        self._node.roles.look([node.detail for node in nodes if node.epoch not in dead], self._node.monotonic())
        for epoch in dead if "gateway" in self._roles else ():
            await self._adopt(epoch)
        held = {lease.name: lease.epoch for lease in await cluster.leases()}
        waited_for = {node.epoch for node in nodes if node.epoch != self._node.epoch and node.epoch not in dead}
        may_lead = "router" in self._roles and held.get(LEAD, 0) not in waited_for
        if not self._leads and may_lead and await self._take_the_lead(held.get(LEAD, 0)):
            self._leads = True
        if self._leads:
            await self._lead(frozenset(node.epoch for node in nodes if node.epoch not in dead), dead)
        if not self._has_rules:
            await self._take_the_rules(nodes, held.get(RULES, 0), waited_for)
        await self._presence.settle()

    async def adopt_left(self) -> None:
        """At start: sessions of a gateway that was alone here before there were others."""
        if "gateway" in self._roles:
            await self._adopt(0)

    async def _adopt(self, dead: int) -> None:
        count = 0
        while True:
            await self._node.persistence.barrier()  # nothing of an earlier time with this node comes behind it
            states = await self._node.store.cluster.adopt(dead, self._node.epoch, CHUNK)
            if isinstance(states, Refused) or not states:
                break
            await self._arrivals.adopted(states)
            count += len(states)
        if count:
            logger.info("sessions-adopted from=%d count=%d", dead, count)

    async def _take_the_rules(self, nodes: list[NodeState], holder: int, waited_for: set[int]) -> None:
        if "bridge" in self._roles and holder not in waited_for and await self._membership.take(RULES):
            self._has_rules = True
            self._tell_elsewhere("")
            await self._start_rules()
            return
        other = next((node for node in nodes if node.epoch == holder), None)
        if other is None:
            self._tell_elsewhere("that is about to take over" if self._node.roles.nodes["bridge"] else "with the role bridge, of which none lives")
        else:
            self._tell_elsewhere(other.node if "api" in said(other.detail).roles else f"{other.node}, which lacks the role api: give it that")

    # What the leader does

    async def _take_the_lead(self, before: int) -> bool:
        """``before`` had it last."""
        if not await self._membership.take(LEAD):
            return False
        node = self._node
        starts = await starting_positions(node, PRESENCE_READER, PRESENCE_TOPIC)
        fold = self._fold = self._presence.fold = PresenceFold(node.log.open(PRESENCE_TOPIC, starts), node.store, self._presence)
        fold.load(await node.store.channels())
        self._start("presence", fold.run())
        self._absent.leads = self._passing.leads = True
        if before:
            await self._read_again([before], absent=True)
        logger.info("fleet-led node=%s", node.settings.node.id)
        return True

    async def _lead(self, living: frozenset[int], dead: list[int]) -> None:
        node = self._node
        if self._is_news(living, dead) and await self._folded():
            rows = await node.store.channels()
            # Nodes are read after the rows: theirs are among them. One that is silent and not dead yet counts as alive
            alive = {each.epoch for each in await node.store.cluster.nodes()} - set(dead)
            left = [row for row in rows if row.node_epoch not in alive]
            self._cleaned &= {row.channel for row in left}
            await self._clean([row for row in left if row.channel not in self._cleaned], dead)
            self._living, self._swept = living, frozenset(dead)
        await self._share_again(dead)
        if not self._is_news(living, dead):
            for epoch in dead:
                if self._shared_until.get(epoch, 0.0) <= node.monotonic() and await node.store.cluster.bury(epoch):
                    self._shared_until.pop(epoch, None)
        await self._absent.look()
        assert self._fold is not None  # noqa: S101 - who leads folds
        self._fold.forget_before(node.clock.wall() - SETTLED_MS)

    def _is_news(self, living: frozenset[int], dead: list[int]) -> bool:
        """Whether it was not cleaned up yet after these. A node may have come and gone since this leader looked: then as many live as before."""
        return living != self._living or not self._swept.issuperset(dead)

    async def _share_again(self, dead: list[int]) -> None:
        """What was for members of dead nodes is for others: what their positions did not pass, and from here on all."""
        for epoch in dead:
            if epoch not in self._passing.lost and self._sharing.routes.versions.get(epoch):
                self._shared_until[epoch] = self._node.monotonic() + TELL_WITHIN
                await self._read_again([epoch], absent=False, shared=True)

    async def _folded(self) -> bool:
        """Whether all that is in the log now is folded soon enough; if not, the next turn asks again."""
        node = self._node
        ends = {shard: end for shard, (_, end) in (await node.log.ends(PRESENCE_TOPIC)).items()}
        deadline = node.monotonic() + FOLD_WITHIN
        while node.monotonic() < deadline:
            at = await starting_positions(node, PRESENCE_READER, PRESENCE_TOPIC)
            if all(at[shard] >= end for shard, end in ends.items()):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _clean(self, rows: list[OpenChannel], dead: list[int]) -> None:
        """One tcpclean for each connection of nodes that are no more, and its will unless the log has that."""
        if not rows:
            return
        seen = await self._read_again(dead, absent=False) if any(row.will is not None for row in rows) else set()
        await clean_channels(self._node, self._keyring, seen, rows)
        self._cleaned.update(row.channel for row in rows)

    async def _read_again(self, dead: list[int], *, absent: bool, shared: bool = False) -> set[bytes]:
        """What dead nodes' positions did not pass: the marks of wills, and (``absent``) messages that the leader before may have left.

        ``shared``: what was for members of shared subscriptions at those nodes, which are lost from here on.
        """
        stored = await self._node.store.positions()
        marks: set[bytes] = set()
        gap: Gap[int] = Gap(self._reached)
        if shared:
            self._passing.lost.update(dead)
        for epoch in dead:
            names = routing_reader(epoch)
            positions = [at for name, shards in stored.items() if name.partition(":")[0] == names for at in shards.values()]
            if positions:
                gap.add(epoch, places(positions).values(), ())
        repeats = Repeats(self._arrivals.repeats)

        def is_to_be_shared(chosen: int) -> bool:
            return chosen in dead if shared else absent and self._passing.is_for_nobody(chosen)

        def take(batch: Batch) -> None:
            first = batch.first
            for index, record in enumerate(batch.records):
                at = At(first.shard, first.offset, first.index + index)
                if record.qos == 2 and record.session and repeats.is_repeat(record, at):
                    continue
                if record.source == WILL:
                    marks.add(record.id[6:])
                for group, epochs in record.shares:
                    if is_to_be_shared(epochs[-1]):
                        self._passing.put(record, at, group, epochs)
                if absent and record.kind == PUBLISH and record.flags & P2P and record.flags & KEPT and record.qos:
                    parsed = parse_p2p(record.topic)
                    if parsed is not None and self._node.registry.get(parsed.client) is None:
                        self._absent.put(parsed.client, (record,), (at,))

        await read_between(self._node, gap.ranges, take)
        return marks
