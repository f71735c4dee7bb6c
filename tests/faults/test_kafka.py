"""Kafka that dies, hangs, answers into the void and has no leader: what was acknowledged is there, in order, and it goes on by itself.

The sender is what a rule is: one batch at a time, sent again for as long as it fails. Repeats are allowed, gaps and reorderings aren't.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridges.kafka.backend import KafkaBackend
from schemas.errors import BackendError
from streams.backend import Backend, Incoming, Outgoing, Source, Target
from tests.contract.backend_drivers import kafka_settings
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.chaos_proxy import ChaosProxy, CutAnswers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
BATCH = 20
LANES = 4
FAIL_WITHIN = 10.0
"""Seconds that the port allows."""
RESUME_WITHIN = 15.0


class Traffic:
    """A sender and a receiver with retries, and what became of it all."""

    def __init__(self, backend: Backend, topic: str) -> None:
        self.topic = topic
        self.target: Target = backend.target("rule", ordered=True)
        self.source: Source = backend.source("rule", topic, {})
        self.acknowledged = 0
        self.slowest_failure = 0.0
        self.failures = 0
        self.got: list[Incoming] = []
        self.tasks = [asyncio.ensure_future(self.send()), asyncio.ensure_future(self.receive())]

    def batch(self) -> list[Outgoing]:
        numbers = range(self.acknowledged, self.acknowledged + BATCH)
        return [Outgoing(self.topic, b"%d" % number, (), f"{number:032X}", 1, lane=f"lane {number % LANES}") for number in numbers]

    async def send(self) -> None:
        while True:
            if await self._attempt(lambda: self.target.send(self.batch())):
                self.acknowledged += BATCH

    async def receive(self) -> None:
        async def some() -> None:
            self.got += await self.source.next(1000, 1 << 20)

        while True:
            await self._attempt(some)

    async def _attempt(self, call: Callable[[], Awaitable[object]]) -> bool:
        begun = time.monotonic()
        try:
            await call()
        except BackendError as error:
            assert error.retryable
            self.failures += 1
            self.slowest_failure = max(self.slowest_failure, time.monotonic() - begun)
            await asyncio.sleep(0.05)
            return False
        return True

    async def until(self, more: int, within: float = RESUME_WITHIN) -> None:
        """So many more are acknowledged, and received."""
        wanted = self.acknowledged + more
        async with asyncio.timeout(within):
            while self.acknowledged < wanted or len(self.got) < wanted:
                await asyncio.sleep(0.01)
                for task in self.tasks:
                    if task.done():
                        task.result()

    async def failure(self, within: float = FAIL_WITHIN) -> None:
        """One call at least has failed."""
        async with asyncio.timeout(within):
            while not self.failures:
                await asyncio.sleep(0.01)

    async def complete(self) -> None:
        """Nothing more is sent, and all that was acknowledged has come."""
        deadline = time.monotonic() + RESUME_WITHIN
        while missing := {f"{number:032X}" for number in range(self.acknowledged)} - {message.id for message in self.got}:
            assert time.monotonic() < deadline, f"missing: {sorted(int(each, 16) for each in missing)}; ends {await self.source.ends()}"
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """All that was acknowledged, each lane's first copies in order; a repeated batch follows what it repeats."""
        newest = [-1] * LANES
        for message in self.got:
            number = int(message.id, 16)
            lane = number % LANES
            if number > newest[lane]:
                assert number == (newest[lane] + LANES if newest[lane] >= 0 else lane), f"{number} after {newest[lane]}"
                newest[lane] = number
            else:
                assert number > newest[lane] - BATCH, f"{number} comes again after {newest[lane]}"
        assert min(newest) >= self.acknowledged - LANES


@asynccontextmanager
async def traffic(address: str) -> AsyncIterator[Traffic]:
    backend = KafkaBackend(kafka_settings(*address.split(",")))
    topic = unique("faults")
    await backend.create_topic(topic, 3)
    running = Traffic(backend, topic)
    try:
        yield running
        running.tasks[0].cancel()
        await running.complete()
        running.check()
    finally:
        for task in running.tasks:
            task.cancel()
        await asyncio.gather(*running.tasks, return_exceptions=True)
        await backend.close()


