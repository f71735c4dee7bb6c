"""Deliveries to a connected client: QoS, window, packet ids, sizes, aliases, queues, and what a lost connection leaves."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gateway import keeping
from gateway.protocol.encode import encode_packet
from gateway.protocol.packets import Ack, PacketType, Publish
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@VERSIONS
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_the_lower_qos_holds(bed: Testbed, version: int, granted: int, published: int) -> None:
    """[MQTT-3.8.4-8] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]"""
    subscriber = bed.connect("s", version)
    subscriber.subscribe("a", qos=granted)
    bed.connect("p", version).exchange("a", b"1", published)
    packet = subscriber.one(Publish)
    assert (packet.qos, packet.dup, packet.retain) == (min(granted, published), False, False)
    assert (packet.packet_id > 0) is (packet.qos > 0)


@pytest.mark.parametrize("expiry", [0, 60])
def test_the_steps_of_qos_2_towards_a_client(bed: Testbed, expiry: int) -> None:
    """[MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-4.3.3-6] [MQTT-2.2.1-5] [MQTT-4.3.3-5]"""
    subscriber = bed.connect("s", auto_ack=False, clean_start=expiry == 0, session_expiry=expiry)
    subscriber.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", 2)
    number = subscriber.one(Publish).packet_id
    session = bed.session("s")
    assert session is not None
    for _ in range(2):
        subscriber.ack(PacketType.PUBREC, number)
        bed.settle()
    assert set(subscriber.acks(PacketType.PUBREL)) == {number}
    assert number in session.in_flight
    subscriber.ack(PacketType.PUBCOMP, number)
    bed.settle()
    assert session.in_flight == {}
    assert subscriber.inbox == []


@VERSIONS
def test_pubrec_of_an_unknown_id(bed: Testbed, version: int) -> None:
    """In 5.0 PUBREL says 0x92 [MQTT-3.6.2-1]."""
    subscriber = bed.connect("s", version, auto_ack=False)
    subscriber.ack(PacketType.PUBREC, 9)
    answer = subscriber.one(Ack)
    assert (answer.type, answer.packet_id) == (PacketType.PUBREL, 9)
    assert answer.reason_code == (ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if version == 5 else 0)


@pytest.mark.parametrize("expiry", [0, 60])
def test_a_delivery_refused_by_pubrec_is_over(bed: Testbed, expiry: int) -> None:
    """And the packet id is free; no order of acknowledgements raises anything [MQTT-4.4.0-2]."""
    subscriber = bed.connect("s", auto_ack=False, clean_start=expiry == 0, session_expiry=expiry)
    subscriber.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", 2)
    number = subscriber.one(Publish).packet_id
    subscriber.ack(PacketType.PUBREC, number)
    subscriber.ack(PacketType.PUBREC, number, ReasonCode.UNSPECIFIED_ERROR)
    subscriber.ack(PacketType.PUBCOMP, number)
    subscriber.ack(PacketType.PUBACK, number)
    bed.settle()
    session = bed.session("s")
    assert session is not None
    assert session.in_flight == {}
    assert not session.released
    assert not subscriber.closed
    if expiry:
        bed.crash()
        again = bed.connect("s", clean_start=False, session_expiry=60)
        bed.advance(1)
        assert again.payloads() == []


def test_acknowledgements_of_the_wrong_kind_settle_nothing(bed: Testbed) -> None:
    """[MQTT-4.3.2-3]"""
    subscriber = bed.connect("s", auto_ack=False)
    subscriber.subscribe("a", qos=2)
    publisher = bed.connect("p")
    publisher.exchange("a", b"2", 2)
    publisher.exchange("a", b"1", 1)
    two, one = (packet.packet_id for packet in subscriber.deliveries())
    subscriber.ack(PacketType.PUBACK, two)
    subscriber.ack(PacketType.PUBCOMP, two)
    subscriber.ack(PacketType.PUBREC, one)
    bed.settle()
    session = bed.session("s")
    assert session is not None
    assert sorted(session.in_flight) == [two, one]


@VERSIONS
@pytest.mark.parametrize("expiry", [0, 600])
def test_the_window_is_never_passed_and_order_holds(make_bed: Make, version: int, expiry: int) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.9.0-2] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.6.0-5]: whatever is acknowledged when."""
    bed = make_bed(limits=Limits(window=3))
    subscriber = bed.connect("s", version, auto_ack=False, clean_start=expiry == 0, session_expiry=expiry)
    subscriber.subscribe("a", qos=2)
    publisher = bed.connect("p")
    for number in range(10):
        publisher.exchange("a", b"%d" % number, 1 + number % 2)
    got: list[Publish] = []
    while True:
        packets = subscriber.deliveries()
        assert len(packets) <= 3
        if not packets:
            break
        got += packets
        for packet in packets:
            if packet.qos == 1:
                subscriber.ack(PacketType.PUBACK, packet.packet_id)
            else:
                subscriber.ack(PacketType.PUBREC, packet.packet_id)
                subscriber.ack(PacketType.PUBCOMP, packet.packet_id)
    for qos in (1, 2):
        assert [packet.payload for packet in got if packet.qos == qos] == [b"%d" % number for number in range(qos - 1, 10, 2)]


