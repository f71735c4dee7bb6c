"""The backends that the contract suite runs on. A driver makes one, and does to its topics what the port has no words for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from bridges.kafka.backend import KafkaBackend
from bridges.rocketmq import calls
from bridges.rocketmq.backend import RocketmqBackend
from schemas.connections import ConnectionSettings
from streams.backend import Backend
from streams.memory.backend import MemoryBackend
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.process import free_port


class Driver(Protocol):
    backend: Backend
    too_large: int
    """Bytes of a body that the backend refuses."""
    carries: frozenset[str]
    """Which of key and tag come back."""
    senders_time: bool
    """Positions are found by the time that messages carry, and not by the one at which they were stored."""

    def unreachable(self) -> Backend:
        """One whose address nobody answers at."""

    async def add_queues(self, topic: str, count: int) -> None:
        """So many more than there are."""

    async def drop(self, topic: str, queue: str, count: int) -> None:
        """Forget the first messages of a queue that has forgotten none."""


class MemoryDriver:
    too_large = 1001
    carries = frozenset({"key", "tag"})
    senders_time = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.backend = MemoryBackend(largest=1000)

    def unreachable(self) -> Backend:
        backend = MemoryBackend()
        backend.faults.down = "nobody there"
        return backend

    async def add_queues(self, topic: str, count: int) -> None:
        self.backend.add_queues(topic, count)

    async def drop(self, topic: str, queue: str, count: int) -> None:
        self.backend.topics[topic][queue].drop(count)


class KafkaDriver:
    too_large = 1_100_000
    carries = frozenset({"key"})
    senders_time = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        broker: Kafka = request.getfixturevalue("kafka")
        self._address = broker.address
        self.backend = KafkaBackend(kafka_settings(broker.address))

    def unreachable(self) -> Backend:
        return KafkaBackend(kafka_settings(f"127.0.0.1:{free_port()}"))

    async def add_queues(self, topic: str, count: int) -> None:
        before = await self.backend.describe(topic)
        assert before is not None
        async with _Admin(self._address) as admin:
            await admin.create_partitions({topic: NewPartitions(before.queues + count)})

    async def drop(self, topic: str, queue: str, count: int) -> None:
        async with _Admin(self._address) as admin:
            await admin.delete_records({TopicPartition(topic, int(queue)): RecordsToDelete(count)})


class _Admin:
    def __init__(self, address: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=address)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


class RocketmqDriver:
    too_large = 4_200_000
    carries = frozenset({"tag"})
    senders_time = False
    fixture = "rocketmq"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        broker: RocketMQ = request.getfixturevalue(self.fixture)
        self.backend = RocketmqBackend(rocketmq_settings(broker.address))

    def unreachable(self) -> Backend:
        return RocketmqBackend(rocketmq_settings(f"127.0.0.1:{free_port()}"))

    async def add_queues(self, topic: str, count: int) -> None:
        before = await self.backend.describe(topic)
        assert before is not None
        client = self.backend._client
        for address in (await calls.cluster(client)).masters.values():
            await calls.create_topic(client, address, topic, before.queues + count, before.kind)
        after = await self.backend.describe(topic)
        assert after is not None
        assert after.queues == before.queues + count

    async def drop(self, topic: str, queue: str, count: int) -> None:
        raise NotImplementedError("a broker drops whole files of all its topics, by their age")


class Rocketmq4Driver(RocketmqDriver):
    fixture = "rocketmq4"


def kafka_settings(*address: str, **options: object) -> ConnectionSettings:
    return ConnectionSettings(name="test", kind="kafka", address=address, **options)  # type: ignore[arg-type]


def rocketmq_settings(*address: str, **options: object) -> ConnectionSettings:
    return ConnectionSettings(name="test", kind="rocketmq", address=address, **options)  # type: ignore[arg-type]


DRIVERS: dict[str, Callable[[pytest.FixtureRequest], Driver]] = {
    "memory": MemoryDriver,
    "kafka": KafkaDriver,
    "rocketmq": RocketmqDriver,
    "rocketmq4": Rocketmq4Driver,
}
REAL = [pytest.mark.slow, pytest.mark.timeout(300)]
PARAMS = ["memory", *(pytest.param(name, marks=REAL) for name in ("kafka", "rocketmq", "rocketmq4"))]
"""For most tests."""
DROPPING = PARAMS[:2]
"""Those that can be told to drop messages."""
