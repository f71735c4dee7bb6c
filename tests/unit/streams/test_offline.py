"""The pace of stored deliveries, played through with times as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.offline import BATCH, BATCH_EVERY, PAGE, RETRIES, RETRY_EVERY, Load, Pace, Pacing, Retry, next_load, retry


@pytest.mark.parametrize(("free", "expected"), [(0, 0), (1, 1), (999, 999), (65_535, PAGE), (-3, 0)])
def test_the_window_paces(free: int, expected: int) -> None:
    assert next_load(Pace.ACKNOWLEDGED, Pacing(), free, 100.0) == (Pacing(), Load(expected, None))


def test_thirty_every_five_seconds() -> None:
    pacing, loads = Pacing(), []
    for now in (100.0, 100.1, 104.9, 105.0, 107.0, 113.0, 117.9, 118.0):
        pacing, load = next_load(Pace.BATCHES, pacing, 1000, now)
        loads.append((load.messages, load.again_at))
    assert loads == [(30, 105.0), (0, 105.0), (0, 105.0), (30, 110.0), (0, 110.0), (30, 118.0), (0, 118.0), (30, 123.0)]


def test_a_full_window_puts_a_batch_off_until_an_acknowledgement() -> None:
    pacing, load = next_load(Pace.BATCHES, Pacing(), 0, 100.0)
    assert load == Load(0, None)
    pacing, load = next_load(Pace.BATCHES, pacing, 7, 100.2)
    assert load == Load(7, 100.2 + BATCH_EVERY)


@given(st.sampled_from(Pace), st.lists(st.tuples(st.floats(0, 3), st.integers(-5, 3000)), max_size=40))
def test_never_past_the_window_and_never_faster_than_the_pace(pace: Pace, steps: list[tuple[float, int]]) -> None:
    pacing, now, loaded = Pacing(), 1000.0, []
    for pause, free in steps:
        now += pause
        pacing, load = next_load(pace, pacing, free, now)
        assert 0 <= load.messages <= max(free, 0)
        assert load.again_at is None or load.again_at > now
        if load.messages:
            loaded.append((now, load.messages))
    if pace is Pace.BATCHES:
        assert all(messages <= BATCH for _, messages in loaded)
        assert all(later - sooner >= BATCH_EVERY - 1e-9 for (sooner, _), (later, _) in zip(loaded, loaded[1:], strict=False))


def test_an_unacknowledged_message_is_sent_again_fifteen_times() -> None:
    sent_at, tries, sent = 100.0, 0, []
    for tenth in range(1000, 3000):
        now = tenth / 10
        if retry(sent_at, tries, now) is Retry.SEND:
            sent.append(now)
            sent_at, tries = now, tries + 1
    assert sent == [100.0 + RETRY_EVERY * number for number in range(1, RETRIES + 1)]
    assert retry(sent_at, tries, 1e9) is Retry.STOP
    assert retry(100.0, 0, 104.999) is Retry.WAIT
