"""One of three gateways is killed, stands still for longer than its lease, or loses the answers of its log, again and again, under load.

Sessions go from node to node meanwhile. The checker judges the ledger of the whole run, at subscribers and at a rule's target: acknowledged and
lost 0, order kept, QoS 2 exactly once, one tcpclean and one will a connection, and nothing said or written by who has lost its place.
TEST_SEED, TEST_MANY_KILLS, TEST_OTHERS_EVERY and TEST_STILL_SECONDS change the schedule, TEST_MANY_CLIENTS how many there are; what happened is
printed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from gateway.clock import epoch_of, epoch_within
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Kind, Record, Source
from streams.log import Log
from tests.support.brokers.fixtures import FIRST_START
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.chaos_proxy import ChaosProxy
from tests.support.gateway import Gateway
from tests.support.many_backbone import Backbone, begin, read_all
from tests.support.many_verdict import judge
from tests.support.many_world import FEW, LEASE, ManyWorld, Strike
from tests.support.wire import Clients

SEED = int(os.environ.get("TEST_SEED", "20261126"))
CLIENTS = int(os.environ.get("TEST_MANY_CLIENTS", str(FEW)))
KILLS = int(os.environ.get("TEST_MANY_KILLS", "1"))
OTHERS_EVERY = int(os.environ.get("TEST_OTHERS_EVERY", "4"))
"""Kills to a gateway that stands still, and to one that loses its log's answers."""
STILL = float(os.environ.get("TEST_STILL_SECONDS", LEASE))
GOES_ON_WITHIN = 3.0
LIVES_WITHIN = 10.0


@pytest.fixture(params=["mortal_kafka", pytest.param("rocketmq", marks=pytest.mark.long)])
async def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backbone]:
    broker = request.getfixturevalue(request.param)
    if isinstance(broker, RocketMQ):
        yield Backbone(broker, tmp_path, None)
        return
    ports = broker.node.ports
    async with ChaosProxy("127.0.0.1", ports.proxied, at=ports.proxy) as proxy:
        yield Backbone(broker, tmp_path, proxy)


class Stale:
    """What is written under the epoch of a gateway that stood still, behind where the log ended when it went on."""

    def __init__(self, log: Log, database: str, world: ManyWorld) -> None:
        self._log, self._database, self._world = log, database, world
        self._epoch = 0
        self._watched: list[tuple[int, int, dict[str, dict[int, At]]]] = []

    async def before(self, name: str) -> None:
        """Its sentinels are connected."""
        its_own = {sentinel.name for sentinel in self._world.sentinels if sentinel.home == name}
        events = [r for r in await read_all(self._log, PRESENCE_TOPIC) if r.kind == Kind.CONNECT and r.client in its_own]
        self._epoch = max(record.epoch for record in events)

    async def goes_on(self, strike: Strike) -> None:
        """Now: the others have given it up."""
        async with asyncio.timeout(LIVES_WITHIN):
            while await asyncio.to_thread(self._lives):
                await asyncio.sleep(0.1)
        ends = {topic: {shard: end for shard, (_, end) in (await self._log.ends(topic)).items()} for topic in (PUBLISH_TOPIC, PRESENCE_TOPIC)}
        self._watched.append((self._epoch, strike.wall, ends))

    def _lives(self) -> bool:
        with psycopg.connect(self._database) as connection:
            return connection.execute("SELECT 1 FROM nodes WHERE epoch = %s AND dead = 0", (self._epoch,)).fetchone() is not None

    async def found(self) -> list[Record]:
        """Accepted after it had stood still. What was on its way to the log before that may have arrived late."""
        found: list[Record] = []
        for epoch, since, ends in self._watched:
            published = await read_all(self._log, PUBLISH_TOPIC, ends[PUBLISH_TOPIC])
            found += [r for r in published if r.source == Source.DEVICE and epoch_of(r.id) == epoch_within(epoch) and r.time > since + 200]
            events = await read_all(self._log, PRESENCE_TOPIC, ends[PRESENCE_TOPIC])
            found += [record for record in events if record.epoch == epoch and record.time > since + 200]
        return found


@pytest.mark.slow
@pytest.mark.timeout(FIRST_START + (60 + STILL) * KILLS)
async def test_nothing_acknowledged_is_lost_and_nothing_of_qos_2_comes_twice(
    backbone: Backbone, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    world, target = await begin(backbone, start_gateway, clients, SEED, CLIENTS)
    async with backbone.log() as log:
        stale = Stale(log, backbone.shared.database, world)
        with world.summed_up():
            for number in range(KILLS):
                await world.kill(at_once=number % 2 == 0)
                if number % OTHERS_EVERY == 0:
                    await world.stand_still(STILL, stale.before, stale.goes_on)
                    if backbone.proxy is not None:
                        await world.cut_answers()
            await world.settle()
        late = await stale.found()
        for strike, goes_on, lives in world.pauses():
            print(f"{strike.what}: {strike.node}; acknowledged elsewhere after {goes_on:.2f} s, moved sessions live after {lives:.2f} s")
            assert goes_on < GOES_ON_WITHIN
            assert lives < LIVES_WITHIN
        await judge(world, backbone, target, log)
    assert not late, f"{len(late)} records by a gateway that has lost its place, first {late[:3]}"
