"""Shared subscriptions with members on several nodes: one member has each record, whoever accepted it and whatever happens to nodes and members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from schemas.reasons import ReasonCode
from schemas.records import Kind
from tests.support.many_bed import ManyBed, One
from tests.support.party import Party

Make = Callable[..., ManyBed]
KEPT = {"clean_start": False, "session_expiry": 86_400}
FILTER = "$share/g/t/#"


def three(bed: ManyBed) -> list[One]:
    return [bed.start(name) for name in ("one", "two", "three")]


class Member:
    """``got``: all payloads so far."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self._got: list[bytes] = []

    @property
    def got(self) -> list[bytes]:
        self._got += self.party.payloads()
        return self._got


def member(node: One, name: str, qos: int = 1, **fields: Any) -> Member:
    party = node.connect(name, **fields)
    assert party.subscribe(FILTER, qos=qos) == (ReasonCode(qos),)
    return Member(party)


def published(node: One, numbers: range, name: str = "p", qos: int = 1) -> list[bytes]:
    publisher = node.connect(name)
    sent = [b"%d" % number for number in numbers]
    for number, payload in zip(numbers, sent, strict=True):
        publisher.exchange(f"t/{number % 53}", payload, qos)
    return sent


def had(*members: Member) -> Counter[bytes]:
    return Counter(payload for member in members for payload in member.got)


def test_each_record_goes_to_one_member_wherever_it_is_published(make_many: Make) -> None:
    bed = make_many()
    nodes = three(bed)
    members = [member(node, f"m{number}", number) for number, node in enumerate(nodes)]
    plain = nodes[0].connect("plain")
    plain.subscribe("t/#", qos=1)
    connack = members[0].party.connack
    assert connack is not None and connack.properties is not None
    assert connack.properties.shared_subscription_available is None
    sent = [payload for number, node in enumerate(nodes) for payload in published(node, range(number * 100, number * 100 + 100), f"p{number}", 2)]
    bed.advance(1)
    assert had(*members) == Counter(sent)
    assert all(len(each.got) > 30 for each in members), "all have a part"
    assert Counter(plain.payloads()) == Counter(sent)


def test_a_publisher_and_topic_stay_with_a_member_and_in_order(make_many: Make) -> None:
    bed = make_many()
    nodes = three(bed)
    members = [member(node, f"m{number}") for number, node in enumerate(nodes)]
    publisher = nodes[1].connect("p")
    for number in range(50):
        publisher.exchange("t/x", b"%d" % number)
    bed.advance(1)
    got = [each.got for each in members if each.got]
    assert got == [[b"%d" % number for number in range(50)]]


def test_what_is_published_right_after_suback_is_not_missed(make_many: Make) -> None:
    bed = make_many()
    nodes = three(bed)
    publisher = nodes[2].connect("p")
    for number in range(30):
        party = nodes[number % 2].connect(f"m{number}")
        assert party.subscribe(f"$share/g{number}/t", qos=1) == (ReasonCode.GRANTED_QOS_1,)
        publisher.exchange("t", b"x")
        bed.settle()
        assert party.payloads() == [b"x"], number
        party.disconnect()


def test_members_online_are_preferred_on_whatever_node(make_many: Make) -> None:
    bed = make_many()
    one, two, _ = three(bed)
    member(one, "away", **KEPT).party.disconnect()
    bed.advance(2)
    here = member(two, "here")
    bed.advance(2)
    sent = published(one, range(30))
    bed.advance(1)
    assert had(here) == Counter(sent)
    here.party.disconnect()
    bed.advance(2)
    sent = published(two, range(30, 60), "q")
    bed.advance(1)
    back = Member(one.connect("away", **KEPT))
    bed.advance(1)
    assert had(back) == Counter(sent)


def test_a_member_that_unsubscribes_or_ends_leaves_its_part_to_others(make_many: Make) -> None:
    bed = make_many()
    one, two, three_ = three(bed)
    gone, other = member(one, "gone", auto_ack=False), member(two, "other")
    bed.advance(1)
    first = published(three_, range(40))
    bed.advance(1)
    assert gone.got
    assert had(gone, other) == Counter(first)
    gone.party.disconnect()
    bed.advance(1)
    assert had(other) == Counter(first), "what was not acknowledged too"
    second = published(three_, range(40, 80), "q")
    bed.advance(1)
    assert had(other) == Counter(first + second)
    other.party.unsubscribe(FILTER)
    bed.advance(1)
    published(three_, range(80, 90), "r")
    bed.advance(61)
    assert had(other) == Counter(first + second)
    assert not any(record.shares for record in bed.published() if record.client == "r")


