"""Deadlines by numbers, the doubt about the wall clock, and the wheel of timers against a plain sorted list."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.sessions import NEVER_EXPIRES
from streams.expiry import (
    HOLD,
    HOUR,
    NEVER,
    TICK,
    Belief,
    TimerWheel,
    WallGuard,
    is_expired,
    message_deadline,
    remaining_seconds,
    session_deadline,
    will_due,
)

NOW = 1_700_000_000_000
DAY = 24 * HOUR


@pytest.mark.parametrize(("interval", "deadline"), [(None, NEVER), (0, NOW), (10, NOW + 10_000), (0xFFFFFFFF, NOW + 0xFFFFFFFF * 1000)])
def test_when_a_message_expires(interval: int | None, deadline: int) -> None:
    assert message_deadline(interval, NOW) == deadline


def test_expired_from_the_deadline_on() -> None:
    """[MQTT-3.3.2-5]"""
    deadline = message_deadline(10, NOW)
    assert [is_expired(deadline, NOW + waited) for waited in (0, 9_999, 10_000, 10_001)] == [False, False, True, True]
    assert not is_expired(NEVER, NOW + 1000 * DAY)


@pytest.mark.parametrize(
    ("waited", "expected"), [(0, 10), (2, 10), (999, 10), (1000, 9), (1001, 9), (9_001, 1), (9_999, 1), (10_000, 0), (99_000, 0)]
)
def test_the_interval_sent_on_is_less_the_time_waited(waited: int, expected: int) -> None:
    """[MQTT-3.3.2-6]"""
    assert remaining_seconds(message_deadline(10, NOW), NOW + waited) == expected
    assert remaining_seconds(NEVER, NOW + waited) is None


@pytest.mark.parametrize(
    ("asked", "limit", "granted", "deadline"),
    [
        (0, NEVER_EXPIRES, 0, NOW),
        (60, NEVER_EXPIRES, 60, NOW + 60_000),
        (NEVER_EXPIRES, NEVER_EXPIRES, NEVER_EXPIRES, NEVER),
        (NEVER_EXPIRES, 3600, 3600, NOW + 3_600_000),
        (7200, 3600, 3600, NOW + 3_600_000),
        (NEVER_EXPIRES - 1, NEVER_EXPIRES, NEVER_EXPIRES - 1, NOW + (NEVER_EXPIRES - 1) * 1000),
    ],
)
def test_session_expiry_is_capped_and_all_ones_is_never(asked: int, limit: int, granted: int, deadline: int) -> None:
    assert min(asked, limit) == granted  # NEVER_EXPIRES is the largest number there is, so it caps like any other
    assert session_deadline(granted, NOW) == deadline


@pytest.mark.parametrize(("delay", "expiry", "after"), [(0, 60, 0), (10, 60, 10), (60, 10, 10), (60, 0, 0), (60, NEVER_EXPIRES, 60)])
def test_a_will_waits_for_its_delay_or_the_end_of_the_session(delay: int, expiry: int, after: int) -> None:
    """[MQTT-3.1.3-9]"""
    assert will_due(NOW, delay, expiry) == NOW + after * 1000


def beliefs(guard: WallGuard, looks: list[tuple[int, float]]) -> list[Belief]:
    return [guard.check(wall, monotonic) for wall, monotonic in looks]


def test_a_clock_that_is_right_is_believed() -> None:
    assert beliefs(WallGuard(NOW, 5.0), [(NOW + 10, 5.0), (NOW + 1000, 6.0), (NOW + DAY, 6.0 + 86_400)]) == [Belief.FINE] * 3
    assert beliefs(WallGuard(NOW, 5.0), [(NOW + HOUR, 5.0), (NOW - 900, 5.0)]) == [Belief.FINE] * 2


def test_an_empty_log_doubts_nothing() -> None:
    assert beliefs(WallGuard(0, 5.0), [(NOW, 5.0), (NOW + 1000, 6.0)]) == [Belief.FINE] * 2


def test_behind_the_newest_record_deadlines_wait_until_it_is_reached() -> None:
    guard = WallGuard(NOW, 5.0)
    assert beliefs(guard, [(NOW - DAY, 5.0), (NOW - 2000, 6.0), (NOW + 10, 7.0)]) == [Belief.BEHIND, Belief.BEHIND, Belief.FINE]
    guard = WallGuard(NOW, 5.0)
    assert beliefs(guard, [(NOW - 5000, 5.0), (NOW - 1001, 9.0), (NOW - 999, 9.1)]) == [Belief.BEHIND, Belief.BEHIND, Belief.FINE]


def test_a_newer_record_moves_the_mark() -> None:
    guard = WallGuard(NOW, 5.0)
    assert guard.check(NOW, 5.0) is Belief.FINE
    guard.newest = NOW + 5000
    assert guard.check(NOW, 5.1) is Belief.BEHIND


def test_far_ahead_at_start_is_held_a_minute() -> None:
    guard = WallGuard(NOW, 5.0)
    looks = [(NOW + DAY, 5.0), (NOW + DAY + 59_000, 64.0), (NOW + DAY + 60_000, 5.0 + HOLD), (NOW + DAY + 61_000, 66.0)]
    assert beliefs(guard, looks) == [Belief.AHEAD, Belief.AHEAD, Belief.FINE, Belief.FINE]


def test_a_jump_ahead_while_running_is_held_too_but_time_that_passed_is_not_one() -> None:
    guard = WallGuard(NOW, 5.0)
    assert beliefs(guard, [(NOW, 5.0), (NOW + DAY, 6.0), (NOW + DAY + 60_000, 66.0)]) == [Belief.FINE, Belief.AHEAD, Belief.FINE]
    assert guard.check(NOW + 2 * DAY, 66.0 + 86_400) is Belief.FINE


def test_a_timer_fires_once_never_early_and_at_most_a_tick_late() -> None:
    wheel: TimerWheel[str] = TimerWheel(100.0)
    wheel.schedule("a", 101.2)
    assert wheel.expired(101.2) == []
    assert wheel.expired(101.2 + TICK) == ["a"]
    assert wheel.expired(1000.0) == []
    assert len(wheel) == 0


def test_a_timer_in_the_past_fires_at_the_next_tick() -> None:
    wheel: TimerWheel[str] = TimerWheel(100.0)
    wheel.schedule("a", 3.0)
    assert wheel.expired(100.0 + TICK) == ["a"]


def test_timers_move_and_go() -> None:
    wheel: TimerWheel[str] = TimerWheel(0.0)
    for key, due in [("a", 5.0), ("b", 5.0), ("c", 5.0), ("a", 9.0), ("b", 5.0)]:
        wheel.schedule(key, due)
    wheel.cancel("c")
    wheel.cancel("stranger")
    assert wheel.expired(6.0) == ["b"]
    assert wheel.expired(10.0) == ["a"]
    assert not wheel._slots


def test_a_clock_that_stands_or_goes_back_fires_nothing() -> None:
    wheel: TimerWheel[str] = TimerWheel(10.0)
    wheel.schedule("a", 11.0)
    assert wheel.expired(10.0) == wheel.expired(3.0) == []
    assert wheel.expired(12.0) == ["a"]


moves = st.lists(st.tuples(st.sampled_from(["schedule", "schedule", "cancel", "look"]), st.integers(0, 8), st.floats(0, 40)), max_size=60)


@given(moves)
def test_the_wheel_equals_a_plain_list(steps: list[tuple[str, int, float]]) -> None:
    wheel: TimerWheel[int] = TimerWheel(1000.0)
    due: dict[int, float] = {}
    now = 1000.0
    for what, key, amount in steps:
        if what == "schedule":
            wheel.schedule(key, now + amount - 5)
            due[key] = max(now + amount - 5, now)
        elif what == "cancel":
            wheel.cancel(key)
            due.pop(key, None)
        else:
            now += amount
            for fired in wheel.expired(now):
                assert due.pop(fired) <= now
            assert all(late > now - 2 * TICK for late in due.values())
        assert len(wheel) == len(due)
        assert sum(map(len, wheel._slots.values())) == len(due)
    assert sorted(wheel.expired(now + 100)) == sorted(due)


@pytest.mark.slow
def test_a_hundred_thousand_timers_cost_as_little_as_a_hundred() -> None:
    """Taken by turns: the machine changes."""

    def wheel_of(keys: int) -> TimerWheel[int]:
        wheel: TimerWheel[int] = TimerWheel(0.0)
        for key in range(keys):
            wheel.schedule(key, 30.0 + key % 60)
        return wheel

    def cost(wheel: TimerWheel[int], turn: int) -> float:
        start = time.thread_time()
        for key in range(100):
            wheel.schedule(key, 40.0 + turn)
            wheel.cancel(key)
        return time.thread_time() - start

    few, many = wheel_of(100), wheel_of(100_000)
    turns = [(cost(few, turn), cost(many, turn)) for turn in range(20)]
    assert min(cost for _, cost in turns) < 3 * min(cost for cost, _ in turns)
