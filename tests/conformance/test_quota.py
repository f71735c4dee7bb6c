"""Receive maximum, maximum packet size and message expiry: what is held back, left out or dropped, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.encode import encode_packet
from gateway.protocol.packets import Connack, Disconnect, PacketType, Publish, Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("pace", ["acknowledged", "batches"])
def test_what_is_sent_again_keeps_within_the_new_connections_receive_maximum(make_bed: Make, qos: int, pace: str) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.4.0-1] [MQTT-4.9.0-2] [MQTT-3.3.1-1] [MQTT-4.9.0-1]: under the same packet ids, in order, before anything
    newer."""
    bed = make_bed(pace=pace)
    first = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    first.subscribe("a", qos=2)
    publisher = bed.connect("p")
    for number in range(6):
        publisher.exchange("a", b"%d" % number, qos)
    ids = [packet.packet_id for packet in first.deliveries()]
    assert len(ids) == 6
    first.drop()
    publisher.exchange("a", b"offline", qos)
    second = bed.connect("s", auto_ack=False, clean_start=False, properties=Properties(receive_maximum=2, session_expiry_interval=600))
    publisher.exchange("a", b"live", qos)
    got: list[Publish] = []
    for _ in range(8):
        bed.advance(6)
        packets = second.deliveries()
        got += packets
        assert len(packets) <= 2
        for packet in packets:
            if qos == 1:
                second.ack(PacketType.PUBACK, packet.packet_id)
            else:
                second.ack(PacketType.PUBREC, packet.packet_id)
                second.ack(PacketType.PUBCOMP, packet.packet_id)
    assert [(packet.payload, packet.packet_id, packet.dup) for packet in got[:6]] == [(b"%d" % number, ids[number], True) for number in range(6)]
    newer = [(packet.payload, packet.dup) for packet in got[6:]]
    assert newer == [(b"offline", False), (b"live", False)] if pace == "acknowledged" else len(newer) == 2
    session = bed.session("s")
    assert session is not None
    assert session.in_flight == {}


def test_what_was_not_sent_again_yet_survives_the_next_loss(bed: Testbed) -> None:
    """[MQTT-4.4.0-1]"""
    first = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    first.subscribe("a")
    for number in range(4):
        bed.connect("p").exchange("a", b"%d" % number)
    ids = [packet.packet_id for packet in first.deliveries()]
    first.drop()
    second = bed.connect("s", auto_ack=False, clean_start=False, properties=Properties(receive_maximum=1, session_expiry_interval=600))
    second.ack(PacketType.PUBACK, second.one(Publish).packet_id)
    second.ack(PacketType.PUBACK, ids[2])  # known from the first connection
    bed.advance(1)
    assert [packet.packet_id for packet in second.deliveries()] == [ids[1]]
    second.drop()
    third = bed.connect("s", clean_start=False, session_expiry=600)
    assert [(packet.payload, packet.packet_id, packet.dup) for packet in third.deliveries()] == [(b"1", ids[1], True), (b"3", ids[3], True)]
    bed.advance(1)
    assert bed.stored("s") == []


def test_a_connect_whose_answer_is_too_large_for_the_client_changes_nothing(bed: Testbed) -> None:
    """[MQTT-3.1.2-24]: refused with what fits, or with nothing; an answer of just that size is sent."""
    owner = bed.connect("c", clean_start=False, session_expiry=60)
    owner.subscribe("a")
    assert owner.connack is not None
    size = len(encode_packet(owner.connack, 5))
    for maximum in (1, 4, 5, size - 1):
        party = bed.dial()
        party.connect("c", properties=Properties(maximum_packet_size=maximum))
        assert party.closed
        assert party.connack == (None if maximum < 5 else Connack(session_present=False, reason_code=ReasonCode.PACKET_TOO_LARGE))
    assert not owner.closed
    session = bed.session("c")
    assert session is not None
    assert list(session.subscriptions) == ["a"]
    bed.connect("d", properties=Properties(maximum_packet_size=size))


@pytest.mark.parametrize("packet", [Subscribe, Unsubscribe])
def test_an_answer_that_is_too_large_for_the_client_ends_the_connection(bed: Testbed, packet: type[Subscribe | Unsubscribe]) -> None:
    """[MQTT-3.1.2-24]: the client would wait for its SUBACK or UNSUBACK for ever."""
    for fits in (True, False):
        party = bed.connect("s", properties=Properties(maximum_packet_size=30))
        names = [f"{number}" for number in range(25 if fits else 26)]
        if packet is Subscribe:
            party.send(Subscribe(packet_id=1, requests=tuple(SubscriptionRequest(filter=name, qos=0) for name in names)))
        else:
            party.send(Unsubscribe(packet_id=1, filters=tuple(names)))
        bed.settle()
        if fits:
            assert len(party.take(Suback) + party.take(Unsuback)) == 1
        else:
            assert party.one(Disconnect).reason_code == ReasonCode.PACKET_TOO_LARGE
        assert party.inbox == []
        assert party.closed is not fits


