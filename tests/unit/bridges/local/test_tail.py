"""The newest frames in memory: found by any record they hold, bounded by count and by bytes."""

from __future__ import annotations

import pytest

from bridges.local.tail import Stored, Tail
from schemas.records import Record


def frame(first: int, count: int, size: int = 10) -> Stored:
    return Stored(first, [Record(0, b"", 0, "c")] * count, size, "node", 1, first)


def filled(frames: int, size: int) -> Tail:
    tail = Tail(frames, size)
    for first in range(0, 50, 5):
        tail.add(frame(first, 5))
    return tail


def test_any_record_of_a_frame_finds_it() -> None:
    tail = filled(100, 1000)
    for number in range(50):
        found = tail.find(number)
        assert found is not None
        assert found.first == number // 5 * 5


@pytest.mark.parametrize(("frames", "size"), [(3, 1000), (100, 30), (100, 39)])
def test_the_oldest_frames_go_first(frames: int, size: int) -> None:
    tail = filled(frames, size)
    assert tail.find(34) is None
    assert [found.first for number in (35, 40, 49) if (found := tail.find(number))] == [35, 40, 45]


def test_a_frame_larger_than_the_room_stays_until_the_next() -> None:
    tail = Tail(10, 5)
    tail.add(frame(0, 1, size=100))
    assert tail.find(0) is not None
    tail.add(frame(1, 1, size=100))
    assert tail.find(0) is None
    assert tail.find(1) is not None


def test_records_to_come_are_not_found() -> None:
    assert Tail(1, 1).find(0) is None
    assert filled(100, 1000).find(50) is None


def test_frames_that_all_readers_have_passed_go_but_the_last_stays() -> None:
    tail = filled(100, 1000)
    tail.forget(43)
    assert tail.find(39) is None
    assert (found := tail.find(42)) is not None
    assert found.first == 40
    tail.forget(1000)
    assert tail.find(44) is None
    assert tail.find(49) is not None
