"""The reference of the port of the log: several shards in memory, and as adversarial as a log may be.

An ``Adversary`` decides the fate of each group: where it is split, how late it is told, whether it is refused, and whether
it lies in the log twice because the first answer was a "maybe". Everything runs on the loop that is passed in; there is no
clock, no chance and no thread here. What it promises, bridges/local and every other log promise too (tests/contract).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Protocol
from zlib import crc32

import msgspec

from schemas.errors import LogDamaged, LogError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Frame, Record
from streams.log import Batch, Pressure, Sink, Start

FRAME_RECORDS: Final = 4096
"""Most records of a frame."""
PENDING_RECORDS: Final = 1_000_000
"""Records that wait to be stored; more are refused."""
_VERSION: Final = 1


class Waiter(Awaitable[None], Protocol):
    """What the loop's ``create_future`` makes."""

    def set_result(self, result: None, /) -> None: ...

    def done(self) -> bool: ...

    def cancel(self) -> bool: ...


class Loop(Protocol):
    """What is used of asyncio's loop."""

    def call_soon(self, call: Callable[[], object], /) -> object: ...

    def create_future(self) -> Waiter: ...


class Fate(msgspec.Struct, frozen=True):
    """What becomes of a group: how many of its first records stay together, the rest meet their fate later."""

    take: int = FRAME_RECORDS
    rounds: int = 0
    """Rounds of the loop until the outcome is told, after those before it in the shard."""
    refused: bool = False
    copies: int = 1
    """2: the frame was stored, the answer was lost, and the repeat was stored too."""


class Adversary(Protocol):
    def fate(self, topic: str, shard: int, waiting: int) -> Fate:
        """Of the ``waiting`` records at the head of a shard."""


class Kind(Adversary):
    """Whole groups, told in the next round of the loop."""

    def fate(self, topic: str, shard: int, waiting: int) -> Fate:
        return Fate()


class Seeded(Adversary):
    """Draws fates from ``draw``, numbers in [0, 1) such as ``random.Random(seed).random``. ``refuse`` and ``repeat`` are chances."""

    def __init__(self, draw: Callable[[], float], *, refuse: float = 0.0, repeat: float = 0.2, rounds: int = 3) -> None:
        self._draw = draw
        self._refuse = refuse
        self._repeat = repeat
        self._rounds = rounds

    def fate(self, topic: str, shard: int, waiting: int) -> Fate:
        draw = self._draw
        return Fate(
            take=1 + int(draw() * waiting),
            rounds=int(draw() * (self._rounds + 1)),
            refused=draw() < self._refuse,
            copies=2 if draw() < self._repeat else 1,
        )


