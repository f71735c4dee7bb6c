"""Shards and slots: every node computes the same, shares are even, and nothing moves that needn't."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streams.routing.assignment import assign, choose_slot

counts = st.integers(1, 40)
fleets = st.dictionaries(st.integers(1, 99), st.integers(0, 30).map(lambda number: f"node-{number}"), min_size=1, max_size=12)
holders = st.dictionaries(st.integers(0, 39), st.integers(0, 99))


@given(counts, holders, fleets)
def test_shares_are_even_and_the_assignment_is_final(count: int, held: dict[int, int], nodes: dict[int, str]) -> None:
    found = assign(range(count), held, nodes)
    assert set(found) == set(range(count))
    has = Counter(found.values())
    shares = [has[epoch] for epoch in nodes]
    assert max(shares) - min(shares) <= 1
    assert assign(range(count), found, nodes) == found
    assert assign(reversed(range(count)), held, dict(reversed(nodes.items()))) == found


@given(counts, fleets.filter(lambda nodes: len(nodes) > 1), st.data())
def test_when_a_node_goes_or_comes_only_shards_move_that_it_had_or_gets(count: int, nodes: dict[int, str], data: st.DataObject) -> None:
    before = assign(range(count), {}, nodes)
    gone = data.draw(st.sampled_from(sorted(nodes)))
    left = {epoch: name for epoch, name in nodes.items() if epoch != gone}
    after = assign(range(count), before, left)
    assert all(after[shard] == epoch for shard, epoch in before.items() if epoch != gone)
    again = assign(range(count), after, nodes)
    assert all(again[shard] in (gone, epoch) for shard, epoch in after.items())


def test_a_node_that_restarts_alone_gets_its_own_again() -> None:
    nodes = {1: "a", 2: "b", 3: "c"}
    before = assign(range(6), {}, nodes)
    mine = {shard for shard, epoch in before.items() if epoch == 2}
    # Nobody took them yet: they go to the name that they would have gone to
    held = {shard: epoch for shard, epoch in before.items() if epoch != 2}
    after = assign(range(6), held, {1: "a", 3: "c", 4: "b"})
    assert {shard for shard, epoch in after.items() if epoch == 4} == mine


def test_without_nodes_nobody_routes() -> None:
    assert assign(range(3), {0: 1}, {}) == {}


def test_a_slot_is_a_free_one_and_the_same_after_a_restart() -> None:
    slot = choose_slot("node-1", 8, {3})
    assert slot is not None and slot != 3
    assert choose_slot("node-1", 8, set(range(8)) - {slot}) == slot
    assert choose_slot("node-1", 8, set()) in (slot, 3)
    assert len({choose_slot(f"node-{number}", 8, ()) for number in range(30)}) > 4
    assert choose_slot("node-1", 2, {0, 1}) is None
