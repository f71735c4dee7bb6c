"""A load on a log, in this process, and what is to be true of it whatever happened: told once, in order, read once, nothing lost.

A reader follows all the time; at the end another one reads from the beginning. Both must have what was told durable, each record once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Kind, Record
from streams.log import Log, Reader

KEYS = tuple(f"client-{number}" for number in range(8))
BURST = 20
"""Records at a time, every PAUSE seconds."""
PAUSE = 0.004
BIG = 1 << 20


class Load:
    """Records are numbered by key, in their packet ids; ids are unique. Of several nodes' logs over the same topics each writes some of the keys,
    the first one's reader follows, and the last one's reads at the end.
    """

    def __init__(self, log: Log, *others: Log) -> None:
        self.logs = (log, *others)
        self.durable: dict[str, list[int]] = defaultdict(list)
        self.refused: dict[str, list[int]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.read: dict[str, list[int]] = defaultdict(list)
        self.appended_at = 0.0
        """When the newest outcome was told, by the loop's clock."""
        self._next = dict.fromkeys(KEYS, 0)
        self._reader = log.open(PUBLISH_TOPIC, "earliest")
        self._tasks = [asyncio.ensure_future(self._write()), asyncio.ensure_future(self._follow(self._reader, self.read))]

    @property
    def sent(self) -> int:
        return sum(self._next.values())

    @property
    def told(self) -> int:
        return sum(map(len, self.durable.values())) + sum(map(len, self.refused.values()))

    def appended(self, records: Sequence[Record], first: At) -> None:
        self.appended_at = asyncio.get_running_loop().time()
        for record in records:
            self.durable[record.client].append(record.packet_id)

    def refused_(self, records: Sequence[Record], error: LogError) -> None:
        self.errors[str(error)] += len(records)
        for record in records:
            self.refused[record.client].append(record.packet_id)

    async def _write(self) -> None:
        turn = 0
        sink = _Sink(self)
        while True:
            for _ in range(BURST):
                turn += 1
                key = KEYS[turn % len(KEYS)]
                number = self._next[key]
                self._next[key] += 1
                record = Record(Kind.PUBLISH, turn.to_bytes(16, "big"), turn, key, "t/x", bytes(64), 1, packet_id=number)
                self.logs[turn % len(KEYS) % len(self.logs)].append(PUBLISH_TOPIC, key, record, sink)
            await asyncio.sleep(PAUSE)

    async def _follow(self, reader: Reader, into: dict[str, list[int]]) -> None:
        while True:
            for record in (await reader.next(BIG, BIG)).records:
                into[record.client].append(record.packet_id)

    async def flows_again(self, within: float) -> None:
        """Until something that is appended from now on is durable."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        async with asyncio.timeout(within):
            while self.appended_at <= since:
                await asyncio.sleep(0.01)

    async def finish(self, within: float = 60.0) -> None:
        """Stop writing, wait for all outcomes, and check everything."""
        writing, following = self._tasks
        writing.cancel()
        async with asyncio.timeout(within):
            while self.told < self.sent:
                await asyncio.sleep(0.01)
        again: dict[str, list[int]] = defaultdict(list)
        reader = self.logs[-1].open(PUBLISH_TOPIC, "earliest")
        following_again = asyncio.ensure_future(self._follow(reader, again))
        try:
            for into in (self.read, again):
                async with asyncio.timeout(within):
                    while sum(map(len, into.values())) < sum(map(len, self.durable.values())):
                        await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # what must not come would come now
        finally:
            following.cancel()
            following_again.cancel()
            reader.close()
        self.check(again)

    def check(self, again: dict[str, list[int]]) -> None:
        for key in KEYS:
            outcomes = sorted(self.durable[key] + self.refused[key])
            assert outcomes == list(range(self._next[key])), "each record is told once"
            assert self.durable[key] == sorted(self.durable[key]), "outcomes come in order"
            assert self.read[key] == self.durable[key], "a reader that followed has what is durable, once and in order"
            assert again[key] == self.durable[key], "and so has one that comes later"


class _Sink:
    def __init__(self, load: Load) -> None:
        self.appended = load.appended
        self.refused = load.refused_