def test_a_clients_receive_maximum_is_the_window(bed: Testbed) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]"""
    subscriber = bed.connect("s", auto_ack=False, properties=Properties(receive_maximum=2))
    subscriber.subscribe("a", qos=1)
    publisher = bed.connect("p")
    for number in range(5):
        publisher.exchange("a", b"%d" % number)
    publisher.publish("a", b"0", 0)
    assert len([packet for packet in subscriber.deliveries() if packet.qos]) == 2


def test_200_000_messages_with_acknowledgements_in_any_order(make_bed: Make) -> None:
    """Packet ids wrap at 16 bits, none is in use twice, the window holds [MQTT-2.2.1-3] [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]."""
    bed = make_bed(limits=Limits(window=500))
    subscriber = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=60)
    subscriber.subscribe("a", qos=1)
    publisher = bed.connect("p", 4)
    draw = random.Random(7)
    open_ids: dict[int, None] = {}
    newest = [-1, -1]
    sent = got = wraps = last = 0
    while got < 200_000:
        while sent < 200_000 and sent - got < 900:
            publisher.publish("a", sent.to_bytes(4, "big"), 0 if sent % 50 == 0 else 1)
            sent += 1
        for packet in subscriber.deliveries():
            number = int.from_bytes(packet.payload, "big")
            assert number > newest[packet.qos]
            newest[packet.qos] = number
            got += 1
            if packet.qos:
                assert 0 < packet.packet_id < 65_536
                assert packet.packet_id not in open_ids
                open_ids[packet.packet_id] = None
                wraps += packet.packet_id < last
                last = packet.packet_id
        assert len(open_ids) <= 500
        publisher.inbox.clear()
        ids = list(open_ids)
        draw.shuffle(ids)
        for number in ids[: max(1, len(ids) - draw.randrange(100))]:
            del open_ids[number]
            subscriber.ack(PacketType.PUBACK, number)
    assert wraps >= 2


def test_packet_ids_go_on_when_a_block_is_used_up(bed: Testbed) -> None:
    """The next block is durable before its ids are used; a crash begins behind it."""
    subscriber = bed.connect("s", clean_start=False, session_expiry=600)
    subscriber.subscribe("a")
    publisher = bed.connect("p")
    for number in range(2_500):
        publisher.publish("a", b"%d" % number, 1)
        if number % 100 == 0:
            bed.settle()
    packets = subscriber.deliveries()
    assert len(packets) == 2_500
    highest = max(packet.packet_id for packet in packets)
    reserved = bed.store._state.session_of("s").next_block  # type: ignore[union-attr]
    assert reserved > highest
    bed.crash()
    subscriber = bed.connect("s", clean_start=False, session_expiry=600)
    bed.advance(1)
    subscriber.inbox.clear()
    bed.connect("p").exchange("a", b"x")
    assert subscriber.one(Publish).packet_id >= reserved


@pytest.mark.parametrize("alias", [0, 5])
@pytest.mark.parametrize("size", range(90, 112))
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_packet_is_larger_than_the_client_takes(bed: Testbed, qos: int, size: int, alias: int) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]: it counts as delivered, and what follows is understood."""
    subscriber = bed.connect("s", properties=Properties(maximum_packet_size=100, topic_alias_maximum=alias))
    subscriber.subscribe("topic/é", qos=2, identifier=300)
    publisher = bed.connect("p")
    publisher.exchange("topic/é", bytes(size - 18), qos)
    publisher.exchange("topic/é", b"small", qos)
    bed.settle()
    packets = subscriber.deliveries()
    assert packets[-1].payload == b"small"
    assert packets[0].topic == "topic/é"
    assert all(len(encode_packet(packet, 5)) <= 100 for packet in packets)
    assert len(packets) + bed.node.counters.dropped["packet_too_large"] == 2