def test_a_session_that_moves_takes_what_it_has_and_nothing_is_lost_on_the_way(make_many: Make) -> None:
    bed = make_many()
    one, two, three_ = three(bed)
    member(one, "m", **KEPT)
    publisher = three_.connect("p")
    sent, members = [], []
    for number in range(60):
        publisher.publish("t/x", b"%d" % number, 1)
        sent.append(b"%d" % number)
        if number % 10 == 5:
            members.append(Member((two, one)[number // 10 % 2].connect("m", **KEPT)))
    bed.advance(3)
    assert set(had(*members)) >= set(sent[6:])
    assert not one.node.registry.resuming
    assert not two.node.registry.resuming


def test_what_a_dead_node_was_to_have_goes_to_members_elsewhere(make_many: Make) -> None:
    bed = make_many()
    one, two, three_ = three(bed)
    assert one.leads
    member(two, "dying")
    there = member(three_, "there")
    bed.advance(1)
    bed.kill(two)
    sent = published(one, range(60))
    bed.advance(8)
    assert had(there) == Counter(sent)
    more = published(one, range(60, 90), "q")
    bed.advance(1)
    assert had(there) == Counter(sent + more)
    bed.advance(20)
    assert not one.node.registry.resuming
    assert [node.epoch for node in bed.loop.finish(bed.store.cluster.nodes())] == [one.node.epoch, three_.node.epoch]


def test_also_where_the_dead_node_led(make_many: Make) -> None:
    bed = make_many()
    one, two, three_ = three(bed)
    assert one.leads
    member(one, "dying")
    there = member(two, "there")
    bed.advance(1)
    bed.kill(one)
    sent = published(three_, range(60))
    bed.advance(10)
    assert set(had(there)) == set(sent)


def test_the_only_member_of_a_dead_node_is_waited_for(make_many: Make) -> None:
    bed = make_many()
    one, two, _ = three(bed)
    member(two, "m", **KEPT)
    bed.advance(1)
    bed.kill(two)
    sent = published(one, range(40))
    bed.advance(1)
    back = Member(one.connect("m", **KEPT))
    assert back.party.connack is not None and back.party.connack.session_present
    bed.advance(20)
    more = published(one, range(40, 50), "q")
    bed.advance(1)
    assert set(had(back)) == set(sent + more)


def test_what_has_no_member_for_long_is_counted(make_many: Make) -> None:
    bed = make_many()
    one, two, _ = three(bed)
    member(two, "m")
    bed.advance(1)
    bed.kill(two)
    published(one, range(5))
    bed.advance(90)
    assert sum(node.node.counters.dropped["shared_no_member"] for node in bed.living.values()) == 5
    assert not one.node.registry.resuming


def test_a_record_that_is_passed_on_is_no_message_of_its_own(make_many: Make) -> None:
    """Plain subscribers and QoS 2 hear of it once."""
    bed = make_many()
    one, two, three_ = three(bed)
    plain = three_.connect("plain")
    plain.subscribe("t/#", qos=2)
    gone, other = member(one, "gone", 1, auto_ack=False), member(two, "other", 1)
    bed.advance(1)
    sent = published(three_, range(40), qos=2)
    bed.advance(1)
    gone.party.disconnect()
    bed.advance(2)
    assert had(other) == Counter(sent)
    assert Counter(plain.payloads()) == Counter(sent)
    assert any(record.kind == Kind.SHARED for record in bed.published())


def test_members_that_may_not_read_don_t_send_a_record_round_for_ever(make_many: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = make_many()
    one, two, three_ = three(bed)
    for node in (one, two):
        member(node, f"m-{node.name}")
        monkeypatch.setattr(node.node, "may_read", lambda principal, topic: False)
    bed.advance(1)
    published(three_, range(3))
    bed.advance(200)
    assert sum(node.node.counters.dropped["shared_no_member"] for node in bed.living.values()) == 3
    assert not any(node.node.registry.resuming for node in bed.living.values())


def test_what_arrives_while_a_session_that_was_elsewhere_is_claimed_again_is_passed_on(make_many: Make) -> None:
    bed = make_many()
    one, two, three_ = three(bed)
    member(one, "m", **KEPT)
    there = member(two, "there")
    bed.advance(1)
    publisher = three_.connect("p")
    for number in range(40):
        publisher.publish(f"t/{number}", b"%d" % number, 1)
    back = Member(two.connect("m", **KEPT))
    again = Member(one.connect("m", **KEPT))
    bed.advance(5)
    assert set(had(there, back, again)) == {b"%d" % number for number in range(40)}


def test_what_all_know_as_withdrawn_is_forgotten(make_many: Make) -> None:
    bed = make_many()
    one, two, _ = three(bed)
    party = one.connect("m")
    for number in range(5):
        party.subscribe(f"$share/g{number}/t", qos=1)
        party.unsubscribe(f"$share/g{number}/t")
    party.subscribe("$share/last/t", qos=1)
    bed.advance(2)
    left = [route.filter for route in bed.loop.finish(bed.store.cluster.routes({}, 100)).routes if route.epoch == one.node.epoch]
    assert left == ["$share/last/t", "$share//last/t"]
    assert two.node.sharing is not None
    assert len(two.node.sharing.routes) == 1
