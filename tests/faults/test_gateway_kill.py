"""kill -9 at named points of the program and at random times: what was acknowledged reaches every persistent subscriber.

One data folder lives through all kills. Each round resumes the sessions, waits until everything acknowledged so far has come,
then publishes (QoS 1 or 2, some of it retained), takes sessions over and opens connections with wills until the process dies.
TEST_SEED and TEST_KILLS change the schedule; both are printed. The checker judges the ledger of the whole run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.protocol.packets import Publish
from tests.support.actors import PersistentSubscriber, Publisher
from tests.support.brokers.fixtures import FIRST_START, unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.checker import REPEAT_WINDOW, check
from tests.support.doomed import DELAY, Doomed
from tests.support.gateway import Gateway, on_kafka, on_rocketmq
from tests.support.ledger import Ledger, Sent, read_stamp
from tests.support.process import ServerDied
from tests.support.wire import Clients

SEED = int(os.environ.get("TEST_SEED", "20261123"))
KILLS = int(os.environ.get("TEST_KILLS", "20"))
WILLS = 200
RATE = 200.0
"""Publishes a second of each publisher."""
FAILPOINT_WITHIN = 12.0
SETTLE_WITHIN = 10.0
SEEN_LATE = 1.0
"""How late the death is seen, and how late the position before it was stored, on a busy machine. The verdict prints the oldest repeat."""
FAILPOINTS: dict[int, dict[str, tuple[int, int]]] = {
    1: {"received": (50, 900), "appended-before-ack": (5, 200), "ack-queued": (5, 200), "takeover": (1, 6), "position-commit": (1, 5)},
    2: {"before-append": (50, 900), "pubrec-recorded": (5, 400), "pubrel-seen": (5, 400), "delivered-before-ack": (5, 900), "will-armed": (1, 190)},
}
"""By QoS of the round: failpoints and the range of passages after which they kill."""


class Round(NamedTuple):
    number: int
    qos: int
    failpoint: str | None
    lives: float
    """Seconds of load before a kill at a random time."""


def schedule(chance: random.Random) -> list[Round]:
    """Half at failpoints, half at random times; half of each under QoS 2."""
    rounds = []
    for number in range(KILLS):
        qos = 1 + number // 2 % 2
        failpoint = None
        if number % 2 == 0:
            names = list(FAILPOINTS[qos])
            name = names[number // 4 % len(names)]
            failpoint = f"{name}:{chance.randint(*FAILPOINTS[qos][name])}"
        rounds.append(Round(number, qos, failpoint, chance.uniform(0.2, 1.5)))
    return rounds


def under(*prefixes: str) -> Callable[[Sent], bool]:
    return lambda sent: sent.topic.startswith(prefixes)


class World:
    """The gateway and everybody who talks to it, over all rounds."""

    def __init__(self, gateway: Gateway, clients: Clients, chance: random.Random) -> None:
        self.gateway = gateway
        self.clients = clients
        self.chance = chance
        self.ledger = Ledger()
        self.fates: list[str] = []
        topics = [["load/a", "load/b"], ["load/a", "load/c/1"], ["load/b"], ["load/c/2", "load/c/3"]]
        self.publishers = [
            Publisher(self.ledger, clients, f"publisher{number}", topics[number], version=4 + number % 2, resends=number < 2) for number in range(4)
        ]
        self.keeper = Publisher(self.ledger, clients, "keeper", ["load/kept"], retain=True, window=5)
        self.taken = [
            PersistentSubscriber(self.ledger, clients, "taken1", ["load/#", "wills/#"], under("load/", "wills/"), version=5, qos=1),
            PersistentSubscriber(self.ledger, clients, "taken2", ["load/#", "wills/#"], under("load/", "wills/"), version=4, qos=2),
        ]
        self.watcher = PersistentSubscriber(self.ledger, clients, "watcher", ["wills/+"], under("wills/"), version=5, qos=2)
        self.narrow = PersistentSubscriber(self.ledger, clients, "narrow", ["load/c/+"], under("load/c/"), version=4, qos=1)
        self.offline = PersistentSubscriber(self.ledger, clients, "offline", ["load/#"], under("load/"), version=5, qos=2)
        self.online = [*self.taken, self.watcher, self.narrow]

    async def first_steps(self) -> None:
        """Sessions exist, and the offline one is left alone."""
        await asyncio.to_thread(self.gateway.start)
        for subscriber in [*self.online, self.offline]:
            await subscriber.connect(self.gateway.mqtt)
        await self.offline.leave()
        await self.clients.close()
        await asyncio.to_thread(self.gateway.kill)

    async def resume(self) -> None:
        await asyncio.gather(*(actor.connect(self.gateway.mqtt) for actor in [*self.online, *self.publishers, self.keeper]))
        await self.check_retained()
        await self.settle(self.online, SETTLE_WITHIN)

    async def settle(self, subscribers: list[PersistentSubscriber], within: float) -> None:
        """Everything acknowledged so far is in the hands of these."""
        acked = [entry for entry in self.ledger.sent.values() if entry.acked_at is not None]
        lacking: list[tuple[PersistentSubscriber, list[Sent]]] = [(subscriber, acked) for subscriber in subscribers]
        end = asyncio.get_running_loop().time() + within
        while lacking := [(subscriber, still) for subscriber, entries in lacking if (still := subscriber.lacks(entries))]:
            if asyncio.get_running_loop().time() > end:
                shown = [f"{subscriber.name} lacks {len(still)}, first {still[0].client}/{still[0].seq}" for subscriber, still in lacking]
                raise AssertionError(f"not delivered within {within} s of the restart: {'; '.join(shown)}")
            await asyncio.sleep(0.02)

    async def check_retained(self) -> None:
        """A new subscriber gets a value not older than the last acknowledged one, and one that was sent."""
        if self.keeper.last_acked < 0:
            return
        acked = self.keeper.last_acked
        wire = await self.clients.connect(self.gateway.mqtt, "passer-by")
        await wire.subscribe("load/kept", 1)
        kept = (await wire.publishes(1))[0]
        named = read_stamp(kept.payload)
        assert isinstance(kept, Publish)
        assert named is not None
        assert named[0] == "keeper"
        assert acked <= named[1] < self.keeper.seq, f"retained is {named[1]}, acknowledged was {acked}"
        await wire.disconnect()

    async def live(self, plan: Round, doomed: Doomed) -> None:
        """The load of a round; ends only by being cancelled or by the process's death."""
        await self.resume()
        async with asyncio.TaskGroup() as group:
            for publisher in self.publishers:
                group.create_task(publisher.run(plan.qos, RATE))
            group.create_task(self.keeper.run(plan.qos, RATE / 10))
            group.create_task(doomed.connect(self.gateway.mqtt, WILLS))
            group.create_task(self.take_over())

    async def take_over(self) -> None:
        while self.gateway.alive:
            await asyncio.sleep(self.chance.uniform(0.05, 0.2))
            await self.chance.choice(self.taken).connect(self.gateway.mqtt)

    async def die(self, plan: Round, doomed: Doomed) -> None:
        """Waits for the failpoint, or kills at a random time once the wills are there."""
        if plan.failpoint is None:
            while doomed.connected < WILLS:
                await asyncio.sleep(0.01)
            await asyncio.sleep(plan.lives)
            self.gateway.signal(signal.SIGKILL)
            await asyncio.to_thread(self.gateway.wait, 5.0)
            return
        try:
            await asyncio.to_thread(self.gateway.wait, FAILPOINT_WITHIN)
        except ServerDied as late:
            raise AssertionError(f"round {plan.number}: failpoint {plan.failpoint} was never reached") from late

    async def round(self, plan: Round) -> None:
        doomed = Doomed(self.ledger, self.clients, f"will{plan.number}-")
        try:
            await asyncio.to_thread(self.gateway.start, failpoint=plan.failpoint)
        except ServerDied:
            if plan.failpoint is None or self.gateway.exit_code != -signal.SIGKILL:
                raise
            self.fates.append(f"{plan.number}: {plan.failpoint} before the ready line")
            return
        living, dying = asyncio.create_task(self.live(plan, doomed)), asyncio.create_task(self.die(plan, doomed))
        await asyncio.wait({living, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not dying.done():  # either a fault, or the death is about to be seen
            await asyncio.wait({dying}, timeout=1.0)
        if not dying.done():
            dying.cancel()
            living.result()
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)  # what breaks because the process is gone is no fault
        dying.result()
        assert self.gateway.exit_code == -signal.SIGKILL, f"ended with {self.gateway.exit_code}\n{self.gateway.tail()}"
        for actor in [*self.online, *self.publishers, self.keeper]:
            if actor.wire is not None:
                await actor.wire.lost.wait()
        now = asyncio.get_running_loop().time()
        self.ledger.disrupt(now)
        doomed.lost(now)
        await self.clients.close()
        self.fates.append(f"{plan.number}: QoS {plan.qos}, {plan.failpoint or f'after {plan.lives:.2f} s'}, {doomed.connected} wills")

    async def last_steps(self) -> None:
        """No more kills: publishers finish, the offline one comes back, all is delivered, and nothing more than that."""
        await asyncio.to_thread(self.gateway.start)
        await self.resume()
        for publisher in [*self.publishers, self.keeper]:
            await publisher.finish(10.0)
        await self.offline.connect(self.gateway.mqtt)
        await self.settle([*self.online, self.offline], 30.0)
        await asyncio.sleep(DELAY + 0.5)
        for subscriber in [*self.online, self.offline]:
            assert subscriber.wire is not None
            assert subscriber.online, f"{subscriber.name} was disconnected"
        assert await asyncio.to_thread(self.gateway.stop) == 0

    def report(self) -> str:
        takeovers = sum(subscriber.takeovers for subscriber in self.taken)
        wills = sum(1 for entry in self.ledger.sent.values() if entry.topic.startswith("wills/") and entry.acked_at is not None)
        counts = f"published {len(self.ledger.sent)}, acknowledged {self.ledger.acked()}, wills {wills}, takeovers {takeovers}"
        receipts = [f"{name}: {len(record.receipts)} receipts" for name, record in self.ledger.subscribers.items()]
        return "\n".join([f"seed {SEED}, kills {KILLS}, {counts}", *receipts, *self.fates])


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * KILLS)
async def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path, servers: None, clients: Clients) -> None:
    await live_through_kills(Gateway(tmp_path / "gateway"), clients, KILLS)