def test_what_was_in_flight_and_is_too_large_for_the_new_connection_is_dropped(bed: Testbed) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    first = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=60)
    first.subscribe("a", qos=1)
    bed.connect("p").exchange("a", bytes(200))
    bed.settle()
    first.drop()
    second = bed.connect("s", clean_start=False, properties=Properties(maximum_packet_size=100, session_expiry_interval=60))
    assert second.payloads() == []
    assert bed.node.counters.dropped["packet_too_large"] == 1
    bed.settle()
    assert bed.stored("s") == []


def test_aliases_towards_a_client(bed: Testbed) -> None:
    """[MQTT-3.1.2-26] [MQTT-3.3.2-11] [MQTT-3.3.2-7]: named once, then empty, as many as the client takes, anew on a new connection."""
    publisher = bed.connect("p")
    for _ in range(2):
        subscriber = bed.connect("s", properties=Properties(topic_alias_maximum=2))
        subscriber.subscribe("+")
        for topic in ("a", "b", "c", "a", "c", "b"):
            publisher.exchange(topic, topic.encode())
        found = [(p.topic, p.properties.topic_alias if p.properties else None, p.payload) for p in subscriber.deliveries()]
        assert found == [("a", 1, b"a"), ("b", 2, b"b"), ("c", None, b"c"), ("", 1, b"a"), ("c", None, b"c"), ("", 2, b"b")]
        subscriber.disconnect()


def test_a_client_that_does_not_read_gets_a_queue_and_then_the_newest(make_bed: Make) -> None:
    """A clean session over its queue's limit loses the oldest, counted."""
    bed = make_bed(limits=Limits(queue_messages=10))
    subscriber = bed.connect("s")
    subscriber.subscribe("a", qos=0)
    subscriber.stop_reading()
    publisher = bed.connect("p")
    for number in range(25):
        publisher.publish("a", b"%d" % number)
    bed.settle()
    assert subscriber.inbox == []
    subscriber.read_on()
    assert subscriber.payloads() == [b"%d" % number for number in range(15, 25)]
    assert bed.node.counters.dropped["queue_full"] == 15
    assert bed.node.queued_bytes == 0


def test_bytes_of_all_queues_are_bounded_and_what_is_kept_goes_to_the_store(make_bed: Make) -> None:
    """QoS 0 gives way; a kept delivery never does."""
    bed = make_bed(limits=Limits(queue_bytes_node=1_000))
    kept = bed.connect("k", clean_start=False, session_expiry=60)
    kept.subscribe("a", qos=1)
    kept.stop_reading()
    publisher = bed.connect("p")
    for number in range(30):
        publisher.publish("a", b"%03d" % number + bytes(100), number % 2)
    bed.settle()
    assert bed.node.queued_bytes <= 1_000 + 103
    kept.read_on()
    bed.advance(1)
    got = [int(payload[:3]) for payload in kept.payloads()]
    assert [number for number in got if number % 2] == list(range(1, 30, 2))


@pytest.mark.parametrize("messages", [30, keeping.SPILL_AT + 500])
def test_a_queue_of_a_kept_session_moves_to_the_store_and_comes_back_in_order(bed: Testbed, messages: int) -> None:
    subscriber = bed.connect("s", clean_start=False, session_expiry=60)
    subscriber.subscribe("a", qos=1)
    subscriber.stop_reading()
    publisher = bed.connect("p", 4)
    for number in range(messages):
        publisher.publish("a", b"%d" % number, 1)
        if number % 500 == 0:
            bed.settle()
    bed.advance(2)
    assert len(bed.stored("s")) == messages
    subscriber.read_on()
    bed.advance(2)
    assert subscriber.payloads() == [b"%d" % number for number in range(messages)]
    bed.settle()
    assert bed.stored("s") == []


