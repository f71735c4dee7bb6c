"""What a reader has fetched: repeats are passed over, batches keep to limits, a time leaves out what is older, the lag is what is left."""

from __future__ import annotations

import pytest

from bridges.framed.options import FramedOptions
from bridges.framed.reading import REMEMBERED, Fetch, Repeated, place
from schemas.errors import LogDamaged
from schemas.positions import At
from schemas.records import Frame, Kind, Record
from streams.log import Batch

BIG = 1 << 20
READER = ("reader", 5)


def record(number: int, size: int = 10) -> Record:
    return Record(Kind.PUBLISH, number.to_bytes(16, "big"), number, "c", "t", bytes(size), packet_id=number)


def frame(sequence: int, *numbers: int, node: str = "n", epoch: int = 1) -> Frame:
    return Frame(1, node, epoch, sequence, [record(number) for number in numbers])


def fetch(*places: tuple[int, int], repeated: Repeated | None = None) -> Fetch:
    made = Fetch(repeated or Repeated(FramedOptions(), READER))
    made.places = dict(enumerate(places))
    return made


def all_of(fetched: Fetch) -> list[int]:
    numbers: list[int] = []
    while fetched:
        numbers += [each.packet_id for each in fetched.cut(BIG, BIG).records]
    return numbers


def test_a_repeat_is_handed_out_as_a_place_without_records() -> None:
    fetched = fetch((0, 0))
    for offset, each in enumerate((frame(1, 0), frame(2, 1), frame(1, 0), frame(3, 2))):
        fetched.take(0, offset, each, 100)
    batches = [fetched.cut(BIG, BIG) for _ in range(4)]
    assert [len(batch.records) for batch in batches] == [1, 1, 0, 1]
    assert batches[2] == Batch(At(0, 2, 0), (), At(0, 3, 0))
    assert not fetched


def test_writers_epochs_and_shards_are_apart() -> None:
    fetched = fetch((0, 0), (0, 0))
    for offset, each in enumerate((frame(5, 0), frame(5, 1, node="m"), frame(1, 2, epoch=2), frame(9, 3))):
        fetched.take(0, offset, each, 100)
    fetched.take(1, 0, frame(1, 4), 100)
    assert all_of(fetched) == [0, 1, 2, 4], "an older epoch is over, another node or shard is not concerned"


def test_frames_before_the_start_are_known_and_not_handed_out() -> None:
    fetched = fetch((2, 1))
    for offset, each in enumerate((frame(1, 0), frame(2, 1), frame(3, 2, 3, 4), frame(1, 0), frame(4, 5))):
        fetched.take(0, offset, each, 100)
    first = fetched.cut(BIG, BIG)
    assert (first.first, [each.packet_id for each in first.records]) == (At(0, 2, 1), [3, 4])
    assert all_of(fetched) == [5]


@pytest.mark.parametrize("epoch", [5, 6])
def test_what_this_node_wrote_before_it_began_says_that_the_database_is_another(epoch: int) -> None:
    repeated = Repeated(FramedOptions(), READER)
    repeated.began = {0: 4}
    repeated.check(0, 0, frame(9, 0, node="reader", epoch=4))
    repeated.check(0, 1, frame(9, 0, node="other", epoch=6))
    with pytest.raises(LogDamaged, match=rf"node reader wrote at its start {epoch}, and by the database this is start 5: .* \(log.prefix\)"):
        repeated.check(0, 2, frame(1, 0, node="reader", epoch=epoch))
    repeated.check(0, 4, frame(1, 0, node="reader", epoch=epoch))  # this process, or one that has taken its place


def test_a_repeat_that_one_reader_has_found_is_one_to_those_who_cannot_know_its_first_copy() -> None:
    repeated = Repeated(FramedOptions(), READER)
    live = fetch((0, 0), repeated=repeated)
    for offset, each in enumerate((frame(1, 0), *(frame(number, number, node="m") for number in range(1, 100)), frame(1, 0), frame(2, 1))):
        live.take(0, offset, each, 100)
    assert all_of(live) == [0, *range(1, 100), 1]
    later = fetch((99, 0), repeated=repeated)
    for offset, each in ((99, frame(99, 99, node="m")), (100, frame(1, 0)), (101, frame(2, 1))):
        later.take(0, offset, each, 100)
    batches = [later.cut(BIG, BIG) for _ in range(3)]
    assert [[each.packet_id for each in batch.records] for batch in batches] == [[99], [], [1]]
    assert batches[1] == Batch(At(0, 100, 0), (), At(0, 101, 0))


def test_the_places_of_repeats_are_bounded() -> None:
    repeated = Repeated(FramedOptions(), READER)
    for offset in range(REMEMBERED + 1):
        repeated.add(0, offset)
    assert (0, 0) not in repeated
    assert (0, 1) in repeated
    assert (0, REMEMBERED) in repeated


def test_the_first_reader_looks_further_back() -> None:
    repeated = Repeated(FramedOptions(look_back=3, look_back_first=50), READER)
    assert [repeated.look_back() for _ in range(3)] == [50, 3, 3]


def test_the_rest_of_a_frame_is_no_repeat_whatever_lies_before_it() -> None:
    fetched = fetch((1, 1))
    fetched.take(0, 0, frame(1, 0, 1), 100)
    fetched.take(0, 1, frame(1, 0, 1), 100)
    assert all_of(fetched) == [1]


@pytest.mark.parametrize(("until", "wanted"), [(3, [4, 3, 5, 1]), (1, [1, 4, 3, 5, 1])])
def test_a_time_leaves_out_older_records_until_one_is_not(until: int, wanted: list[int]) -> None:
    fetched = fetch((0, 0))
    fetched.times[0] = (3, until)
    for offset, each in enumerate((frame(1, 0, 2), frame(2, 1), frame(3, 4, 3), frame(4, 5, 1))):
        fetched.take(0, offset, each, 100)
    assert all_of(fetched) == wanted


def test_batches_keep_to_their_limits_and_hold_a_record_at_least() -> None:
    fetched = fetch((0, 0))
    fetched.take(0, 0, frame(1, *range(5)), 500)
    sizes = []
    for limits in ((2, BIG), (BIG, 80), (BIG, 1), (BIG, BIG)):
        batch = fetched.cut(*limits)
        sizes.append((batch.first.index, len(batch.records), batch.following))
    assert sizes == [(0, 2, None), (2, 1, None), (3, 1, None), (4, 1, At(0, 1, 0))]
    assert fetched.size == 0


def test_the_lag_counts_what_is_fetched_and_what_is_known_of() -> None:
    fetched = fetch((0, 0))
    fetched.take(0, 0, frame(1, 0, 1, 2, 3), 100)
    assert fetched.lag({0: 3}) == 4 + 2 * 4
    fetched.cut(3, BIG)
    assert fetched.lag({0: 1}) == 1


def test_places_compare_frame_by_frame_however_many_records_they_have() -> None:
    """By the sum of offset and index a place in a long frame would lie behind many frames that follow it."""
    places = [At(0, 5, 0), At(0, 5, 1024), At(0, 6, 0), At(0, 900, 0)]
    assert sorted(places, key=place) == places
