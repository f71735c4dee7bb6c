"""What happens by the clock: keep-alives, held-back acknowledgements, settling, delayed wills, expiry, the sweep of the store."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from gateway import failpoints, keeping
from schemas.errors import StoreError
from schemas.positions import At
from streams.cluster import routing_reader
from streams.expiry import Belief, WallGuard
from streams.log import Reader
from streams.resuming import hold
from streams.store import FinishReplayed

if TYPE_CHECKING:
    from gateway.node import Node

FAST = 0.05
SETTLE = 0.2
SLOW = 1.0
SWEEP = 10.0
SWEEP_LIMIT = 5_000
SWEEP_BEHIND = 5_000
"""Ms by which the sweep's time lags: ``Ending.expire``, which knows a session's routes, comes first."""
SWEEPS = 100
"""Sweeps in a row while there is more to remove: each lets others use the store between."""

logger = logging.getLogger(__name__)


class Ticks:
    """``reader`` is the router's: what all sessions have settled is released to the log's retention."""

    def __init__(self, node: Node, reader: Reader) -> None:
        self._node = node
        self._reader = reader
        self._marks: deque[tuple[float, dict[int, At]]] = deque()
        self._position: dict[int, At] = {}
        """By shard what the store knows. Nothing at first: a start that replayed says so, even if nothing follows."""
        self._reached: dict[int, At] = {}
        """What it may be told."""
        self._guard = WallGuard(node.clock.newest, node.monotonic())
        self._belief = Belief.FINE
        self._check_clock(node.monotonic())
        self.loop_lag = 0.0

    async def run(self) -> None:
        """Tick for ever."""
        node = self._node
        settle_at = slow_at = sweep_at = node.monotonic()
        while True:
            before = node.monotonic()
            await asyncio.sleep(FAST)
            now = node.tick = node.monotonic()
            self.loop_lag = max(0.0, now - before - FAST)
            node.connections.tick(now)
            node.pressure.tick(now)
            node.rights.tick()
            node.token_watch.tick(now)
            self._check_clock(now)
            node.ending.wills.tick(node.clock.due())
            if now >= settle_at:
                settle_at = now + SETTLE
                node.pressure.lag = self._reader.lag()
                self.settle(now)
                node.trace.tick()
            if now >= slow_at:
                slow_at = now + SLOW
                node.ending.expire(node.clock.due())
                if node.registers.web_tokens is not None:
                    node.registers.web_tokens.check()
            if now >= sweep_at:
                sweep_at = now + SWEEP
                await self._sweep()

    def _check_clock(self, now: float) -> None:
        """Deadlines wait while the wall clock is not to be believed (design: expiry)."""
        clock, guard = self._node.clock, self._guard
        wall = clock.raw()
        belief = guard.check(wall, now)
        if belief is not self._belief:
            self._belief = belief
            logger.warning("wall-clock belief=%s newest_record=%d now=%d", belief, guard.newest, wall)
        clock.doubted = belief is not Belief.FINE
        if not clock.doubted:
            guard.newest = max(guard.newest, clock.wall())

    def finish(self) -> None:
        """A stop has stored what all sessions are owed: the next start goes on behind the last routed record, nothing is repeated."""
        self._marks.clear()
        self._reached = dict(self._node.routed)
        self.settle(self._node.monotonic())

    def settle(self, now: float) -> None:
        """Store what has been unsettled for ``settle_within``; then the position may pass it (design: positions)."""
        node = self._node
        self._marks.append((now, dict(node.routed)))
        while self._marks and self._marks[0][0] <= now - node.limits.settle_within:
            self._reached = self._marks.popleft()[1]
        active = node.registry.active
        for session in list(active):
            if not keeping.settle(session, self._reached):
                session.active = False
                active.discard(session)
        known = self._position
        passed = [mark for mark in self._not_claimed() if mark > known.get(mark.shard, At(mark.shard, 0, 0))]
        if passed and not node.ending.wills.is_ahead_of_fold(now):
            if failpoints.ARMED:
                failpoints.reach("position-commit")
            for mark in passed:
                known[mark.shard] = mark
                node.persistence.add(FinishReplayed(upto=mark, owner=node.owner))
                node.persistence.position(routing_reader(node.owner), mark)
                self._reader.release(mark)

    def _not_claimed(self) -> list[At]:
        """By shard how far the position may go: what arrives for a session while it is claimed is in memory only."""
        marks = self._reached
        if self._node.registry.resuming:
            marks = hold(marks, self._node.registry.resuming.values())
        for session in self._node.registry.claiming:
            seen: set[int] = set()
            for delivery in session.claiming or ():
                at = delivery.at
                if at.shard in marks and at.shard not in seen:
                    seen.add(at.shard)
                    if at < marks[at.shard]:
                        marks = {**marks, at.shard: at}
                    if len(seen) == len(marks):
                        break
        return list(marks.values())

    async def _sweep(self) -> None:
        """Remove what is past its time or over a limit; sessions were ended by ``Ending.expire`` before it comes to them."""
        node, limits = self._node, self._node.limits
        for _ in range(SWEEPS):
            if node.clock.doubted:
                return
            try:
                swept = await node.store.sweep(
                    node.clock.wall() - SWEEP_BEHIND,
                    entries_per_box=limits.offline_messages,
                    entries_total=limits.offline_messages_total,
                    entry_age=limits.offline_age,
                    limit=SWEEP_LIMIT,
                )
            except StoreError as error:
                logger.warning("sweep-failed error=%s", error)
                return
            dropped = node.counters.dropped
            dropped["expired"] += swept.expired_entries
            dropped["offline_age"] += swept.aged_entries
            dropped["offline_limit"] += swept.over_limit_entries
            gone = (swept.expired_entries, swept.aged_entries, swept.over_limit_entries, swept.bodies, swept.expired_documents)
            if max(gone) < SWEEP_LIMIT:
                return
