"""SUBSCRIBE and UNSUBSCRIBE as sequences of filters, forms of filters, identifiers, and shared subscriptions of sessions that come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.protocol.packets import PacketType, Publish, Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.testbed import Testbed
from tests.unit.schemas.test_topics import MALFORMED_FILTERS, MALFORMED_SHARES

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEPT: dict[str, Any] = {"clean_start": False, "session_expiry": 600}


@VERSIONS
@pytest.mark.parametrize("expiry", [0, 60])
def test_the_answers_have_the_packet_ids_of_their_packets(bed: Testbed, version: int, expiry: int) -> None:
    """[MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.8.4-1]: also where several are under way, and where nothing is
    deleted."""
    party = bed.connect("s", version, clean_start=expiry == 0, session_expiry=expiry)
    for number in (65_535, 7, 300):
        party.send(Subscribe(packet_id=number, requests=(SubscriptionRequest(filter=f"a/{number}", qos=1),)))
    for number in (8, 65_534):
        party.send(Unsubscribe(packet_id=number, filters=("nothing",)))
    assert [answer.packet_id for answer in party.take(Suback)] == [65_535, 7, 300]
    assert [answer.packet_id for answer in party.take(Unsuback)] == [8, 65_534]


@pytest.mark.parametrize("filters", [("a/b", "a/+"), ("a/+", "a/b"), ("A", "a"), ("a", "a/"), ("+", "#"), ("a/#", "a"), ("\u00e9", "e\u0301")])
def test_unsubscribe_compares_letter_by_letter(bed: Testbed, filters: tuple[str, str]) -> None:
    """[MQTT-3.10.4-1]"""
    held, other = filters
    party = bed.connect("s")
    party.subscribe(held)
    assert party.unsubscribe(other) == (ReasonCode.NO_SUBSCRIPTION_EXISTED,)
    topic = held.replace("+", "b").replace("#", "b")
    bed.connect("p").exchange(topic, b"1")
    assert party.payloads() == [b"1"]
    assert party.unsubscribe(held) == (ReasonCode.SUCCESS,)
    bed.connect("p").exchange(topic, b"2")
    assert party.payloads() == []


def test_several_filters_are_a_sequence_with_one_answer(bed: Testbed) -> None:
    """[MQTT-3.8.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]: the later of two equal ones holds, and is gone when it is named again."""
    party = bed.connect("s")
    bed.connect("p").exchange("a", b"kept", retain=True)
    requests = (SubscriptionRequest(filter="a", qos=0), SubscriptionRequest(filter="a", qos=2, retain_handling=1))
    party.send(Subscribe(packet_id=1, requests=requests))
    assert party.one(Suback).reason_codes == (0, 2)
    assert party.payloads() == [b"kept"]  # of the first: the second is not new
    bed.connect("p").exchange("a", b"1", 2)
    assert party.one(Publish).qos == 2
    party.send(Unsubscribe(packet_id=2, filters=("a", "a", "b")))
    none = ReasonCode.NO_SUBSCRIPTION_EXISTED
    assert party.one(Unsuback).reason_codes == (ReasonCode.SUCCESS, none, none)


@VERSIONS
@pytest.mark.parametrize("topic_filter", [*MALFORMED_FILTERS, "$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a"])
def test_a_malformed_filter_is_told_and_subscribes_to_nothing(bed: Testbed, version: int, topic_filter: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.4-7]: filters beside it are served."""
    party = bed.connect("s", version, **KEPT)
    bad = ReasonCode.TOPIC_FILTER_INVALID if version == 5 else ReasonCode.UNSPECIFIED_ERROR
    assert party.subscribe("before", topic_filter, "behind", qos=1) == (ReasonCode.GRANTED_QOS_1, bad, ReasonCode.GRANTED_QOS_1)
    session = bed.session("s")
    assert session is not None
    assert sorted(session.subscriptions) == ["before", "behind"]
    codes = party.unsubscribe(topic_filter)
    assert codes == ((ReasonCode.NO_SUBSCRIPTION_EXISTED,) if version == 5 else ())
    bed.crash()
    again = bed.session("s")
    assert again is not None
    assert sorted(again.subscriptions) == ["before", "behind"]


@VERSIONS
def test_no_malformed_share_subscribes_to_anything(bed: Testbed, version: int) -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]: all forms, one connection; none brings a message and none ends it."""
    party = bed.connect("s", version)
    bad = ReasonCode.TOPIC_FILTER_INVALID if version == 5 else ReasonCode.UNSPECIFIED_ERROR
    for share in MALFORMED_SHARES:
        assert party.subscribe(share) == (bad,), share
    session = bed.session("s")
    assert session is not None
    assert session.subscriptions == {}
    publisher = bed.connect("p")
    for topic in ("a", "g", "g/a", "a/b"):
        publisher.exchange(topic)
    assert party.inbox == []
    assert party.subscribe("$share/g/a") == (ReasonCode.GRANTED_QOS_1,)


def test_each_copy_has_the_identifiers_of_its_own_subscriptions(bed: Testbed) -> None:
    """[MQTT-3.3.4-3] [MQTT-3.3.4-5]: a shared subscription's message is a copy of its own."""
    party = bed.connect("s")
    party.subscribe("a/+", identifier=1)
    party.subscribe("a/b", identifier=268_435_455)
    party.subscribe("$share/g/a/#", identifier=3)
    party.subscribe("$share/h/a/#")
    bed.connect("p").exchange("a/b", b"1")
    found = [sorted(packet.properties.subscription_identifier) if packet.properties else [] for packet in party.deliveries()]
    assert sorted(found) == [[], [1, 268_435_455], [3]]


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_the_granted_qos_holds_in_a_shared_subscription(bed: Testbed, granted: int, published: int) -> None:
    """[MQTT-4.8.2-3]: each member's own."""
    parties = [bed.connect(f"m{number}") for number in range(4)]
    for number, party in enumerate(parties):
        party.subscribe("$share/g/a/#", qos=granted if number % 2 else 2)
    publisher = bed.connect("p")
    for number in range(40):
        publisher.exchange(f"a/{number}", b"", published)
    for number, party in enumerate(parties):
        qos = {packet.qos for packet in party.deliveries()}
        assert qos == {min(published, granted if number % 2 else 2)}


