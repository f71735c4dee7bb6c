"""The newest frames in memory: bounded, and let go once every reader is past them."""

from __future__ import annotations

from bridges.local.tail import Stored, Tail
from schemas.records import Record


def frame(first: int, count: int = 2) -> Stored:
    return Stored(first, [Record(0, b"i" * 16, 0, "c")] * count, 100, "n", 1, first)


def test_frames_that_all_readers_have_passed_go_but_the_last_stays() -> None:
    tail = Tail(10, 10_000)
    for first in (0, 2, 4):
        tail.add(frame(first))
    tail.forget(3)
    assert tail.find(1) is None
    assert tail.find(3) == frame(2)
    tail.forget(100)
    assert tail.find(2) is None
    assert tail.find(5) == frame(4)


def test_the_oldest_frames_go_over_the_limit_of_count_or_bytes() -> None:
    for tail in (Tail(2, 10_000), Tail(10, 250)):
        for first in (0, 2, 4):
            tail.add(frame(first))
        assert tail.find(0) is None
        assert tail.find(2) == frame(2)
