"""What three gateways stand on goes away and comes back under load: the broker, the leader among three, a shard's only broker, the database.

Nothing that was acknowledged is lost or out of order, QoS 2 comes once, and all goes on by itself; judged as in test_many_kill.py. The long
shard: ``scripts/test tests/faults/test_many_outages.py -m long``. TEST_SEED changes the schedule,
TEST_MANY_OUTAGES how often each thing happens, TEST_MANY_CLIENTS how many clients there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from schemas.reasons import ReasonCode
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC
from tests.support.brokers.fixtures import FIRST_START
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import V5, RocketMQ
from tests.support.chaos_proxy import BlackHole, ChaosProxy, CutAnswers, Toxic
from tests.support.gateway import Gateway
from tests.support.many_backbone import Backbone, begin
from tests.support.many_verdict import judge
from tests.support.many_world import ManyWorld
from tests.support.postgresql import PostgreSQL
from tests.support.wire import Clients

SEED = int(os.environ.get("TEST_SEED", "20261126"))
CLIENTS = int(os.environ.get("TEST_MANY_CLIENTS", "300"))
TIMES = int(os.environ.get("TEST_MANY_OUTAGES", "5"))
ELSEWHERE = "127.0.0.2"
STILL = 60.0
"""Seconds for which a broker stands still, and a shard has no leader."""
GOES_ON_WITHIN = 30.0
"""Seconds until every publisher is acknowledged again, once it is all back."""
MOVES_WITHIN = 10.0
"""Seconds that a publish may wait while its shard moves."""
SHARDS = 3

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(FIRST_START + 120 * TIMES + 400)]
Start = Callable[..., Gateway]


@pytest.fixture(params=["mortal_kafka", "mortal_rocketmq"])
def broker(request: pytest.FixtureRequest) -> Kafka | RocketMQ:
    found: Kafka | RocketMQ = request.getfixturevalue(request.param)
    return found


@asynccontextmanager
async def running(backbone: Backbone, start_gateway: Start, clients: Clients) -> AsyncIterator[ManyWorld]:
    """A world that is judged when it is left."""
    world, target = await begin(backbone, start_gateway, clients, SEED, CLIENTS)
    gateways = list(world.living.values())
    with world.summed_up():
        yield world
        await world.settle()
    for strike, goes_on, _ in world.pauses():
        print(f"{strike.what}: acknowledged everywhere {goes_on:.2f} s after it was back")
        assert goes_on < GOES_ON_WITHIN
    async with backbone.log() as log:
        await judge(world, backbone, target, log)
    assert all(gateway.alive for gateway in gateways), "a gateway ended over it"


def expect_to_be_sent_away(world: ManyWorld) -> None:
    """Who has waited for a minute for a log that stands still is told to come again (Limits.log_wait)."""
    for actor in world.actors:
        actor.endings = (*actor.endings, ReasonCode.SERVER_BUSY)


async def test_a_broker_is_killed_and_comes_back(broker: Kafka | RocketMQ, tmp_path: Path, start_gateway: Start, clients: Clients) -> None:
    async with running(Backbone(broker, tmp_path), start_gateway, clients) as world:
        for _ in range(TIMES):
            await world.outage("broker killed", broker.kill, 1.0, broker.restart)


async def test_a_broker_stands_still_for_a_minute(broker: Kafka | RocketMQ, tmp_path: Path, start_gateway: Start, clients: Clients) -> None:
    async with running(Backbone(broker, tmp_path), start_gateway, clients) as world:
        expect_to_be_sent_away(world)
        for _ in range(2):
            await world.outage("broker stood still", broker.freeze, STILL, broker.thaw)


async def test_the_database_is_killed_and_comes_back(
    broker: Kafka | RocketMQ, mortal_postgresql: PostgreSQL, tmp_path: Path, start_gateway: Start, clients: Clients
) -> None:
    backbone = Backbone(broker, tmp_path, database=mortal_postgresql.url("postgres"))
    chance = random.Random(SEED)
    async with running(backbone, start_gateway, clients) as world:
        for _ in range(TIMES):
            await world.outage("database killed", mortal_postgresql.kill_all, chance.uniform(0.5, 8.0), mortal_postgresql.start)


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[tuple[RocketMQ, ChaosProxy]]:
    """A broker that tells of an address at which a proxy is."""
    broker = RocketMQ(tmp_path / "rocketmq", V5, settings={"brokerIP1": ELSEWHERE, "bindAddress": "127.0.0.1"})
    port = broker.ports[0].broker
    async with ChaosProxy("127.0.0.1", port, at=port, on=ELSEWHERE) as proxy:
        await asyncio.to_thread(broker.start)
        try:
            yield broker, proxy
        finally:
            for server in (*broker.brokers, broker.namesrv):
                assert server is not None
                server.kill()


async def test_answers_of_rocketmq_are_lost(proxied: tuple[RocketMQ, ChaosProxy], tmp_path: Path, start_gateway: Start, clients: Clients) -> None:
    """F7, at all gateways at once: the broker stores what it is sent, and nobody hears of it. Kafka's are in test_many_kill.py."""
    broker, proxy = proxied
    soon = asyncio.get_running_loop().call_soon_threadsafe
    async with running(Backbone(broker, tmp_path), start_gateway, clients) as world:
        for number in range(TIMES):
            toxic: Toxic = BlackHole() if number % 2 else CutAnswers()

            def back(toxic: Toxic = toxic) -> None:
                proxy.remove(toxic, "down")
                proxy.cut_all()

            await world.outage("answers lost", partial(soon, proxy.add, toxic, "down"), 3.0, partial(soon, back))


