"""The log on Kafka: the port ``streams.log.Log`` over two topics, whose partitions are the shards. A message of Kafka is a frame.

Durable means acknowledged by all replicas in sync (acks=all, idempotent). What is promised where Kafka doesn't answer is in
bridges/framed/writing.py; producers.py sends. Kafka forgets by age and size, never by need. Reading is in log_reader.py, the topics in log_topics.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bridges.framed.lanes import always
from bridges.framed.options import LOOK_BACK_SHARED, MIB
from bridges.framed.reading import TAIL, Repeated, place
from bridges.framed.writing import Writing
from bridges.kafka.connection import Connection
from bridges.kafka.log_options import KafkaLogOptions
from bridges.kafka.log_reader import KafkaReader
from bridges.kafka.log_topics import Found, prepare
from bridges.kafka.producers import Clients, Producers, undisturbed
from schemas.connections import ConnectionSettings
from schemas.errors import LogError, SluicewayError, StartError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record, decode_frame
from schemas.settings import Settings
from streams.log import Pressure, Reader, Sink, Start

TOPICS = (PUBLISH_TOPIC, PRESENCE_TOPIC)


async def open_kafka_log(
    clients: Clients,
    *,
    node: str,
    epoch: int,
    options: KafkaLogOptions = KafkaLogOptions(),  # noqa: B008 - frozen
    monotonic: Callable[[], float] = time.monotonic,
    may_write: Callable[[], bool] = always,
) -> KafkaLog:
    """The log, its topics made or checked. StartError with one line where it can't be had.

    ``epoch`` is higher than at any earlier start of ``node``; no two running nodes have one name. While ``may_write`` says no, frames wait.
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
    log = KafkaLog(clients, names, (node, epoch), found, options, monotonic, may_write)
    try:
        await log.begin()
    except LogError as error:
        await log.close()
        raise StartError(str(error)) from error
    return log


async def open_configured(connection: ConnectionSettings, settings: Settings, epoch: int, may_write: Callable[[], bool]) -> KafkaLog:
    """As the settings say. While ``may_write`` says no, frames wait."""
    wanted = settings.log
    options = KafkaLogOptions(
        prefix=wanted.prefix,
        shards=wanted.shards,
        replication=wanted.replication,
        retention_age=wanted.retention_age,
        retention_bytes=wanted.retention_bytes,
        message_bytes=max(4 * MIB, settings.limits.packet + MIB),
        checked=wanted.durability == "checked",
        look_back_first=LOOK_BACK_SHARED if settings.node.many else KafkaLogOptions().look_back_first,
    )
    return await open_kafka_log(Connection(connection), node=settings.node.id, epoch=epoch, options=options, may_write=may_write)


class KafkaLog:
    """Made by ``open_kafka_log``. ``weaknesses``: what its topics don't promise, for readiness, metrics and the start line. ``newest_epoch``: the
    highest one in the newest frames of its shards, before this process wrote."""

    def __init__(
        self,
        clients: Clients,
        names: Mapping[str, str],
        identity: tuple[str, int],
        found: Found,
        options: KafkaLogOptions,
        clock: Callable[[], float],
        may_write: Callable[[], bool],
    ) -> None:
        # A message has a head of its own.
        largest = found.largest - 512
        self.producers = producers = Producers(clients, largest=largest, backoff=options.backoff, clock=clock, may_write=may_write)
        self.weaknesses = found.weaknesses
        self.newest_epoch = 0
        self._clients = clients
        self._names = names
        self._options = options
        self._writing = Writing(
            producers,
            names,
            options.shards,
            identity,
            largest=largest,
            limits=options,
            clock=clock,
            watched=lambda: producers.check(options.deliver_within),
        )
        self._ends = self._writing.ends
        self._readers: set[KafkaReader] = set()
        self._repeated = {topic: Repeated(options, identity) for topic in names}
        self._leaving: set[asyncio.Task[None]] = set()
        """Tasks of readers that were closed."""
        self._meter: AIOKafkaConsumer | None = None
        self._metering = asyncio.Lock()

    # The port

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """As the port says."""
        self._writing.append(topic, key, record, sink)

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        """As the port says."""
        known = self._ends[topic]
        if shards is not None and not known.keys() >= set(shards):
            raise ValueError(f"topic {topic} has shards 0 to {len(known) - 1}, not {list(shards)}")
        numbers = list(known) if shards is None else list(shards)
        reader = KafkaReader(self._clients, self._names[topic], start, numbers, known, self._options, self._repeated[topic], self._left)
        self._readers.add(reader)
        return reader

    async def begin(self) -> None:
        """Before anything is written: where the topics end, and who wrote there last. LogError where Kafka doesn't answer."""
        tails: dict[TopicPartition, tuple[int, int]] = {}
        for topic, repeated in self._repeated.items():
            ends = await self.ends(topic)
            repeated.began = {shard: end.offset for shard, (_, end) in ends.items()}
            for shard, (first, end) in ends.items():
                if end > first:
                    tails[TopicPartition(self._names[topic], shard)] = max(first.offset, end.offset - TAIL), end.offset
        if tails:
            self.newest_epoch = await self._newest_epoch(tails)

    async def _newest_epoch(self, tails: Mapping[TopicPartition, tuple[int, int]]) -> int:
        """Of the frames between two offsets of each partition."""
        consumer = AIOKafkaConsumer(**self._clients.options(), enable_auto_commit=False, auto_offset_reset="none")
        newest, left = 0, list(tails)
        try:
            async with asyncio.timeout(self._options.answer_within):
                await undisturbed(consumer.start())
                consumer.assign(left)
                for partition, (start, _) in tails.items():
                    consumer.seek(partition, start)
                while left:
                    for messages in (await consumer.getmany(*left, timeout_ms=1000)).values():
                        newest = max([newest, *(decode_frame(message.value or b"").epoch for message in messages)])
                    left = [partition for partition in left if await consumer.position(partition) < tails[partition][1]]
        except (KafkaError, OSError, TimeoutError, SluicewayError) as error:
            raise LogError(f"the log's newest messages can't be read: {type(error).__name__}: {error}") from error
        finally:
            await consumer.stop()
        return newest

    def _left(self, reader: KafkaReader) -> None:
        self._readers.discard(reader)
        if not reader.task.done():
            self._leaving.add(reader.task)
            reader.task.add_done_callback(self._leaving.discard)

    def place(self, at: At) -> int:
        """As the port says."""
        return place(at)

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
        """As the port says."""
        return self._writing.pressure()

    async def close(self) -> None:
        """As the port says; what Kafka does not acknowledge within ``close_within`` is refused."""
        if self._writing.refusal is not None:
            return
        await self._writing.close()
        for reader in list(self._readers):
            reader.close()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=self._options.close_within)
        await self._drop_meter()
        await self.producers.close()
