"""One shard's writing side, with a medium of our own making: groups, order, halves, and what may be refused when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bridges.framed.lanes import Group, Lane, tell_runs
from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Kind, Record, decode_frame


class Told:
    def __init__(self) -> None:
        self.order: list[int] = []
        self.refusals: dict[int, str] = {}
        self.calls = 0

    def appended(self, records: Sequence[Record], first: At) -> None:
        self.calls += 1
        self.order += [record.packet_id for record in records]

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        self.refusals |= {record.packet_id: str(error) for record in records}


class Writer:
    """The writing side and the medium of a lane in one: ``outcomes`` are met in order (-1: too large), then everything is taken."""

    title = "Medium"
    node, epoch = "n", 7

    def __init__(self, *outcomes: int, group_records: int = 4096, group_bytes: int = 1 << 20, largest: int = 1 << 20) -> None:
        self.outcomes = list(outcomes)
        self.group_records, self.group_bytes, self.largest = group_records, group_bytes, largest
        self.medium = self
        self.sent: list[tuple[int, list[int]]] = []
        """Each attempt: the frame's number and its records."""
        self.held = asyncio.Event()
        self.held.set()
        self._numbers = iter(range(1, 1000))
        self._offset = -1
        self.left_over: list[Group] = []

    def clock(self) -> float:
        return 1.0

    def number(self) -> int:
        return next(self._numbers)

    def settled(self, lane: Lane, group: Group, offset: int) -> None:
        tell_runs(group, lambda sink: sink.appended, lambda index: At(lane.shard, offset, index))

    def left(self, group: Group) -> None:
        self.left_over.append(group)

    async def deliver(self, group: Group, name: str, shard: int, body: bytes) -> int:
        await self.held.wait()
        group.sent = True
        frame = decode_frame(body)
        self.sent.append((frame.sequence, [record.packet_id for record in frame.records]))
        if self.outcomes:
            return self.outcomes.pop(0)
        self._offset += 1
        return self._offset

    def trouble(self, name: str, shard: int) -> str:
        return "silence"

    def recovered(self, name: str, shard: int) -> bool:
        return False

    def larger(self, name: str) -> str:
        return f"the limit of {name}"


def fill(lane: Lane, sink: Told, count: int, size: int = 10, since: int = 0, topic: str = "t") -> None:
    for number in range(since, since + count):
        lane.records.append(Record(Kind.PUBLISH, number.to_bytes(16, "big"), number, "c", topic, bytes(size), packet_id=number))
        lane.sinks.append(sink)
        lane.sizes.append(size)
    lane.ring()


async def until(sink: Told, count: int) -> None:
    async with asyncio.timeout(5):
        while len(sink.order) + len(sink.refusals) < count:
            await asyncio.sleep(0)


async def run(writer: Writer, count: int, size: int = 10) -> Told:
    lane, sink = Lane(writer, "publish", "p-publish", 2), Told()
    task = asyncio.ensure_future(lane.run())
    fill(lane, sink, count, size)
    await until(sink, count)
    task.cancel()
    return sink


async def test_groups_keep_to_both_limits() -> None:
    writer = Writer(group_records=4)
    assert (await run(writer, 10)).order == list(range(10))
    assert [len(records) for _, records in writer.sent] == [4, 4, 2]
    writer = Writer(group_bytes=25)
    assert (await run(writer, 5)).order == list(range(5))
    assert [len(records) for _, records in writer.sent] == [2, 2, 1]
    writer = Writer(group_bytes=5)
    await run(writer, 2)
    assert [len(records) for _, records in writer.sent] == [1, 1], "a record larger than a group goes alone"


