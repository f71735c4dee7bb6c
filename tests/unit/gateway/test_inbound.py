"""PUBLISH from clients: acknowledged after it is durable, QoS 2 once, limits, aliases, properties, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packets import Ack, Disconnect, PacketType, Publish
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Flag, Kind
from tests.support.party import will
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_acknowledged_or_delivered_before_it_is_durable(bed: Testbed, version: int, qos: int) -> None:
    """[MQTT-4.3.2-4] [MQTT-4.3.3-8]"""
    subscriber, publisher = bed.connect("s", version), bed.connect("p", version)
    subscriber.subscribe("a", qos=qos)
    bed.log.held = True
    number = publisher.publish("a", b"1", qos)
    bed.settle()
    assert publisher.inbox == []
    assert subscriber.inbox == []
    bed.log.release_held()
    bed.settle()
    assert publisher.acks(PacketType.PUBACK if qos == 1 else PacketType.PUBREC) == [number]
    assert subscriber.payloads() == [b"1"]


def test_acknowledgements_keep_the_order_of_the_publishes(bed: Testbed) -> None:
    """[MQTT-4.6.0-2] [MQTT-4.6.0-3]"""
    publisher = bed.connect("p")
    bed.log.held = True
    for number in (9, 3, 7):
        publisher.publish("a", b"", 1, packet_id=number)
    for number in (8, 2):
        publisher.publish("a", b"", 2, packet_id=number)
    bed.log.release_held()
    bed.settle()
    assert publisher.acks(PacketType.PUBACK) == [9, 3, 7]
    assert publisher.acks(PacketType.PUBREC) == [8, 2]


@VERSIONS
@pytest.mark.parametrize("expiry", [0, 60])
def test_a_qos_2_publish_sent_again_is_one_message(bed: Testbed, version: int, expiry: int) -> None:
    """[MQTT-4.3.3-9] [MQTT-4.3.3-10] [MQTT-4.3.3-12]: until PUBREL, whatever DUP says; behind PUBCOMP the id is free."""
    publisher = bed.connect("p", version, clean_start=expiry == 0, session_expiry=expiry)
    for _ in range(3):
        publisher.publish("a", b"1", 2, packet_id=5, dup=True)
        bed.settle()
    assert publisher.acks(PacketType.PUBREC) == [5, 5, 5]
    publisher.ack(PacketType.PUBREL, 5)
    bed.settle()
    assert publisher.acks(PacketType.PUBCOMP) == [5]
    publisher.publish("a", b"2", 2, packet_id=5)
    bed.settle()
    assert [r.payload for r in bed.published() if r.kind == Kind.PUBLISH] == [b"1", b"2"]


@VERSIONS
def test_the_log_says_what_was_sent_as_a_repeat(bed: Testbed, version: int) -> None:
    """Under QoS 2: what nobody here knows may have come by another node [MQTT-3.3.1-1]."""
    publisher = bed.connect("p", version, clean_start=False, session_expiry=60)
    for qos in (1, 2):
        for dup in (False, True):
            publisher.publish("a", b"", qos, dup=dup)
    bed.settle()
    assert [bool(record.flags & Flag.DUP) for record in bed.published()] == [False, False, False, True]


def test_a_repeat_before_the_first_is_durable_waits_for_it(bed: Testbed) -> None:
    publisher = bed.connect("p", clean_start=False, session_expiry=60)
    bed.log.held = True
    publisher.publish("a", b"1", 2, packet_id=5)
    publisher.publish("a", b"1", 2, packet_id=5, dup=True)
    bed.settle()
    assert publisher.inbox == []
    bed.log.release_held()
    bed.settle()
    assert publisher.acks(PacketType.PUBREC) == [5]


def test_a_repeat_on_a_new_connection_is_answered_once_the_first_is_durable(bed: Testbed) -> None:
    """The publish was on its way when its connection went; the client that comes back and sends again is not left waiting."""
    first = bed.connect("p", clean_start=False, session_expiry=60)
    held = []
    work = bed.log._work
    bed.log._work = lambda topic, number: held.append((topic, number)) if topic == "publish" else work(topic, number)  # type: ignore[method-assign]
    first.publish("a", b"1", 2, packet_id=5)
    bed.settle()
    first.drop()
    second = bed.connect("p", clean_start=False, session_expiry=60)
    second.publish("a", b"1", 2, packet_id=5, dup=True)
    bed.settle()
    assert second.inbox == []
    bed.log._work = work  # type: ignore[method-assign]
    for topic, number in held:
        work(topic, number)
    bed.settle()
    assert second.acks(PacketType.PUBREC) == [5]
    assert len(bed.published()) == 1


def test_a_pubrel_that_came_twice_does_not_free_the_id_of_the_next_publish(bed: Testbed) -> None:
    publisher = bed.connect("p", clean_start=False, session_expiry=60)
    publisher.publish("a", b"1", 2, packet_id=5)
    bed.settle()
    bed.log.held = True
    publisher.ack(PacketType.PUBREL, 5)
    publisher.ack(PacketType.PUBREL, 5)
    bed.log.release_held()
    bed.settle()
    publisher.inbox.clear()
    publisher.publish("a", b"2", 2, packet_id=5)
    bed.settle()
    publisher.inbox.clear()
    publisher.ack(PacketType.PUBREL, 5)
    assert publisher.one(Ack).reason_code == ReasonCode.SUCCESS


@VERSIONS
def test_pubrel_of_an_unknown_id(bed: Testbed, version: int) -> None:
    """[MQTT-4.3.3-11]: PUBCOMP, in 5.0 with 0x92."""
    publisher = bed.connect("p", version)
    publisher.ack(PacketType.PUBREL, 77)
    answer = publisher.one(Ack)
    assert (answer.type, answer.packet_id) == (PacketType.PUBCOMP, 77)
    assert answer.reason_code == (ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if version == 5 else 0)


def test_a_release_of_a_kept_session_is_durable_before_pubcomp(bed: Testbed) -> None:
    """[MQTT-4.3.3-11]"""
    publisher = bed.connect("p", clean_start=False, session_expiry=60)
    publisher.publish("a", b"1", 2, packet_id=5)
    bed.settle()
    publisher.inbox.clear()
    bed.log.held = True
    publisher.ack(PacketType.PUBREL, 5)
    bed.settle()
    assert publisher.inbox == []
    bed.log.release_held()
    bed.settle()
    assert publisher.acks(PacketType.PUBCOMP) == [5]


@pytest.mark.parametrize("qos", [1, 2])
def test_more_than_the_receive_maximum_closes_with_0x93(make_bed: Make, qos: int) -> None:
    """[MQTT-3.3.4-7]: 0x93 is what section 4.9 asks for."""
    bed = make_bed(limits=Limits(receive_maximum=3))
    publisher = bed.connect("p")
    bed.log.held = True
    for _ in range(3):
        publisher.publish("a", b"", qos)
    bed.settle()
    assert not publisher.closed
    publisher.publish("a", b"", qos)
    assert publisher.one(Disconnect).reason_code == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    assert publisher.closed
    bed.log.release_held()


def test_the_receive_maximum_counts_what_is_not_acknowledged_only(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(receive_maximum=3))
    publisher = bed.connect("p")
    for _ in range(10):
        publisher.exchange("a", b"", 1)
        publisher.exchange("a", b"", 2)
    publisher.publish("a", b"", 0)
    assert not publisher.closed


def test_3_1_1_may_have_any_number_of_qos_1_publishes_but_a_bounded_one_of_unreleased_qos_2(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(receive_maximum=3))
    publisher = bed.connect("p", 4)
    bed.log.held = True
    for _ in range(9):
        publisher.publish("a", b"", 1)
    bed.log.release_held()
    bed.settle()
    assert len(publisher.acks(PacketType.PUBACK)) == 9
    for _ in range(4):
        publisher.publish("a", b"", 2)
        bed.settle()
    assert publisher.closed


def test_past_its_bytes_without_acknowledgement_a_connection_is_not_read(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(unacknowledged_bytes=1_000))
    publisher = bed.connect("p", 4, keep_alive=10)
    bed.log.held = True
    for _ in range(5):
        publisher.publish("a", bytes(400), 1)
    bed.advance(60)  # its keep-alive stands still meanwhile
    assert publisher.connection.paused
    assert publisher.connection.pending == 3
    bed.log.release_held()
    bed.settle()
    assert len(publisher.acks(PacketType.PUBACK)) == 5
    assert not publisher.connection.paused


def test_who_reads_no_answers_is_not_read_either(make_bed: Make) -> None:
    """Answers to a client that doesn't read are bounded, and its keep-alive ends it; one that reads on goes on."""
    bed = make_bed(limits=Limits(write_buffer=1_000))
    deaf, slow = bed.connect("d", 4, keep_alive=10), bed.connect("s", 4, keep_alive=10)
    for party in (deaf, slow):
        party.stop_reading()
        for number in range(1_000):
            party.publish("a", b"", 1)
            if number % 10 == 0:
                bed.settle()
        assert len(party.acks(PacketType.PUBACK)) < 300
    slow.read_on()
    bed.settle()
    slow.publish("a", b"last", 1)
    bed.settle()
    assert slow.acks(PacketType.PUBACK)[-1] == 1_001
    bed.advance(10)
    slow.write_bytes(b"\xc0\x00")
    bed.advance(8)
    assert deaf.closed
    assert not slow.closed


