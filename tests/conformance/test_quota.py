"""Receive maximum, maximum packet size and message expiry: what is held back, left out or dropped, and what is not (sections 3.1.2, 3.3.4 and 4.9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packets import PacketType, Publish
from gateway.protocol.properties import Properties
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("pace", ["acknowledged", "batches"])
def test_what_is_sent_again_keeps_within_the_new_connections_receive_maximum(make_bed: Make, qos: int, pace: str) -> None:
    """[MQTT-3.3.4-9] [MQTT-4.4.0-1] [MQTT-4.9.0-2]: under the same packet ids, in order, before anything newer."""
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
