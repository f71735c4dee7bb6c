"""QoS 2 publishes that come twice."""

from __future__ import annotations

import pytest

from schemas.records import Kind, Record
from streams.repeats import Repeats


def record(kind: Kind, packet_id: int, session: int = 1) -> Record:
    return Record(int(kind), bytes(16), 1, "c", qos=2, packet_id=packet_id, session=session)


def test_an_id_is_free_again_after_its_release() -> None:
    repeats = Repeats()
    said = [repeats.is_repeat(record(kind, 7)) for kind in (Kind.PUBLISH, Kind.PUBLISH, Kind.RELEASE, Kind.PUBLISH, Kind.RELEASE)]
    assert said == [False, True, False, False, False]
    assert repeats._open == {}


def test_sessions_and_ids_are_apart() -> None:
    repeats = Repeats()
    assert not any(repeats.is_repeat(record(Kind.PUBLISH, packet_id, session)) for packet_id in (1, 2) for session in (1, 2))


def test_a_release_of_something_unseen_is_nothing() -> None:
    assert not Repeats().is_repeat(record(Kind.RELEASE, 3))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.repeats.MAX_SESSIONS", 3)
    repeats = Repeats()
    for session in range(10):
        repeats.is_repeat(record(Kind.PUBLISH, 1, session))
    assert list(repeats._open) == [7, 8, 9]