def test_a_packet_over_the_limit_is_refused_by_its_announced_length(make_bed: Make) -> None:
    """[MQTT-3.2.2-15]"""
    bed = make_bed(limits=Limits(packet=200))
    publisher = bed.connect("p")
    publisher.write_bytes(b"\x30\xc9\x01")
    bed.settle()
    assert publisher.one(Disconnect).reason_code == ReasonCode.PACKET_TOO_LARGE
    fits = bed.connect("q")
    fits.publish("a", bytes(190))
    bed.settle()
    assert not fits.closed


def test_a_connect_over_its_limit_is_refused_before_it_is_kept(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(connect_bytes=100))
    party = bed.dial()
    party.write_bytes(b"\x10\xff\x7f")
    bed.settle()
    assert party.closed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x36\x05\x00\x01a\x00\x01", ReasonCode.MALFORMED_PACKET),  # QoS 3 [MQTT-3.3.1-4]
        (b"\x38\x04\x00\x01a\x00", ReasonCode.MALFORMED_PACKET),  # DUP with QoS 0 [MQTT-3.3.1-2]
        (b"\x32\x06\x00\x01a\x00\x00\x00", ReasonCode.MALFORMED_PACKET),  # packet id 0 [MQTT-2.2.1-3]
        (b"\x30\x02\x00\x05", ReasonCode.MALFORMED_PACKET),
        (b"\x30\x04\x00\x01#\x00", ReasonCode.TOPIC_NAME_INVALID),  # [MQTT-3.3.2-2]
        (b"\x30\x04\x00\x01\xff\x00", ReasonCode.MALFORMED_PACKET),  # [MQTT-1.5.4-1]
        (b"\x30\x03\x00\x00\x00", ReasonCode.PROTOCOL_ERROR),  # neither topic nor alias
        (b"\x30\x80\x80\x80\x80\x01", ReasonCode.MALFORMED_PACKET),
        (b"\x62\x02\x00\x00", ReasonCode.MALFORMED_PACKET),
        (b"\x20\x03\x00\x00\x00", ReasonCode.PROTOCOL_ERROR),
        (b"\xf0\x00", ReasonCode.PROTOCOL_ERROR),
    ],
)
def test_what_no_client_may_send_ends_the_connection_with_its_reason(bed: Testbed, data: bytes, reason: ReasonCode) -> None:
    """[MQTT-4.13.1-1]"""
    party = bed.connect("p", will=will("w"))
    party.write_bytes(data)
    assert party.one(Disconnect).reason_code == reason
    assert party.closed
    assert [record.topic for record in bed.published()] == ["w"]


