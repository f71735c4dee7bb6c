"""The log on RocketMQ while a broker is killed, stopped, or cut off: nothing that was told durable is lost or read twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bridges.rocketmq import client as clients
from bridges.rocketmq.log import RocketmqLog, open_rocketmq_log
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.routes import Route, parse_route
from schemas.connections import ConnectionSettings
from tests.faults.broker_load import Load
from tests.support.brokers.fixtures import unique
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.chaos_proxy import ChaosProxy, CutAnswers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@asynccontextmanager
async def opened(address: str, prefix: str = "", node: str = "n", **options: float) -> AsyncIterator[RocketmqLog]:
    settings = ConnectionSettings(name="test", kind="rocketmq", address=(address,))
    defaults: dict[str, float] = {"shards": 3, "checked": False}
    given = RocketmqLogOptions(prefix=prefix or f"{unique('log')}-", **{**defaults, **options})  # type: ignore[arg-type]
    log = await open_rocketmq_log(settings, node=node, epoch=1, options=given)
    try:
        yield log
    finally:
        await log.close()


@pytest.fixture(params=["mortal_rocketmq", "mortal_rocketmq4"])
def broker(request: pytest.FixtureRequest) -> RocketMQ:
    found: RocketMQ = request.getfixturevalue(request.param)
    return found


async def test_a_broker_that_is_killed_and_comes_back(broker: RocketMQ) -> None:
    async with opened(broker.address) as log:
        load = Load(log)
        await load.flows_again(10)
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(1.2)
        assert log.pressure().stalled_since
        await asyncio.to_thread(broker.restart)
        await load.flows_again(15)
        await load.finish()
        assert not load.errors


async def test_a_broker_that_stands_still(broker: RocketMQ) -> None:
    """Requests lie in its buffers meanwhile, and are served when it goes on: after they were given up and sent again."""
    async with opened(broker.address, deliver_within=2.0) as log:
        load = Load(log)
        await load.flows_again(10)
        broker.freeze()
        await asyncio.sleep(6)
        broker.thaw()
        await load.flows_again(15)
        await load.finish()
        assert log.sender.repeats
        assert not load.errors


async def test_a_broker_that_stands_still_and_is_killed_while_several_nodes_write(mortal_rocketmq4: RocketMQ) -> None:
    """What one of them sends again lies behind what others sent meanwhile, and everybody reads the same."""
    broker = mortal_rocketmq4
    prefix = f"{unique('log')}-"
    shared = {"deliver_within": 1.5, "shared": True}
    async with opened(broker.address, prefix, "one", **shared) as one, opened(broker.address, prefix, "two", **shared) as two:
        load = Load(one, two)
        await load.flows_again(10)
        broker.freeze()
        await asyncio.sleep(3)
        broker.thaw()
        await load.flows_again(15)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.restart)
        await load.flows_again(15)
        await load.finish()
        assert one.sender.repeats
        assert two.sender.repeats
        assert not load.errors


async def test_answers_that_are_cut_after_the_append(rocketmq4: RocketMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """F7: the broker has the frame and we don't know."""
    async with ChaosProxy("127.0.0.1", rocketmq4.ports[0].broker) as proxy:

        def through_proxy(body: bytes) -> Route:
            return msgspec.structs.replace(parse_route(body), masters={"broker-a": f"{proxy.host}:{proxy.port}"})

        monkeypatch.setattr(clients, "parse_route", through_proxy)
        async with opened(rocketmq4.address, deliver_within=1.0) as log:
            load = Load(log)
            for _ in range(5):
                await load.flows_again(10)
                cut = CutAnswers()
                proxy.add(cut, "down")
                await asyncio.sleep(0.7)
                proxy.remove(cut, "down")
                proxy.cut_all()
            await load.flows_again(15)
            await load.finish()
            assert log.sender.repeats
            assert not load.errors


async def test_a_shard_that_is_stuck_refuses_what_waits_and_keeps_what_was_sent(mortal_rocketmq4: RocketMQ) -> None:
    async with opened(mortal_rocketmq4.address, refuse_after=1.0) as log:
        load = Load(log)
        await load.flows_again(10)
        mortal_rocketmq4.freeze()
        await asyncio.sleep(2.5)
        assert load.errors
        assert log.pressure().records, "frames on their way are pending still"
        mortal_rocketmq4.thaw()
        await load.flows_again(15)
        await load.finish()
        assert all(error.startswith("RocketMQ has not answered for 1 s") for error in load.errors)


async def test_a_close_while_the_broker_is_away_tells_every_record(mortal_rocketmq4: RocketMQ) -> None:
    async with opened(mortal_rocketmq4.address, close_within=0.5) as log:
        load = Load(log)
        await load.flows_again(10)
        mortal_rocketmq4.freeze()
        await asyncio.sleep(0.2)
        load._tasks[0].cancel()
        async with asyncio.timeout(5):
            await log.close()
        assert load.told == load.sent
        assert any("may be in the log all the same" in error for error in load.errors)
        mortal_rocketmq4.thaw()
