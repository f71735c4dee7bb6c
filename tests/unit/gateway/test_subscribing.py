"""SUBSCRIBE and UNSUBSCRIBE: grants, options, identifiers, overlaps, shared groups, retained messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.protocol.packets import Ack, PacketType, Publish, Suback, Subscribe, SubscriptionRequest
from schemas.identities import AccessRule
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.settings import CompatibilitySettings
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])


def identifiers(packet: Publish) -> tuple[int, ...]:
    return packet.properties.subscription_identifier if packet.properties is not None else ()


@VERSIONS
def test_the_answer_has_a_code_a_request_in_order(bed: Testbed, version: int) -> None:
    """[MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1] [MQTT-3.8.4-7]"""
    party = bed.connect("s", version)
    requests = tuple(SubscriptionRequest(filter=f, qos=q) for f, q in (("a", 0), ("$SYS/#", 1), ("b/#", 2)))
    party.send(Subscribe(packet_id=7, requests=requests))
    bed.settle()
    answer = party.one(Suback)
    assert answer.packet_id == 7
    assert answer.reason_codes == (0, 1, 2)


def test_refused_filters_are_told_one_by_one(make_bed: Make) -> None:
    """[MQTT-3.9.3-2] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]"""
    rules = (AccessRule("*", "subscribe", "no/#", "deny"),)
    bed = make_bed(access=rules, limits=Limits(subscriptions_per_client=2, topic_bytes=20))
    party = bed.connect("s")
    codes = party.subscribe("no/a", "a", "x" * 21, "b", "c", "a", "$share/g/no/b")
    refused = ReasonCode.NOT_AUTHORIZED
    assert codes == (refused, 1, ReasonCode.TOPIC_FILTER_INVALID, 1, ReasonCode.QUOTA_EXCEEDED, 1, refused)
    old = bed.connect("o", 4)
    assert old.subscribe("no/a", "a") == (ReasonCode.UNSPECIFIED_ERROR, 1)  # 3.1.1 has 0x80 alone


def test_the_code_of_a_denial_can_be_set(make_bed: Make) -> None:
    bed = make_bed(access=(AccessRule("*", "subscribe", "no", "deny"),), compatibility=CompatibilitySettings(not_authorized_code=0x80))
    assert bed.connect("s").subscribe("no") == (ReasonCode.UNSPECIFIED_ERROR,)


@VERSIONS
def test_the_strict_preset_closes_on_a_denied_subscribe(make_bed: Make, version: int) -> None:
    bed = make_bed(preset="apsaramq", access=(AccessRule("*", "subscribe", "plant/no", "deny"),))
    resources = bed.node.registers.resources
    bed.loop.finish(resources.create_group("GID_test", "", 0))
    bed.loop.finish(resources.create_topic("plant", "", "", 0))
    party = bed.connect("GID_test@@@s", version)
    assert party.subscribe("plant/yes") == (1,)
    party.send(Subscribe(packet_id=1, requests=(SubscriptionRequest(filter="plant/no", qos=0),)))
    bed.settle()
    assert party.closed


@pytest.mark.parametrize("expiry", [0, 60])
def test_suback_of_a_kept_session_waits_for_the_store(bed: Testbed, expiry: int) -> None:
    party = bed.connect("s", clean_start=expiry == 0, session_expiry=expiry)
    bed.node.retained_present = False
    bed.store.failing = True
    party.send(Subscribe(packet_id=1, requests=(SubscriptionRequest(filter="a", qos=0),)))
    bed.settle()
    assert bool(party.inbox) is (expiry == 0)
    bed.store.failing = False
    bed.advance(1)
    assert len(party.inbox) == 1


def test_retained_messages_wait_for_a_store_that_fails(bed: Testbed) -> None:
    bed.connect("p").exchange("a", b"kept", retain=True)
    bed.advance(1)
    party = bed.connect("s")
    bed.store.failing = True
    party.send(Subscribe(packet_id=1, requests=(SubscriptionRequest(filter="a", qos=1),)))
    bed.advance(2)
    assert party.payloads() == []
    bed.store.failing = False
    bed.advance(1)
    assert party.payloads() == [b"kept"]
    assert not party.closed


def test_a_subscription_that_is_replaced_brings_one_copy(bed: Testbed) -> None:
    """[MQTT-3.8.4-3]"""
    party = bed.connect("s")
    party.subscribe("a", qos=0, identifier=1)
    party.subscribe("a", qos=2, identifier=2)
    bed.connect("p").exchange("a", b"1", 2)
    packet = party.one(Publish)
    assert (packet.qos, identifiers(packet)) == (2, (2,))


def test_overlapping_subscriptions_bring_one_copy_of_the_highest_qos_with_all_identifiers(bed: Testbed) -> None:
    """[MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]"""
    party = bed.connect("s")
    party.subscribe("a/+", qos=0, identifier=5)
    party.subscribe("a/#", qos=2, identifier=6)
    party.subscribe("a/b", qos=1)
    party.subscribe("c", qos=1)
    publisher = bed.connect("p")
    publisher.exchange("a/b", b"1", 2)
    publisher.exchange("c", b"2", 2)
    first, second = party.deliveries()
    assert (first.qos, sorted(identifiers(first))) == (2, [5, 6])
    assert (second.qos, identifiers(second)) == (1, ())


def test_no_local(bed: Testbed) -> None:
    """[MQTT-3.8.3-3]: neither live nor retained nor by another subscription's options."""
    party, other = bed.connect("s"), bed.connect("o")
    party.subscribe("a", no_local=True)
    party.exchange("a", b"mine", retain=True)
    other.exchange("a/b", b"x")
    other.exchange("a", b"theirs")
    assert party.payloads() == [b"theirs"]
    party.subscribe("a", no_local=True)
    assert party.payloads() == []
    party.subscribe("#", qos=0)
    party.inbox.clear()
    party.exchange("a", b"again")
    assert [(p.payload, p.qos) for p in party.deliveries()] == [(b"again", 0)]


