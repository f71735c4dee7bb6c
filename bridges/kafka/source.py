"""What a rule receives: all partitions of a topic, assigned by us, read committed. Its positions are ours; no group decides anything.

aiokafka's consumer tries for ever without a word: a partition that no answer comes from for a while is how a broker that is away
shows, and then the consumer is given up for a new one that starts behind what was returned last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError

from bridges.kafka.connection import COMMIT_WITHIN, Connection, words
from bridges.kafka.target import ID_HEADER
from schemas.errors import BackendError
from streams.backend import Incoming

POLL_MS: Final = 500
"""How long one wait for messages is; what is looked at between two is the broker's health and new partitions."""

SILENCE: Final = 6.0
"""Seconds without an answer about a partition. Where nothing comes in, the broker answers twice a second."""

STOP_WITHIN: Final = 3.0
RETRY_AFTER: Final = 0.2
PARTITION_BYTES: Final = 512 * 1024
FETCH_BYTES: Final = 4 * 1024 * 1024
"""Read ahead at most, for all partitions of a broker. A single message may be larger."""

MEMBER_GROUP: Final = "sluiceway."
"""What groups are named, before the rule's name."""


class KafkaSource:
    """See streams.backend.Source."""

    def __init__(self, connection: Connection, rule: str, topic: str, positions: Mapping[str, int]) -> None:
        self._connection = connection
        self._group = MEMBER_GROUP + rule
        self._topic = topic
        self._positions = {int(queue): offset for queue, offset in positions.items()}
        self._held: deque[Incoming] = deque()
        """Received and not returned yet: what one poll brought, at most ``max_messages``."""
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._heard: dict[int, tuple[int | None, float]] = {}
        self._skipped = 0
        self._closed = False
        connection.opened.add(self)

    @property
    def skipped(self) -> int:
        return self._skipped

    async def next(self, max_messages: int, max_bytes: int) -> Sequence[Incoming]:
        while not self._held:
            consumer = await self._started()
            try:
                await self._poll(consumer, max_messages)
            except ConsumerStoppedError:
                if self._closed:
                    raise asyncio.CancelledError from None
                raise self._connection.failed("receive", "the consumer was stopped") from None
            except KafkaError as error:
                await self._give_up()
                raise self._connection.failed("receive", words(error)) from error
        return self._take(max_messages, max_bytes)

    def _take(self, max_messages: int, max_bytes: int) -> list[Incoming]:
        """One at least, so that none is too large to come through."""
        held, taken = self._held, [self._held.popleft()]
        size = len(taken[0].body)
        while held and len(taken) < max_messages and size + len(held[0].body) <= max_bytes:
            message = held.popleft()
            size += len(message.body)
            taken.append(message)
        for message in taken:
            self._positions[int(message.queue)] = message.offset + 1
        return taken

    async def _poll(self, consumer: AIOKafkaConsumer, max_messages: int) -> None:
        known = consumer.partitions_for_topic(self._topic) or set()
        if not known <= self._heard.keys():
            async with self._connection.attempt("receive"):
                await self._assign(consumer, sorted(known))
        try:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=max_messages)
        except OffsetOutOfRangeError as error:
            async with self._connection.attempt("receive"):
                await self._skip(consumer, [partition for partition in error.args[0] if partition.topic == self._topic])
            return
        for partition, records in found.items():
            queue = str(partition.partition)
            self._held.extend([_incoming(record, queue) for record in records])
        if found:
            self._connection.trouble = ""
        else:
            await self._listen(consumer)

    async def _listen(self, consumer: AIOKafkaConsumer) -> None:
        """Nothing came: have the partitions been answered for at all?"""
        now = asyncio.get_running_loop().time()
        silent: list[int] = []
        for number, (answered, since) in self._heard.items():
            latest = consumer.last_poll_timestamp(TopicPartition(self._topic, number))
            if latest != answered:
                self._heard[number] = (latest, now)
            elif now - since > SILENCE:
                silent.append(number)
        if silent:
            await self._give_up()
            raise self._connection.failed("receive", f"no answer about {self._topic}, partitions {silent}, for {SILENCE:g} s")

    async def _skip(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
        """The broker has them no more. What is left goes on, what is gone is counted."""
        for partition, first in (await consumer.beginning_offsets(partitions)).items():
            wanted = self._positions.get(partition.partition, first)
            self._skipped += max(first - wanted, 0)
            self._positions[partition.partition] = first
            consumer.seek(partition, first)

    async def _started(self) -> AIOKafkaConsumer:
        async with self._lock:
            if self._closed:
                raise asyncio.CancelledError
            if self._consumer is None:
                async with self._connection.attempt("receive"):
                    self._consumer = await self._start()
            return self._consumer

    async def _start(self) -> AIOKafkaConsumer:
        topic = await self._connection.topic(self._topic)
        if topic is None:
            raise self._connection.missing(self._topic)
        consumer = AIOKafkaConsumer(
            **self._connection.options(),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_BYTES,
        )
        try:
            await consumer.start()
            await self._assign(consumer, topic.partitions)
        except BaseException:
            await _stop(consumer)
            raise
        return consumer

    async def _assign(self, consumer: AIOKafkaConsumer, numbers: Sequence[int]) -> None:
        """All of them, each where it goes on; one that has no position yet begins with its first message."""
        partitions = [TopicPartition(self._topic, number) for number in numbers]
        fresh = [partition for partition in partitions if partition.partition not in self._positions]
        if fresh:
            firsts = await consumer.beginning_offsets(fresh)
            self._positions |= {partition.partition: offset for partition, offset in firsts.items()}
        consumer.assign(partitions)
        for partition in partitions:  # before anything waits: the fetcher would ask for positions
            consumer.seek(partition, self._positions[partition.partition])
        now = asyncio.get_running_loop().time()
        self._heard = dict.fromkeys(numbers, (None, now))

    async def _give_up(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._held.clear()
        if consumer is not None:
            await _stop(consumer)

    async def commit(self, positions: Mapping[str, int]) -> None:
        with contextlib.suppress(KafkaError, OSError, TimeoutError, BackendError):
            async with asyncio.timeout(COMMIT_WITHIN):
                while not await self._told(positions):  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(RETRY_AFTER)

    async def _told(self, positions: Mapping[str, int]) -> bool:
        try:
            await self._connection.commit(self._group, self._topic, positions)
        except KafkaError as error:
            if not error.retriable:
                raise
            return False  # the broker makes its topic of offsets at the first commit ever
        return True

    async def ends(self) -> Mapping[str, tuple[int, int]]:
        consumer = await self._started()
        async with self._connection.attempt("ask for offsets"):
            partitions = [TopicPartition(self._topic, number) for number in self._heard]
            firsts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {str(partition.partition): (firsts[partition], ends[partition]) for partition in partitions}

    async def close(self) -> None:
        self._closed = True
        self._connection.opened.discard(self)
        async with self._lock:  # a start that is under way comes to its end first
            await self._give_up()


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """In a task of its own: aiokafka cancels a fetch that waits to be tried again, waits for it, and takes its end for an end of us."""
    stopping = asyncio.get_running_loop().create_task(consumer.stop())
    await asyncio.wait([stopping], timeout=STOP_WITHIN)
    if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
        return
    stopping.cancel()
    with contextlib.suppress(KafkaError, OSError):
        await consumer._client.close()  # noqa: SLF001 - what stop() did not come to


def _incoming(record: ConsumerRecord, queue: str) -> Incoming:
    """Headers are anybody's bytes: what is no UTF-8 is replaced, what has no value is empty."""
    properties: list[tuple[str, str]] = []
    message_id = ""
    for name, value in record.headers:
        text = "" if value is None else value.decode("utf-8", "replace")
        if name == ID_HEADER:
            message_id = text
        else:
            properties.append((name, text))
    return Incoming(
        topic=record.topic,
        queue=queue,
        offset=record.offset,
        body=record.value or b"",
        properties=tuple(properties),
        id=message_id,
        time=record.timestamp,
        key=None if record.key is None else record.key.decode("utf-8", "replace"),
    )
