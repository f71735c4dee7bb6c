"""kill -9 of one of three gateways under load, again and again, while sessions go from one to another: the checker judges the whole run.

Who was connected to the one that dies connects to another at once, before its death is known, or keeps away for longer than that takes.
TEST_SEED and TEST_KILLS change the schedule; both are printed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.test_many_gateways import BROKERS, NAMES, Shared
from tests.support.actors import Actor, PersistentSubscriber, Publisher
from tests.support.brokers.fixtures import FIRST_START
from tests.support.checker import check
from tests.support.gateway import Gateway
from tests.support.ledger import Ledger, Sent
from tests.support.wire import Clients

SEED = int(os.environ.get("TEST_SEED", "20261126"))
KILLS = int(os.environ.get("TEST_KILLS", "3"))
RATE = 100.0
"""Publishes a second of each publisher."""
LEASE = 6.0
SETTLE_WITHIN = 30.0


def under(prefix: str) -> Callable[[Sent], bool]:
    return lambda sent: sent.topic.startswith(prefix)


class Fleet:
    """Three gateways, and everybody who talks to them. ``at`` is where an actor is connected."""

    def __init__(self, gateways: dict[str, Gateway], clients: Clients, chance: random.Random) -> None:
        self.gateways = gateways
        self.living = dict(gateways)
        self.chance = chance
        self.ledger = Ledger()
        self.publishers = [
            Publisher(self.ledger, clients, f"publisher{number}", ["load/a", f"load/{number}"], version=4 + number % 2) for number in range(4)
        ]
        self.subscribers = [
            PersistentSubscriber(self.ledger, clients, f"subscriber{number}", ["load/#"], under("load/"), version=5 - number % 2, qos=1 + number % 2)
            for number in range(4)
        ]
        self.at: dict[Actor, str] = {}
        self.fates: list[str] = []

    async def connect(self, actor: Actor) -> None:
        name = self.chance.choice(list(self.living))
        await actor.connect(self.living[name].mqtt)
        self.at[actor] = name

    async def load(self, seconds: float) -> None:
        """Publishers publish, QoS 1 and 2; subscribers go from node to node."""
        end = asyncio.get_running_loop().time() + seconds
        runs = [asyncio.create_task(publisher.run(1 + number % 2, RATE)) for number, publisher in enumerate(self.publishers) if publisher.online]
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(self.chance.uniform(0.2, 0.5))
            await self.connect(self.chance.choice([subscriber for subscriber in self.subscribers if subscriber.online] or self.subscribers))
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    async def kill(self, number: int) -> None:
        name = self.chance.choice(list(self.living))
        running = asyncio.create_task(self.load(self.chance.uniform(0.5, 2.0)))
        await asyncio.sleep(self.chance.uniform(0.3, 0.5))
        gateway = self.living.pop(name)
        await asyncio.to_thread(gateway.kill)
        await asyncio.gather(running, return_exceptions=True)
        for actor in [*self.publishers, *self.subscribers]:
            if self.at[actor] == name and actor.wire is not None:
                await actor.wire.lost.wait()
        self.ledger.disrupt(asyncio.get_running_loop().time())
        at_once = number % 2 == 0
        self.fates.append(f"{number}: {name}, its clients come {'at once' if at_once else 'when it is given up'}")
        moving = [actor for actor in [*self.publishers, *self.subscribers] if not actor.online]
        if not at_once:
            await self.load(LEASE)
        for actor in moving:
            if not actor.online:
                await self.connect(actor)
        await self.load(1.0)
        await asyncio.to_thread(gateway.start)
        self.living[name] = gateway

    async def settle(self) -> None:
        for actor in [*self.publishers, *self.subscribers]:
            if not actor.online:
                await self.connect(actor)
        for publisher in self.publishers:
            await publisher.finish(SETTLE_WITHIN)
        acked = [entry for entry in self.ledger.sent.values() if entry.acked_at is not None]
        end = asyncio.get_running_loop().time() + SETTLE_WITHIN
        while lacking := [(subscriber, still) for subscriber in self.subscribers if (still := subscriber.lacks(acked))]:
            if asyncio.get_running_loop().time() > end:
                shown = [f"{subscriber.name} lacks {len(still)}, first {still[0].client}/{still[0].seq}" for subscriber, still in lacking]
                raise AssertionError(f"not delivered within {SETTLE_WITHIN} s: {'; '.join(shown)}")
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(FIRST_START + 30 * KILLS)
@pytest.mark.parametrize("broker", BROKERS)
async def test_nothing_acknowledged_is_lost_by_kills_of_nodes(
    broker: str, request: pytest.FixtureRequest, tmp_path: Path, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    shared = Shared(request.getfixturevalue(broker), tmp_path)
    first = await asyncio.to_thread(start_gateway, NAMES[0], config=shared.config(NAMES[0]))
    rest = await asyncio.gather(*(asyncio.to_thread(start_gateway, name, config=shared.config(name)) for name in NAMES[1:]))
    fleet = Fleet(dict(zip(NAMES, (first, *rest), strict=True)), clients, random.Random(SEED))
    try:
        for actor in [*fleet.subscribers, *fleet.publishers]:
            await fleet.connect(actor)
        for number in range(KILLS):
            await fleet.kill(number)
        await fleet.settle()
    finally:
        takeovers = sum(subscriber.takeovers for subscriber in fleet.subscribers)
        print(f"seed {SEED}, kills {KILLS}, published {len(fleet.ledger.sent)}, acknowledged {fleet.ledger.acked()}, takeovers {takeovers}")
        print("\n".join(fleet.fates))
    verdict = check(fleet.ledger)
    # Under QoS 1 how much comes again after a move depends on how far the old node's position was behind, on a busy machine by seconds
    verdict.duplicated = [fault for fault in verdict.duplicated if "under QoS 2" in fault[3]]
    print(verdict)
    problems = [problem for actor in [*fleet.publishers, *fleet.subscribers] for problem in actor.problems]
    assert not problems, problems[:10]
    assert verdict.ok, str(verdict)
