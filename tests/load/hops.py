"""What a router between the log and the nodes would cost a message: ``python -m tests.load.hops [--only NAME]``.

Each node reads ``publish`` itself, so that a message is with its device's node after one way through the log. A router would read it and write it
once more, for that node. Both are gone here with the project's own logs: times are a message's, from being appended to being handed out, processor
time is that of this process and of the broker's. Client and broker share the machine. Nothing here has a goal.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record
from streams.log import Log, Reader
from tests.contract.log_drivers import Driver, KafkaDriver, RocketmqDriver
from tests.contract.log_traffic import BIG, record
from tests.load.broker import processor_seconds
from tests.support.brokers import guard
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import V5, RocketMQ
from tests.support.process import Process

RATES = {"at 100/s": 100, "at 2,000/s": 2_000}
SECONDS = 5.0
DOWNLINK = PRESENCE_TOPIC
"""Any topic beside ``publish``."""


class _Deaf:
    def appended(self, records: Sequence[Record], first: At) -> None:
        return

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        raise error


async def _pass_on(log: Log, reader: Reader, sink: _Deaf) -> None:
    """The router."""
    while True:
        for each in (await reader.next(BIG, BIG)).records:
            log.append(DOWNLINK, each.client, each, sink)


async def _take(reader: Reader, began: dict[bytes, float], took: list[float]) -> None:
    while True:
        batch = await reader.next(BIG, BIG)
        now = time.perf_counter()
        took += [now - began[each.id] for each in batch.records]


async def run(log: Log, ways: int, rate: int) -> list[float]:
    """Seconds of each message."""
    began: dict[bytes, float] = {}
    took: list[float] = []
    sink, last = _Deaf(), PUBLISH_TOPIC if ways == 1 else DOWNLINK
    readers = [log.open(last, "latest")]
    tasks = [asyncio.create_task(_take(readers[0], began, took))]
    if ways == 2:
        readers.append(log.open(PUBLISH_TOPIC, "latest"))
        tasks.append(asyncio.create_task(_pass_on(log, readers[1], sink)))
    await asyncio.sleep(1.0)
    count, start = int(rate * SECONDS), time.perf_counter()
    for number in range(count):
        while (wait := start + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        each = record(number, f"k{number % 50}", 64)
        began[each.id] = time.perf_counter()
        log.append(PUBLISH_TOPIC, each.client, each, sink)
    async with asyncio.timeout(20):
        while len(took) < count:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    for reader in readers:
        reader.close()
    return took


async def measure(name: str, driver: Driver, brokers: Sequence[Process]) -> None:
    log = await driver.start()
    own = psutil.Process(os.getpid())
    await run(log, 2, 500)  # warms the broker up
    for words, rate in RATES.items():
        found = []
        for ways in (1, 2):
            before = sum(own.cpu_times()[:2]), sum(processor_seconds(broker) for broker in brokers)
            took = await run(log, ways, rate)
            after = sum(own.cpu_times()[:2]), sum(processor_seconds(broker) for broker in brokers)
            spent = [(end - start) / len(took) * 1e6 for start, end in zip(before, after, strict=True)]
            found.append((statistics.median(took) * 1_000, *spent))
        one, two = (f"p50 {p50:.2f} ms, {here:.0f} + {there:.0f} us" for p50, here, there in found)
        print(f"{name:9} {words:11} one way {one}; two ways {two}; {found[1][0] / found[0][0]:.2f} times as long", flush=True)
    await log.close()


def _kafka(folder: Path) -> tuple[Driver, Sequence[Process]]:
    broker = Kafka(folder, measured=True).start()
    return KafkaDriver(broker.address, "hops-", shards=6), list(broker.nodes)


def _rocketmq(folder: Path) -> tuple[Driver, Sequence[Process]]:
    broker = RocketMQ(folder, V5, settings={"flushDiskType": "SYNC_FLUSH"}, measured=True).start()
    return RocketmqDriver(broker.address, "hops-", shards=6), list(broker.brokers)


LOGS: dict[str, Callable[[Path], tuple[Driver, Sequence[Process]]]] = {"kafka": _kafka, "rocketmq": _rocketmq}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load.hops", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=LOGS, help="the log to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in [arguments.only] if arguments.only else LOGS:
            (folder := Path(scratch) / name).mkdir()
            try:
                asyncio.run(measure(name, *LOGS[name](folder)))
            finally:
                guard.dismiss()


if __name__ == "__main__":
    main()