class Shard:
    """Frames of one shard of one topic; offsets are record numbers, and need not begin at 0."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.offsets: list[int] = []
        self.end = 0
        self.times: list[int] = []
        self.waiting: deque[tuple[Record, Sink]] = deque()
        self.busy = False

    @property
    def first(self) -> int:
        return self.offsets[0] if self.offsets else self.end

    def add(self, frame: Frame) -> int:
        """Store it; the offset it lies at."""
        offset = self.end
        self.frames.append(frame)
        self.offsets.append(offset)
        self.times.append(max(frame.records[-1].time, self.times[-1] if self.times else 0))
        self.end += len(frame.records)
        return offset

    def find(self, number: int) -> int:
        """The index of the frame that holds record ``number``, or the oldest."""
        return max(0, bisect_right(self.offsets, number) - 1)


class MemoryReader:
    def __init__(self, log: MemoryLog, topic: str, places: dict[int, int]) -> None:
        self.places = places
        self.released = dict(places)
        self._log = log
        self._topic = topic
        self._had: dict[tuple[int, str], tuple[int, int]] = {}
        """By shard and node the newest (epoch, sequence); the frame before the start counts, its repeat may follow."""
        for number, place in places.items():
            shard = log.shards[topic][number]
            if place > shard.first:
                before = shard.frames[shard.find(place - 1)]
                self._had[number, before.node] = (before.epoch, before.sequence)
        self._turn = 0
        self._closed = False
        self._waiter: Waiter | None = None

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """As the port says; shards take turns."""
        while True:
            if self._closed:
                raise LogError("the reader of the log is closed")
            order = sorted(self.places)
            self._turn += 1
            for step in range(len(order)):
                batch = self._take(order[(self._turn + step) % len(order)], max_records, max_bytes)
                if batch is not None:
                    return batch
            self._waiter = self._log.loop.create_future()
            await self._waiter

    def _take(self, number: int, max_records: int, max_bytes: int) -> Batch | None:
        shard = self._log.shards[self._topic][number]
        if (place := max(self.places[number], shard.first)) < shard.end:
            found = shard.find(place)
            frame, offset = shard.frames[found], shard.offsets[found]
            writer, written = (number, frame.node), (frame.epoch, frame.sequence)
            if place == offset and self._had.get(writer, (-1, -1)) >= written:
                self.places[number] = following = offset + len(frame.records)
                return Batch(At(number, offset, 0), (), At(number, following, 0))
            self._had[writer] = written
            records = frame.records[place - offset :][:max_records]
            fitting = sum(1 for size in accumulate(len(record.payload) for record in records) if size <= max_bytes)
            records = records[: max(1, fitting)]
            self.places[number] = place = place + len(records)
            behind = At(number, place, 0) if place == offset + len(frame.records) else None
            return Batch(At(number, offset, place - offset - len(records)), records, behind)
        return None

    def lag(self) -> int:
        """As the port says."""
        shards = self._log.shards[self._topic]
        return sum(shards[number].end - max(place, shards[number].first) for number, place in self.places.items())

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def release(self, upto: At) -> None:
        """As the port says."""
        self.released[upto.shard] = max(self.released[upto.shard], upto.offset + upto.index)

    def close(self) -> None:
        """As the port says."""
        self._closed = True
        self._log.readers.discard(self)
        if self._waiter is not None:
            self._waiter.cancel()


class MemoryLog:
    """A second log made with the ``shards`` of the first is a restart, under a higher ``epoch``."""

    def __init__(
        self,
        loop: Loop,
        *,
        adversary: Adversary | None = None,
        shards: int | Mapping[str, Sequence[Shard]] = 4,
        node: str = "memory",
        epoch: int = 1,
    ) -> None:
        self.loop = loop
        self.readers: set[MemoryReader] = set()
        topics = (PUBLISH_TOPIC, PRESENCE_TOPIC)
        self.shards: Mapping[str, Sequence[Shard]]
        self.shards = {topic: [Shard() for _ in range(shards)] for topic in topics} if isinstance(shards, int) else shards
        self._adversary = adversary or Kind()
        self._node = node
        self._epoch = epoch
        self._sequence = 0
        self._pending = 0
        self._bytes = 0
        self._drained: Waiter | None = None
        self._closed = False

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """As the port says; a key has its shard."""
        if self._closed or self._pending >= PENDING_RECORDS:
            error = LogError("the log is closed" if self._closed else "the log has more records waiting than its limit")
            self.loop.call_soon(lambda: sink.refused([record], error))
            return
        number = crc32(key.encode()) % len(self.shards[topic])
        shard = self.shards[topic][number]
        shard.waiting.append((record, sink))
        self._pending += 1
        self._bytes += len(record.payload)
        if not shard.busy:
            shard.busy = True
            self.loop.call_soon(lambda: self._work(topic, number))

    def _work(self, topic: str, number: int) -> None:
        """Meet the fate of the records at the head of a shard."""
        shard = self.shards[topic][number]
        fate = self._adversary.fate(topic, number, len(shard.waiting))
        group = [shard.waiting.popleft() for _ in range(min(fate.take, FRAME_RECORDS, len(shard.waiting)))]
        offset = -1
        if not fate.refused:
            frame = Frame(_VERSION, self._node, self._epoch, self._sequence, [record for record, _ in group])
            self._sequence += 1
            for _ in range(fate.copies):
                offset = shard.add(frame)
        self._tell_later(topic, number, group, offset, fate.rounds)

    def _tell_later(self, topic: str, number: int, group: list[tuple[Record, Sink]], offset: int, rounds: int) -> None:
        if rounds:
            self.loop.call_soon(lambda: self._tell_later(topic, number, group, offset, rounds - 1))
            return
        self._pending -= len(group)
        self._bytes -= sum(len(record.payload) for record, _ in group)
        start = 0
        for index in range(1, len(group) + 1):
            if index == len(group) or group[index][1] is not group[start][1]:
                self._tell(group[start][1], [record for record, _ in group[start:index]], number, offset, start)
                start = index
        for reader in list(self.readers):
            reader.wake()
        shard = self.shards[topic][number]
        if shard.waiting:
            self.loop.call_soon(lambda: self._work(topic, number))
        else:
            shard.busy = False
        if self._drained is not None and not self._pending and not self._drained.done():
            self._drained.set_result(None)

    def _tell(self, sink: Sink, records: list[Record], shard: int, offset: int, index: int) -> None:
        if offset < 0:
            sink.refused(records, LogError("the adversary refused the record"))
        else:
            sink.appended(records, At(shard, offset, index))

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> MemoryReader:
        """As the port says."""
        numbers = range(len(self.shards[topic])) if shards is None else shards
        reader = MemoryReader(self, topic, {number: self._start(topic, number, start) for number in numbers})
        self.readers.add(reader)
        return reader

    def _start(self, topic: str, number: int, start: Start) -> int:
        shard = self.shards[topic][number]
        if start == "latest":
            return shard.end
        if start == "earliest":
            return shard.first
        if isinstance(start, int):
            for offset, newest, frame in zip(shard.offsets, shard.times, shard.frames, strict=True):
                if newest >= start:
                    return offset + next((index for index, record in enumerate(frame.records) if record.time >= start), 0)
            return shard.end
        at = start.get(number)
        place = shard.first if at is None else max(shard.first, at.offset + at.index)
        if place > shard.end:
            raise LogDamaged(f"the log ends at record {shard.end} of shard {number} of topic {topic}, a position says {place}")
        return place

    def forget(self, topic: str, number: int, upto: int) -> None:
        """Retention: whole frames before record ``upto``, as far as readers have released them."""
        shard = self.shards[topic][number]
        held = min((reader.released.get(number, shard.end) for reader in self.readers), default=shard.end)
        keep = bisect_right(shard.offsets, min(upto, held)) - 1 if min(upto, held) < shard.end else len(shard.offsets)
        if keep > 0:
            del shard.frames[:keep], shard.offsets[:keep], shard.times[:keep]

    def place(self, at: At) -> int:
        """As the port says: the record's number."""
        return at.offset + at.index

    async def ends(self, topic: str) -> Mapping[int, tuple[At, At]]:
        """As the port says."""
        return {number: (At(number, shard.first, 0), At(number, shard.end, 0)) for number, shard in enumerate(self.shards[topic])}

    def pressure(self) -> Pressure:
        """As the port says; memory never stalls."""
        return Pressure(self._pending, self._bytes, 0.0)

    async def close(self) -> None:
        """As the port says."""
        self._closed = True
        if self._pending:
            self._drained = self.loop.create_future()
            await self._drained
        for reader in list(self.readers):
            reader.close()
