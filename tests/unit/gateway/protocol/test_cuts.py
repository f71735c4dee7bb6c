"""Every cut of every good packet: of the stream, where it only delays, and of the body, where it is malformed or another packet."""

from __future__ import annotations

import pytest

from gateway.protocol.decode import decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.errors import MalformedPacket, PacketError
from gateway.protocol.packets import PacketType
from schemas.limits import Limits
from tests.support.frames import Framer
from tests.unit.gateway.protocol.test_vectors import GOOD, LIMITS, VECTORS
from tests.unit.gateway.protocol.vectors import Vector

PACKETS = [vector for vector in GOOD if len(vector.data) < 1000]

MAY_END_EARLY = {
    PacketType.PUBLISH,
    PacketType.PUBACK,
    PacketType.PUBREC,
    PacketType.PUBREL,
    PacketType.PUBCOMP,
    PacketType.SUBSCRIBE,
    PacketType.SUBACK,
    PacketType.UNSUBSCRIBE,
    PacketType.UNSUBACK,
    PacketType.DISCONNECT,
    PacketType.AUTH,
}
"""Packets with a payload without a length, a list at the end, or an end that may be left out."""


@pytest.mark.slow
def test_every_cut_of_the_stream() -> None:
    """Each packet twice, in two pieces cut at every place; and the start of one packet is none."""
    assert len(VECTORS) > 700
    for vector in VECTORS:
        if len(vector.data) > 1000:
            continue
        data = vector.data * 2
        expected = list(Framer(LIMITS.packet).feed(data))
        assert len(expected) == 2
        for at in range(len(data) + 1):
            framer = Framer(LIMITS.packet)
            assert [*framer.feed(data[:at]), *framer.feed(data[at:])] == expected
        for at in range(len(vector.data)):
            assert list(Framer(LIMITS.packet).feed(vector.data[:at])) == []


@pytest.mark.parametrize("vector", PACKETS, ids=lambda vector: vector.name)
def test_every_cut_of_the_body(vector: Vector) -> None:
    ((first_byte, body),) = Framer(LIMITS.packet).feed(vector.data)
    for at in range(len(body)):
        try:
            packet = decode_packet(first_byte, body[:at], vector.version, LIMITS, from_server=vector.from_server)
        except PacketError:
            continue
        assert first_byte >> 4 in MAY_END_EARLY
        assert packet != vector.packet or not vector.shortest
        ((again, shorter),) = Framer(LIMITS.packet).feed(encode_packet(packet, vector.version))
        assert again == first_byte
        assert decode_packet(again, shorter, vector.version, LIMITS, from_server=vector.from_server) == packet


ONE_BYTE_MORE = {
    PacketType.PUBLISH: "a payload",
    PacketType.SUBACK: "a reason code",
    PacketType.UNSUBACK: "a reason code",
    PacketType.PUBACK: "success or no properties",
    PacketType.PUBREC: "success or no properties",
    PacketType.PUBREL: "success or no properties",
    PacketType.PUBCOMP: "success or no properties",
    PacketType.DISCONNECT: "success or no properties",
}
"""What a zero behind a packet may mean; behind all others it is malformed."""


@pytest.mark.parametrize("vector", PACKETS, ids=lambda vector: vector.name)
def test_a_byte_too_many(vector: Vector) -> None:
    ((first_byte, body),) = Framer(LIMITS.packet).feed(vector.data)
    try:
        packet = decode_packet(first_byte, body + b"\x00", vector.version, LIMITS, from_server=vector.from_server)
    except PacketError as error:
        assert type(error) is MalformedPacket or first_byte >> 4 == PacketType.AUTH
        return
    meaning = ONE_BYTE_MORE[PacketType(first_byte >> 4)]
    assert (packet == vector.packet) == (meaning == "success or no properties")


def test_filters_up_to_the_limit() -> None:
    limits = Limits(filters_per_subscribe=3)
    for first_byte, entry in ((0x82, b"\x00\x01a\x00"), (0xA2, b"\x00\x01a")):
        decode_packet(first_byte, b"\x00\x01" + entry * 3, 4, limits)
        with pytest.raises(PacketError) as caught:
            decode_packet(first_byte, b"\x00\x01" + entry * 4, 4, limits)
        assert caught.value.reason_code == 0x97
