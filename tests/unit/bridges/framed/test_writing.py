"""The writing side over a medium of our own making: what is pending, what is refused for how much waits or for how long, and a close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from bridges.framed.lanes import Group
from bridges.framed.writing import Writing
from tests.contract.log_traffic import Told, record


class Medium:
    title = "Medium"

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.waited = False
        self.next = 0

    async def deliver(self, group: Group, name: str, shard: int, body: bytes) -> int:
        group.sent = True
        self.waited = not self.open.is_set()
        await self.open.wait()
        self.next += 1
        return self.next - 1

    def trouble(self, name: str, shard: int) -> str:
        return "silence"

    def recovered(self, name: str, shard: int) -> bool:
        return self.waited

    def larger(self, name: str) -> str:
        return "the limit"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    group_records: int = 2
    group_bytes: int = 1000
    pending_records: int = 5
    pending_bytes: int = 500
    refuse_after: float = 10.0
    hang_after: float = 1.0
    close_within: float = 0.05


class World:
    def __init__(self) -> None:
        self.now = 1.0
        self.medium = Medium()
        self.durable: list[int] = []
        durable = self.durable
        self.writing = Writing(
            self.medium,
            {"t": "p-t"},
            2,
            ("n", 1),
            largest=4096,
            limits=Limits(),
            clock=lambda: self.now,
            durable=lambda lane: durable.append(lane.shard),
        )
        self.told = Told()

    def append(self, *numbers: int, size: int = 20) -> None:
        for number in numbers:
            self.writing.append("t", "k", record(number, size=size), self.told)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("bridges.framed.writing.WATCH_EVERY", 0.005)
    world = World()
    yield world
    if world.writing.refusal is None:
        world.medium.open.set()
        await world.writing.close()


async def test_what_is_durable_is_counted_and_told_with_its_place(world: World) -> None:
    world.append(0, 1, 2)
    assert world.writing.pressure().records == 3
    await world.told.wait(3)
    assert (world.writing.frames, world.writing.records) == (2, 3)
    (shard,) = set(world.durable)
    assert world.writing.ends["t"][shard] == 2
    assert world.writing.pressure() == type(world.writing.pressure())(0, 0, 0.0)


@pytest.mark.parametrize(("size", "taken"), [(20, 5), (200, 2)])
async def test_past_what_may_be_pending_records_are_refused(world: World, size: int, taken: int) -> None:
    world.medium.open.clear()
    world.append(*range(7), size=size)
    await world.told.wait(7 - taken)
    assert sorted(int.from_bytes(each, "big") for each in world.told.refusals) == list(range(taken, 7))
    assert "more records waiting than its limit: Medium is too slow" in str(next(iter(world.told.refusals.values())))


async def test_a_frame_that_hangs_is_a_stall_and_later_refuses_what_waits_behind_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.medium.open.clear()
    world.append(0, 1, 2)
    await asyncio.sleep(0.01)
    world.now += 2
    assert world.writing.pressure().stalled_since == 1.0
    world.now += 9
    await world.told.wait(1)
    assert list(world.told.refusals) == [(2).to_bytes(16, "big")]
    world.append(3)
    await world.told.wait(2)
    assert "Medium has not answered for 10 s: silence" in str(world.told.refusals[(3).to_bytes(16, "big")])
    world.medium.open.set()
    await world.told.wait(4)
    assert world.told.order["k"] == [2, 3, 0, 1]
    assert "log.resumed topic=p-t" in caplog.text
    world.append(4)
    await world.told.wait(5)
    assert len(world.told.at) == 3


async def test_a_close_tells_what_may_be_in_the_log_and_what_was_not_sent(world: World) -> None:
    world.medium.open.clear()
    world.append(0, 1, 2)
    await asyncio.sleep(0.01)
    await world.writing.close()
    words = [str(world.told.refusals[number.to_bytes(16, "big")]) for number in range(3)]
    assert words[0] == words[1] == "the log closed before Medium acknowledged: the record may be in the log all the same"
    assert words[2] == "the log closed before the record was sent: Medium does not answer"
    world.append(3)
    await world.told.wait(4)
    assert str(world.told.refusals[(3).to_bytes(16, "big")]) == "the log is closed"