async def test_leaders_among_three_kafkas_are_killed(three_kafkas: Kafka, tmp_path: Path, start_gateway: Start, clients: Clients) -> None:
    """Each leads some shards: the others take over, and all publishers go on without it."""
    async with running(Backbone(three_kafkas, tmp_path, replication=3), start_gateway, clients) as world:
        for number in range(TIMES):
            node = three_kafkas.nodes[number % 3]
            served = await world.outage(f"broker {number % 3 + 1} of three killed", node.kill, 10.0, node.start)
            assert all(served.values()), served


def move(cluster: Kafka, prefix: str, by: int) -> None:
    """All shards of the log to other brokers, unreplicated; returns when they are there."""
    topics = [f"{prefix}{topic}" for topic in (PUBLISH_TOPIC, PRESENCE_TOPIC)]
    places = [{"topic": topic, "partition": n, "replicas": [(n + by) % 3 + 1]} for topic in topics for n in range(SHARDS)]
    (plan := cluster.folder / "moves.json").write_text(json.dumps({"version": 1, "partitions": places}), "utf-8")
    command = (
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "--bootstrap-server",
        cluster.address,
        "--reassignment-json-file",
        str(plan),
    )
    cluster.run(*command, "--execute")
    while "still in progress" in cluster.run(*command, "--verify"):
        pass


async def test_shards_move_from_broker_to_broker(three_kafkas: Kafka, tmp_path: Path, start_gateway: Start, clients: Clients) -> None:
    """F21: under load, and nobody is connected anew for it."""
    backbone = Backbone(three_kafkas, tmp_path)
    async with running(backbone, start_gateway, clients) as world:
        for number in range(TIMES):
            await world.outage("shards moved", lambda: None, 0.5, partial(move, three_kafkas, backbone.shared.prefix, number))
        waits = [entry.acked_at - entry.sent_at for entry in world.ledger.sent.values() if entry.acked_at is not None]
        print(f"acknowledged after {max(waits):.2f} s at most, while shards moved {TIMES} times")
        assert max(waits) < MOVES_WITHIN


async def test_a_shard_without_a_leader(three_kafkas: Kafka, tmp_path: Path, start_gateway: Start, clients: Clients) -> None:
    """Unreplicated shards, one on each broker; one goes for a minute. Who publishes to other shards goes on."""
    node = three_kafkas.nodes[0]
    async with running(Backbone(three_kafkas, tmp_path), start_gateway, clients) as world:
        expect_to_be_sent_away(world)
        served = await world.outage("a shard without a leader", node.kill, STILL, node.start)
        assert any(served.values()), served
