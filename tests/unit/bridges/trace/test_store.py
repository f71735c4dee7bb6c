"""Segments of the trace: what goes by size and age, what a restart finds, and that what fails becomes a gap."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from bridges.trace import store as stores
from bridges.trace.segment import Segment
from bridges.trace.store import MAX_BATCHES, MAX_QUERIES, TraceFolder
from schemas.errors import StartError
from schemas.limits import MIB
from schemas.settings import TraceSettings
from schemas.traces import Row, TraceGap, TracePage, TraceQuery
from streams.tracing import TraceBusy

ALL = TraceQuery(begin=0, end=10**13, size=1)
Open = Callable[..., TraceFolder]


class Wall:
    now = 10**12

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def open_traces(tmp_path: Path, wall: Wall) -> AsyncIterator[Open]:
    opened: list[TraceFolder] = []

    def make(**settings: float) -> TraceFolder:
        opened.append(TraceFolder(tmp_path / "trace", TraceSettings(**settings), wall))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for traces in opened:
        with contextlib.suppress(RuntimeError):  # closed by the test
            await traces.close()


def rows(wall: Wall, count: int, detail: str = "") -> list[Row]:
    return [(wall.now, 10, f"client {number}", number.to_bytes(16, "big"), "", detail) for number in range(count)]


def files(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "trace").iterdir())


async def test_before_anything_was_written_there_is_nothing(open_traces: Open) -> None:
    assert await open_traces().find(ALL) == TracePage(0, [], [])


async def test_the_oldest_go_past_the_size(open_traces: Open, wall: Wall, tmp_path: Path) -> None:
    traces = open_traces(retention_bytes=16 * MIB)
    for _ in range(40):
        wall.now += 1000
        traces.write(rows(wall, 1000, "x" * 500), None)
        found = await traces.find(ALL)
    assert 10_000 < found.total < 30_000
    assert found.events[0].time > 10**12 + 1000
    assert files(tmp_path) < 20 * MIB
    newest = await traces.find(TraceQuery(begin=0, end=10**13, newest_first=True))
    assert newest.events[0].time == wall.now


async def test_the_oldest_go_past_their_age(open_traces: Open, wall: Wall) -> None:
    traces = open_traces(retention_age=1600)
    for _ in range(30):
        traces.write(rows(wall, 1), None)
        await traces.find(ALL)
        wall.now += 100_000
    found = await traces.find(ALL)
    assert 16 <= found.total <= 18
    assert found.events[0].time >= wall.now - 1_800_000


async def test_a_page_goes_over_segments(open_traces: Open, wall: Wall) -> None:
    traces = open_traces(retention_age=1600)
    for _ in range(5):
        traces.write(rows(wall, 2), None)
        await traces.find(ALL)
        wall.now += 100_000
    begun = 10**12
    page = await traces.find(TraceQuery(begin=0, end=10**13, page=2, size=3))
    assert [event.time - begun for event in page.events] == [100_000, 200_000, 200_000]
    page = await traces.find(TraceQuery(begin=begun + 300_000, end=10**13, page=1, size=3, newest_first=True))
    assert (page.total, [event.time - begun for event in page.events]) == (4, [400_000, 400_000, 300_000])


async def test_a_restart_goes_on_in_the_same_segment(open_traces: Open, wall: Wall, tmp_path: Path) -> None:
    first = open_traces()
    first.write(rows(wall, 3), None)
    await first.close()
    opened = open_traces()
    assert (await opened.find(ALL)).total == 3
    opened.write(rows(wall, 2), None)
    assert (await opened.find(ALL)).total == 5
    assert len(list((tmp_path / "trace").glob("*.db"))) == 1


async def test_a_damaged_segment_is_left_and_told_as_a_gap(open_traces: Open, wall: Wall, tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / "000000000000500.db").write_bytes(b"no database" * 1000)
    traces = open_traces(retention_age=10**11)
    traces.write(rows(wall, 4), None)
    wall.now += 10
    traces.write(rows(wall, 2), None)
    found = await traces.find(ALL)
    assert found.total == 2
    assert found.gaps[0].begin == 500
    assert sum(gap.events for gap in found.gaps) == 4


async def test_what_the_disk_refuses_is_a_gap_until_it_takes_more(open_traces: Open, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = open_traces()
    traces.write(rows(wall, 1), None)
    await traces.find(ALL)
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise apsw.FullError("full")

        patched.setattr(Segment, "write", full)
        traces.write(rows(wall, 3), TraceGap(begin=wall.now - 5, end=wall.now, messages=9, events=1))
        found = await traces.find(ALL)
        assert found.gaps == [TraceGap(begin=wall.now - 5, end=wall.now, messages=9, events=4)]
    traces.write(rows(wall, 1), None)
    found = await traces.find(ALL)
    assert found.total == 2
    assert found.gaps == [TraceGap(begin=wall.now - 5, end=wall.now, messages=9, events=4)]


async def test_an_hour_of_gaps_is_one(open_traces: Open) -> None:
    traces = open_traces()
    for begin in range(0, 1000, 200):
        traces.write([], TraceGap(begin=begin, end=begin + 200, messages=2, events=1))
        await traces.find(ALL)
    assert (await traces.find(ALL)).gaps == [TraceGap(begin=0, end=1000, messages=10, events=5)]


async def test_batches_and_queries_are_bounded(open_traces: Open, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = open_traces()
    monkeypatch.setattr(traces, "_batches", MAX_BATCHES)
    assert not traces.write(rows(wall, 1), None)
    monkeypatch.setattr(traces, "_batches", 0)
    assert traces.write(rows(wall, 1), None)
    monkeypatch.setattr(traces, "_queries", MAX_QUERIES)
    with pytest.raises(TraceBusy, match="try again"):
        await traces.find(ALL)
    monkeypatch.setattr(traces, "_queries", 0)
    monkeypatch.setattr(stores, "MAX_GAPS", 0)
    assert (await traces.find(ALL)).total == 1


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("a file")
    with pytest.raises(StartError, match="can't be used"):
        TraceFolder(tmp_path / "trace", TraceSettings())
