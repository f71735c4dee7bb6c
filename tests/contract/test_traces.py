"""What every store of the trace promises: the reference in memory, and segments on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridges.trace.store import TraceFolder
from schemas.settings import TraceSettings
from schemas.traces import OF_DEVICE, OF_MESSAGE, OF_PUSHING, Row, TraceEvent, TraceGap, TraceQuery
from streams.memory.traces import MemoryTraces
from streams.tracing import TraceStore

ONE, TWO = bytes([0xAB] * 16), bytes(range(16))
ROWS: list[Row] = [
    (1000, 1, "dev", b"", "c1", "accepted from 127.0.0.1:5"),
    (1001, 10, "dev", ONE, "", "a/ü\"'\\"),
    (1002, 14, "other@@@ü", ONE, "", ""),
    (1003, 14, "dev", ONE, "", ""),
    (1003, 16, "dev", ONE, "", ""),
    (1004, 10, "other@@@ü", TWO, "", "b"),
    (1005, 3, "dev", b"", "c1", "no heart"),
]
ALL = TraceQuery(begin=0, end=10**13)


@pytest.fixture(params=["memory", "folder"])
async def traces(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TraceStore]:
    store: TraceStore = MemoryTraces() if request.param == "memory" else TraceFolder(tmp_path / "trace", TraceSettings(), lambda: 2000)
    yield store
    await store.close()


async def times(traces: TraceStore, **query: object) -> list[int]:
    found = await traces.find(TraceQuery(**{"begin": 0, "end": 10**13} | query))  # type: ignore[arg-type]
    assert found.total == len(found.events)
    return [event.time for event in found.events]


async def test_an_event_comes_back_as_it_was_told(traces: TraceStore) -> None:
    assert traces.write(ROWS[:2], None)
    assert (await traces.find(ALL)).events == [
        TraceEvent(time=1000, action="connect", client_id="dev", channel_id="c1", detail="accepted from 127.0.0.1:5"),
        TraceEvent(time=1001, action="pub_mqtt", client_id="dev", message_id="AB" * 16, detail="a/ü\"'\\"),
    ]


async def test_by_client_by_message_by_time_and_by_action(traces: TraceStore) -> None:
    traces.write(ROWS[:4], None)
    traces.write(ROWS[4:], None)
    assert await times(traces) == [1000, 1001, 1002, 1003, 1003, 1004, 1005]
    assert await times(traces, client="dev") == [1000, 1001, 1003, 1003, 1005]
    assert await times(traces, client="dev", actions=OF_DEVICE) == [1000, 1005]
    assert await times(traces, client="dev", actions=OF_MESSAGE) == [1001, 1003, 1003]
    assert await times(traces, message=ONE) == [1001, 1002, 1003, 1003]
    assert await times(traces, message=ONE, client="dev", actions=OF_PUSHING) == [1003, 1003]
    assert await times(traces, begin=1003, end=1004) == [1003, 1003, 1004]
    assert await times(traces, client="nobody") == []


async def test_pages_and_the_other_direction(traces: TraceStore) -> None:
    traces.write(ROWS, None)
    page = await traces.find(TraceQuery(begin=0, end=2000, page=2, size=3))
    assert (page.total, [event.time for event in page.events]) == (7, [1003, 1003, 1004])
    page = await traces.find(TraceQuery(begin=0, end=2000, page=2, size=3, newest_first=True))
    assert (page.total, [event.time for event in page.events]) == (7, [1003, 1002, 1001])
    told = (await traces.find(ALL)).events
    assert (await traces.find(TraceQuery(begin=0, end=2000, newest_first=True))).events == told[::-1]
    assert (await traces.find(TraceQuery(begin=0, end=2000, page=4, size=3))).events == []


async def test_gaps_are_told_where_the_time_asked_for_touches_them(traces: TraceStore) -> None:
    early, late = TraceGap(begin=100, end=300, messages=5, events=0), TraceGap(begin=5000, end=5200, messages=0, events=7)
    traces.write([], early)
    traces.write(ROWS, late)
    assert (await traces.find(ALL)).gaps == [early, late]
    assert (await traces.find(TraceQuery(begin=300, end=4999))).gaps == [early]
    assert (await traces.find(TraceQuery(begin=301, end=4999))).gaps == []
