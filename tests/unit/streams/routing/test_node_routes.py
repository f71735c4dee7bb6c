"""The router's index says of each topic what the sessions of all nodes would say, whatever order changes come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import matches, parse_subscription
from streams.cluster import NodeState, Route, Routes
from streams.routing.node_routes import NOBODY, NodeRoutes
from streams.routing.own_routes import OwnRoutes

FILTERS = ("a/b", "a/+", "a/#", "#", "b", "$share/g/a/+", "$share/h/a/+", "$share/g/#")
TOPICS = ("a/b", "a/c", "b", "a", "$SYS/a")
steps = st.lists(st.tuples(st.sampled_from((1, 2, 3)), st.sampled_from(FILTERS), st.booleans()), max_size=60)


def living(*epochs: int) -> list[NodeState]:
    return [NodeState(epoch, f"n{epoch}", True) for epoch in epochs]


def told(*routes: tuple[int, str, int]) -> NodeRoutes:
    """Epoch, filter, count; versions go up."""
    found = NodeRoutes()
    found.see(living(1, 2, 3))
    found.fold(Routes(tuple(Route(epoch, each, count, version) for version, (epoch, each, count) in enumerate(routes, 1))))
    return found


@given(steps, st.integers(1, 5))
def test_what_nodes_tell_is_what_the_index_says(happened: list[tuple[int, str, bool]], at_once: int) -> None:
    index, own = NodeRoutes(), {epoch: OwnRoutes(epoch) for epoch in (1, 2, 3)}
    index.see(living(1, 2, 3))
    held: dict[tuple[int, str], int] = {}
    for number, (epoch, subscribed, comes) in enumerate(happened):
        count = held.get((epoch, subscribed), 0)
        if comes:
            own[epoch].add(subscribed)
            held[epoch, subscribed] = count + 1
        elif count:
            own[epoch].remove(subscribed)
            held[epoch, subscribed] = count - 1
        if number % at_once == 0:
            for topic in TOPICS:
                index.plan(topic)  # cached
            fold(index, own)
    fold(index, own)
    assert index.versions == {epoch: each.version for epoch, each in own.items()}
    for topic in TOPICS:
        plan = index.plan(topic)
        expected = {(epoch, each) for (epoch, each), count in held.items() if count and matches_subscribed(each, topic)}
        assert sorted(plan.nodes) == sorted({epoch for epoch, each in expected if not each.startswith("$share")})
        assert {(epoch, group) for group, epochs in plan.groups for epoch in epochs} == {
            (epoch, each) for epoch, each in expected if each.startswith("$share")
        }


def fold(index: NodeRoutes, own: dict[int, OwnRoutes]) -> None:
    for each in own.values():
        index.fold(Routes(tuple(Route(c.epoch, c.filter, c.count, c.version) for c in each.changes(0))))


def matches_subscribed(subscribed: str, topic: str) -> bool:
    parsed = parse_subscription(subscribed)
    assert parsed is not None
    return matches(parsed.filter, topic)


def test_an_old_change_changes_nothing() -> None:
    index = told((1, "a", 1), (1, "a", 0))
    assert index.fold(Routes((Route(1, "a", 1, 1),))) == set()
    assert index.plan("a") == NOBODY
    assert index.versions[1] == 2


def test_a_node_that_is_no_more_goes_with_all_its_routes() -> None:
    index = told((1, "a", 1), (2, "a", 1), (1, "$share/g/a", 1), (1, "$share//g/a", 1))
    assert index.fold(Routes((Route(3, "b", 1, 9), Route(1, "b", 1, 9)), gone=(1,))) == {3}
    plan = index.plan("a")
    assert (plan.nodes, plan.groups) == ((2,), ())
    assert 1 not in index.versions
    assert len(index) == 2


def test_who_is_new_among_the_living_is_told_of() -> None:
    index = NodeRoutes()
    assert index.see(living(1)) == {1}
    assert index.see(living(1, 2)) == {2}
    assert index.versions == {1: 0, 2: 0}


def test_the_choice_is_among_living_nodes_with_members_those_online_first() -> None:
    group = "$share/g/a"
    index = told((1, group, 1), (2, group, 1), (3, group, 1), (2, "$share//g/a", 1))
    epochs = index.plan("a").groups[0][1]
    assert index.choose("p", "a", group, epochs) == 2
    index.see([NodeState(1, "n1", True), NodeState(2, "n2", False), NodeState(3, "n3", True)])
    assert index.choose("p", "a", group, epochs) in (1, 3)
    assert index.choose_other("p", "a", group, (1,)) == 3
    assert index.choose_other("p", "a", group, (1, 3)) == 0
    assert index.choose("p", "a", "$share/other/a", epochs) == 0


def test_members_online_are_no_route() -> None:
    index = told((1, "$share//g/a", 5))
    assert index.plan("a") == NOBODY
    assert len(index) == 0
