"""RocketMQ's processes are killed and stopped while a target sends and a source receives: nothing that was acknowledged is missing, lanes keep their
order, and both go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridges.rocketmq.backend import RocketmqBackend
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError
from streams.backend import Incoming, Outgoing, Source, Target
from tests.support.brokers.fixtures import unique
from tests.support.brokers.java import Jvm
from tests.support.brokers.rocketmq import V4, RocketMQ

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LANES = 16
BATCH = 64
HEALED_WITHIN = 60.0
RESUMES_WITHIN = 15.0
"""Seconds after the port answers."""


class Traffic:
    """Sends numbers, each batch again until it is acknowledged, as a rule's runner does; and receives them."""

    def __init__(self, target: Target, source: Source, topic: str, *, lanes: bool = True) -> None:
        self._target, self._source, self._topic, self._lanes = target, source, topic, lanes
        self._stop = asyncio.Event()
        self.acknowledged = 0
        self.last = time.monotonic()
        self.longest = 0.0
        """Seconds between two acknowledged batches, the longest."""
        self.received: list[Incoming] = []
        self._sending = asyncio.create_task(self._send())
        self._receiving = asyncio.create_task(self._receive())

    async def _send(self) -> None:
        while not self._stop.is_set():
            numbers = range(self.acknowledged, self.acknowledged + BATCH)
            lanes = {n: f"lane {n % LANES}" if self._lanes else None for n in numbers}
            messages = [Outgoing(self._topic, b"%d" % n, (), f"{n:032X}", int(time.time() * 1000), lane=lanes[n]) for n in numbers]
            while True:
                started = time.monotonic()
                try:
                    assert await self._target.send(messages) == []
                except BackendError as error:
                    assert error.retryable, error
                    assert time.monotonic() - started < 10, "a failure was waited out"
                    await asyncio.sleep(0.05)
                else:
                    break
            now = time.monotonic()
            self.longest, self.last = max(self.longest, now - self.last), now
            self.acknowledged += BATCH
            await asyncio.sleep(0.005)

    async def _receive(self) -> None:
        while True:
            try:
                self.received += await self._source.next(1000, 1 << 20)
            except BackendError as error:
                assert error.retryable, error
                await asyncio.sleep(0.05)

    async def goes_on(self, batches: int = 5) -> None:
        """So many more are acknowledged."""
        wanted = self.acknowledged + batches * BATCH
        async with asyncio.timeout(RESUMES_WITHIN):
            while self.acknowledged < wanted:
                assert not self._sending.done(), self._sending.result()
                await asyncio.sleep(0.01)

    async def check(self) -> None:
        """Stop sending; all has to come, in order once repeats are left out, and each queue's offsets without a hole."""
        self._stop.set()
        await self._sending
        async with asyncio.timeout(RESUMES_WITHIN + 20):
            while len({message.body for message in self.received}) < self.acknowledged:
                assert not self._receiving.done(), self._receiving.result()
                await asyncio.sleep(0.05)
        self._receiving.cancel()
        first = list(dict.fromkeys(int(message.body) for message in self.received))
        for lane in range(LANES if self._lanes else 0):
            mine = [number for number in first if number % LANES == lane]
            assert mine == sorted(mine)
        for _, messages in itertools.groupby(sorted(self.received, key=lambda each: (each.queue, each.offset)), key=lambda each: each.queue):
            offsets = [message.offset for message in messages]
            assert offsets == list(range(len(offsets)))


async def begin(broker: RocketMQ) -> tuple[RocketmqBackend, Traffic]:
    backend = RocketmqBackend(ConnectionSettings(name="main", kind="rocketmq", address=(broker.address,)))
    topic, rule = unique("fault"), unique("rule")
    # A broker that has just started, or whose name server has, is registered a while later.
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(BackendError):
                await backend.create_topic(topic, 4)
                break
            await asyncio.sleep(0.2)
    traffic = Traffic(backend.target(rule, ordered=True), backend.source(rule, topic, {}), topic)
    await traffic.goes_on(20)
    return backend, traffic


@pytest.fixture(params=["mortal_rocketmq", "mortal_rocketmq4"])
def broker(request: pytest.FixtureRequest) -> RocketMQ:
    found: RocketMQ = request.getfixturevalue(request.param)
    return found


async def test_a_broker_that_is_killed(broker: RocketMQ) -> None:
    backend, traffic = await begin(broker)
    for _ in range(2):
        await asyncio.sleep(random.random() * 0.3)
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(0.5)
        assert backend.trouble
        await asyncio.to_thread(broker.restart)
        await traffic.goes_on()
    await traffic.check()
    assert backend.trouble == ""
    await backend.close()


async def test_a_broker_that_stands_still(broker: RocketMQ) -> None:
    backend, traffic = await begin(broker)
    broker.freeze()
    await asyncio.sleep(5)
    before = traffic.acknowledged
    assert backend.trouble
    broker.thaw()
    await traffic.goes_on()
    assert traffic.acknowledged > before
    await traffic.check()
    await backend.close()


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_a_name_server_that_is_away_is_not_noticed(broker: RocketMQ, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridges.rocketmq.client.REFRESH_EVERY", 0.5)
    backend, traffic = await begin(broker)
    assert broker.namesrv is not None
    traffic.longest = 0.0
    if fault == "killed":
        await asyncio.to_thread(broker.namesrv.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(broker.namesrv.start)
    else:
        broker.namesrv.signal(signal.SIGSTOP)
        await asyncio.sleep(5)
        broker.namesrv.signal(signal.SIGCONT)
    await asyncio.sleep(1)
    assert traffic.longest < 2
    await traffic.goes_on()
    await traffic.check()
    await asyncio.to_thread(broker.until_registered)
    await backend.close()


async def test_another_broker_takes_what_may_go_anywhere(tmp_path: Path) -> None:
    """And both sync, which the connection demands."""
    cluster = await asyncio.to_thread(RocketMQ(tmp_path, V4, brokers=2, settings={"flushDiskType": "SYNC_FLUSH"}).start)
    backend = RocketmqBackend(ConnectionSettings(name="main", kind="rocketmq", address=(cluster.address,), durability="checked"))
    try:
        await backend.create_topic("T", 4)
        described = await backend.describe("T")
        assert described is not None
        assert described.queues == 4
        traffic = Traffic(backend.target("rule", ordered=False), backend.source("rule", "T", {}), "T", lanes=False)
        await traffic.goes_on(20)
        for hurt, heal in (("kill", "start"), ("stop", "continue")):
            traffic.longest = 0.0
            await asyncio.to_thread(HARMS[hurt], cluster.brokers[1])
            await traffic.goes_on(100)
            assert traffic.longest < 8
            await asyncio.to_thread(HARMS[heal], cluster.brokers[1])
        async with asyncio.timeout(HEALED_WITHIN):
            while backend.trouble:
                await traffic.goes_on(20)
        await traffic.check()
        assert {message.queue.partition(":")[0] for message in traffic.received} == {"broker-a", "broker-b"}
    finally:
        await backend.close()
        for server in (*cluster.brokers, cluster.namesrv):
            assert server is not None
            server.kill()


HARMS: dict[str, Callable[[Jvm], None]] = {
    "kill": Jvm.kill,
    "start": Jvm.start,
    "stop": lambda broker: broker.signal(signal.SIGSTOP),
    "continue": lambda broker: broker.signal(signal.SIGCONT),
}