def test_topic_aliases_of_a_client(bed: Testbed) -> None:
    """[MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-12]: set, used, set anew, gone with the connection, never forwarded."""
    subscriber, publisher = bed.connect("s"), bed.connect("p")
    subscriber.subscribe("#")
    publisher.publish("a", b"1", topic_alias=1)
    publisher.publish("", b"2", topic_alias=1)
    publisher.publish("b", b"3", topic_alias=1)
    publisher.publish("", b"4", 1, topic_alias=1)
    got = subscriber.deliveries()
    assert [(p.topic, p.payload) for p in got] == [("a", b"1"), ("a", b"2"), ("b", b"3"), ("b", b"4")]
    assert all(p.properties is None or p.properties.topic_alias is None for p in got)
    publisher.disconnect()
    again = bed.connect("p")
    again.publish("", b"5", topic_alias=1)
    assert again.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR  # section 3.3.4: no mapping and no topic


@pytest.mark.parametrize("alias", [0, 4])
def test_an_alias_out_of_range_ends_the_connection(make_bed: Make, alias: int) -> None:
    """[MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17]"""
    bed = make_bed(limits=Limits(topic_alias_maximum=3))
    party = bed.connect("p")
    party.publish("a", b"", topic_alias=3)
    party.write_bytes(b"\x30\x07\x00\x01a\x03\x23\x00" + bytes((alias,)))
    assert party.one(Disconnect).reason_code == ReasonCode.TOPIC_ALIAS_INVALID