@VERSIONS
def test_on_reconnect_what_was_in_flight_comes_first_with_its_id_and_dup(bed: Testbed, version: int) -> None:
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-2.2.1-5] [MQTT-4.3.2-3] [MQTT-4.3.3-6]: then the inbox, then live records."""
    first = bed.connect("s", version, auto_ack=False, clean_start=False, session_expiry=60)
    first.subscribe("a", qos=2)
    publisher = bed.connect("p")
    for number in range(4):
        publisher.exchange("a", b"%d" % number, 1 + number % 2)
    before = first.deliveries()
    first.ack(PacketType.PUBACK, before[0].packet_id)
    first.ack(PacketType.PUBREC, before[1].packet_id)
    bed.settle()
    first.drop()
    publisher.exchange("a", b"offline")
    second = bed.connect("s", version, auto_ack=False, clean_start=False, session_expiry=60)
    publisher.exchange("a", b"live")
    bed.settle()
    assert second.acks(PacketType.PUBREL) == [before[1].packet_id]
    after = second.deliveries()
    assert [(p.payload, p.dup) for p in after] == [(b"2", True), (b"3", True), (b"offline", False), (b"live", False)]
    assert [p.packet_id for p in after[:2]] == [p.packet_id for p in before[2:]]
    assert len({p.packet_id for p in after} | {before[1].packet_id}) == 5


def test_nothing_is_sent_again_on_the_same_connection(bed: Testbed) -> None:
    """[MQTT-4.4.0-1]"""
    subscriber = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    subscriber.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", 1)
    bed.connect("p").exchange("a", b"2", 2)
    bed.advance(60)
    packets = subscriber.deliveries()
    assert [p.payload for p in packets] == [b"1", b"2"]
    assert bed.stored("s") == [b"1", b"2"]  # in flight, so that it holds no position back
    subscriber.ack(PacketType.PUBACK, packets[0].packet_id)  # late, and good
    bed.advance(0.1)
    assert bed.stored("s") == [b"2"]


@pytest.mark.parametrize("step", ["sent", "received", "released", "complete"])
@pytest.mark.parametrize("death", ["drop", "crash"])
def test_qos_2_goes_on_in_each_half_without_an_extra_message(bed: Testbed, step: str, death: str) -> None:
    """[MQTT-4.3.3-5] [MQTT-4.3.3-7] [MQTT-4.3.3-3] [MQTT-4.3.3-6]"""
    first = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    first.subscribe("a", qos=2)
    bed.connect("p").exchange("a", b"1", 2)
    number = first.one(Publish).packet_id
    if step != "sent":
        first.ack(PacketType.PUBREC, number)
        if step != "received":
            bed.settle()
            assert first.acks(PacketType.PUBREL) == [number]
        if step == "complete":
            first.ack(PacketType.PUBCOMP, number)
            bed.advance(0.1)
    if death == "crash":
        bed.crash()
    else:
        first.drop()
    second = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    bed.advance(1)
    packets = second.deliveries()
    released = second.acks(PacketType.PUBREL)
    if step == "sent" or (step == "received" and death == "crash" and packets):
        assert [(p.payload, p.packet_id, p.dup) for p in packets] == [(b"1", number, True)]  # the receiver knows the id
        assert released == []
        second.ack(PacketType.PUBREC, number)
        bed.settle()
        second.ack(PacketType.PUBCOMP, number)
    elif step == "complete":
        assert packets == []
        assert released == []
    else:
        assert packets == []
        assert released == [number]
        second.ack(PacketType.PUBCOMP, number)
    bed.advance(2)
    bed.crash()
    third = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    bed.advance(1)
    assert third.inbox == []


def test_qos_2_is_durable_as_in_flight_before_it_is_sent(bed: Testbed) -> None:
    subscriber = bed.connect("s", auto_ack=False, clean_start=False, session_expiry=600)
    subscriber.subscribe("a", qos=2)
    bed.store.failing = True
    bed.connect("p").publish("a", b"1", 2)
    bed.settle()
    assert subscriber.inbox == []
    bed.store.failing = False
    bed.advance(1)
    assert subscriber.payloads() == [b"1"]


def test_a_delivery_counts_as_delivered_once_and_queues_pin_nothing_behind_it(bed: Testbed) -> None:
    subscriber = bed.connect("s")
    subscriber.subscribe("a", qos=1)
    bed.connect("p").exchange("a", b"1")
    bed.settle()
    assert bed.node.counters.delivered == 1
    assert bed.node.queued_bytes == 0
