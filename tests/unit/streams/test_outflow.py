"""A rule on a log whose frames have one offset each: where it has read up to, and what it passes over once, go by the log's own order."""

from __future__ import annotations

from typing import Any

from bridges.framed.reading import place
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Kind, Record
from schemas.rules import Rule, RuleState
from streams.log import Batch
from streams.runtime.feed import Feed
from streams.runtime.outflow import OutflowRunner, Room, resume


class FramedLog:
    def place(self, at: At) -> int:
        return place(at)


class Mapper:
    sources = frozenset({0})


class Sender:
    mapper = Mapper()


class Progress:
    behind = False
    lost = 0


def runner(read: At, feed_at: At) -> OutflowRunner:
    log: Any = FramedLog()
    feed = Feed(log, PUBLISH_TOPIC)
    feed.positions = {0: feed_at}
    rule: Any = Rule
    parts: Any = Sender(), Progress(), None
    state = RuleState(positions={0: read}, counted_from={0: At(0, 0, 0)})
    return OutflowRunner(rule, state, log, PUBLISH_TOPIC, feed, *parts, Room(), is_mine=lambda topic: True, wall=lambda: 0)


def batch(offset: int, count: int) -> Batch:
    records = [Record(int(Kind.PUBLISH), bytes(16), 1, "c", "t", b"%d" % index) for index in range(count)]
    return Batch(At(0, offset, 0), records, At(0, offset + 1, 0))


def test_who_fell_behind_in_the_middle_of_a_long_frame_is_not_ahead_of_the_next_ones() -> None:
    assert not runner(At(0, 5, 1024), At(0, 900, 0))._is_caught_up()
    assert runner(At(0, 900, 0), At(0, 5, 1024))._is_caught_up()


def test_what_a_reader_had_beyond_the_feed_is_passed_over_and_nothing_else() -> None:
    ahead = runner(At(0, 7, 0), At(0, 6, 0))
    ahead._go_live()
    for offset in (6, 7):
        ahead.take(batch(offset, 3), range(3))
        ahead._feed.positions = {0: At(0, offset + 1, 0)}
    assert ahead._buffered == 3
    assert ahead._from_buffer().end == At(0, 8, 0)


def test_a_backfill_goes_on_after_a_restart_where_nothing_of_it_has_matched_yet() -> None:
    state = RuleState(positions={0: At(0, 5, 1024)}, counted_from={0: At(0, 900, 0)})
    assert resume(state, {0: At(0, 2000, 0)}, place).positions == {0: At(0, 5, 1024)}
