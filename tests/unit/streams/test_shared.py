"""One member a record: the same while it can, the best placed first, everybody a fair share."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.shared import Member, choose

clients = st.lists(st.text(max_size=8), min_size=1, max_size=8, unique=True)
placed = clients.flatmap(
    lambda names: st.lists(st.integers(0, 2), min_size=len(names), max_size=len(names)).map(lambda places: list(map(Member, names, places)))
)


@given(st.text(), st.text(), placed, st.randoms(use_true_random=False))
def test_the_choice_is_a_best_placed_member_in_whatever_order_they_come(
    publisher: str, topic: str, members: list[Member], chosen_order: object
) -> None:
    chosen = choose(publisher, topic, members)
    assert chosen in members
    assert chosen.availability == max(member.availability for member in members)
    shuffled = list(members)
    chosen_order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(publisher, topic, shuffled) == chosen


@given(st.text(), st.text(), placed.filter(lambda members: len(members) > 1), st.data())
def test_an_unrelated_member_leaves_and_nothing_moves(publisher: str, topic: str, members: list[Member], data: st.DataObject) -> None:
    chosen = choose(publisher, topic, members)
    leaver = data.draw(st.sampled_from([member for member in members if member != chosen]))
    assert choose(publisher, topic, [member for member in members if member != leaver]) == chosen


@given(st.text(), st.text(), placed, st.text(max_size=8))
def test_a_member_that_comes_takes_over_or_changes_nothing(publisher: str, topic: str, members: list[Member], name: str) -> None:
    newcomer = Member(name, 2)
    members = [member for member in members if member.client != name] or [Member("other" + name, 2)]
    assert choose(publisher, topic, [*members, newcomer]) in (newcomer, choose(publisher, topic, members))


@pytest.mark.parametrize(("places", "expected"), [((0, 1, 2), "c"), ((2, 1, 0), "a"), ((0, 1, 0), "b"), ((0, 0, 0), None)])
def test_a_free_window_goes_before_online_and_online_before_offline(places: tuple[int, ...], expected: str | None) -> None:
    members = list(map(Member, "abc", places))
    for number in range(50):
        chosen = choose(f"p{number}", "t", members).client
        assert expected is None or chosen == expected


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(2, 10), st.sampled_from(["device-{}", "{}", "GID_a@@@{}"]))
def test_members_get_equal_shares(count: int, form: str) -> None:
    members = [Member(form.format(number), 2) for number in range(count)]
    for keys in ([(f"p{n}", "t") for n in range(4000)], [("p", f"a/{n}") for n in range(4000)]):
        shares = Counter(choose(*key, members).client for key in keys)
        assert len(shares) == count
        assert max(shares.values()) < 1.25 * 4000 / count
        assert min(shares.values()) > 0.75 * 4000 / count


def test_publisher_and_topic_are_not_run_together() -> None:
    members = [Member(str(number), 2) for number in range(1000)]
    assert choose("a", "bc", members) != choose("ab", "c", members)


def test_every_process_chooses_alike() -> None:
    program = "from streams.shared import Member, choose; print([choose(f'p{n}', 'a/b', [Member(c, 2) for c in 'abcde']).client for n in range(20)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[choose(f'p{n}', 'a/b', [Member(c, 2) for c in 'abcde']).client for n in range(20)]}\n".encode()}