def test_a_client_must_not_send_subscription_identifiers(bed: Testbed) -> None:
    """[MQTT-3.3.4-6]"""
    party = bed.connect("p")
    party.publish("a", b"", subscription_identifier=(1,))
    assert party.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR


def test_properties_are_forwarded_in_order_and_unaltered(bed: Testbed) -> None:
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]"""
    subscriber, publisher = bed.connect("s"), bed.connect("p")
    subscriber.subscribe("a")
    sent = {
        "payload_format_indicator": 1,
        "response_topic": "answers",
        "correlation_data": b"\x00\x01",
        "content_type": "text/plain",
        "user_property": (("k", "1"), ("j", "2"), ("k", "0")),
    }
    publisher.exchange("a", b"x", **sent)
    properties = subscriber.one(Publish).properties
    assert properties is not None
    assert {name: getattr(properties, name) for name in sent} == sent


def test_message_expiry_counts_down_and_ends(bed: Testbed) -> None:
    """[MQTT-3.3.2-5] [MQTT-3.3.2-6]"""
    subscriber = bed.connect("s", clean_start=False, session_expiry=600)
    subscriber.subscribe("a")
    subscriber.drop()
    publisher = bed.connect("p")
    publisher.exchange("a", b"short", message_expiry_interval=10)
    publisher.exchange("a", b"long", message_expiry_interval=100)
    bed.advance(30)
    back = bed.connect("s", clean_start=False, session_expiry=600)
    only = back.one(Publish)
    assert only.payload == b"long"
    assert only.properties is not None
    assert only.properties.message_expiry_interval == 70
    assert bed.node.counters.dropped["expired"] == 1


def test_the_sender_of_a_kept_session_is_marked_in_the_record(bed: Testbed) -> None:
    bed.connect("p", session_expiry=60).exchange("a")
    bed.connect("q").exchange("a")
    assert [record.flags & Flag.PERSISTENT for record in bed.published()] == [Flag.PERSISTENT, 0]


def test_a_gateway_that_drains_reads_on_no_connection(bed: Testbed) -> None:
    """What becomes durable meanwhile is acknowledged; it is no cause to take more."""
    party = bed.connect("p")
    bed.log.held = True
    party.publish("a", bytes(70_000), 1)
    bed.settle()
    assert party.connection.paused
    bed.node.draining = True
    bed.log.release_held()
    bed.settle()
    assert len(party.acks(PacketType.PUBACK)) == 1
    assert party.connection.paused
