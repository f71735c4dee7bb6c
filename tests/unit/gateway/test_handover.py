"""Shared subscriptions: one member a group, which one, and what becomes of messages whose member is gone."""

from __future__ import annotations

import pytest

from gateway.protocol.packets import Disconnect, PacketType, Publish, Subscribe, SubscriptionRequest
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from tests.support.testbed import Testbed


def test_one_member_of_each_group_and_every_plain_subscriber_gets_a_copy(bed: Testbed) -> None:
    """[MQTT-4.8.2-3] and the same filter in two groups and plain, by one client too."""
    members = [bed.connect(f"m{number}") for number in range(3)]
    for member in members:
        member.subscribe("$share/g/a/#")
    members[0].subscribe("$share/h/a/#", "a/#")
    publisher = bed.connect("p")
    for number in range(30):
        publisher.exchange(f"a/{number}", b"%d" % number)
    got = [sorted(int(payload) for payload in member.payloads()) for member in members]
    assert sorted(got[0] + got[1] + got[2]) == sorted(list(range(30)) * 3)
    assert all(got)
    members[0].unsubscribe("$share/h/a/#")
    publisher.exchange("a/x", b"100")
    copies = sum(member.payloads().count(b"100") for member in members)
    assert copies == 2


def test_a_member_with_a_free_window_is_preferred_then_online_then_offline(bed: Testbed) -> None:
    publisher = bed.connect("p")
    full = bed.connect("full", auto_ack=False, properties=Properties(receive_maximum=1))
    full.subscribe("$share/g/a")
    publisher.exchange("a", b"0")
    gone = bed.connect("gone", clean_start=False, session_expiry=60)
    gone.subscribe("$share/g/a")
    gone.drop()
    for number in range(5):
        publisher.exchange("a", b"%d" % (number + 1))
    free = bed.connect("free")
    free.subscribe("$share/g/a")
    for number in range(5):
        publisher.exchange("a", b"%d" % (number + 10))
    assert free.payloads() == [b"%d" % (number + 10) for number in range(5)]
    assert full.payloads() == [b"0"]
    assert bed.stored("gone") == []
    full.drop()
    free.drop()
    publisher.exchange("a", b"last")
    bed.advance(0.1)
    assert b"last" in bed.stored("gone")


@pytest.mark.parametrize("end", ["drop", "disconnect", "takeover"])
def test_what_a_member_that_is_gone_did_not_acknowledge_goes_to_another(bed: Testbed, end: str) -> None:
    """QoS 1 sent and unacknowledged, and whatever was not sent yet; nothing silent is lost."""
    publisher = bed.connect("p")
    first = bed.connect("first", auto_ack=False, properties=Properties(receive_maximum=2))
    first.subscribe("$share/g/a", qos=2)
    for number in range(5):
        publisher.exchange("a", b"%d" % number)
    second = bed.connect("second", clean_start=False, session_expiry=60)
    second.subscribe("$share/g/a", qos=2)
    first.ack(PacketType.PUBACK, first.deliveries()[0].packet_id)
    bed.settle()
    if end == "drop":
        first.drop()
    elif end == "disconnect":
        first.disconnect()
    else:
        bed.connect("first")
    bed.advance(1)
    assert sorted(second.payloads()) == [b"1", b"2", b"3", b"4"]


def test_what_was_handed_over_survives_a_crash(bed: Testbed) -> None:
    publisher = bed.connect("p")
    first = bed.connect("first", auto_ack=False)
    first.subscribe("$share/g/a")
    publisher.exchange("a", b"old")
    second = bed.connect("second", auto_ack=False, clean_start=False, session_expiry=60)
    second.subscribe("$share/g/a", "b")
    bed.advance(3)
    publisher.exchange("b", b"newer")
    first.drop()
    bed.advance(3)
    bed.crash()
    again = bed.connect("second", clean_start=False, session_expiry=60)
    bed.advance(1)
    assert sorted(again.payloads()) == [b"newer", b"old"]


def test_qos_2_that_was_sent_is_not_handed_over(bed: Testbed) -> None:
    """[MQTT-4.8.2-5]; it is counted."""
    first = bed.connect("first", auto_ack=False)
    first.subscribe("$share/g/a", qos=2)
    bed.connect("p").exchange("a", b"2", 2)
    second = bed.connect("second")
    second.subscribe("$share/g/a", qos=2)
    first.drop()
    assert second.payloads() == []
    assert bed.node.counters.dropped["session_ended"] == 1


def test_a_member_that_refuses_keeps_the_others_free_of_it(bed: Testbed) -> None:
    """[MQTT-4.8.2-6]"""
    first = bed.connect("first", auto_ack=False)
    first.subscribe("$share/g/a", qos=1)
    bed.connect("p").exchange("a", b"1")
    second = bed.connect("second")
    second.subscribe("$share/g/a", qos=1)
    first.ack(PacketType.PUBACK, first.one(Publish).packet_id, ReasonCode.UNSPECIFIED_ERROR)
    bed.settle()
    first.drop()
    assert second.payloads() == []


def test_with_nobody_left_what_was_not_acknowledged_is_counted(bed: Testbed) -> None:
    only = bed.connect("only", auto_ack=False)
    only.subscribe("$share/g/a", qos=1)
    bed.connect("p").exchange("a", b"1")
    bed.settle()
    only.drop()
    assert bed.node.counters.dropped["session_ended"] == 1


def test_no_local_on_a_shared_subscription_is_a_protocol_error(bed: Testbed) -> None:
    """[MQTT-3.8.3-4]"""
    party = bed.connect("s")
    party.send(Subscribe(packet_id=1, requests=(SubscriptionRequest(filter="$share/g/a", qos=1, no_local=True),)))
    assert party.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR
