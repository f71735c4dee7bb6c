"""What a node tells: a filter with its first session and after its last, members by their order of magnitude, all by version."""

from __future__ import annotations

import pytest

from streams.cluster import PutRoute
from streams.routing.own_routes import LINGER_MS, OwnRoutes

SHARED = "$share/g/a/#"


def test_a_filter_is_told_once_and_withdrawn_with_its_last_session() -> None:
    own = OwnRoutes(7)
    assert own.add("a/+") == 1
    assert own.changes(0) == [PutRoute(7, "a/+", 1, 1)]
    assert own.add("b") == 2
    assert own.add("a/+") == 1, "routers have it already"
    own.remove("a/+")
    assert own.changes(0) == [PutRoute(7, "b", 1, 2)]
    own.remove("a/+")
    assert own.changes(0) == [PutRoute(7, "a/+", 0, 3)]
    assert len(own) == 1
    assert own.add("a/+") == 4, "routers may have forgotten it"
    assert own.version == 4


def test_what_was_told_and_withdrawn_in_between_is_told_as_it_is_last() -> None:
    own = OwnRoutes(7)
    own.add("a")
    own.add("b")
    own.remove("a")
    assert own.changes(0) == [PutRoute(7, "b", 1, 2), PutRoute(7, "a", 0, 3)]


def test_members_are_told_when_their_number_doubles_or_halves() -> None:
    own = OwnRoutes(7)
    told = []
    for _ in range(8):
        own.add(SHARED)
        told += [change.count for change in own.changes(0)]
    for _ in range(8):
        own.remove(SHARED)
        told += [change.count for change in own.changes(0)]
    assert told == [1, 2, 4, 8, 7, 3, 1, 0]


def test_members_online_have_a_route_of_their_own() -> None:
    own = OwnRoutes(7)
    own.add(SHARED)
    own.online(SHARED, 1)
    assert own.changes(0) == [PutRoute(7, SHARED, 1, 1), PutRoute(7, "$share//g/a/#", 1, 2)]
    own.online(SHARED, -1)
    assert own.changes(0) == [PutRoute(7, "$share//g/a/#", 0, 3)]


def test_a_shared_subscription_lingers_when_its_session_moves_and_a_plain_one_does_not() -> None:
    own = OwnRoutes(7)
    own.add(SHARED)
    own.add("b")
    own.changes(0)
    own.moved(SHARED, 1_000)
    own.moved("b", 1_000)
    assert own.changes(1_000 + LINGER_MS - 1) == [PutRoute(7, "b", 0, 3)]
    assert own.changes(1_000 + LINGER_MS) == [PutRoute(7, SHARED, 0, 4)]


def test_nobody_can_withdraw_what_nobody_has() -> None:
    with pytest.raises(ValueError, match="no session has a"):
        OwnRoutes(7).remove("a")
