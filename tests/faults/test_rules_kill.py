"""kill -9 of the gateway, the broker or the name server while rules carry load both ways: acknowledged means at the other side, in order.

TEST_RULE_KILLS says how often (once in the plain run), TEST_SEED when. RocketMQ 5.5's proxy lives in the broker's process and dies with it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Gateway
from tests.support.rule_world import RuleWorld
from tests.support.wire import Clients

KILLS = int(os.environ.get("TEST_RULE_KILLS", "1"))
SEED = int(os.environ.get("TEST_SEED", "20261125"))
CASES = [
    ("mortal_kafka", "gateway"),
    ("mortal_kafka", "broker"),
    ("mortal_rocketmq", "gateway"),
    ("mortal_rocketmq", "broker"),
    ("mortal_rocketmq", "namesrv"),
    ("mortal_rocketmq4", "broker"),
    ("mortal_rocketmq4", "namesrv"),
]
RESUMES_WITHIN = {"gateway": 15.0, "broker": 15.0, "namesrv": 60.0}
"""Seconds after the port answers."""


async def strike(world: RuleWorld, victim: str, chance: random.Random) -> None:
    """The victim dies at a random time, is away for a while, and comes back."""
    await asyncio.sleep(chance.uniform(0.5, 2.0))
    broker = world.broker
    if victim == "gateway":
        await asyncio.to_thread(world.gateway.kill)
        await world.gateway_died()
        await asyncio.to_thread(world.gateway.start)
        await world.load()
    elif victim == "namesrv":
        assert isinstance(broker, RocketMQ)
        assert broker.namesrv is not None
        await asyncio.to_thread(broker.namesrv.kill)
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        await asyncio.to_thread(broker.restart_namesrv)
    else:
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        await asyncio.to_thread(broker.restart)


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * KILLS)
@pytest.mark.parametrize(("name", "victim"), CASES, ids=[f"{name.removeprefix('mortal_')}-{victim}" for name, victim in CASES])
async def test_what_was_acknowledged_is_on_the_other_side(
    name: str, victim: str, request: pytest.FixtureRequest, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    broker: Any = request.getfixturevalue(name)
    chance = random.Random(SEED)
    world = RuleWorld(await asyncio.to_thread(start_gateway, config=RuleWorld.config(broker)), broker, clients)
    try:
        await world.begin()
        await world.load()
        resumed = []
        for _ in range(KILLS):
            await strike(world, victim, chance)
            resumed.append(await world.resumes(RESUMES_WITHIN[victim]))
        await world.stop_load()
        taken = await world.finish(60.0)
        print(f"seed {SEED}, {KILLS} kills of {victim}, carried again after at most {max(resumed):.1f} s; {world.report(taken)}")
        problems = world.verdict(taken)
    finally:
        await world.close()
    assert not problems, problems[:10]
