"""Strings in every field that holds one: what is not UTF-8, or holds U+0000, is malformed; all else stays as it is."""

from __future__ import annotations

import pytest

from gateway.protocol.decode import decode_packet
from gateway.protocol.errors import MalformedPacket, Unencodable
from gateway.protocol.strings import (
    MAX_VARINT,
    put_binary,
    put_string,
    put_two,
    put_varint,
    read_binary,
    read_byte,
    read_string,
    read_two,
    read_varint,
)
from schemas.limits import Limits
from tests.support.frames import Framer
from tests.unit.gateway.protocol.vectors import written

LIMITS = Limits()

FIELDS = {
    "client id": (4, '10 [ "MQTT" 04 02 003c {} ]'),
    "client id 5": (5, '10 [ "MQTT" 05 02 003c [ ] {} ]'),
    "user name": (4, '10 [ "MQTT" 04 82 003c "a" {} ]'),
    "will topic": (4, '10 [ "MQTT" 04 06 003c "a" {} "p" ]'),
    "will content type": (5, '10 [ "MQTT" 05 06 003c [ ] "a" [ 03 {} ] "w" "p" ]'),
    "authentication method": (5, '10 [ "MQTT" 05 02 003c [ 15 {} ] "a" ]'),
    "topic name": (4, "30 [ {} ]"),
    "topic name 5": (5, "30 [ {} [ ] ]"),
    "content type": (5, '30 [ "t" [ 03 {} ] ]'),
    "response topic": (5, '30 [ "t" [ 08 {} ] ]'),
    "user property key": (5, '30 [ "t" [ 26 {} "v" ] ]'),
    "user property value": (5, '30 [ "t" [ 26 "k" {} ] ]'),
    "reason string": (5, "40 [ 0001 00 [ 1f {} ] ]"),
    "subscribe filter": (4, "82 [ 0001 {} 00 ]"),
    "subscribe filter 5": (5, "82 [ 0001 [ ] {} 00 ]"),
    "unsubscribe filter": (4, "a2 [ 0001 {} ]"),
    "unsubscribe filter 5": (5, "a2 [ 0001 [ ] {} ]"),
}

BAD = [
    *(bytes((0xED, 0xA0 | high, 0x80 | low)) for high in range(32) for low in (0, 0x3F)),  # all of D800 to DFFF, by its ends
    *(bytes((lead,)) for lead in range(0x80, 0x100)),  # alone
    *(bytes((0xC0 | low, 0x80 | second)) for low in (0, 1) for second in (0, 0x2F, 0x3F)),  # two bytes for one
    *(bytes((0xE0, second, 0x80)) for second in (0x80, 0x81, 0x9F)),  # three for two
    *(bytes((0xF0, second, 0x80, 0x80)) for second in (0x80, 0x88, 0x8F)),  # four for three
    *(bytes((lead, 0x90 if lead == 0xF4 else 0x80, 0x80, 0x80)) for lead in range(0xF4, 0xF8)),  # above U+10FFFF
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xe2\x28\xa1",
    b"\xf0\x28\x8c\xbc",
    b"\xed\xa0\xbd\xed\xb8\x80",  # a surrogate pair
    b"\x00",
    b"a\x00",
    b"\x00a",
    b"a\x00b",
    b"\xc0\x80",
]

GOOD = [
    "\ufeff",
    "\ufeffa",
    "a\ufeff",
    "\x01",
    "\x1f\x7f\x80\x9f",
    "\ufdd0\ufffe\uffff",
    "\U0001fffe",
    "\U0010ffff",
    "\ud7ff\ue000",
    "e\u0301",
    "\u00e9",
    "ﬀ",
    "x" * 65535,
]


def _framed(text: str, raw: bytes) -> tuple[int, bytes]:
    data = written(text.format((len(raw).to_bytes(2, "big") + raw).hex()))
    (frame,) = Framer(LIMITS.packet).feed(data)
    return frame


@pytest.mark.parametrize("field", FIELDS)
def test_bad_strings(field: str) -> None:
    """[MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-3.3.2-1] [MQTT-3.3.2-13]
    [MQTT-3.3.2-19] [MQTT-3.8.3-1] [MQTT-3.10.3-1]"""
    version, text = FIELDS[field]
    assert len(BAD) > 200
    for raw in (*BAD, *(b"ok" + raw + b"ok" for raw in BAD)):
        with pytest.raises(MalformedPacket) as caught:
            decode_packet(*_framed(text, raw), version, LIMITS)
        assert caught.value.reason_code == 0x81


@pytest.mark.parametrize("field", FIELDS)
def test_good_strings_stay_as_they_are(field: str) -> None:
    """[MQTT-1.5.4-3] [MQTT-4.7.3-3] and no normalisation: the bytes of the string are in the packet's fields again."""
    version, text = FIELDS[field]
    limits = Limits(properties_bytes=70_000)
    for value in GOOD:
        packet = decode_packet(*_framed(text, value.encode()), version, limits)
        assert repr(value) in repr(packet)


@pytest.mark.parametrize(
    ("read", "whole"),
    [
        (read_byte, b"\x01"),
        (read_two, b"\x01\x02"),
        (read_varint, b"\xff\xff\xff\x7f"),
        (read_binary, b"\x00\x02ab"),
        (read_string, b"\x00\x02ab"),
    ],
)
def test_readers_want_every_byte(read, whole: bytes) -> None:  # type: ignore[no-untyped-def]
    """A value is read from its place to its end; one byte fewer, and it is named in the error."""
    assert read(b"?" + whole + b"?", 1, "field")[1] == 1 + len(whole)
    for size in range(len(whole)):
        with pytest.raises(MalformedPacket, match="field: the packet ends too early"):
            read(b"?" + whole[:size], 1, "field")


def test_unencodable() -> None:
    """[MQTT-4.7.3-3]"""
    for value in ("\x00", "a\ud800", "x" * 65536, "é" * 32768):
        with pytest.raises(Unencodable):
            put_string(bytearray(), value, "field")
    for call, number in ((put_two, 65536), (put_two, -1), (put_varint, MAX_VARINT + 1), (put_varint, -1)):
        with pytest.raises(Unencodable):
            call(bytearray(), number, "field")
    with pytest.raises(Unencodable):
        put_binary(bytearray(), bytes(65536), "field")


def test_the_longest_values_that_fit() -> None:
    """[MQTT-4.7.3-3]"""
    out = bytearray()
    put_binary(out, bytes(65535), "field")
    put_string(out, "x" * 65535, "field")
    put_two(out, 65535, "field")
    put_varint(out, MAX_VARINT, "field")
    assert len(out) == 2 * 65537 + 2 + 4
