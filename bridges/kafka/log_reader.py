"""A reader of the log on Kafka: explicit partitions, a consumer of its own, frames decoded as they come.

One task fetches and decodes ahead, ``next`` hands out; which frames are repeats is in bridges/framed/reading.py. A reader looks at
some frames before its start, so that it knows whose repeats may follow. Failures of Kafka are waited out; what can't be read, or is
gone though a position says it was there, ends the reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bridges.framed.outlet import Outlet
from bridges.framed.reading import EARLIEST, Fetch, Repeated, places_of
from bridges.kafka.log_options import KafkaLogOptions
from bridges.kafka.producers import Clients, undisturbed
from schemas.errors import LogDamaged, LogError, SluicewayError
from schemas.positions import At
from schemas.records import FrameError, decode_frame
from streams.log import Batch, Start

_log = logging.getLogger(__name__)

FETCH_FRAMES: Final = 64


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
        repeated: Repeated,
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
        self._look_back = repeated.look_back()
        self._repeated = repeated
        self._fetched = Fetch(repeated)
        self._fetched.places = {} if start == "earliest" else places_of(start, self._tails)
        self._outlet = Outlet(self._fetched)
        self._ill = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    # The port

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """As the port says."""
        return await self._outlet.next(max_records, max_bytes)

    def lag(self) -> int:
        """As the port says."""
        return self._fetched.lag(self._ends)

    def release(self, upto: At) -> None:
        """Kafka forgets by age and size, whoever reads."""

    def close(self) -> None:
        """As the port says."""
        self.task.cancel()
        self._outlet.close()
        self._closed_by(self)

    # Fetching

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (LogDamaged, FrameError) as error:
                self._outlet.fail(error)
                return
            except (KafkaError, OSError, TimeoutError, SluicewayError) as error:
                if not self._ill:
                    _log.warning("log.read_failed topic=%s error=%s: %s", self._name, type(error).__name__, error)
                self._ill = True
                await asyncio.sleep(self._options.backoff)
            except Exception as error:  # noqa: BLE001 - whoever reads must hear of it
                _log.exception("log.reader_died")
                self._outlet.fail(LogError(f"the reader of the log died: {error}"))
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
        if not self._fetched.places:
            self._fetched.places = await self._starts(consumer, partitions)
        for shard, (offset, index) in self._fetched.places.items():
            end = self._ends[shard]
            if offset > end or (offset == end and index):
                raise LogDamaged(
                    f"the log ends at record {end}:0 of shard {shard} of topic {self._name}, a position says {offset}:{index}: "
                    "log and store are not of one moment, or Kafka has lost what it acknowledged"
                )
            if offset < firsts[shard]:
                _log.log(logging.INFO if offset == EARLIEST else logging.WARNING, "log.reader_starts topic=%s shard=%d first=%d asked=%d",
                         self._name, shard, firsts[shard], offset)  # fmt: skip
                self._fetched.places[shard] = (firsts[shard], 0)
        consumer.assign(list(partitions))
        for partition, shard in partitions.items():
            consumer.seek(partition, max(firsts[shard], self._fetched.places[shard][0] - self._look_back))
        self._look_back = self._options.look_back  # what it has seen it knows

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
                self._fetched.times[shard] = (start, self._ends[shard])
        return places

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        await self._outlet.room(self._options.read_ahead_bytes)
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
            self._outlet.wake()

    def _take(self, shard: int, message: Any) -> None:
        body = message.value or b""
        try:
            frame = decode_frame(body)
        except FrameError as error:
            raise FrameError(f"{self._name} shard {shard} offset {message.offset}: {error}") from error
        self._repeated.check(shard, message.offset, frame)
        self._fetched.take(shard, message.offset, frame, len(body))
