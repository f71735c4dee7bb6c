"""Kafka as a Backend: a connection's topics, and the targets and sources that rules get from it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, for_code

from bridges.kafka.connection import PAUSE, Connection, words
from bridges.kafka.source import KafkaSource
from bridges.kafka.target import KafkaTarget
from schemas.connections import ConnectionSettings
from streams.backend import SourceStart, TopicDescription


class KafkaBackend:
    """See streams.backend.Backend. Nothing is opened before it is used."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._connection = Connection(settings)

    async def describe(self, topic: str) -> TopicDescription | None:
        async with self._connection.attempt(f"describe {topic}"):
            found = await self._connection.topic(topic)
        return None if found is None else TopicDescription(queues=len(found.partitions), largest=found.largest)

    async def create_topic(self, topic: str, queues: int, kind: str = "") -> None:
        """Replicated as the broker's default says. Who asks for it next finds it: brokers learn of a new topic some time after it was made."""
        async with self._connection.attempt(f"create {topic}"):
            admin = AIOKafkaAdminClient(**self._connection.options())
            try:
                await admin.start()
                answer = await admin.create_topics([NewTopic(topic, queues, -1, replica_assignments={})])
            finally:
                await admin.close()
            for _, code, *message in answer.topic_errors:
                error = for_code(code)
                if error is not NoError:
                    raise self._connection.refused(f"create {topic}", words(error(*filter(None, message))))
            while (made := await self._connection.topic(topic)) is None or len(made.led) < queues:  # noqa: ASYNC110 - the attempt ends it
                await asyncio.sleep(PAUSE)

    def creation_hint(self, topic: str, *, ordered: bool = False) -> str:
        return self._connection.creation_hint(topic)

    async def resolve(self, topic: str, start: SourceStart) -> Mapping[str, int]:
        async with self._connection.attempt(f"look into {topic}"):
            found = await self._connection.topic(topic)
            if found is None:
                raise self._connection.missing(topic)
            partitions = [TopicPartition(topic, number) for number in found.partitions]
            consumer = AIOKafkaConsumer(**self._connection.options(), isolation_level="read_committed")
            try:
                await consumer.start()
                offsets = await _resolve(consumer, partitions, start)
            finally:
                await consumer.stop()
        return {str(partition.partition): offset for partition, offset in offsets.items()}

    def target(self, rule: str, *, ordered: bool) -> KafkaTarget:
        return KafkaTarget(self._connection)

    def source(self, rule: str, topic: str, positions: Mapping[str, int], *, tags: str = "", sql: str = "") -> KafkaSource:
        return KafkaSource(self._connection, rule, topic, positions)

    @property
    def trouble(self) -> str:
        return self._connection.trouble

    async def close(self) -> None:
        await asyncio.gather(*(opened.close() for opened in list(self._connection.opened)))
        await self._connection.close()


async def _resolve(consumer: AIOKafkaConsumer, partitions: list[TopicPartition], start: SourceStart) -> Mapping[TopicPartition, int]:
    if start == "earliest":
        firsts: Mapping[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        return firsts
    if isinstance(start, Mapping):
        firsts = await consumer.beginning_offsets(partitions)
        return {partition: start.get(str(partition.partition), firsts[partition]) for partition in partitions}
    ends: Mapping[TopicPartition, int] = await consumer.end_offsets(partitions)
    if start == "now":
        return ends
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(int(start), 0)))
    return {partition: ends[partition] if found.get(partition) is None else found[partition].offset for partition in partitions}
