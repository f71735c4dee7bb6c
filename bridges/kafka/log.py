"""The log on Kafka: the port ``streams.log.Log`` over two topics, whose partitions are the shards. A message of Kafka is a frame.

Durable means acknowledged by all replicas in sync (acks=all, idempotent). What is promised where Kafka doesn't answer: a record that
was given to a producer stays pending until it is in the log, and is sent again for as long as the log is open; what waits behind it is
refused after ``refuse_after``. Only ``close`` gives up on what is on its way, and says so. Kafka forgets by age and size, never by need.
Writing is in lanes.py and producers.py, reading in log_reader.py, the topics in log_topics.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bridges.kafka.lanes import Group, Lane, tell_runs
from bridges.kafka.log_options import KafkaLogOptions
from bridges.kafka.log_reader import RECORD_OVERHEAD, KafkaReader
from bridges.kafka.log_topics import Found, prepare
from bridges.kafka.producers import Clients, Producers
from schemas.errors import LogError, SluicewayError, StartError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record
from streams.log import Pressure, Reader, Sink, Start

_log = logging.getLogger(__name__)

TOPICS = (PUBLISH_TOPIC, PRESENCE_TOPIC)
WATCH_EVERY = 0.25


async def open_kafka_log(
    clients: Clients,
    *,
    node: str,
    epoch: int,
    options: KafkaLogOptions = KafkaLogOptions(),  # noqa: B008 - frozen
    monotonic: Callable[[], float] = time.monotonic,
) -> KafkaLog:
    """The log, its topics made or checked. StartError with one line where it can't be had.

    ``epoch`` is higher than at any earlier start of ``node``; no two running nodes have one name.
    """
    settings = clients.options()
    servers = settings["bootstrap_servers"]
    address = servers if isinstance(servers, str) else ",".join(servers)
    names = {topic: options.prefix + topic for topic in TOPICS}
    admin = AIOKafkaAdminClient(**settings)
    try:
        async with asyncio.timeout(options.answer_within):
            await admin.start()
            found = await prepare(admin, list(names.values()), address, options)
    except TimeoutError:
        words = f"the log's Kafka at {address} does not answer within {options.answer_within:g} s: start it, or correct the connection's address"
        raise StartError(words) from None
    except (KafkaError, OSError) as error:
        raise StartError(f"the log's Kafka at {address} can't be used: {type(error).__name__}: {error}") from error
    finally:
        await admin.close()
    log = KafkaLog(clients, names, (node, epoch), found, options, monotonic)
    try:
        await log.ends(PUBLISH_TOPIC)
        await log.ends(PRESENCE_TOPIC)
    except LogError as error:
        await log.close()
        raise StartError(str(error)) from error
    return log


class KafkaLog:
    """Made by ``open_kafka_log``. ``weaknesses``: what its topics don't promise, for readiness, metrics and the start line."""

    def __init__(
        self,
        clients: Clients,
        names: Mapping[str, str],
        identity: tuple[str, int],
        found: Found,
        options: KafkaLogOptions,
        clock: Callable[[], float],
    ) -> None:
        self.node, self.epoch = identity
        self.clock = clock
        self.group_records, self.group_bytes = options.group_records, options.group_bytes
        self.largest = found.largest - 512
        """A message has a head of its own."""
        self.backoff = options.backoff
        self.producers = Producers(clients, largest=self.largest, backoff=options.backoff, clock=clock)
        self.weaknesses = found.weaknesses
        self.frames = self.records = 0
        """Made durable by this log, for metrics."""
        self._clients = clients
        self._names = names
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._lanes = {topic: [Lane(self, topic, names[topic], shard) for shard in range(options.shards)] for topic in TOPICS}
        self._ends = {topic: dict.fromkeys(range(options.shards), 0) for topic in TOPICS}
        self._sequence = 0
        self._pending_records = 0
        self._pending_bytes = 0
        self._refusal: LogError | None = None
        self._readers: set[KafkaReader] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        """Tasks of readers that were closed."""
        self._meter: AIOKafkaConsumer | None = None
        self._metering = asyncio.Lock()
        self._drained: asyncio.Future[None] | None = None
        self._tasks = [self._loop.create_task(lane.run()) for lane in self._all()]
        self._tasks.append(self._loop.create_task(self._watch()))

    def _all(self) -> list[Lane]:
        return [lane for lanes in self._lanes.values() for lane in lanes]

    # The port

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """As the port says. Past ``pending_records`` or ``pending_bytes`` a record is refused, which its sink may hear before earlier outcomes."""
        lanes = self._lanes[topic]
        lane = lanes[crc32(key.encode("utf-8", "surrogatepass")) % len(lanes)]
        size = len(record.payload) + len(record.topic) + len(record.properties) + RECORD_OVERHEAD
        options = self._options
        if self._pending_records >= options.pending_records or self._pending_bytes > options.pending_bytes or self._refusal is not None or lane.stuck:
            self._loop.call_soon(sink.refused, [record], self._why_refused(lane))
            return
        self._pending_records += 1
        self._pending_bytes += size
        lane.records.append(record)
        lane.sinks.append(sink)
        lane.sizes.append(size)
        if lane.idle:
            lane.idle = False
            # At the end of this round of the loop, so that the first frame is not one record.
            self._loop.call_soon(lane.ring)

    def _why_refused(self, lane: Lane) -> LogError:
        if self._refusal is not None:
            return self._refusal
        if lane.stuck:
            return LogError(f"Kafka has not answered for {self._options.refuse_after:g} s: {self.producers.last_error}")
        return LogError("the log has more records waiting than its limit: Kafka is too slow or does not answer")

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        """As the port says."""
        known = self._ends[topic]
        if shards is not None and not known.keys() >= set(shards):
            raise ValueError(f"topic {topic} has shards 0 to {len(known) - 1}, not {list(shards)}")
        numbers = list(known) if shards is None else list(shards)
        reader = KafkaReader(self._clients, self._names[topic], start, numbers, known, self._options, self._left)
        self._readers.add(reader)
        return reader

    def _left(self, reader: KafkaReader) -> None:
        self._readers.discard(reader)
        if not reader.task.done():
            self._leaving.add(reader.task)
            reader.task.add_done_callback(self._leaving.discard)

    async def ends(self, topic: str) -> Mapping[int, tuple[At, At]]:
        """As the port says. LogError where Kafka doesn't answer."""
        known = self._ends[topic]
        partitions = [TopicPartition(self._names[topic], shard) for shard in known]
        try:
            async with self._metering, asyncio.timeout(self._options.answer_within):
                meter = await self._measure()
                firsts = await meter.beginning_offsets(partitions)
                ends = await meter.end_offsets(partitions)
        except (KafkaError, OSError, TimeoutError, SluicewayError) as error:
            await self._drop_meter()
            raise LogError(f"the ends of topic {self._names[topic]} can't be had: {type(error).__name__}: {error}") from error
        for partition in partitions:
            known[partition.partition] = max(known[partition.partition], ends[partition])
        return {p.partition: (At(p.partition, firsts[p], 0), At(p.partition, ends[p], 0)) for p in partitions}

    async def _measure(self) -> Any:
        if self._meter is None:
            meter = AIOKafkaConsumer(**self._clients.options(), enable_auto_commit=False)
            try:
                await meter.start()
            except BaseException:
                await meter.stop()
                raise
            self._meter = meter
        return self._meter

    async def _drop_meter(self) -> None:
        meter, self._meter = self._meter, None
        if meter is not None:
            await meter.stop()

    def pressure(self) -> Pressure:
        """As the port says. A frame that takes longer than ``hang_after`` is a stall; one shard that is stuck counts for all."""
        oldest = min((lane.since for lane in self._all() if lane.since), default=0.0)
        stalled = oldest if oldest and self.clock() - oldest > self._options.hang_after else 0.0
        return Pressure(self._pending_records, self._pending_bytes, stalled)

    async def close(self) -> None:
        """As the port says; what Kafka does not acknowledge within ``close_within`` is refused."""
        if self._refusal is not None:
            return
        self._refusal = LogError("the log is closed")
        if self._pending_records:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=self._options.close_within)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._all():
            self._give_up(lane)
        for reader in list(self._readers):
            reader.close()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=self._options.close_within)
        await self._drop_meter()
        await self.producers.close()

    def _give_up(self, lane: Lane) -> None:
        words = "the log closed before Kafka acknowledged"
        while lane.groups:
            group = lane.groups.pop()
            lane.refuse(group, LogError(f"{words}: the record may be in the log all the same" if group.sent else f"{words}: nothing was sent"))
        lane.refuse_waiting(LogError("the log closed before the record was sent: Kafka does not answer"))

    # What lanes tell

    def number(self) -> int:
        """See ``lanes.Writer``."""
        self._sequence += 1
        return self._sequence

    def settled(self, lane: Lane, group: Group, offset: int) -> None:
        """See ``lanes.Writer``."""
        shard = lane.shard
        known = self._ends[lane.topic]
        known[shard] = max(known[shard], offset + 1)
        self.frames += 1
        self.records += len(group.records)
        self.left(group)
        if self.producers.last_error:
            self.producers.last_error = ""
            _log.info("log.resumed seconds=%.1f", self.clock() - lane.since)
        tell_runs(group, lambda sink: sink.appended, lambda index: At(shard, offset, index))

    def left(self, group: Group) -> None:
        """See ``lanes.Writer``."""
        self._pending_records -= len(group.records)
        self._pending_bytes -= group.size
        if self._drained is not None and not self._pending_records and not self._drained.done():
            self._drained.set_result(None)

    async def _watch(self) -> None:
        """Deadlines."""
        options = self._options
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self.producers.check(options.deliver_within)
            now = self.clock()
            for lane in self._all():
                if lane.since and now - lane.since > options.refuse_after:
                    lane.stuck = True
                    lane.refuse_waiting(self._why_refused(lane))
