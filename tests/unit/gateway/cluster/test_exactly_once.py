"""A QoS 2 publish whose acknowledgement is lost, and that its device sends again by way of another node, which does not know the first copy.

The log has it twice then. Whoever reads lets one through, wherever it begins to read; and no later use of the packet id suffers from it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packet_types import PacketType
from gateway.protocol.packets import Connack
from schemas.records import Kind
from tests.support.many_bed import ManyBed, One
from tests.support.party import Party

Make = Callable[..., ManyBed]
KEPT = {"clean_start": False, "session_expiry": 86_400}


class Twice:
    """Three nodes; `device` has published `first` on node one, whose way to the log is slow, and has gone to node two."""

    def __init__(self, bed: ManyBed) -> None:
        self.bed = bed
        self.one, self.two, self.three = (bed.start(name) for name in ("one", "two", "three"))
        self.receivers = [self.receiver(node, f"r{number}") for number, node in enumerate((self.one, self.two, self.three))]
        device = self.one.connect("device", **KEPT)
        self.one.link.late = []
        self.number = device.publish("t", b"first", 2)
        bed.settle()
        assert device.acks(PacketType.PUBREC) == []
        self.device = self.two.connect("device", **KEPT)

    def receiver(self, node: One, name: str) -> Party:
        party = node.connect(name, **KEPT)
        party.subscribe("t", qos=2)
        return party

    def again(self) -> None:
        self.device.publish("t", b"first", 2, dup=True, packet_id=self.number)
        self.bed.settle()
        assert self.device.acks(PacketType.PUBREC) == [self.number]

    def release(self) -> None:
        self.device.ack(PacketType.PUBREL, self.number)
        self.bed.settle()
        assert self.device.acks(PacketType.PUBCOMP) == [self.number]

    def let_through(self) -> None:
        self.one.link.let_through()
        self.bed.advance(1)

    def copies(self) -> list[bytes]:
        """In the log."""
        return [record.payload for record in self.bed.published() if record.kind == Kind.PUBLISH]

    def assert_received(self, *payloads: bytes) -> None:
        self.bed.advance(0.1)
        assert [receiver.payloads() for receiver in self.receivers] == [list(payloads)] * len(self.receivers)


def test_the_first_node_s_copy_comes_before_the_second_s(make_many: Make) -> None:
    world = Twice(make_many())
    world.let_through()
    world.again()
    world.release()
    world.device.exchange("t", b"second", 2, packet_id=world.number)
    assert world.copies() == [b"first", b"first", b"second"]
    world.assert_received(b"first", b"second")


@pytest.mark.parametrize("released", [False, True])
def test_the_first_node_s_copy_comes_after_the_second_s(make_many: Make, *, released: bool) -> None:
    world = Twice(make_many())
    world.again()
    if released:
        world.release()
    world.let_through()
    if not released:
        world.release()
    assert world.copies() == [b"first", b"first"]
    world.device.exchange("t", b"second", 2, packet_id=world.number)
    world.assert_received(b"first", b"second")
    # No node holds the late copy against a later use of its id
    moved = world.three.connect("device", **KEPT)
    moved.exchange("t", b"third", 2, packet_id=world.number)
    world.assert_received(b"third")


def test_a_late_copy_comes_while_the_id_is_in_use_again(make_many: Make) -> None:
    """It does not release it, either: the publish that is sent once more is no new one."""
    world = Twice(make_many())
    world.again()
    world.release()
    world.device.publish("t", b"second", 2, packet_id=world.number)
    world.bed.settle()
    world.let_through()
    moved = world.three.connect("device", **KEPT)
    moved.publish("t", b"second", 2, dup=True, packet_id=world.number)
    world.bed.settle()
    assert moved.acks(PacketType.PUBREC) == [world.number]
    assert world.copies() == [b"first", b"second", b"first"]
    world.assert_received(b"first", b"second")


def test_a_receiver_that_moves_between_the_copies_gets_one(make_many: Make) -> None:
    """Its last node has stored that it is beyond the first copy, and the new one reads on from there."""
    world = Twice(make_many())
    world.let_through()
    assert [receiver.payloads() for receiver in world.receivers] == [[b"first"]] * 3
    world.bed.advance(2)
    world.again()
    moved = world.three.connect("r1", **KEPT)
    world.bed.advance(1)
    assert world.copies() == [b"first", b"first"]
    assert moved.payloads() == []


@pytest.mark.parametrize("qos", [1, 2])
def test_a_session_that_comes_to_a_node_whose_routing_is_behind_gets_nothing_again(make_many: Make, qos: int) -> None:
    """What its last node has settled is no more in the store, which could not tell it from what is new."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here = one.connect("s", **KEPT)
    here.subscribe("t", qos=qos)
    two.link.behind = True
    one.connect("p").exchange("t", b"settled", qos)
    assert here.payloads() == [b"settled"]
    bed.advance(2)
    there = two.dial()
    there.connect("s", **KEPT)
    one.connect("q").exchange("t", b"new", qos)
    bed.advance(2)
    assert there.connack is None
    two.link.behind = False
    bed.advance(2)
    assert len(there.take(Connack)) == 1
    assert there.payloads() == [b"new"]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_session_that_comes_back_to_a_node_that_has_not_heard_of_its_leaving_gets_nothing_again(make_many: Make, qos: int) -> None:
    """What the node holds of it is of before: nothing is stored by that, under the new epoch either."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    first = two.connect("s", **KEPT)
    first.subscribe("t", qos=qos)
    first.disconnect()
    bed.advance(2)
    two.link.behind = True
    here = one.connect("s", **KEPT)
    one.connect("p").exchange("t", b"settled", qos)
    assert here.payloads() == [b"settled"]
    bed.advance(2)
    there = two.dial()
    there.connect("s", **KEPT)
    one.connect("q").exchange("t", b"new", qos)
    bed.advance(2)
    assert there.connack is None
    two.link.behind = False
    bed.advance(2)
    assert len(there.take(Connack)) == 1
    assert there.payloads() == [b"new"]


def test_a_node_that_has_not_heard_that_a_session_has_gone_sends_nothing_that_its_new_one_has_stored(make_many: Make) -> None:
    """It would skip what the new node had not stored yet, or had sent."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    first = two.connect("s", **KEPT)
    first.subscribe("t", qos=1)
    first.disconnect()
    publisher = one.connect("p")
    publisher.exchange("t", b"0", 1)
    here = two.dial()
    here.stop_reading()
    here.connect("s", **KEPT)
    two.link.behind = True
    there = one.dial()
    there.stop_reading()
    there.connect("s", **KEPT)
    publisher.exchange("t", b"1", 1)
    bed.advance(0.1)
    here.read_on()
    bed.advance(0.1)
    assert here.payloads() == []
    there.read_on()
    bed.advance(0.1)
    assert there.payloads() == [b"0", b"1"]