async def test_what_the_topic_does_not_take_goes_in_halves_and_the_culprit_alone_is_refused() -> None:
    writer = Writer(largest=300)
    lane, sink = Lane(writer, "publish", "p-publish", 2), Told()
    task = asyncio.ensure_future(lane.run())
    fill(lane, sink, 3)
    fill(lane, sink, 1, size=1000, since=3)
    fill(lane, sink, 3, since=4)
    await until(sink, 7)
    task.cancel()
    assert sink.order == [0, 1, 2, 4, 5, 6]
    assert list(sink.refusals) == [3]
    assert "raise the limit of p-publish" in sink.refusals[3]
    assert sorted(number for _, records in writer.sent for number in records) == [0, 1, 2, 4, 5, 6]
    assert lane.acknowledged == writer.sent[-1][0]


async def test_a_broker_that_takes_less_than_it_said_gets_halves_too() -> None:
    writer = Writer(-1)
    assert (await run(writer, 4)).order == [0, 1, 2, 3]
    assert [records for _, records in writer.sent] == [[0, 1, 2, 3], [0, 1], [2, 3]]
    numbers = [number for number, _ in writer.sent]
    assert numbers == sorted(set(numbers)), "halves are frames of their own"


async def test_what_waits_can_be_refused_and_what_was_sent_goes_on() -> None:
    writer = Writer(group_records=2)
    writer.held.clear()
    lane, sink = Lane(writer, "publish", "p-publish", 0), Told()
    task = asyncio.ensure_future(lane.run())
    fill(lane, sink, 5)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lane.refuse_waiting(LogError("full"))
    assert sorted(sink.refusals) == [2, 3, 4]
    writer.held.set()
    await until(sink, 5)
    task.cancel()
    assert sink.order == [0, 1]


async def test_a_sink_that_fails_keeps_no_other_from_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Told):
        def appended(self, records: Sequence[Record], first: At) -> None:
            raise RuntimeError

    lane, sink = Lane(Writer(), "publish", "p-publish", 0), Told()
    task = asyncio.ensure_future(lane.run())
    fill(lane, Broken(), 1)
    fill(lane, sink, 2, since=1)
    await until(sink, 2)
    task.cancel()
    assert sink.calls == 1
    assert "log.sink_failed" in caplog.text


async def test_a_mark_is_a_frame_that_is_begun_after_it_was_asked_for() -> None:
    """Where no record waits it is an empty one; those who ask meanwhile share it."""
    writer = Writer()
    lane, sink = Lane(writer, "publish", "p-publish", 2), Told()
    task = asyncio.ensure_future(lane.run())
    assert await lane.mark() == 0
    writer.held.clear()
    fill(lane, sink, 1)
    while lane.records:
        await asyncio.sleep(0)
    asked = [asyncio.ensure_future(lane.mark()) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    writer.held.set()
    assert await asyncio.gather(*asked[1:]) == [2, 2]
    assert writer.sent == [(1, []), (2, [0]), (3, [])]
    assert lane.end == 3
    task.cancel()


async def test_records_that_wait_go_with_a_mark_and_where_all_are_refused_an_empty_frame_does() -> None:
    writer = Writer(largest=100)
    lane, sink = Lane(writer, "publish", "p-publish", 2), Told()
    fill(lane, sink, 1)
    asked = asyncio.ensure_future(lane.mark())
    await asyncio.sleep(0)
    task = asyncio.ensure_future(lane.run())
    assert await asked == 0
    fill(lane, sink, 1, size=1000, since=1)
    asked = asyncio.ensure_future(lane.mark())
    assert await asked == 1
    assert [records for _, records in writer.sent] == [[0], []]
    assert list(sink.refusals) == [1]
    task.cancel()


async def test_marks_end_with_the_log() -> None:
    writer = Writer()
    writer.held.clear()
    lane = Lane(writer, "publish", "p-publish", 2)
    task = asyncio.ensure_future(lane.run())
    first = asyncio.ensure_future(lane.mark())
    while not lane.groups:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(lane.mark())
    await asyncio.sleep(0)
    task.cancel()
    lane.leave_marks(LogError("the log is closed"))
    for asked in (first, second):
        with pytest.raises(LogError, match="closed"):
            await asked
