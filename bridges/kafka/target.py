"""Where a rule sends: an idempotent producer of its own, a batch a partition and call, no task or future a message.

A batch that the broker refuses is halved until the culprit stands alone. aiokafka's idempotent producer counts a failed batch as
sent, so that the broker takes none after it; and it retries for as long as it lives, so that what was given up could still arrive,
behind what was sent instead. Both have one answer: a producer that failed is buried, and the next call has a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidTimestampError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from bridges.kafka.connection import ANSWER_WITHIN, TOPIC_NAME, Connection, Topic
from streams.backend import Outgoing, Rejected

ID_HEADER: Final = "mqttMessageId"
BATCH_BYTES: Final = 512 * 1024
"""Below every broker's default limit for a batch, which is 1 MiB."""

LANES: Final = 20_000
"""Lanes whose hash is remembered: it takes longer to compute than all else about a message."""

TOPICS: Final = 1_000
TOPIC_AGE: Final = 60.0
"""Topics remembered, and for how many seconds: their limits may be changed."""

BURIED: Final = 16
"""Producers that are on their way out. Each ends within seconds, or its broker hangs, and then so do the calls that make more."""

BURIAL: Final = 20.0
REFUSALS: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError)
"""The broker's verdicts on a batch because of what is in it."""

Runs = dict[TopicPartition, list[list[int]]]
"""What is still to be sent to a partition, in order: runs of messages, by index. Halves of a refused batch are runs of their own."""


