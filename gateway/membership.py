"""This node's place at a store that others can reach as well: who may use it, for how long, and what follows when that ends.

A gateway alone is the one gateway of its database: it holds a lease that no second one gets. Of many nodes (`node.many`) each has an id of
its own. What a node writes stands on its leases, and what it sends on the time that is left of them, by
a clock that goes on while the machine sleeps. Knows ``streams.cluster`` alone; app.py starts and ends it, flush.py and the store ask it.
A store in the data folder needs none of this: the folder's lock says it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from schemas.errors import StartError, StoreError
from streams.cluster import LEASE_MS, RENEW_MS, Cluster, Fence, Lease, LeaseFence, NodeFence, NodeState
from streams.store import Refused

MANY: Final = "many"
"""The last word of what a node says of itself, where it isn't alone."""
EXCLUSIVE: Final = "gateway"
"""The lease of the one gateway."""
LEASE: Final = LEASE_MS / 1_000
RENEW: Final = RENEW_MS / 1_000
ASK_AGAIN: Final = 0.3
"""Seconds between questions to a store that failed, or that may soon say something else."""
PATIENCE: Final = LEASE + 2.0
"""A start waits so long for the lease of one that died elsewhere; who still has it then is alive."""

logger = logging.getLogger(__name__)


def lease_clock() -> Callable[[], float]:
    """Seconds, also those for which the machine slept, where the system can tell."""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if number is None else partial(time.clock_gettime, number)


class Membership:
    """``folder`` is the data folder's identity, ``alone`` whether no other gateway may use the store; ``stand_on`` is told what commits stand on.
    ``says``: more words for other nodes (gateway/cluster/roles.py).

    ``sleep`` and ``clock`` are the loop's and ``lease_clock`` outside of tests.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        epoch: int,
        folder: str,
        *,
        alone: bool = True,
        says: str = "",
        stand_on: Callable[[Sequence[Fence]], None] = lambda fences: None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._epoch = epoch
        self._folder = folder
        self._alone = alone
        self._says = says
        self._stand_on = stand_on
        self._clock = lease_clock() if clock is None else clock
        self._sleep = sleep
        self._until = 0.0
        self._held_since = 0.0
        self._leases: dict[str, Lease] = {}
        self.lost = False
        """Another gateway has this one's place: nothing may be sent or written any more."""

    def holds(self) -> bool:
        """Whether what leaves now is ours to say. False while the store can't be asked for longer than a lease, too."""
        return not self.lost and self._clock() < self._until

    def is_steady(self) -> bool:
        """Whether the store has answered in time for longer than a lease lasts: before that, others whose lease ran out may live, and renew it
        soon. However short it was away, they have had so much less time for it, and more to catch up with."""
        return self.holds() and self._clock() - self._held_since > LEASE + ASK_AGAIN

    def is_before(self, other: NodeState) -> bool:
        """Whether that is an earlier start in this very folder, which is over for sure."""
        return other.epoch != self._epoch and other.detail.partition(" ")[0] == self._folder

    @property
    def fences(self) -> tuple[Fence, ...]:
        """What every commit stands on: the node itself, and each lease that it has."""
        return (NodeFence(self._epoch), *(LeaseFence(lease.name, lease.token) for lease in self._leases.values()))

    async def join(self) -> None:
        """Have the place; StartError where another gateway has it and lives."""
        deadline = self._clock() + PATIENCE
        while not await self._try():
            other = await self._other()
            if other is None:
                continue
            if self.is_before(other):
                await self._cluster.leave(other.epoch)  # we hold the lock of the folder that it had
            elif self._clock() >= deadline:
                await self._cluster.leave(self._epoch)
                raise StartError(self._why(other))
            else:
                await self._sleep(ASK_AGAIN)
        for node in await self._cluster.nodes() if self._alone else ():
            # Who is buried can't come back to life
            if node.epoch != self._epoch and not node.alive and not await self._cluster.bury(node.epoch):
                await self._cluster.leave(self._epoch)
                raise StartError(f"store.url: the database holds sessions of the node {node.node}, one of many: set node.many = true")
        self._held_since = self._clock()
        self._stand_on(self.fences)

    async def _try(self) -> bool:
        asked = self._clock()
        joined = await self._cluster.join(self._node, self._epoch, self._detail())
        self._until = asked + LEASE
        if isinstance(joined, Refused) or await self._other() is not None:
            return False
        return not self._alone or await self.take(EXCLUSIVE)

    def _detail(self) -> str:
        words = (self._folder, socket.gethostname(), self._says, "alone" if self._alone else MANY)
        return " ".join(word for word in words if word)

    async def say(self, words: str) -> None:
        """Say something else to other nodes from now on."""
        self._says = words
        if not self.lost:
            await self._cluster.join(self._node, self._epoch, self._detail())

    async def take(self, name: str) -> bool:
        """Have a lease for as long as this node lives; False while another node has it."""
        if name not in self._leases:
            lease = await self._cluster.acquire(name, self._epoch)
            if lease is None:
                return False
            self._leases[name] = lease
            self._stand_on(self.fences)
        return True

    async def _other(self) -> NodeState | None:
        """Who lives in our place: our name's other start, or one that can't be here together with us."""
        living = {node.epoch: node for node in await self._cluster.nodes() if node.alive and node.epoch != self._epoch}
        holder = next((lease.epoch for lease in await self._cluster.leases() if lease.name == EXCLUSIVE), 0)
        same = [node for node in living.values() if node.node == self._node or (self._alone and node.detail.endswith(f" {MANY}"))]
        return living.get(holder) or next(iter(same), None)

    def _why(self, other: NodeState) -> str:
        host = other.detail.split(" ")[1]
        if other.node == self._node:
            return f"node.id: a gateway with the id {other.node} uses this database already, on {host}: give this one another node.id, or stop it"
        return (
            f"store.url: the gateway {other.node} uses this database already, on {host}; several gateways share a database and a log on Kafka "
            "or RocketMQ where all of them set node.many = true: set it on both, stop the other, or name another database"
        )

    async def run(self) -> None:
        """Renew for ever; ends when the place is lost."""
        pause, late = RENEW, False
        while True:
            await self._sleep(pause)
            asked = self._clock()
            try:
                # All at once: where rows are held by others, the store may need seconds for each answer
                names = list(self._leases)
                kept, *held = await asyncio.gather(self._cluster.renew(self._epoch), *(self._cluster.acquire(name, self._epoch) for name in names))
                kept = kept and all(lease == self._leases[name] for name, lease in zip(names, held, strict=True))
            except StoreError:
                self._held_since, pause, late = self._clock(), ASK_AGAIN, True
                continue
            if not kept:
                self.lose()
            if self.lost:
                return
            if late or self._clock() - asked > RENEW:
                self._held_since = self._clock()
            self._until, pause, late = asked + LEASE, RENEW, False

    def lose(self) -> None:
        """It is known that another has the place."""
        if not self.lost:
            self.lost = True
            logger.critical("node-lost node=%s epoch=%d: another gateway has taken this one's place in the database", self._node, self._epoch)

    async def close(self) -> None:
        """Leave: the next start need not wait."""
        if not self.lost:
            with contextlib.suppress(StoreError):
                await self._cluster.leave(self._epoch)
