"""The data types of MQTT (section 1.5): integers, variable byte integers, strings, binary data.

A reader takes the bytes, the place to read at and the field's name, and gives the value and the place behind it; too few
bytes are a MalformedPacket. A writer appends to a bytearray; a value that doesn't fit is Unencodable.
Knows nothing of packets or properties.
"""

from __future__ import annotations

from typing import Final

from gateway.protocol.errors import MalformedPacket, Unencodable

MAX_VARINT: Final = 268_435_455
"""Four bytes of seven bits: table 1-1."""


def truncated(field: str) -> MalformedPacket:
    return MalformedPacket(f"{field}: the packet ends too early")


def read_byte(data: bytes, at: int, field: str) -> tuple[int, int]:
    if at >= len(data):
        raise truncated(field)
    return data[at], at + 1


def read_two(data: bytes, at: int, field: str) -> tuple[int, int]:
    if at + 2 > len(data):
        raise truncated(field)
    return data[at] << 8 | data[at + 1], at + 2


def read_varint(data: bytes, at: int, field: str) -> tuple[int, int]:
    """At most four bytes, and no more than the value needs [MQTT-1.5.5-1]."""
    size = len(data)
    if at < size and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for index in range(4):
        if at + index >= size:
            raise truncated(field)
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0:  # not the first one, which was at least 0x80
                raise MalformedPacket(f"{field}: a variable byte integer with more bytes than it needs")
            return value, at + index + 1
    raise MalformedPacket(f"{field}: a variable byte integer of more than 4 bytes")


def read_binary(data: bytes, at: int, field: str) -> tuple[bytes, int]:
    start = at + 2
    if start > len(data):
        raise truncated(field)
    stop = start + (data[at] << 8 | data[at + 1])
    if stop > len(data):
        raise truncated(field)
    return data[start:stop], stop


def read_string(data: bytes, at: int, field: str) -> tuple[str, int]:
    """Well-formed UTF-8 without surrogates [MQTT-1.5.4-1] and without U+0000 [MQTT-1.5.4-2]; U+FEFF stays [MQTT-1.5.4-3]."""
    start = at + 2
    if start > len(data):
        raise truncated(field)
    stop = start + (data[at] << 8 | data[at + 1])
    if stop > len(data):
        raise truncated(field)
    try:
        text = data[start:stop].decode()
    except UnicodeDecodeError:
        raise MalformedPacket(f"{field}: not well-formed UTF-8") from None
    if "\x00" in text:
        raise MalformedPacket(f"{field}: holds U+0000")
    return text, stop


def put_varint(out: bytearray, value: int, field: str) -> None:
    """The fewest bytes that hold the value [MQTT-1.5.5-1]."""
    if not 0 <= value <= MAX_VARINT:
        raise Unencodable(f"{field}: {value} is not within 0 to {MAX_VARINT}")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_two(out: bytearray, value: int, field: str) -> None:
    if not 0 <= value <= 0xFFFF:
        raise Unencodable(f"{field}: {value} does not fit two bytes")
    out.append(value >> 8)
    out.append(value & 0xFF)


def put_binary(out: bytearray, value: bytes, field: str) -> None:
    put_two(out, len(value), f"{field}: length")
    out += value


def put_string(out: bytearray, text: str, field: str) -> None:
    """What read_string reads: UTF-8 [MQTT-1.5.4-1] without U+0000 [MQTT-1.5.4-2]."""
    if "\x00" in text:
        raise Unencodable(f"{field}: holds U+0000")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise Unencodable(f"{field}: holds a surrogate") from None
    put_binary(out, raw, field)
