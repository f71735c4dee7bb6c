"""The log on Kafka while Kafka is killed, stopped, cut off, led by another, or led by nobody: nothing that was told durable is lost or read twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridges.kafka.connection import Connection
from bridges.kafka.log import KafkaLog, open_kafka_log
from bridges.kafka.log_options import KafkaLogOptions
from schemas.connections import ConnectionSettings
from tests.faults.broker_load import Load
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.chaos_proxy import ChaosProxy, CutAnswers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
FOREVER = 100 * 365 * 86400.0
"""Records of the load are from 1970."""


@asynccontextmanager
async def opened(address: str, **options: float | bool) -> AsyncIterator[KafkaLog]:
    connection = Connection(ConnectionSettings(name="test", kind="kafka", address=tuple(address.split(","))))
    defaults: dict[str, float | bool] = {"shards": 3, "replication": 1, "retention_age": FOREVER, "checked": False}
    log = await open_kafka_log(connection, node="n", epoch=1, options=KafkaLogOptions(prefix=f"{unique('log')}-", **{**defaults, **options}))  # type: ignore[arg-type]
    try:
        yield log
    finally:
        await log.close()


async def test_a_broker_that_is_killed_and_comes_back(mortal_kafka: Kafka) -> None:
    async with opened(mortal_kafka.address) as log:
        load = Load(log)
        for _ in range(2):
            await load.flows_again(10)
            await asyncio.to_thread(mortal_kafka.kill)
            await asyncio.sleep(1)
            assert log.pressure().stalled_since
            await asyncio.to_thread(mortal_kafka.restart)
            await load.flows_again(30)
        await load.finish()
        assert not load.errors


async def test_a_broker_that_stands_still_for_ten_seconds(mortal_kafka: Kafka) -> None:
    """Requests lie in its buffers meanwhile, and are served when it goes on: after they were given up and sent again."""
    async with opened(mortal_kafka.address, deliver_within=4.0) as log:
        load = Load(log)
        await load.flows_again(10)
        mortal_kafka.freeze()
        await asyncio.sleep(10)
        mortal_kafka.thaw()
        await load.flows_again(30)
        await load.finish()
        assert log.producers.replaced
        assert not load.errors


async def test_answers_that_are_cut_after_the_append(kafka: Kafka) -> None:
    """F7: the broker has the frame and we don't know. Sent again by the same producer, or by another one that Kafka knows nothing of."""
    ports = kafka.node.ports
    async with ChaosProxy("127.0.0.1", ports.proxied, at=ports.proxy) as proxy, opened(f"127.0.0.1:{ports.proxied}", deliver_within=1.0) as log:
        load = Load(log)
        for _ in range(5):
            await load.flows_again(10)
            cut = CutAnswers()
            proxy.add(cut, "down")
            await asyncio.sleep(1.5)
            proxy.remove(cut, "down")
            proxy.cut_all()
        await load.flows_again(30)
        await load.finish()
        assert log.producers.replaced
        assert not load.errors


async def test_a_shard_that_is_stuck_refuses_what_waits_and_keeps_what_was_sent(mortal_kafka: Kafka) -> None:
    async with opened(mortal_kafka.address, refuse_after=1.0) as log:
        load = Load(log)
        await load.flows_again(10)
        mortal_kafka.freeze()
        await asyncio.sleep(3)
        assert load.errors
        assert log.pressure().records, "frames on their way are pending still"
        mortal_kafka.thaw()
        await load.flows_again(30)
        await load.finish()
        assert all(error.startswith("Kafka has not answered for 1 s") for error in load.errors)


async def test_a_close_while_kafka_is_away_tells_every_record(mortal_kafka: Kafka) -> None:
    async with opened(mortal_kafka.address, close_within=0.5) as log:
        load = Load(log)
        await load.flows_again(10)
        mortal_kafka.freeze()
        await asyncio.sleep(0.2)
        load._tasks[0].cancel()
        async with asyncio.timeout(20):
            await log.close()
        assert load.told == load.sent
        assert any("may be in the log all the same" in error for error in load.errors)
        mortal_kafka.thaw()


async def test_the_loss_of_leaders_among_three(three_kafkas: Kafka) -> None:
    async with opened(three_kafkas.address, replication=3, checked=True) as log:
        assert not log.weaknesses
        load = Load(log)
        for node in three_kafkas.nodes[:2]:
            await load.flows_again(10)
            await asyncio.to_thread(node.kill)
            await load.flows_again(20)
            await asyncio.to_thread(node.start)
        await load.flows_again(20)
        await load.finish()
        assert not load.errors


async def test_a_shard_without_a_leader_holds_up_no_other(three_kafkas: Kafka) -> None:
    """Unreplicated shards, one on each node; one node goes and comes back."""
    async with opened(three_kafkas.address, replication=1, deliver_within=3.0) as log:
        load = Load(log)
        await load.flows_again(10)
        await asyncio.to_thread(three_kafkas.nodes[0].kill)
        await asyncio.sleep(8)
        for _ in range(5):
            await load.flows_again(5)
        assert log.pressure().stalled_since
        await asyncio.to_thread(three_kafkas.nodes[0].start)
        await asyncio.sleep(1)
        async with asyncio.timeout(40):
            while log.pressure().stalled_since:
                await asyncio.sleep(0.05)
        await load.finish()
        assert not load.errors


async def test_a_reader_whose_broker_is_stopped_goes_on(mortal_kafka: Kafka) -> None:
    """Signals by hand, many and short: no reader dies, none repeats."""
    async with opened(mortal_kafka.address) as log:
        load = Load(log)
        for _ in range(5):
            await load.flows_again(10)
            mortal_kafka.node.signal(signal.SIGSTOP)
            await asyncio.sleep(0.4)
            mortal_kafka.node.signal(signal.SIGCONT)
        await load.finish()