@VERSIONS
@pytest.mark.parametrize("death", ["drop", "crash"])
def test_qos_2_of_a_shared_subscription_is_completed_when_its_member_comes_back(bed: Testbed, version: int, death: str) -> None:
    """[MQTT-4.8.2-4]: by that member, and by no other meanwhile."""
    first = bed.connect("first", version, auto_ack=False, **KEPT)
    first.subscribe("$share/g/a", qos=2)
    bed.connect("p").exchange("a", b"1", 2)
    number = first.one(Publish).packet_id
    if death == "crash":
        bed.advance(1)
        bed.crash()
    else:
        first.drop()
    second = bed.connect("second", version)
    second.subscribe("$share/g/a", qos=2)
    bed.advance(20)
    assert second.inbox == []
    again = bed.connect("first", version, auto_ack=False, **KEPT)
    bed.settle()
    packet = again.one(Publish)
    assert (packet.payload, packet.packet_id, packet.dup) == (b"1", number, True)
    again.ack(PacketType.PUBREC, number)
    bed.settle()
    assert again.acks(PacketType.PUBREL) == [number]
    again.ack(PacketType.PUBCOMP, number)
    bed.advance(1)
    session = bed.session("first")
    assert session is not None
    assert session.in_flight == {}


def test_qos_2_of_a_shared_subscription_goes_with_a_session_that_ends(bed: Testbed) -> None:
    """[MQTT-4.8.2-5]: it may have been received."""
    first = bed.connect("first", auto_ack=False, clean_start=False, session_expiry=5)
    first.subscribe("$share/g/a", qos=2)
    bed.connect("p").exchange("a", b"1", 2)
    second = bed.connect("second")
    second.subscribe("$share/g/a", qos=2)
    first.drop()
    bed.advance(30)
    assert bed.session("first") is None
    assert second.inbox == []


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_an_empty_retained_publish_is_delivered_like_any_other(bed: Testbed, payload: bytes) -> None:
    """[MQTT-3.3.1-6] [MQTT-3.3.1-7]: to those who subscribe; who comes later finds nothing."""
    party = bed.connect("s")
    party.subscribe("a", retain_as_published=True)
    publisher = bed.connect("p")
    publisher.exchange("a", b"before", retain=True)
    publisher.exchange("a", payload, retain=True)
    assert [(packet.payload, packet.retain) for packet in party.deliveries()] == [(b"before", True), (payload, True)]
    late = bed.connect("l")
    late.subscribe("a")
    assert late.payloads() == ([payload] if payload else [])


@pytest.mark.parametrize("kept", [True, False])
def test_order_holds_for_each_topic_and_qos_from_each_publisher(bed: Testbed, kept: bool) -> None:
    """[MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.5.0-1]: whichever topic it is, over a pause of the socket and, where it is kept, a lost connection."""
    party = bed.connect("s", **(KEPT if kept else {}))
    party.subscribe("t/+", qos=2)
    publishers = [bed.connect(f"p{number}", number % 2 + 4) for number in range(3)]
    sent: dict[tuple[int, str, int], list[bytes]] = {}
    got: list[Publish] = []
    for number in range(300):
        who, topic, qos = number % 3, f"t/{number % 4}", number // 5 % 3
        payload = b"%d %d" % (who, number)
        publishers[who].publish(topic, payload, qos)
        if qos or kept is False:
            sent.setdefault((who, topic, qos), []).append(payload)
        if number == 100:
            party.stop_reading()
        elif number == 150:
            party.read_on()
        elif number == 200 and kept:
            got += party.deliveries()
            party.drop()
        elif number == 250 and kept:
            bed.settle()
            party = bed.connect("s", **KEPT)
        if number % 7 == 0:
            bed.settle()
    bed.advance(1)
    got += party.deliveries()
    for (who, topic, qos), payloads in sent.items():
        found = [p.payload for p in got if p.topic == topic and p.qos == qos and p.payload.startswith(b"%d " % who)]
        assert (list(dict.fromkeys(found)) if kept else found) == payloads


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_live_messages_go_behind_those_that_waited(make_bed: Make, version: int, qos: int) -> None:
    """[MQTT-4.6.0-5] [MQTT-4.6.0-6]: while the window paces what is stored, and however the acknowledgements come."""
    bed = make_bed(limits=Limits(window=3))
    bed.connect("s", version, **KEPT).subscribe("a", qos=2)
    publisher = bed.connect("p")
    bed.parties[0].drop()
    for number in range(12):
        publisher.exchange("a", b"%d" % number, qos)
    party = bed.connect("s", version, auto_ack=False, **KEPT)
    got: list[Publish] = []
    for number in range(12, 40):
        if number < 24:
            publisher.exchange("a", b"%d" % number, qos)
        bed.advance(0.05)
        packets = party.deliveries()
        got += packets
        for packet in packets:
            if qos == 1:
                party.ack(PacketType.PUBACK, packet.packet_id)
            else:
                party.ack(PacketType.PUBREC, packet.packet_id)
                party.ack(PacketType.PUBCOMP, packet.packet_id)
    assert [packet.payload for packet in got] == [b"%d" % number for number in range(24)]
