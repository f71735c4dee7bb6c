"""Cutting the stream: every cut of it gives the same packets, in time that grows with its bytes, within its limit."""

from __future__ import annotations

import itertools
import random
import time
import tracemalloc

import pytest

from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError
from gateway.protocol.strings import put_varint, read_varint
from schemas.reasons import ReasonCode
from tests.support.frames import Framer

LIMIT = 1024 * 1024


def test_whole_and_byte_by_byte() -> None:
    packets = [(0xC0, b""), (0x30, b"\x00\x01tp"), (0x30, bytes(200)), (0x40, b"\x00\x01"), (0x30, bytes(20_000))]
    stream = b"".join(_packet(first_byte, body) for first_byte, body in packets)
    assert list(Framer(LIMIT).feed(stream)) == packets
    framer = Framer(LIMIT)
    assert [packet for byte in stream for packet in framer.feed(bytes((byte,)))] == packets
    assert framer.buffered == 0


def _packet(first_byte: int, body: bytes) -> bytes:
    out = bytearray((first_byte,))
    put_varint(out, len(body), "remaining length")
    return bytes(out) + body


def test_random_cuts() -> None:
    rng = random.Random(1)
    packets = [(rng.randrange(256), rng.randbytes(rng.choice((0, 1, 127, 128, 300)))) for _ in range(300)]
    stream = b"".join(_packet(*packet) for packet in packets)
    for _ in range(30):
        framer, at, got = Framer(LIMIT), 0, []
        while at < len(stream):
            size = rng.choice((1, 2, 3, 50, 500, 5000))
            got += framer.feed(stream[at : at + size])
            at += size
        assert got == packets


def test_good_packets_before_a_bad_one_are_given() -> None:
    taken = Framer(LIMIT).feed(b"\xc0\x00\x30\xff\xff\xff\xff")
    assert next(taken) == (0xC0, b"")
    with pytest.raises(MalformedPacket):
        next(taken)


@pytest.mark.parametrize(("body", "limit"), [(0, 2), (126, 128), (127, 129), (128, 131), (16383, 16386), (16384, 16388)])
def test_limit_counts_the_whole_packet(body: int, limit: int) -> None:
    """[MQTT-3.2.2-15]"""
    packet = _packet(0x30, bytes(body))
    assert len(packet) == limit
    assert list(Framer(limit).feed(packet)) == [(0x30, bytes(body))]
    with pytest.raises(ProtocolError) as caught:
        list(Framer(limit - 1).feed(packet))
    assert caught.value.reason_code == ReasonCode.PACKET_TOO_LARGE


@pytest.mark.parametrize("first_byte", range(0, 256, 16))
def test_a_long_packet_is_refused_before_it_arrives(first_byte: int) -> None:
    """[MQTT-3.2.2-15]: at the byte that announces it, and with nothing allocated for it."""
    tracemalloc.start()
    framer = Framer(8 * 1024)
    with pytest.raises(ProtocolError):
        list(framer.feed(bytes((first_byte, 0xFF, 0xFF, 0xFF, 0x2F))))  # 100 MB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024


def test_holds_no_more_than_arrived() -> None:
    framer = Framer(200 * LIMIT)
    assert list(framer.feed(b"\x30\xff\xff\xff\x2f")) == []
    tracemalloc.start()
    for _ in range(100):
        assert list(framer.feed(bytes(100))) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert framer.buffered == 5 + 10_000
    assert peak < 64 * 1024


def test_an_idle_connection_holds_on_to_nothing() -> None:
    framer = Framer(LIMIT)
    list(framer.feed(_packet(0x30, bytes(100_000))))
    assert framer._buffer is None


@pytest.mark.slow
def test_time_grows_with_the_bytes() -> None:
    """One packet of 512 KiB, byte by byte: a parser that searched again at each byte would take hours."""
    stream = _packet(0x30, bytes(512 * 1024))
    framer = Framer(LIMIT)
    start = time.perf_counter()
    got = [packet for at in range(len(stream)) for packet in framer.feed(stream[at : at + 1])]
    assert len(got) == 1
    assert time.perf_counter() - start < 10


def _reference(prefix: tuple[int, ...]) -> int | str | None:
    """Section 1.5.5 in its own words: a value, what is wrong, or None for more bytes needed."""
    value = 0
    for index, byte in enumerate(prefix[:4]):
        value += (byte % 128) * 128**index
        if byte < 128:
            minimal = index == 0 or value >= 128**index
            return value if minimal else "not minimal"
    return "too long" if len(prefix) >= 4 else None


PREFIXES = [prefix for size in range(1, 6) for prefix in itertools.product((0x00, 0x01, 0x7F, 0x80, 0xFF), repeat=size)]


def test_every_length_prefix() -> None:
    """[MQTT-1.5.5-1] All prefixes of 1 to 5 bytes out of 00, 01, 7F, 80, FF: 3,905 of them."""
    assert len(PREFIXES) == 3905
    for prefix in PREFIXES:
        expected = _reference(prefix)
        framer = Framer(2**40)
        if expected is None:
            assert list(framer.feed(b"\x30" + bytes(prefix))) == []
        elif isinstance(expected, str):
            with pytest.raises(MalformedPacket):
                list(framer.feed(b"\x30" + bytes(prefix)))
        elif expected < 100_000:
            first_byte, body = next(framer.feed(b"\x30" + bytes(prefix) + bytes(expected)))
            assert (first_byte, len(body)) == (0x30, expected)
        else:
            assert list(framer.feed(b"\x30" + bytes(prefix))) == []
            with pytest.raises(ProtocolError):
                list(Framer(expected).feed(b"\x30" + bytes(prefix)))  # the packet is at least two bytes longer than its remaining length


def test_every_variable_byte_integer() -> None:
    """[MQTT-1.5.5-1] The same prefixes, as a field of a packet; what is read is written with the same bytes."""
    for prefix in PREFIXES:
        expected = _reference(prefix)
        if isinstance(expected, int):
            value, at = read_varint(bytes(prefix), 0, "field")
            out = bytearray()
            put_varint(out, value, "field")
            assert (value, out) == (expected, bytes(prefix[:at]))
        else:
            with pytest.raises(MalformedPacket):
                read_varint(bytes(prefix), 0, "field")


def test_errors_are_packet_errors_only() -> None:
    for data in (b"\x30\x80\x00", b"\x30\xff\xff\xff\xff\x01"):
        with pytest.raises(PacketError):
            list(Framer(LIMIT).feed(data))