@pytest.mark.parametrize("keep", [True, False])
def test_retain_as_published(bed: Testbed, keep: bool) -> None:
    """[MQTT-3.3.1-12] [MQTT-3.3.1-13]; what SUBSCRIBE brings is marked in either case (section 3.3.1.3)."""
    party, publisher = bed.connect("s"), bed.connect("p")
    party.subscribe("a", retain_as_published=keep)
    publisher.exchange("a", b"1", retain=True)
    publisher.exchange("a", b"2")
    assert [p.retain for p in party.deliveries()] == [keep, False]
    party.subscribe("a", retain_as_published=keep)
    assert [(p.payload, p.retain) for p in party.deliveries()] == [(b"1", True)]


@pytest.mark.parametrize(("handling", "first", "again"), [(0, True, True), (1, True, False), (2, False, False)])
def test_retain_handling(bed: Testbed, handling: int, first: bool, again: bool) -> None:
    """[MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]"""
    bed.connect("p").exchange("a/b", b"1", retain=True)
    party = bed.connect("s")
    for expected in (first, again):
        party.subscribe("a/#", retain_handling=handling)
        assert bool(party.payloads()) is expected


@VERSIONS
def test_retained_messages_are_replaced_deleted_and_matched(bed: Testbed, version: int) -> None:
    """[MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.8.4-4] [MQTT-3.3.1-8]"""
    publisher = bed.connect("p", version)
    for topic, payload in (("a/1", b"old"), ("a/1", b"new"), ("a/2", b"gone"), ("a/2", b""), ("b", b"other"), ("a/3", b"three")):
        publisher.exchange(topic, payload, 1, retain=True)
    publisher.publish("a/3", b"not retained", 0)
    party = bed.connect("s", version)
    party.subscribe("a/+", qos=2)
    assert [(p.topic, p.payload, p.qos, p.retain) for p in party.deliveries()] == [("a/1", b"new", 1, True), ("a/3", b"three", 1, True)]
    party.subscribe("$share/g/a/+", qos=2)
    assert party.deliveries() == []


def test_a_retained_message_has_the_identifier_and_the_lower_qos(bed: Testbed) -> None:
    bed.connect("p").exchange("a", b"1", 2, retain=True)
    party = bed.connect("s")
    party.subscribe("a", qos=1, identifier=9)
    packet = party.one(Publish)
    assert (packet.qos, identifiers(packet)) == (1, (9,))


def test_retained_messages_expire(bed: Testbed) -> None:
    """[MQTT-3.3.2-5]"""
    bed.connect("p").exchange("a", b"1", retain=True, message_expiry_interval=10)
    bed.advance(11)
    party = bed.connect("s")
    party.subscribe("a")
    assert party.payloads() == []


def test_readers_permission_is_checked_at_each_delivery(make_bed: Make) -> None:
    bed = make_bed(access=(AccessRule("*", "read", "a/secret", "deny"),))
    publisher, party = bed.connect("p"), bed.connect("s")
    publisher.exchange("a/secret", b"1", retain=True)
    party.subscribe("a/#")
    publisher.exchange("a/secret", b"2")
    publisher.exchange("a/open", b"3")
    assert party.payloads() == [b"3"]


@pytest.mark.parametrize("expiry", [0, 600])
def test_more_retained_messages_than_the_window_and_a_page_come_all(make_bed: Make, expiry: int) -> None:
    """[MQTT-3.3.1-9]"""
    bed = make_bed(limits=Limits(window=7, receive_maximum=2_000))
    publisher = bed.connect("p")
    for number in range(450):
        publisher.publish(f"r/{number:03}", b"%d" % number, 1, retain=True)
    bed.settle()
    publisher.inbox.clear()
    party = bed.connect("s", clean_start=expiry == 0, session_expiry=expiry)
    party.subscribe("r/#", qos=2)
    publisher.exchange("r/000", b"live")
    bed.advance(30)
    assert party.payloads() == [b"%d" % number for number in range(450)] + [b"live"]