def test_a_dead_node_s_session_is_adopted_while_its_client_comes(make_many: Make) -> None:
    """Between the two the node that takes it over waits for its routing: what its client has made of it by then stands."""
    bed = make_many()
    one, two, three = bed.start("one"), bed.start("two"), bed.start("three")
    here = one.connect("s", **KEPT)
    here.subscribe("t", qos=1)
    two.link.behind = three.link.behind = True
    one.connect("p").exchange("t", b"settled", 1)
    assert here.payloads() == [b"settled"]
    bed.advance(2)
    bed.kill(one)
    bed.advance(2)
    there = two.dial()
    there.connect("s", **KEPT)
    bed.advance(1)
    two.link.behind = three.link.behind = False
    bed.advance(3)
    assert len(there.take(Connack)) == 1
    three.connect("q").exchange("t", b"new", 1)
    assert there.payloads() == [b"new"]
    session = two.node.registry.get("s")
    assert session is not None
    assert session.connection is not None
    bed.advance(2)
    again = three.connect("s", **KEPT)
    bed.advance(1)
    assert there.closed
    assert two.node.registry.get("s") is None
    assert len(two.node.routes) == 0
    three.connect("r").exchange("t", b"newer", 1)
    assert again.payloads() == [b"newer"]


def test_a_node_that_starts_between_the_copies_loses_nothing(make_many: Make) -> None:
    """It takes the second for the first, and has nobody yet to whom it would bring it."""
    world = Twice(make_many())
    world.let_through()
    four = world.bed.start("four")
    late = world.receiver(four, "late")
    world.again()
    world.release()
    world.device.exchange("t", b"second", 2, packet_id=world.number)
    world.bed.advance(1)
    assert late.payloads()[-1] == b"second"
    world.assert_received(b"first", b"second")
