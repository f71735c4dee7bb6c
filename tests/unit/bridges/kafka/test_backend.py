"""Topics that are made, where brokers learn of them late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridges.kafka import backend as module
from bridges.kafka.backend import KafkaBackend
from bridges.kafka.connection import Topic
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError


class Admin:
    """Says of each topic that it was made, or with which error it wasn't."""

    code = 0

    def __init__(self, **options: Any) -> None:
        pass

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def create_topics(self, topics: list[Any]) -> Any:
        return SimpleNamespace(topic_errors=[(topic.name, self.code, "") for topic in topics])


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> KafkaBackend:
    monkeypatch.setattr(module, "AIOKafkaAdminClient", Admin)
    monkeypatch.setattr(module, "PAUSE", 0)
    return KafkaBackend(ConnectionSettings(name="orders", kind="kafka", address=("a:1",)))


async def test_a_topic_is_made_when_who_asks_finds_it(backend: KafkaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, Topic((), ()), Topic((0, 1), (0,)), Topic((0, 1), (0, 1)), None]
    asked: list[str] = []

    async def topic(name: str) -> Topic | None:
        asked.append(name)
        return answers.pop(0)

    monkeypatch.setattr(backend._connection, "topic", topic)
    await backend.create_topic("orders", 2)
    assert asked == ["orders"] * 4


async def test_a_topic_that_is_refused_is_not_waited_for(backend: KafkaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admin, "code", 36)
    with pytest.raises(BackendError, match=r"connection orders: create orders: .*TopicAlreadyExists"):
        await backend.create_topic("orders", 2)