@pytest.mark.parametrize(("maximum", "told"), [(20, False), (200, True)])
def test_a_reason_string_is_left_out_where_it_makes_disconnect_too_large(bed: Testbed, maximum: int, told: bool) -> None:
    """[MQTT-3.14.2-3] [MQTT-3.1.2-24] [MQTT-3.14.2-2]"""
    party = bed.connect("s", properties=Properties(maximum_packet_size=maximum))
    party.write_bytes(b"\xf0\x00")
    properties = party.one(Disconnect).properties
    assert bool(properties and properties.reason_string) is told


def test_without_problem_information_no_reason_string_is_sent(bed: Testbed) -> None:
    """[MQTT-3.1.2-29]"""
    party = bed.connect("s", properties=Properties(request_problem_information=0))
    party.connection.send_packet(
        Suback(packet_id=1, reason_codes=(ReasonCode.SUCCESS,), properties=Properties(reason_string="why", user_property=(("a", "b"),)))
    )
    assert party.one(Suback).properties is None
    party.write_bytes(b"\xf0\x00")
    assert party.one(Disconnect).properties is None


@pytest.mark.parametrize("way", ["queue", "window", "offline", "retained"])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_expired_while_it_waited_is_not_delivered(make_bed: Make, way: str, qos: int) -> None:
    """[MQTT-3.3.2-5]: at the moment of sending, not only when the sweep comes; what lives still is told what is left [MQTT-3.3.2-6]."""
    bed = make_bed(limits=Limits(window=1))
    party = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=60)
    if way != "retained":
        party.subscribe("#", qos=2)
    publisher = bed.connect("p")
    if way == "window":
        publisher.exchange("first")
    elif way == "queue":
        party.stop_reading()
    elif way == "offline":
        party.drop()
    for name, expiry in (("short", 2), ("long", 30)):
        publisher.exchange(name, name.encode(), qos, retain=way == "retained", message_expiry_interval=expiry)
    bed.advance(4)
    if way == "window":
        party.ack(PacketType.PUBACK, party.one(Publish).packet_id)
    elif way == "queue":
        party.read_on()
    elif way == "offline":
        party = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=60)
    else:
        party.subscribe("#", qos=2)
    bed.advance(0.1)
    packet = party.one(Publish)
    assert packet.payload == b"long"
    assert packet.properties is not None
    assert packet.properties.message_expiry_interval == 26
    assert bed.node.counters.dropped["expired"] == (way != "retained")  # the store gives no expired one


def test_aliases_begin_anew_with_each_connection_of_a_kept_session(bed: Testbed) -> None:
    """[MQTT-3.3.2-7]: named again, those of what is sent again too."""
    publisher = bed.connect("p")
    for again in (False, True):
        party = bed.connect("s", auto_ack=False, clean_start=False, properties=Properties(topic_alias_maximum=2, session_expiry_interval=60))
        if not again:
            party.subscribe("a")
            publisher.exchange("a", b"1")
        publisher.exchange("a", b"2")
        bed.advance(1)
        assert [packet.topic for packet in party.deliveries()] == ["a", *[""] * (2 if again else 1)]
        party.drop()


@pytest.mark.parametrize("topic", ["a", "a/p2p/s"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_expired_on_its_way_through_the_log_is_not_delivered(bed: Testbed, topic: str, qos: int) -> None:
    """[MQTT-3.3.2-5]: the log was slow, and nothing had been sent yet; what has no expiry, or a longer one, comes. 3.1.1
    clients have it so too."""
    parties = [bed.connect("s")]
    if topic == "a":
        parties += [bed.connect("old", 4), bed.connect("member"), bed.connect("picky")]
        for party, wanted in zip(parties, ("a", "a", "$share/g/a", "a"), strict=True):
            party.subscribe(wanted, qos=2, no_local=party is parties[3])
    publisher = bed.connect("p")
    other = bed.connect("q")
    bed.log.held = True
    publisher.publish(topic, b"short", qos, message_expiry_interval=3)
    publisher.publish(topic, b"long", qos, message_expiry_interval=30)
    publisher.publish(topic, b"for ever", qos)
    publisher.publish(topic, b"short", qos, message_expiry_interval=3)
    other.publish(topic, b"short", 2 - qos, message_expiry_interval=3)
    bed.advance(5)
    bed.log.release_held()
    bed.settle()
    for party in parties:
        assert party.payloads() == [b"long", b"for ever"]
    assert bed.node.counters.dropped["expired"] == 3 * len(parties)
