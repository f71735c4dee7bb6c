"""What the contract suite of the log appends, hears and reads: numbered records, a sink that finds repeats, readers' helpers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Kind, Record
from streams.log import Batch, Log, Reader

BIG = 1 << 20


def record(number: int, key: str = "k", size: int = 20) -> Record:
    """Number ``number`` of ``key``: its time, and in its packet id."""
    return Record(Kind.PUBLISH, number.to_bytes(16, "big"), 1000 + number, key, f"t/{key}", bytes(size), qos=1, packet_id=number)


class Told:
    """A sink that remembers what it was told, and finds anything told twice."""

    def __init__(self) -> None:
        self.at: dict[bytes, At] = {}
        self.order: dict[str, list[int]] = defaultdict(list)
        self.refusals: dict[bytes, LogError] = {}
        self.calls = 0
        self.inside = False

    def appended(self, records: Sequence[Record], first: At) -> None:
        self._check(records)
        for index, each in enumerate(records):
            assert each.id not in self.at
            self.at[each.id] = At(first.shard, first.offset, first.index + index)
            self.order[each.client].append(each.packet_id)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        self._check(records)
        assert error.retryable
        for each in records:
            assert each.id not in self.refusals
            self.refusals[each.id] = error
            self.order[each.client].append(each.packet_id)

    def _check(self, records: Sequence[Record]) -> None:
        assert records
        assert not self.inside, "told from within append"
        self.calls += 1

    @property
    def count(self) -> int:
        return len(self.at) + len(self.refusals)

    def append(self, log: Log, record: Record, topic: str = PUBLISH_TOPIC) -> None:
        self.inside = True
        log.append(topic, record.client, record, self)
        self.inside = False

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.count < count:
                await asyncio.sleep(0.001)


async def fill(log: Log, numbers: Sequence[int], keys: Sequence[str] = ("a", "b", "c"), topic: str = PUBLISH_TOPIC) -> tuple[Told, list[Record]]:
    """Append a record for each number and wait for all outcomes."""
    told = Told()
    records = [record(number, keys[number % len(keys)]) for number in numbers]
    for place, each in enumerate(records):
        told.append(log, each, topic)
        if place % 5 == 4:
            await asyncio.sleep(0)
    await told.wait(len(records))
    return told, [each for each in records if each.id in told.at]


async def take(reader: Reader, count: int, max_records: int = BIG, max_bytes: int = BIG) -> list[tuple[At, Record]]:
    """The next ``count`` records with their positions."""
    got: list[tuple[At, Record]] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += placed(await reader.next(max_records, max_bytes))
    return got


def placed(batch: Batch) -> list[tuple[At, Record]]:
    first = batch.first
    return [(At(first.shard, first.offset, first.index + index), each) for index, each in enumerate(batch.records)]


def numbers(got: Sequence[tuple[At, Record]], key: str) -> list[int]:
    return [each.packet_id for _, each in got if each.client == key]
