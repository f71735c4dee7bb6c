"""What a start of the log on RocketMQ makes and says, with real brokers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridges.rocketmq.log import open_rocketmq_log
from bridges.rocketmq.log_options import RocketmqLogOptions
from schemas.connections import ConnectionSettings
from schemas.errors import StartError
from schemas.records import PUBLISH_TOPIC
from tests.contract.log_drivers import RocketmqDriver
from tests.contract.log_traffic import Told, fill, record, take
from tests.support.brokers.fixtures import FIRST_START, unique
from tests.support.brokers.rocketmq import V4, RocketMQ

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FIRST_START)]


async def refusal(broker: RocketMQ, prefix: str, **options: float | bool) -> str:
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(broker.address,))
    with pytest.raises(StartError) as refused:
        await open_rocketmq_log(settings, node="n", epoch=1, options=RocketmqLogOptions(prefix=prefix, **options))  # type: ignore[arg-type]
    return str(refused.value)


@pytest.mark.parametrize("version", ["rocketmq", "rocketmq4"])
async def test_topics_are_made_as_asked_and_brokers_that_do_not_sync_are_refused(request: pytest.FixtureRequest, version: str) -> None:
    broker: RocketMQ = request.getfixturevalue(version)
    driver = RocketmqDriver(broker.address, f"{unique('log')}-", shards=2)
    log = await driver.start()
    await log.close()
    said = await asyncio.to_thread(broker.admin, "topicRoute", "-t", f"{driver.options.prefix}publish")
    for words in ('"readQueueNums":2', '"writeQueueNums":2'):
        assert words in "".join(said.split())
    assert "has 2 queues (brokers: broker-a) and log.shards says 3" in await refusal(broker, driver.options.prefix, shards=3)
    assert "flushDiskType is ASYNC_FLUSH and brokerRole ASYNC_MASTER" in await refusal(broker, driver.options.prefix, shards=2)


@pytest.mark.parametrize("version", ["rocketmq", "rocketmq4"])
async def test_a_frame_of_the_largest_size_goes_in_and_out(request: pytest.FixtureRequest, version: str) -> None:
    """What is larger is refused before it is sent, or by the broker; the connection lives on."""
    driver = RocketmqDriver(request.getfixturevalue(version).address, f"{unique('log')}-", shards=1, group_bytes=8 << 20)
    log = await driver.start()
    told = Told()
    largest = (4 << 20) - 1024 - 200
    for number, size in enumerate((largest, largest // 2, largest // 2, largest + 1024, 10)):
        told.append(log, record(number, size=size))
    await told.wait(5)
    assert told.order["k"] == [0, 1, 2, 3, 4]
    assert [int.from_bytes(each, "big") for each in told.refusals] == [3]
    reader = log.open(PUBLISH_TOPIC, "earliest")
    assert [len(each.payload) for _, each in await take(reader, 4)] == [largest, largest // 2, largest // 2, 10]
    await log.close()


async def test_two_brokers_that_sync_are_shards_in_a_fixed_order(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(RocketMQ(tmp_path, V4, brokers=2, settings={"flushDiskType": "SYNC_FLUSH"}).start)
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(cluster.address,))
    options = RocketmqLogOptions(shards=3)
    try:
        places = []
        for epoch in (1, 2):
            log = await open_rocketmq_log(settings, node="n", epoch=epoch, options=options)
            assert log.weaknesses == ()
            told, _ = await fill(log, range(30), keys=[f"key-{number}" for number in range(10)])
            places.append([at.shard for at in told.at.values()])
            assert {shard for _, shard in enumerate(places[-1])} == {0, 1, 2}
            await log.close()
        assert sorted(places[0]) == sorted(places[1])
        log = await open_rocketmq_log(settings, node="n", epoch=3, options=options)
        await asyncio.to_thread(cluster.brokers[1].kill)
        told = Told()
        for number in range(20):
            told.append(log, record(number, f"key-{number % 10}"))
        async with asyncio.timeout(20):
            while not told.at:
                await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        waiting = 20 - told.count
        assert waiting
        assert log.pressure().records == waiting
        await asyncio.to_thread(cluster.brokers[1].start)
        async with asyncio.timeout(30):
            while told.count < 20:
                await asyncio.sleep(0.02)
        assert not told.refusals
        for key in range(10):
            assert told.order[f"key-{key}"] == [key, key + 10]
        await log.close()
    finally:
        for server in (*cluster.brokers, cluster.namesrv):
            assert server is not None
            server.kill()


@pytest.mark.parametrize("version", ["rocketmq", "rocketmq4"])
async def test_nodes_that_share_a_log_start_at_once_and_agree_on_what_is_in_it(request: pytest.FixtureRequest, version: str) -> None:
    """Each end holds all that any of them was told before it was asked for, and each reads all, in one order."""
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(request.getfixturevalue(version).address,))
    options = RocketmqLogOptions(prefix=f"{unique('log')}-", shards=3, checked=False, shared=True)
    logs = await asyncio.gather(*(open_rocketmq_log(settings, node=name, epoch=1, options=options) for name in ("one", "two", "three")))
    try:
        readers = [log.open(PUBLISH_TOPIC, "earliest") for log in logs]
        for turn in range(60):
            told = Told()
            for place, log in enumerate(logs):
                told.append(log, record(3 * turn + place, f"key-{turn % 5}"))
            await told.wait(3)
            ends = await logs[turn % 3].ends(PUBLISH_TOPIC)
            assert all(at < ends[at.shard][1] for at in told.at.values())
        found = [[(at.shard, at.offset, each.packet_id) for at, each in await take(reader, 180)] for reader in readers]
        assert sorted(found[0]) == sorted(found[1]) == sorted(found[2])
        assert {number for _, _, number in found[0]} == set(range(180))
        for reader in readers:
            async with asyncio.timeout(10):
                while reader.lag():
                    await reader.next(1, 1)
    finally:
        for log in logs:
            await log.close()