class KafkaTarget:
    """See streams.backend.Target."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer: AIOKafkaProducer | None = None
        self._hashes: dict[str, int] = {}
        self._topics: dict[str, tuple[float, Topic]] = {}
        self._turn = 0
        self._batch_bytes = BATCH_BYTES
        self._burials: set[asyncio.Task[None]] = set()
        connection.opened.add(self)

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[Rejected]:
        if not messages:
            return ()
        try:
            async with self._connection.attempt("send"):
                rejected = await self._send(messages)
        except BaseException:
            self._topics.clear()
            self._bury()
            raise
        return [Rejected(index, reason) for index, reason in sorted(rejected.items())]

    async def close(self) -> None:
        self._connection.opened.discard(self)
        self._bury()
        if self._burials:
            await asyncio.wait(self._burials, timeout=ANSWER_WITHIN)

    async def _send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
        rejected: dict[int, str] = {}
        waiting = await self._place(messages, rejected)
        while waiting:
            producer = await self._started()
            sent: list[tuple[TopicPartition, list[int], asyncio.Future[object]]] = []
            try:
                for partition, runs in waiting.items():
                    batch = self._fill(producer, partition, runs, messages, rejected)
                    if batch is not None:
                        builder, indices = batch
                        sent.append((partition, indices, await self._submit(producer, builder, partition)))
                if sent:
                    await asyncio.wait([future for _, _, future in sent])
            finally:
                for _, _, future in sent:
                    future.cancel()  # no effect on what is done; nobody looks at the others any more
            for (partition, indices, _), error in zip(sent, [future.exception() for _, _, future in sent], strict=True):
                if error is not None:
                    self._bury()
                    self._refused(waiting[partition], indices, error, rejected)
            waiting = {partition: runs for partition, runs in waiting.items() if runs}
        return rejected

    def _fill(
        self, producer: AIOKafkaProducer, partition: TopicPartition, runs: list[list[int]], messages: Sequence[Outgoing], rejected: dict[int, str]
    ) -> tuple[BatchBuilder, list[int]] | None:
        """The next batch of a partition, from its first run; None where all of that was rejected."""
        run = runs.pop(0)
        largest = self._topics[partition.topic][1].largest
        builder = producer.create_batch()
        taken: list[int] = []
        for place, index in enumerate(run):
            message = messages[index]
            headers = [(name, value.encode()) for name, value in message.properties]
            headers.append((ID_HEADER, message.id.encode()))
            key = None if message.key is None else message.key.encode()
            if builder.append(timestamp=message.time, key=key, value=message.body, headers=headers) is None:
                runs.insert(0, run[place:])
                break
            if not taken and largest and builder.size() > largest and self._connection.settings.compression == "none":
                # Refused for sure, and a refusal costs a producer
                rejected[index] = f"{builder.size()} bytes with its headers; topic {partition.topic} takes {largest}"
                builder = producer.create_batch()
                continue
            taken.append(index)
        builder.close()
        return (builder, taken) if taken else None

    async def _submit(self, producer: AIOKafkaProducer, batch: BatchBuilder, partition: TopicPartition) -> asyncio.Future[object]:
        if partition.partition not in await producer.partitions_for(partition.topic):
            raise self._connection.failed("send", f"topic {partition.topic} has lost partition {partition.partition}")
        future: asyncio.Future[object] = await producer.send_batch(batch, partition.topic, partition=partition.partition)
        return future

    def _refused(self, runs: list[list[int]], indices: list[int], error: BaseException, rejected: dict[int, str]) -> None:
        """An error that is not about the messages is raised."""
        if not isinstance(error, REFUSALS):
            raise error
        if len(indices) == 1:
            rejected[indices[0]] = f"the broker refuses it: {type(error).__name__.removesuffix('Error')}"
        else:
            middle = len(indices) // 2
            runs[:0] = [indices[:middle], indices[middle:]]

    # Where messages go.

    async def _place(self, messages: Sequence[Outgoing], rejected: dict[int, str]) -> Runs:
        topics = {name: await self._topic(name) for name in dict.fromkeys(message.topic for message in messages)}
        self._turn += 1
        places: dict[tuple[str, int], list[int]] = {}
        for index, message in enumerate(messages):
            topic = topics[message.topic]
            if topic is None:
                rejected[index] = f"{message.topic!r} is no name of a topic"
                continue
            if topic.compacted and message.key is None:
                rejected[index] = f"topic {message.topic} is compacted: its messages need a key"
                continue
            places.setdefault((message.topic, self._partition(topic, message)), []).append(index)
        return {TopicPartition(name, partition): [indices] for (name, partition), indices in places.items()}

    def _partition(self, topic: Topic, message: Outgoing) -> int:
        lane = message.key if message.lane is None else message.lane
        if lane is not None:
            return topic.partitions[self._hash(lane) % len(topic.partitions)]
        # A call's messages go to one partition, and the next call's to the next: that makes few batches
        open_to_us = topic.led or topic.partitions
        return open_to_us[self._turn % len(open_to_us)]

    def _hash(self, lane: str) -> int:
        """As every client of Kafka does it by default: what shares a key shares a partition, whoever wrote it."""
        known = self._hashes.get(lane)
        if known is None:
            if len(self._hashes) >= LANES:
                self._hashes.clear()
            known = self._hashes[lane] = murmur2(lane.encode()) & 0x7FFFFFFF
        return known

    async def _topic(self, name: str) -> Topic | None:
        """None where no topic can have the name. One that is not there is an error: it may be made yet."""
        if not TOPIC_NAME.fullmatch(name):
            return None
        now = asyncio.get_running_loop().time()
        asked, known = self._topics.get(name, (now - TOPIC_AGE, None))
        if known is not None and now - asked < TOPIC_AGE:
            return known
        topic = await self._connection.topic(name)
        if topic is None or not topic.partitions:
            raise self._connection.missing(name)
        if len(self._topics) >= TOPICS:
            self._topics.clear()
        self._topics[name] = (now, topic)
        if 0 < topic.largest < self._batch_bytes:
            self._batch_bytes = topic.largest
            self._bury()
        return topic

    # Producers.

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            if len(self._burials) >= BURIED:
                raise self._connection.failed("send", f"{BURIED} earlier attempts are still waiting for the broker")
            compression = self._connection.settings.compression
            producer = AIOKafkaProducer(
                **self._connection.options(),
                acks="all",
                enable_idempotence=True,
                max_batch_size=self._batch_bytes,
                compression_type=None if compression == "none" else compression,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    def _bury(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # From here on it writes nothing more
        producer._sender.sender_task.cancel()  # noqa: SLF001 - see above, no public way
        task = asyncio.get_running_loop().create_task(_bury(producer))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)


async def _bury(producer: AIOKafkaProducer) -> None:
    """Waits for requests that are under way, whose answers concern nobody, and closes the rest."""
    sender = producer._sender.sender_task  # noqa: SLF001
    await asyncio.wait([sender], timeout=BURIAL)
    if not sender.done():
        sender.cancel()
        await asyncio.wait([sender], timeout=1.0)
    # Its own stop() would wait for what is never sent
    producer._closed = True  # noqa: SLF001
    with contextlib.suppress(KafkaError, OSError):
        await producer.client.close()
