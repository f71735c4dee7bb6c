"""A reader of the log on Kafka: explicit partitions, a consumer of its own, frames decoded as they come.

One task fetches and decodes ahead, ``next`` hands out. A frame that a reader has had (node, epoch, number) is passed over, and so is
any of the same node with a lower number: it was sent again, and its first copy or what came after it is there already. A reader
looks at some frames before its start, so that it knows whose repeats may follow. Failures of Kafka are waited out; what can't be
read, or is gone though a position says it was there, ends the reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bridges.kafka.log_options import KafkaLogOptions
from bridges.kafka.producers import Clients, undisturbed
from schemas.errors import LogDamaged, LogError, SluicewayError
from schemas.positions import At
from schemas.records import FrameError, Record, decode_frame
from streams.log import Batch, Start

_log = logging.getLogger(__name__)

RECORD_OVERHEAD: Final = 64
"""Bytes that a record counts beside its payload, topic and properties."""
EARLIEST: Final = -1
FETCH_FRAMES: Final = 64
AVERAGED: Final = 1024
"""Frames whose size stands for that of the next ones."""


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """What a frame has to hand out, from its record ``base`` on; nothing where it is a repeat."""

    shard: int
    offset: int
    base: int
    records: Sequence[Record]
    size: int


class KafkaReader:
    """One consumer at a time. ``ends`` is the log's own knowledge of the topic's ends, which every fetch renews."""

    def __init__(
        self,
        clients: Clients,
        name: str,
        start: Start,
        shards: Sequence[int],
        ends: dict[int, int],
        options: KafkaLogOptions,
        closed: Callable[[KafkaReader], None],
    ) -> None:
        self._clients = clients
        self._name = name
        self._options = options
        self._ends = ends
        self._closed_by = closed
        self._start = start
        self._tails = {shard: ends[shard] for shard in shards}
        """Where each shard ended when the reader was opened: "latest"."""
        self._places = self._known(start)
        """By shard the next offset and index to fetch; empty until the start is known."""
        self._times: dict[int, int] = {}
        """By shard the time before which records of the first frame are left out."""
        self._had: dict[tuple[int, str], tuple[int, int]] = {}
        self._fetched: deque[Fetched] = deque()
        self._index = 0
        """How much of the first of ``_fetched`` was handed out."""
        self._size = 0
        self._frames = self._records = 0
        self._news: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._failure: SluicewayError | None = None
        self._closed = False
        self._ill = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    # The port

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """As the port says."""
        while not self._fetched:
            if self._closed:
                raise LogError("the reader of the log is closed")
            if self._failure is not None:
                raise self._failure
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        if self._closed:
            raise LogError("the reader of the log is closed")
        return self._cut(max_records, max_bytes)

    def _cut(self, max_records: int, max_bytes: int) -> Batch:
        frame, index = self._fetched[0], self._index
        records = frame.records
        if index or len(records) > max_records:
            records = records[index : index + max_records]
        if frame.size > max_bytes and records:
            sizes = accumulate(len(record.payload) + len(record.topic) + len(record.properties) + RECORD_OVERHEAD for record in records)
            records = records[: max(1, sum(1 for size in sizes if size <= max_bytes))]
        first = At(frame.shard, frame.offset, frame.base + index)
        self._index += len(records)
        if self._index < len(frame.records):
            return Batch(first, records)
        self._fetched.popleft()
        self._index = 0
        self._size -= frame.size
        self._room.set()
        return Batch(first, records, At(frame.shard, frame.offset + 1, 0))

    def lag(self) -> int:
        """As the port says; frames that were not fetched yet count as many records as those that were do on average."""
        fetched = sum(len(frame.records) for frame in self._fetched) - self._index
        frames = sum(max(0, self._ends[shard] - max(offset, 0)) for shard, (offset, _) in self._places.items())
        return fetched + frames * max(1, self._records // max(1, self._frames))

    def release(self, upto: At) -> None:
        """Kafka forgets by age and size, whoever reads."""

    def close(self) -> None:
        """As the port says."""
        self._closed = True
        self.task.cancel()
        if self._news is not None:
            self._news.cancel()
        self._closed_by(self)

    # Fetching

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (LogDamaged, FrameError) as error:
                self._failure = error
                self._wake()
                return
            except (KafkaError, OSError, TimeoutError, SluicewayError) as error:
                if not self._ill:
                    _log.warning("log.read_failed topic=%s error=%s: %s", self._name, type(error).__name__, error)
                self._ill = True
                await asyncio.sleep(self._options.backoff)
            except Exception as error:  # noqa: BLE001 - whoever reads must hear of it
                _log.exception("log.reader_died")
                self._failure = LogError(f"the reader of the log died: {error}")
                self._wake()
                return

    async def _follow(self) -> None:
        """From where the reader is, for as long as the consumer lives."""
        consumer = AIOKafkaConsumer(
            **self._clients.options(),
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(self._options.fetch_wait * 1000),
            max_partition_fetch_bytes=self._options.message_bytes,
            fetch_max_bytes=4 * self._options.message_bytes,
        )
        try:
            await undisturbed(self._start_at(consumer))
            while True:
                await self._fetch(consumer)
        finally:
            await consumer.stop()

    async def _start_at(self, consumer: AIOKafkaConsumer) -> None:
        async with asyncio.timeout(self._options.answer_within):
            await consumer.start()
            await self._begin(consumer)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """Look up where to read from, refuse what lies behind the end, and go some frames back."""
        partitions = {TopicPartition(self._name, shard): shard for shard in self._tails}
        firsts = {partition.partition: offset for partition, offset in (await consumer.beginning_offsets(list(partitions))).items()}
        for partition, end in (await consumer.end_offsets(list(partitions))).items():
            self._ends[partition.partition] = end
        if not self._places:
            self._places = await self._starts(consumer, partitions)
        for shard, (offset, index) in self._places.items():
            end = self._ends[shard]
            if offset > end or (offset == end and index):
                raise LogDamaged(
                    f"the log ends at record {end}:0 of shard {shard} of topic {self._name}, a position says {offset}:{index}: "
                    "log and store are not of one moment, or Kafka has lost what it acknowledged"
                )
            if offset < firsts[shard]:
                _log.log(logging.INFO if offset == EARLIEST else logging.WARNING, "log.reader_starts topic=%s shard=%d first=%d asked=%d",
                         self._name, shard, firsts[shard], offset)  # fmt: skip
                self._places[shard] = (firsts[shard], 0)
        consumer.assign(list(partitions))
        for partition, shard in partitions.items():
            consumer.seek(partition, max(firsts[shard], self._places[shard][0] - self._options.look_back))

    async def _starts(self, consumer: AIOKafkaConsumer, partitions: Mapping[TopicPartition, int]) -> dict[int, tuple[int, int]]:
        start = self._start
        if not isinstance(start, int):
            return dict.fromkeys(self._tails, (EARLIEST, 0))
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, start))
        places = {}
        for partition, shard in partitions.items():
            if found.get(partition) is None:
                places[shard] = (self._tails[shard], 0)
            else:
                places[shard] = (found[partition].offset, 0)
                self._times[shard] = start
        return places

    def _known(self, start: Start) -> dict[int, tuple[int, int]]:
        """Places that follow without asking anybody, so that the lag is known from the first moment on."""
        if start == "latest":
            return {shard: (tail, 0) for shard, tail in self._tails.items()}
        if isinstance(start, Mapping):
            wanted = {shard: start.get(shard) for shard in self._tails}
            return {shard: (EARLIEST, 0) if at is None else (at.offset, at.index) for shard, at in wanted.items()}
        return {}

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        while self._size > self._options.read_ahead_bytes:
            self._room.clear()
            await self._room.wait()
        try:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=FETCH_FRAMES)
        except OffsetOutOfRangeError:
            # Retention passed us, or the log was cut: looked into where a start is
            raise TimeoutError("retention has passed the reader, or the end lies before it") from None
        self._ill = False
        for partition, messages in fetched.items():
            shard = partition.partition
            self._ends[shard] = max(self._ends[shard], consumer.highwater(partition) or 0)
            for message in messages:
                self._take(shard, message)
        if self._fetched:
            self._wake()

    def _take(self, shard: int, message: Any) -> None:
        """A message of Kafka: a frame to hand out, one to know of, or a repeat."""
        offset, body = message.offset, message.value or b""
        try:
            frame = decode_frame(body)
        except FrameError as error:
            raise FrameError(f"{self._name} shard {shard} offset {offset}: {error}") from error
        wanted, index = self._places[shard]
        writer, written = (shard, frame.node), (frame.epoch, frame.sequence)
        had = self._had.get(writer, (-1, -1))
        if offset < wanted:
            self._had[writer] = max(had, written)
            return
        records: Sequence[Record] = frame.records
        base = index if offset == wanted else 0
        # A frame of which a part was had is no repeat, whatever lies before it
        if had >= written and not base:
            records = ()
        self._had[writer] = max(had, written)
        self._places[shard] = (offset + 1, 0)
        since = self._times.pop(shard, None)
        if since is not None:
            base = next((place for place, record in enumerate(records) if record.time >= since), len(records))
        self._count(len(records))
        self._size += len(body)
        self._fetched.append(Fetched(shard, offset, base, records[base:] if base else records, len(body)))

    def _count(self, records: int) -> None:
        self._frames += 1
        self._records += records
        if self._frames > AVERAGED:
            self._frames, self._records = self._frames // 2, self._records // 2

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