@pytest.mark.parametrize("expiry", [0, 600])
def test_retained_is_read_at_exactly_the_subscribe(bed: Testbed, expiry: int) -> None:
    """What is set behind it comes live once and not as retained too; what was set before comes first."""
    publisher = bed.connect("p")
    publisher.exchange("a/1", b"before", retain=True)
    publisher.exchange("a/2", b"before", retain=True)
    party = bed.connect("s", clean_start=expiry == 0, session_expiry=expiry)
    retained = bed.store.retained

    async def slow(*args: object) -> object:
        publisher.publish("a/1", b"behind", 2, retain=True)
        for _ in range(30):
            await asyncio.sleep(0)
        return await retained(*args)  # type: ignore[arg-type]

    bed.store.retained = slow  # type: ignore[method-assign, assignment]
    party.subscribe("a/#", qos=2)
    bed.advance(1)
    assert [(p.topic, p.payload, p.retain) for p in party.deliveries()] == [("a/2", b"before", True), ("a/1", b"behind", False)]


@VERSIONS
@pytest.mark.parametrize("expiry", [0, 60])
def test_unsubscribe(bed: Testbed, version: int, expiry: int) -> None:
    """[MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1]"""
    party = bed.connect("s", version, clean_start=expiry == 0, session_expiry=expiry)
    party.subscribe("a", "b")
    codes = party.unsubscribe("a", "c")
    if version == 5:
        assert codes == (ReasonCode.SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED)
    publisher = bed.connect("p")
    publisher.exchange("a", b"1")
    publisher.exchange("b", b"2")
    assert party.payloads() == [b"2"]
    if expiry:
        bed.crash()
        session = bed.session("s")
        assert session is not None
        assert list(session.subscriptions) == ["b"]


def test_what_is_in_flight_at_unsubscribe_is_completed(bed: Testbed) -> None:
    """[MQTT-3.10.4-3]"""
    party = bed.connect("s", auto_ack=False)
    party.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", 2)
    party.unsubscribe("a")
    number = party.one(Publish).packet_id
    party.ack(PacketType.PUBREC, number)
    assert party.one(Ack) == Ack(type=PacketType.PUBREL, packet_id=number)


def test_retained_messages_have_a_limit(make_bed: Make) -> None:
    """A refused one is delivered and counted; topics that have one may change; a deletion makes room."""
    bed = make_bed(limits=Limits(retained_messages=3))
    publisher, live = bed.connect("p"), bed.connect("l")
    live.subscribe("r/#")

    def kept() -> dict[str, bytes]:
        party = bed.connect("s")
        party.subscribe("r/#")
        return {packet.topic: packet.payload for packet in party.deliveries()}

    for number in range(5):
        publisher.exchange(f"r/{number}", b"1", retain=True)
    assert len(live.deliveries()) == 5
    assert kept() == {"r/0": b"1", "r/1": b"1", "r/2": b"1"}
    assert bed.node.counters.refused["retained_limit"] == 2
    publisher.exchange("r/0", b"2", retain=True)
    publisher.exchange("r/1", b"", retain=True)
    bed.advance(11)
    publisher.exchange("r/3", b"2", retain=True)
    publisher.exchange("r/4", b"2", retain=True)
    assert kept() == {"r/0": b"2", "r/2": b"1", "r/3": b"2"}
    bed.crash()
    assert kept() == {"r/0": b"2", "r/2": b"1", "r/3": b"2"}


def test_a_subscription_replaced_just_before_a_crash_loses_nothing(bed: Testbed) -> None:
    """What it had brought and nobody settled matches still: it keeps the position from which it matches [MQTT-3.8.4-4]."""
    party = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    party.subscribe("a")
    bed.advance(1)
    bed.connect("p").exchange("a", b"1")
    party.subscribe("a", qos=2)
    bed.crash()
    again = bed.connect("s", clean_start=False, session_expiry=600)
    bed.advance(1)
    assert again.payloads() == [b"1"]


def test_what_was_published_before_a_subscription_does_not_match_it_after_a_crash(bed: Testbed) -> None:
    """Subscriptions carry ``since``."""
    bed.connect("k", clean_start=False, session_expiry=600).subscribe("a")
    bed.connect("p").exchange("a", b"before")
    late = bed.connect("s", clean_start=False, session_expiry=600)
    late.subscribe("a")
    bed.connect("p").exchange("a", b"behind")
    bed.crash()
    for client, expected in (("k", [b"before", b"behind"]), ("s", [b"behind"])):
        again = bed.connect(client, clean_start=False, session_expiry=600)
        bed.advance(1)
        assert again.payloads() == expected


def test_broker_topics_are_told_at_once_and_only_to_those_who_ask(bed: Testbed) -> None:
    """[MQTT-4.7.2-1]"""
    party, plain = bed.connect("s"), bed.connect("t")
    plain.subscribe("#")
    party.subscribe("$SYS/broker/clients/+")
    told = party.deliveries()
    expected = [("$SYS/broker/clients/connected", b"2", True), ("$SYS/broker/clients/total", b"2", True)]
    assert [(p.topic, p.payload, p.retain) for p in told] == expected
    bed.node.broker_topics.publish()
    assert [p.retain for p in party.deliveries()] == [False, False]
    assert plain.deliveries() == []
