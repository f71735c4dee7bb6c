"""The resume rule: between what its last node had routed and what it gets live, a session gets each record that it is owed, and no other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.positions import At
from schemas.sessions import Subscription
from streams.resuming import Gap, Progress, hold, is_since, places

SHARDS = (0, 1)
OFFSETS = st.integers(0, 12)
PLACES = st.dictionaries(st.sampled_from(SHARDS), OFFSETS)
"""By shard the offset of a position; offsets here have one record each."""


def at(shard: int, offset: int) -> At:
    return At(shard, offset, 0)


def positions(found: dict[int, int]) -> tuple[At, ...]:
    return tuple(at(shard, offset) for shard, offset in found.items())


@given(reached=st.fixed_dictionaries(dict.fromkeys(SHARDS, OFFSETS)), firsts=PLACES, resumes=st.lists(PLACES, min_size=1, max_size=3), since=PLACES)
def test_what_is_read_once_more_has_all_that_is_owed_and_each_gets_its_own(
    reached: dict[int, int], firsts: dict[int, int], resumes: list[dict[int, int]], since: dict[int, int]
) -> None:
    gap: Gap[str] = Gap({shard: at(shard, offset) for shard, offset in reached.items()})
    for number, resume in enumerate(resumes):
        subscriptions = [Subscription("t/#", 1, since=positions(since)), Subscription("other", 1), Subscription("$share/g/t/#", 1)]
        gap.add(f"s{number}", positions(resume), subscriptions)
    ranges = gap.ranges({shard: at(shard, offset) for shard, offset in firsts.items()})
    for shard in SHARDS:
        for offset in range(firsts.get(shard, 0), 14):
            place = at(shard, offset)
            expected = [
                f"s{number}"
                for number, resume in enumerate(resumes)
                if resume.get(shard, 0) <= offset < reached[shard] and offset >= since.get(shard, 0)
            ]
            assert [target for target, _ in gap.owed("t/1", place)] == expected
            if expected:
                start, stop = ranges[shard]
                assert start <= place < stop
    for shard, (start, stop) in ranges.items():
        assert start < stop == at(shard, reached[shard])
        assert start >= at(shard, firsts.get(shard, 0)), "what retention took is not waited for"


def test_what_was_read_is_done_when_all_shards_are() -> None:
    progress = Progress({0: (at(0, 1), at(0, 5)), 1: (at(1, 0), at(1, 2))})
    progress.passed(At(0, 4, 9))
    progress.passed(at(1, 2))
    progress.passed(at(7, 1))
    assert not progress.done
    progress.passed(at(0, 6))
    assert progress.done
    assert Progress({}).done


@given(marks=PLACES, resumes=st.lists(PLACES, max_size=3))
def test_a_position_never_passes_what_a_session_on_its_way_is_owed(marks: dict[int, int], resumes: list[dict[int, int]]) -> None:
    held = hold({shard: at(shard, offset) for shard, offset in marks.items()}, [positions(resume) for resume in resumes])
    for shard, offset in marks.items():
        assert held[shard] == at(shard, min([offset, *(resume.get(shard, 0) for resume in resumes)]))


def test_positions_by_shard_are_the_earliest() -> None:
    assert places([at(0, 5), at(1, 2), at(0, 3)]) == {0: at(0, 3), 1: at(1, 2)}


def test_a_subscription_is_there_from_its_places_on_and_everywhere_else() -> None:
    since = (at(0, 5), At(1, 2, 3))
    assert [is_since(since, place) for place in (at(0, 4), at(0, 5), at(1, 2), At(1, 2, 3), at(2, 0))] == [False, True, False, True, True]
