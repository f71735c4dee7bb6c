"""The misbehaviour of the backend in memory: each fault does what it says and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import BackendError
from streams.backend import Outgoing
from streams.memory import backend as module
from streams.memory.backend import MemoryBackend


@pytest.fixture
async def backend() -> MemoryBackend:
    backend = MemoryBackend()
    await backend.create_topic("t", 1)
    return backend


def messages(count: int) -> list[Outgoing]:
    return [Outgoing("t", b"%d" % number, (), f"{number:032X}", number, tag="even" if number % 2 == 0 else "odd") for number in range(count)]


def stored(backend: MemoryBackend) -> list[bytes]:
    return [message.body for message in backend.topics["t"]["0"].messages]


async def test_down_is_down_for_everything_and_up_again(backend: MemoryBackend) -> None:
    backend.faults.down = "it is down"
    target, source = backend.target("r", ordered=False), backend.source("r", "t", {})
    for call in (lambda: target.send(messages(1)), lambda: source.next(1, 1), lambda: source.ends(), lambda: backend.describe("t")):
        with pytest.raises(BackendError, match="it is down"):
            await call()
    await source.commit({"0": 1})
    assert (backend.trouble, backend.committed) == ("it is down", {})
    backend.faults.down = ""
    assert await target.send(messages(1)) == []
    await source.commit({"0": 1})
    assert backend.committed == {("r", "t"): {"0": 1}}


async def test_slow_answers_wait(backend: MemoryBackend) -> None:
    backend.faults.delay = 0.02
    begun = asyncio.get_running_loop().time()
    await backend.target("r", ordered=False).send(messages(1))
    assert asyncio.get_running_loop().time() - begun >= 0.02


async def test_poison_is_refused_alone(backend: MemoryBackend) -> None:
    backend.faults.refuse = lambda message: "poison" if message.body == b"3" else ""
    (rejected,) = await backend.target("r", ordered=False).send(messages(5))
    assert (rejected.index, rejected.reason) == (3, "poison")
    assert stored(backend) == [b"0", b"1", b"2", b"4"]


async def test_half_is_refused(backend: MemoryBackend) -> None:
    backend.faults.refuse_half = True
    assert [each.index for each in await backend.target("r", ordered=False).send(messages(6))] == [0, 2, 4]
    assert stored(backend) == [b"1", b"3", b"5"]


async def test_answers_are_lost_after_all_is_stored(backend: MemoryBackend) -> None:
    backend.faults.lose_answers = 1
    target = backend.target("r", ordered=False)
    with pytest.raises(BackendError):
        await target.send(messages(2))
    assert await target.send(messages(2)) == []
    assert stored(backend) == [b"0", b"1", b"0", b"1"]


async def test_the_first_are_stored_and_the_rest_is_not(backend: MemoryBackend) -> None:
    backend.faults.store_first = 2
    target = backend.target("r", ordered=False)
    with pytest.raises(BackendError):
        await target.send(messages(5))
    assert stored(backend) == [b"0", b"1"]
    assert await target.send(messages(1)) == []


async def test_a_full_queue_forgets_its_oldest(backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    await backend.target("r", ordered=False).send(messages(5))
    source = backend.source("r", "t", {"0": 0})
    assert [message.offset for message in await source.next(10, 1000)] == [2, 3, 4]
    assert source.skipped == 2


async def test_tags_choose(backend: MemoryBackend) -> None:
    await backend.target("r", ordered=False).send(messages(4))
    for tags, bodies in (("even", [b"0", b"2"]), ("even || odd", [b"0", b"1", b"2", b"3"]), ("*", [b"0", b"1", b"2", b"3"])):
        assert [message.body for message in await backend.source("r", "t", {}, tags=tags).next(10, 1000)] == bodies
