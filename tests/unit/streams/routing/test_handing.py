"""A command is settled when its node lived after it had arrived; until then it holds its place, and another node is found."""

from __future__ import annotations

import pytest

from schemas.positions import At
from schemas.records import Kind, Record
from streams.cluster import NodeState, Route, Routes
from streams.routing import handing as module
from streams.routing.handing import WAIT_MS, Handing
from streams.routing.messages import Handed
from streams.routing.node_routes import NodeRoutes

GROUP = "$share/g/a"
RECORD = Record(int(Kind.PUBLISH), b"", 0, "p", "a")


def at(offset: int) -> At:
    return At(0, offset, 0)


class Fleet:
    """Nodes 1 to 3; those named have a member."""

    def __init__(self, *members: int) -> None:
        self.routes = NodeRoutes()
        self.alive = {1, 2, 3}
        self._version = 0
        self.see()
        for epoch in members:
            self.tell(epoch, 1)

    def see(self) -> None:
        self.routes.see([NodeState(epoch, f"n{epoch}", epoch in self.alive) for epoch in (1, 2, 3)])

    def tell(self, epoch: int, count: int) -> None:
        self._version += 1
        self.routes.fold(Routes((Route(epoch, GROUP, count, self._version),)))

    def dies(self, epoch: int) -> None:
        self.alive.discard(epoch)
        self.see()


def test_a_command_is_settled_when_its_node_lives_after_it_arrived() -> None:
    fleet = Fleet(1)
    handing = Handing(fleet.routes)
    handing.sent(at(5), RECORD, GROUP, 1, 0)
    told = handing.outstanding()
    handing.sent(at(6), RECORD, GROUP, 1, 0)
    assert handing.held() == at(5)
    assert handing.confirm(told, fleet.alive, 0) == []
    assert handing.held() == at(6), "that one may not have arrived"
    handing.confirm(handing.outstanding(), fleet.alive, 0)
    assert (handing.held(), len(handing)) == (None, 0)


def test_what_was_told_to_a_node_that_died_is_told_to_another() -> None:
    fleet = Fleet(1, 2)
    handing = Handing(fleet.routes)
    handing.sent(at(5), RECORD, GROUP, 1, 0)
    told = handing.outstanding()
    fleet.dies(1)
    assert handing.confirm(told, fleet.alive, 0) == [Handed(2, at(5), RECORD, GROUP)]
    assert handing.confirm(told, fleet.alive, 0) == []
    assert handing.held() == at(5), "what was asked of the first node says nothing of the second"
    handing.confirm(handing.outstanding(), fleet.alive, 0)
    assert handing.held() is None


def test_a_node_without_a_member_hands_on_to_one_that_was_not_tried() -> None:
    fleet = Fleet(1, 2, 3)
    handing = Handing(fleet.routes, 2)
    told = handing.hand(at(40), at(5), RECORD, GROUP, (1,), 0)
    assert told == [Handed(3, at(5), RECORD, GROUP, (1, 2))]
    assert handing.held() == at(40)


def test_two_nodes_that_hand_a_record_to_each_other_do_not_both_take_it_for_settled() -> None:
    fleet = Fleet(1, 2)
    one, two = Handing(fleet.routes, 1), Handing(fleet.routes, 2)
    assert [handed.epoch for handed in one.hand(at(10), at(5), RECORD, GROUP, (), 0)] == [2]
    before = one.outstanding()
    assert two.hand(at(20), at(5), RECORD, GROUP, (1,), 0) == []
    assert [handed.epoch for handed in two.confirm((), fleet.alive, 1)] == [1], "it comes back"
    one.hand(at(11), at(5), RECORD, GROUP, (2,), 1)
    one.confirm(before, fleet.alive, 2)
    two.confirm(two.outstanding(), fleet.alive, 2)
    assert (one.held(), two.held()) == (at(11), None)


def test_what_nobody_can_take_waits_for_a_member_and_those_tried_may_have_one_then() -> None:
    fleet = Fleet(1, 2)
    handing = Handing(fleet.routes, 2)
    assert handing.hand(at(40), at(5), RECORD, GROUP, (1,), 0) == []
    assert [command.at for command in handing.waiting()] == [at(5)]
    assert handing.confirm((), fleet.alive, 10) == [Handed(1, at(5), RECORD, GROUP, (2,))]
    assert handing.waiting() == []


def test_a_member_that_came_back_here_settles_it() -> None:
    handing = Handing(Fleet().routes, 2)
    handing.hand(at(40), at(5), RECORD, GROUP, (), 0)
    handing.settled(handing.waiting()[0])
    assert handing.held() is None


def test_it_waits_so_long_and_is_dropped_and_counted() -> None:
    fleet = Fleet()
    handing = Handing(fleet.routes, 2)
    handing.hand(at(40), at(5), RECORD, GROUP, (), 1_000)
    handing.confirm((), fleet.alive, 1_000 + WAIT_MS - 1)
    assert (handing.held(), handing.dropped) == (at(40), 0)
    handing.confirm((), fleet.alive, 1_000 + WAIT_MS)
    assert (handing.held(), handing.dropped) == (None, 1)


def test_it_says_when_it_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTSTANDING", 2)
    handing = Handing(Fleet(1).routes)
    handing.sent(at(1), RECORD, GROUP, 1, 0)
    assert not handing.full
    handing.sent(at(2), RECORD, GROUP, 1, 0)
    assert handing.full
