"""A fake cluster, and a backend that is connected to it and gone when the test is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from bridges.rocketmq.backend import RocketmqBackend
from schemas.connections import ConnectionSettings
from streams.backend import Outgoing
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic


@pytest.fixture
async def fake() -> AsyncIterator[FakeRocketmq]:
    """One broker, topic `T` with four queues."""
    async with FakeRocketmq(topics={"T": FakeTopic([[], [], [], []])}) as server:
        yield server


@pytest.fixture
async def make_backend() -> AsyncIterator[Callable[..., RocketmqBackend]]:
    made: list[RocketmqBackend] = []

    def make(*address: str, **options: object) -> RocketmqBackend:
        backend = RocketmqBackend(ConnectionSettings(name="main", kind="rocketmq", address=address, **options))  # type: ignore[arg-type]
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
async def backend(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend]) -> RocketmqBackend:
    return make_backend(fake.address)


def message(body: bytes = b"body", number: int = 1, **options: object) -> Outgoing:
    fields = {"topic": "T", "properties": (), "id": f"{number:032X}", "time": 1000, **options}
    return Outgoing(body=body, **fields)  # type: ignore[arg-type]