async def test_a_killed_broker_that_comes_back(mortal_kafka: Kafka) -> None:
    async with traffic(mortal_kafka.address) as running:
        await running.until(200)
        mortal_kafka.kill()
        await running.failure()
        await asyncio.to_thread(mortal_kafka.restart)
        await running.until(200)
        assert running.slowest_failure < FAIL_WITHIN


async def test_a_broker_that_hangs_for_ten_seconds_and_then_has_no_leader(mortal_kafka: Kafka) -> None:
    """Longer than its session with the controller, so that it comes back fenced, and its partitions lead again a while later."""
    async with traffic(mortal_kafka.address) as running:
        await running.until(200)
        mortal_kafka.freeze()
        await asyncio.sleep(10.0)
        mortal_kafka.thaw()
        assert running.failures
        await running.until(200)
        assert running.slowest_failure < FAIL_WITHIN


async def test_a_lost_answer_is_asked_for_again_without_a_repeat(mortal_kafka: Kafka) -> None:
    ports = mortal_kafka.node.ports
    async with ChaosProxy("127.0.0.1", ports.proxied, at=ports.proxy) as proxy, traffic(f"127.0.0.1:{ports.proxy}") as running:
        await running.until(100)
        for _ in range(3):
            proxy.add(cut := CutAnswers(), "down")
            while proxy.connections:
                await asyncio.sleep(0.001)
            proxy.remove(cut, "down")
            await running.until(100)
        ids = [message.id for message in running.got]
        assert running.failures or len(ids) == len(set(ids))


async def test_answers_that_stay_away_are_an_error_in_time_and_then_repeats(mortal_kafka: Kafka) -> None:
    ports = mortal_kafka.node.ports
    async with ChaosProxy("127.0.0.1", ports.proxied, at=ports.proxy) as proxy, traffic(f"127.0.0.1:{ports.proxy}") as running:
        await running.until(100)
        acknowledged = running.acknowledged
        proxy.add(cut := CutAnswers(), "down")
        await running.failure()
        assert running.acknowledged <= acknowledged + BATCH
        proxy.remove(cut, "down")
        await running.until(100)
        assert running.slowest_failure < FAIL_WITHIN


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Kafka]:
    """Three nodes, so that the other two say that the third is gone; a partition on one node each."""
    cluster = Kafka(tmp_path / "cluster", nodes=3, settings={"default.replication.factor": "1"})
    try:
        yield cluster.start()
    finally:
        cluster.kill()


async def test_partitions_without_a_leader(cluster: Kafka) -> None:
    """The brokers answer, and say that nobody leads: it is waited for in the call for a while, then told, and goes on by itself."""
    async with other_partitions(cluster.address) as anywhere, traffic(cluster.address) as running:
        await running.until(200)
        cluster.nodes[2].kill()
        await running.failure(30.0)
        await anywhere(6)
        await asyncio.to_thread(cluster.nodes[2].start)
        await running.until(200)
        assert running.slowest_failure < FAIL_WITHIN


@asynccontextmanager
async def other_partitions(address: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """A sender without lanes, which may take any partition. It has to get so many calls in a row through.

    The brokers name a dead leader until its session with the controller ends: up to then a call may still be told that it failed.
    """
    backend, topic = KafkaBackend(kafka_settings(*address.split(","))), unique("faults")
    await backend.create_topic(topic, 3)
    target = backend.target("rule", ordered=False)

    async def in_a_row(calls: int) -> None:
        through = 0
        async with asyncio.timeout(30.0):
            while through < calls:
                try:
                    assert list(await target.send([Outgoing(topic, b"", (), f"{through:032X}", 1)])) == []
                    through += 1
                except BackendError as error:
                    assert error.retryable
                    through = 0

    try:
        yield in_a_row
    finally:
        await backend.close()
