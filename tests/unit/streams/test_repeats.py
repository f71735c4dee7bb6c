"""QoS 2 publishes that come twice: which of a log's records are passed over, by whom, and that no first copy ever is."""

from __future__ import annotations

import itertools
import random

import pytest

from schemas.positions import At
from schemas.records import Flag, Kind, Record
from streams.repeats import Repeats

PUBLISH, RELEASE = Kind.PUBLISH, Kind.RELEASE


def record(kind: Kind, packet_id: int, session: int = 1, *, epoch: int = 1, says: bytes = b"x", dup: bool = False) -> Record:
    payload = says if kind == PUBLISH else b""
    flags = int(Flag.DUP) if dup else 0
    return Record(int(kind), bytes(16), 1, "c", "t", payload, qos=2, flags=flags, packet_id=packet_id, session=session, epoch=epoch)


def again(packet_id: int, session: int = 1, *, epoch: int = 1, says: bytes = b"x") -> Record:
    return record(PUBLISH, packet_id, session, epoch=epoch, says=says, dup=True)


def judge(repeats: Repeats, *records: Record, start: int = 0) -> list[bool]:
    return [repeats.is_repeat(each, At(0, start + number, 0)) for number, each in enumerate(records)]


def test_an_id_is_free_again_after_its_release() -> None:
    first, release = record(PUBLISH, 7), record(RELEASE, 7)
    assert judge(Repeats(), first, again(7), release, again(7), release, release) == [False, True, False, False, False, False]


def test_sessions_and_ids_are_apart() -> None:
    assert not any(judge(Repeats(), *(again(packet_id, session) for packet_id in (1, 2) for session in (1, 2))))


def test_a_release_of_something_unseen_is_nothing() -> None:
    assert judge(Repeats(), record(RELEASE, 3), record(PUBLISH, 3)) == [False, False]


def test_other_words_under_an_unreleased_id_are_a_new_use() -> None:
    """Its release is in a part of the log that the reader never saw: losing is worse than doubling. So are the same words, not sent as a repeat."""
    assert judge(Repeats(), record(PUBLISH, 3, says=b"a"), again(3, says=b"b"), again(3, says=b"b")) == [False, False, True]
    assert judge(Repeats(), record(PUBLISH, 3), record(PUBLISH, 3), again(3)) == [False, False, True]


def test_what_comes_late_by_an_older_epoch_counts_for_nothing() -> None:
    """The client has moved, sent again and released; then the first node's copy reaches the log, and its release too."""
    settled = [again(3, epoch=2), record(RELEASE, 3, epoch=2)]
    assert judge(Repeats(), *settled, record(PUBLISH, 3, epoch=1)) == [False, False, True]
    following = record(PUBLISH, 3, epoch=2, says=b"next")
    late = [record(RELEASE, 3, epoch=1), record(PUBLISH, 3, epoch=1)]
    assert judge(Repeats(), *settled, following, *late, again(3, epoch=2, says=b"next")) == [False, False, False, True, True, True]


def test_a_late_copy_is_known_by_the_release_alone() -> None:
    assert judge(Repeats(), record(RELEASE, 3, epoch=2), record(PUBLISH, 3, epoch=1)) == [False, True]


def test_a_newer_epoch_repeats_an_older_one_s_publish() -> None:
    copies = record(PUBLISH, 3, epoch=1), again(3, epoch=2), record(RELEASE, 3, epoch=2), again(3, epoch=2)
    assert judge(Repeats(), *copies) == [False, True, False, False]


def test_who_reads_behind_another_knows_its_repeats() -> None:
    copies = record(PUBLISH, 3), again(3, epoch=2)
    ahead = Repeats()
    assert judge(ahead, *copies) == [False, True]
    assert judge(Repeats(ahead), copies[1], start=1) == [True]
    assert judge(Repeats(), copies[1], start=1) == [False]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.repeats.MAX_USES", 3)
    monkeypatch.setattr("streams.repeats.MAX_PLACES", 2)
    repeats = Repeats()
    judge(repeats, *(record(PUBLISH, 1, session) for session in range(10)))
    assert judge(repeats, *(again(1, session) for session in (7, 8, 9)), start=10) == [True] * 3
    assert len(repeats._uses) == 3
    assert list(repeats.places) == [At(0, 11, 0), At(0, 12, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_the_first_copy_of_every_use_passes_whoever_reads_from_wherever(seed: int) -> None:
    """Uses of few ids by few sessions that move; each use published once or more, in this or an older epoch, before its release or late."""
    chance = random.Random(seed)
    log: list[tuple[Record, int]] = []
    late: list[tuple[Record, int]] = []
    epochs = dict.fromkeys((1, 2), 1)
    for use in range(60):
        session, packet_id = chance.choice((1, 2)), chance.choice((1, 2, 3))
        is_stuck = chance.random() < 0.4
        says = b"%d" % use if is_stuck or chance.random() < 0.5 else b"same"
        if is_stuck:
            stuck = record(PUBLISH, packet_id, session, epoch=epochs[session], says=says)
            epochs[session] += 1
            (log if chance.random() < 0.5 else late).append((stuck, use))
        for copy in range(chance.choice((1, 1, 2))):
            dup = is_stuck or copy > 0
            log.append((record(PUBLISH, packet_id, session, epoch=epochs[session], says=says, dup=dup), use))
        log.append((record(RELEASE, packet_id, session, epoch=epochs[session]), use))
        if late and chance.random() < 0.5:
            log.append(late.pop())
    first = {use: next(place for place, (each, of) in enumerate(log) if of == use) for use in range(60)}
    everything: list[bool] = []
    for start in range(0, len(log), 7):
        passed = [not repeat for repeat in judge(Repeats(), *(each for each, _ in log[start:]), start=start)]
        everything = everything or passed
        assert all(passed[place - start] for place in first.values() if place >= start)
    counts = [sum(passed for passed, (each, of) in zip(everything, log, strict=True) if of == use and each.kind == PUBLISH) for use in range(60)]
    assert counts == [1] * 60, list(itertools.compress(range(60), (count != 1 for count in counts)))
