"""PUBLISH and its acknowledgements both ways: flags, packet ids, properties, expiry, and what a reconnect brings again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.protocol.packets import Ack, PacketType, Pingreq, Pingresp, Publish, Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Kind
from tests.support.party import will
from tests.support.testbed import Testbed
from tests.unit.gateway.protocol.test_strings import BAD

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEPT: dict[str, Any] = {"clean_start": False, "session_expiry": 600}
SENT: dict[str, Any] = {
    "payload_format_indicator": 1,
    "content_type": "text/plain",
    "response_topic": "answers/é",
    "correlation_data": b"\x00\xff",
    "user_property": (("k", "2"), ("a", "1"), ("k", "2"), ("", "")),
}


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("expiry", [0, 60])
def test_the_answer_is_that_of_the_qos(bed: Testbed, version: int, qos: int, expiry: int) -> None:
    """[MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]: nothing, PUBACK, or PUBREC and PUBCOMP, with the id of
    the PUBLISH."""
    party = bed.connect("p", version, clean_start=expiry == 0, session_expiry=expiry)
    party.publish("a", b"1", qos, packet_id=4_711 if qos else 0)
    bed.settle()
    expected = [(), (PacketType.PUBACK,), (PacketType.PUBREC,)][qos]
    assert [(ack.type, ack.packet_id) for ack in party.take(Ack)] == [(kind, 4_711) for kind in expected]
    if qos == 2:
        party.ack(PacketType.PUBREL, 4_711)
        assert party.one(Ack) == Ack(type=PacketType.PUBCOMP, packet_id=4_711)
    assert party.inbox == []


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("alias", [0, 5])
def test_dup_of_a_publish_is_not_passed_on(bed: Testbed, version: int, qos: int, alias: int) -> None:
    """[MQTT-3.3.1-3] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]: whatever the publisher says, and on whatever way it goes out."""
    parties = [bed.connect(f"s{granted}", version, properties=Properties(topic_alias_maximum=alias), **KEPT) for granted in range(3)]
    for granted, party in enumerate(parties):
        party.subscribe("a", qos=granted)
    bed.connect("p", version).publish("a", b"1", qos, dup=True)
    bed.settle()
    for granted, party in enumerate(parties):
        packet = party.one(Publish)
        assert (packet.dup, packet.qos) == (False, min(granted, qos))


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("way", ["at once", "queued", "aliased", "kept"])
def test_a_packet_id_in_use_is_left_out_when_they_begin_anew(bed: Testbed, version: int, qos: int, way: str) -> None:
    """[MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]: one that was not acknowledged for 65,535 messages; 0 is left out too."""
    aliases = Properties(topic_alias_maximum=5) if way == "aliased" else None
    party = bed.connect("s", version, auto_ack=False, properties=aliases, **(KEPT if way == "kept" else {}))
    party.subscribe("a", qos=2)
    publisher = bed.connect("p", version)
    publisher.exchange("a", b"", qos)
    publisher.exchange("a", b"", qos)
    first, second = (packet.packet_id for packet in party.deliveries())
    session = bed.session("s")
    assert session is not None
    session.last_packet_id = 65_533
    if way == "queued":
        party.stop_reading()
    for _ in range(4):
        publisher.publish("a", b"", qos)
    bed.settle()
    if way == "queued":
        party.read_on()
    expected = [number for number in (65_534, 65_535, 1, 2, 3, 4, 5, 6) if number not in (first, second)][:4]
    assert [packet.packet_id for packet in party.deliveries()] == expected
    assert expected[2] > 0


@VERSIONS
def test_behind_puback_the_same_id_is_a_new_message_whatever_dup_says(bed: Testbed, version: int) -> None:
    """[MQTT-4.3.2-5]"""
    subscriber = bed.connect("s", version)
    subscriber.subscribe("a")
    party = bed.connect("p", version)
    for payload in (b"1", b"2", b"2"):
        party.publish("a", payload, 1, packet_id=5, dup=True)
        bed.settle()
        assert party.acks(PacketType.PUBACK) == [5]
    assert subscriber.payloads() == [b"1", b"2", b"2"]


@VERSIONS
@pytest.mark.parametrize("refusal", [ReasonCode.UNSPECIFIED_ERROR, ReasonCode.QUOTA_EXCEEDED])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_client_refused_is_settled_and_never_sent_again(bed: Testbed, version: int, refusal: ReasonCode, qos: int) -> None:
    """[MQTT-4.4.0-2]: 3.1.1 has no refusals, so there it is an acknowledgement like any other."""
    first = bed.connect("s", version, auto_ack=False, **KEPT)
    first.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", qos)
    number = first.one(Publish).packet_id
    first.ack(PacketType.PUBACK if qos == 1 else PacketType.PUBREC, number, refusal)
    if version == 4 and qos == 2:
        first.ack(PacketType.PUBCOMP, number)
    bed.advance(1)
    session = bed.session("s")
    assert session is not None
    assert session.in_flight == {}
    first.drop()
    for _ in range(2):
        again = bed.connect("s", version, **KEPT)
        bed.advance(1)
        assert again.inbox == []
        bed.crash()


@VERSIONS
@pytest.mark.parametrize("step", ["sent", "received"])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_sent_before_it_expired_is_completed(bed: Testbed, version: int, qos: int, step: str) -> None:
    """[MQTT-4.3.3-7] [MQTT-4.3.3-3]: neither the sweep nor a crash nor the next connection takes it away."""
    first = bed.connect("s", version, auto_ack=False, **KEPT)
    first.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", qos, message_expiry_interval=3)
    number = first.one(Publish).packet_id
    if qos == 2 and step == "received":
        first.ack(PacketType.PUBREC, number)
    bed.advance(1)
    first.drop()
    bed.advance(30)
    bed.crash()
    second = bed.connect("s", version, auto_ack=False, **KEPT)
    bed.advance(1)
    if qos == 2 and step == "received":
        assert second.acks(PacketType.PUBREL) == [number]
        assert second.deliveries() == []
    else:
        assert [(packet.payload, packet.packet_id, packet.dup) for packet in second.deliveries()] == [(b"1", number, True)]


@VERSIONS
def test_the_steps_of_an_inbound_qos_2_publish_go_on_when_it_has_expired(bed: Testbed, version: int) -> None:
    """[MQTT-4.3.3-13]: a repeat is PUBREC still, PUBREL gets its PUBCOMP; also over a crash."""
    party = bed.connect("p", 5, **KEPT)
    party.publish("a", b"1", 2, packet_id=9, message_expiry_interval=2)
    bed.advance(30)
    assert party.acks(PacketType.PUBREC) == [9]
    bed.crash()
    again = bed.connect("p", version, **KEPT)
    again.publish("a", b"1", 2, packet_id=9, dup=True)
    bed.settle()
    assert again.acks(PacketType.PUBREC) == [9]
    again.ack(PacketType.PUBREL, 9)
    assert again.one(Ack) == Ack(type=PacketType.PUBCOMP, packet_id=9)
    assert len([record for record in bed.published() if record.kind == Kind.PUBLISH]) == 1


@VERSIONS
def test_a_full_window_delays_publishes_alone(make_bed: Make, version: int) -> None:
    """[MQTT-3.3.4-10] [MQTT-4.9.0-3] [MQTT-3.12.4-1]: every other packet is answered, its own publishes too."""
    bed = make_bed(limits=Limits(window=1))
    party = bed.connect("s", version, auto_ack=False)
    party.subscribe("a", qos=2)
    publisher = bed.connect("p")
    for number in range(3):
        publisher.exchange("a", b"%d" % number, 2)
    number = party.one(Publish).packet_id
    bed.connect("q").exchange("r/1", b"retained", retain=True)
    party.publish("x", b"", 1, packet_id=1_001)
    party.publish("x", b"", 2, packet_id=1_002)
    party.ack(PacketType.PUBREC, number)
    party.send(Pingreq())
    party.send(Subscribe(packet_id=1_003, requests=(SubscriptionRequest(filter="r/#", qos=1),)))
    party.send(Unsubscribe(packet_id=1_004, filters=("nothing",)))
    bed.settle()
    assert sorted((ack.type, ack.packet_id) for ack in party.take(Ack)) == [
        (PacketType.PUBACK, 1_001),
        (PacketType.PUBREC, 1_002),
        (PacketType.PUBREL, number),
    ]
    assert len(party.take(Pingresp)) == 1
    assert party.one(Suback).packet_id == 1_003
    assert party.one(Unsuback).packet_id == 1_004
    assert party.inbox == []
    party.ack(PacketType.PUBREL, 1_002)
    assert party.one(Ack).type == PacketType.PUBCOMP
    party.ack(PacketType.PUBCOMP, number)
    bed.advance(1)
    assert len(party.deliveries()) == 1


@pytest.mark.parametrize("way", ["live", "window", "offline", "retained", "again", "shared", "will", "p2p"])
def test_properties_are_unaltered_on_every_way(bed: Testbed, way: str) -> None:
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.1.3-10]: repeats too."""
    parties = [bed.connect(name, auto_ack=False, properties=Properties(receive_maximum=1, session_expiry_interval=600)) for name in ("s", "t")]
    for party in parties if way not in ("retained", "p2p") else ():
        party.subscribe("$share/g/a" if way == "shared" else "a")
    publisher = bed.connect("p")
    if way == "window":
        publisher.exchange("a", b"before")
    if way == "offline":
        for party in parties:
            party.drop()
    if way == "will":
        bed.connect("w", will=will("a", b"1", **SENT)).drop()
    elif way == "p2p":
        publisher.exchange("a/p2p/s", b"1", **SENT)
        publisher.exchange("a/p2p/t", b"1", **SENT)
    else:
        publisher.exchange("a", b"1", retain=way == "retained", **SENT)
    bed.settle()
    if way in ("offline", "again"):
        for party in parties:
            party.drop()
        bed.advance(1)
        bed.crash()
        parties = [bed.connect(name, auto_ack=False, **KEPT) for name in ("s", "t")]
        bed.advance(1)
    got: list[Publish] = []
    for party in parties:
        if way == "retained":
            party.subscribe("a")
        if way == "window":
            party.ack(PacketType.PUBACK, party.one(Publish).packet_id)
        got += party.deliveries()
    assert [packet.payload for packet in got] == [b"1"] * (1 if way == "shared" else 2)
    for packet in got:
        assert packet.properties is not None
        assert {name: getattr(packet.properties, name) for name in SENT} == SENT


