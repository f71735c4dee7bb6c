"""Which messages are traced: alike everywhere, fewer when there are many, and what is left out is counted."""

from __future__ import annotations

import pytest

from schemas.records import Kind, Record
from schemas.traces import TraceEvent, TraceGap, TracePage, TraceQuery
from streams.tracing import DEPTH, MAX_GAPS, MAX_LEVEL, Sampler, TraceTooDeep, first_of, merged


def records(count: int, kind: int = 0) -> list[Record]:
    return [Record(kind, (17 * number).to_bytes(16, "big"), 1, "c", "t") for number in range(count)]


def test_all_messages_are_picked_at_first_and_releases_never() -> None:
    sampler = Sampler(1, 100)
    both = records(50) + records(50, int(Kind.RELEASE))
    assert sampler.choose(both) == both[:50]
    assert sampler.left_out == 0


def test_one_in_so_many_is_picked_and_that_is_no_gap() -> None:
    sampler, many = Sampler(10, 100), records(10_000)
    chosen = sampler.choose(many)
    assert 800 < len(chosen) < 1200
    assert [record for record in many if sampler.picks(record.id)] == chosen
    assert sampler.left_out == 0


def test_more_than_the_rate_raises_the_level_in_one_step_until_it_fits() -> None:
    sampler = Sampler(1, 1000)
    sampler.adapt(201, 0.2)
    assert sampler.level == 1
    sampler = Sampler(1, 1000)
    sampler.adapt(20_000, 0.2)
    assert 20_000 >> sampler.level <= 200
    for _ in range(10):
        sampler.adapt(10**9, 0.2)
    assert sampler.level == MAX_LEVEL


def test_a_burst_raises_the_level_at_once_and_not_again_for_what_came_before() -> None:
    sampler = Sampler(3, 1000)
    sampler.raise_at_once()
    assert (sampler.level, sampler.divisor) == (2, 12)
    sampler.adapt(900, 0.2)
    assert sampler.level == 2
    sampler.adapt(900, 0.2)
    assert sampler.level == 5


def test_the_level_falls_a_step_at_a_time_and_only_when_the_next_one_fits() -> None:
    sampler = Sampler(1, 1000)
    sampler.adapt(20_000, 0.2)
    level = sampler.level
    sampler.adapt(50, 0.2)
    assert sampler.level == level
    sampler.adapt(49, 0.2)
    assert sampler.level == level - 1
    for _ in range(level):
        sampler.adapt(0, 0.2)
    assert (sampler.level, sampler.divisor) == (0, 1)


def test_what_is_picked_above_is_picked_below_and_the_rest_is_counted_without_releases() -> None:
    sampler, many = Sampler(1, 1000), records(4096)
    sampler.adapt(900, 0.2)
    fewer = sampler.choose([*many, *records(100, int(Kind.RELEASE))])
    assert sampler.left_out == 4096 - len(fewer)
    sampler.adapt(900, 0.2)
    assert {record.id for record in sampler.choose(many)} < {record.id for record in fewer}


def events(*times: int) -> list[TraceEvent]:
    return [TraceEvent(time=time, action="sub", client_id="c") for time in times]


def test_a_page_of_many_nodes_is_of_the_first_of_each() -> None:
    query = TraceQuery(begin=0, end=9, page=3, size=2)
    first = first_of(query)
    assert (first.page, first.size) == (1, 6)
    pages = {"b": TracePage(9, events(1, 3, 5, 7, 8, 9), []), "a": TracePage(4, events(2, 4, 6, 8), [])}
    page = merged(query, pages, [])
    assert (page.total, [event.time for event in page.events]) == (13, [5, 6])
    backwards = TraceQuery(begin=0, end=9, page=2, size=3, newest_first=True)
    pages = {name: TracePage(page.total, page.events[::-1], []) for name, page in pages.items()}
    assert [event.time for event in merged(backwards, pages, []).events] == [7, 6, 5]


def test_gaps_of_many_nodes_say_whose_they_are_and_the_newest_stay() -> None:
    gaps = [TraceGap(begin=time, end=time, messages=1, events=0) for time in range(MAX_GAPS)]
    unknown = TraceGap(begin=0, end=9, messages=0, events=0, node="c")
    page = merged(TraceQuery(begin=0, end=9), {"a": TracePage(0, [], gaps), "b": TracePage(0, [], gaps)}, [unknown])
    assert len(page.gaps) == MAX_GAPS + 1
    assert page.gaps[-1] == unknown
    assert [(gap.begin, gap.node) for gap in page.gaps[-3:-1]] == [(MAX_GAPS - 1, "a"), (MAX_GAPS - 1, "b")]


def test_pages_of_many_nodes_end_at_a_depth() -> None:
    first_of(TraceQuery(begin=0, end=9, page=DEPTH // 10, size=10))
    with pytest.raises(TraceTooDeep):
        first_of(TraceQuery(begin=0, end=9, page=DEPTH // 10 + 1, size=10))