@pytest.mark.slow
@pytest.mark.timeout(FIRST_START + 15 * KILLS)
async def test_nothing_acknowledged_is_lost_by_kills_over_kafka(tmp_path: Path, servers: None, clients: Clients, kafka: Kafka) -> None:
    """The log is elsewhere and lives on: what a dead gateway had sent there may still arrive, and its shards are replayed one by one."""
    gateway = Gateway(tmp_path / "gateway", config=on_kafka(kafka.address, f"{unique('kill')}-"))
    await live_through_kills(gateway, clients, KILLS // 2)


@pytest.mark.slow
@pytest.mark.timeout(FIRST_START + 15 * KILLS)
async def test_nothing_acknowledged_is_lost_by_kills_over_rocketmq(tmp_path: Path, servers: None, clients: Clients, rocketmq: RocketMQ) -> None:
    gateway = Gateway(tmp_path / "gateway", config=on_rocketmq(rocketmq.address, f"{unique('kill')}-"))
    await live_through_kills(gateway, clients, KILLS // 4)


async def live_through_kills(gateway: Gateway, clients: Clients, kills: int) -> None:
    chance = random.Random(SEED)
    world = World(gateway, clients, chance)
    try:
        await world.first_steps()
        for plan in schedule(chance)[:kills]:
            await world.round(plan)
        await world.last_steps()
    finally:
        print(world.report())
    verdict = check(world.ledger, repeat_window=REPEAT_WINDOW + SEEN_LATE)
    print(verdict)
    problems = [problem for actor in [*world.online, world.offline, *world.publishers, world.keeper] for problem in actor.problems]
    assert not problems, problems[:10]
    assert verdict.ok, str(verdict)