@pytest.mark.parametrize("maximum", [None, 0])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_alias_goes_to_who_names_no_maximum(bed: Testbed, maximum: int | None, qos: int) -> None:
    """[MQTT-3.1.2-27]: however often the topic comes, and whatever the publisher does; 3.1.1 has no aliases at all."""
    parties = [bed.connect("s", properties=Properties(topic_alias_maximum=maximum)), bed.connect("o", 4)]
    for party in parties:
        party.subscribe("a", qos=qos)
    publisher = bed.connect("p")
    for _ in range(3):
        publisher.exchange("a", b"1", qos, topic_alias=1)
    for party in parties:
        packets = party.deliveries()
        assert [packet.topic for packet in packets] == ["a"] * 3
        assert all(packet.properties is None for packet in packets)


@pytest.mark.slow
@VERSIONS
def test_a_bad_string_as_topic_name_ends_the_connection(bed: Testbed, version: int) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [MQTT-4.7.3-2]: of a PUBLISH that no packet is made of, with and without properties."""
    for raw in (*BAD, *(b"ok" + raw for raw in BAD)):
        for block in (b"\x00", b"\x02\x01\x01") if version == 5 else (b"",):
            party = bed.connect("c", version)
            body = len(raw).to_bytes(2, "big") + raw + block + b"payload"
            party.write_bytes(b"\x30" + bytes((len(body),)) + body)
            bed.settle()
            assert party.closed, raw
            party.drop()
    assert bed.published() == []


@pytest.mark.parametrize("retain", [True, False])
@VERSIONS
def test_a_will_is_retained_as_it_says(bed: Testbed, version: int, retain: bool) -> None:
    """[MQTT-3.1.2-7] [MQTT-3.1.2-14] [MQTT-3.1.2-15]"""
    bed.connect("old").exchange("w", b"before", retain=True)
    bed.connect("c", version, will=will("w", b"now", retain=retain)).drop()
    party = bed.connect("s")
    party.subscribe("w")
    assert party.payloads() == [b"now" if retain else b"before"]


@pytest.mark.parametrize("topic", ["a/b", "a//b", "/a", "a/", "é", " ", "$x/y"])
def test_the_topic_name_is_one_that_the_filter_matches(bed: Testbed, topic: str) -> None:
    """[MQTT-3.3.2-3]: the publisher's, letter by letter, though several filters match; never the filter, and no other topic's."""
    party = bed.connect("s")
    party.subscribe(topic, topic.rpartition("/")[0] + "/+", "#", qos=1)
    publisher = bed.connect("p")
    for name in (topic, topic + "x", topic.upper() + "Z"):
        publisher.exchange(name, name.encode())
    got = party.deliveries()
    assert [packet.topic for packet in got] == [packet.payload.decode() for packet in got]
    assert got[0].topic == topic
