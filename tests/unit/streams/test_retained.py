"""Retained messages: writes that may come in any order, options of SUBSCRIBE, and a limit."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Flag, Kind, Record
from schemas.sessions import PutRetained, Subscription
from streams.retained import admit, coalesce, is_retained, retained_change, wants_retained


def publish(topic: str, payload: bytes = b"x", time: int = 1, number: int = 0, flags: int = Flag.RETAIN, kind: Kind = Kind.PUBLISH) -> Record:
    return Record(int(kind), number.to_bytes(16, "big"), time, "client", topic, payload, flags=int(flags))


def test_a_record_replaces_and_an_empty_one_deletes() -> None:
    """[MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]"""
    record = publish("a")
    assert retained_change(record) == PutRetained("a", 1, record.id, record)
    empty = publish("a", b"", time=2)
    assert retained_change(empty) == PutRetained("a", 2, empty.id, None)


@pytest.mark.parametrize(
    ("flags", "kind", "expected"),
    [
        (Flag.RETAIN, Kind.PUBLISH, True),
        (Flag.RETAIN | Flag.PERSISTENT | Flag.ORDERED, Kind.PUBLISH, True),
        (Flag(0), Kind.PUBLISH, False),
        (Flag.RETAIN | Flag.P2P, Kind.PUBLISH, False),
        (Flag.RETAIN, Kind.RELEASE, False),
        (Flag.RETAIN, Kind.CONNECT, False),
    ],
)
def test_which_records_are_retained(flags: Flag, kind: Kind, expected: bool) -> None:
    """[MQTT-3.3.1-8]"""
    assert is_retained(publish("a", flags=flags, kind=kind)) is expected


@pytest.mark.parametrize(
    ("handling", "is_new", "expected"), [(0, True, True), (0, False, True), (1, True, True), (1, False, False), (2, True, False), (2, False, False)]
)
def test_retain_handling(handling: int, is_new: bool, expected: bool) -> None:
    """[MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]; shared subscriptions get none whatever they ask."""
    assert wants_retained(Subscription("a/#", 1, retain_handling=handling), is_new=is_new) is expected
    assert not wants_retained(Subscription("$share/g/a/#", 1, retain_handling=handling), is_new=is_new)


writes = st.lists(
    st.builds(publish, st.sampled_from("abc"), st.sampled_from([b"", b"x"]), st.integers(1, 3), st.integers(0, 9)).map(retained_change),
    max_size=12,
    unique_by=lambda change: (change.topic, change.time, change.id),
)


@given(writes, st.randoms(use_true_random=False))
def test_the_higher_time_and_id_wins_in_any_order(changes: list[PutRetained], chance: object) -> None:
    expected = {
        topic: max(group, key=lambda c: (c.time, c.id))
        for topic, group in itertools.groupby(sorted(changes, key=lambda c: c.topic), lambda c: c.topic)
    }
    once = coalesce(changes)
    assert {change.topic: change for change in once} == expected
    assert len(once) == len(expected)
    assert [change.topic for change in once] == list(dict.fromkeys(change.topic for change in changes))
    shuffled = changes * 2
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert {change.topic: change for change in coalesce(shuffled)} == expected


def test_the_limit_refuses_new_topics_only() -> None:
    changes = [
        retained_change(publish(topic, payload)) for topic, payload in [("new", b"x"), ("old", b"y"), ("gone", b""), ("newer", b"x"), ("never", b"")]
    ]
    admitted = admit(changes, {"old", "gone"}, 2, 2)
    assert [change.topic for change in admitted.changes] == ["old", "gone", "newer", "never"]
    assert admitted.refused == ["new"]
    assert admitted.total == 2


@given(writes, st.sets(st.sampled_from("abc")), st.integers(0, 4))
def test_the_total_is_what_is_there_and_never_grows_past_the_limit(changes: list[PutRetained], existing: set[str], limit: int) -> None:
    admitted = admit(coalesce(changes), existing, len(existing), limit)
    after = set(existing)
    for change in admitted.changes:
        if change.record is None:
            after.discard(change.topic)
        else:
            after.add(change.topic)
    assert admitted.total == len(after) <= max(limit, len(existing))
    assert len(admitted.changes) + len(admitted.refused) == len(coalesce(changes))
