"""The MQTT 5 properties that travel with a message, between their block in a record and their values.

Only the five that a server forwards. A record's block was written by us or checked by gateway/protocol, so what can't be read is a
fault of ours and raises; what is written here, gateway/protocol reads (a test compares the two).
"""

from __future__ import annotations

from typing import Final

import msgspec

PAYLOAD_FORMAT: Final = 0x01
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
USER_PROPERTY: Final = 0x26


class Forwarded(msgspec.Struct, frozen=True, gc=False):
    """None where a property is absent. User properties keep their order and repeats."""

    payload_format: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()


def decode(block: bytes) -> Forwarded:
    """The values in a record's block; ValueError where it is none."""
    at, end = 0, len(block)
    payload_format: int | None = None
    texts: dict[int, bytes] = {}
    user: list[tuple[str, str]] = []
    while at < end:
        identifier = block[at]
        if identifier == PAYLOAD_FORMAT:
            payload_format = block[at + 1]
            at += 2
        elif identifier == USER_PROPERTY:
            name, at = _read(block, at + 1)
            value, at = _read(block, at)
            user.append((name.decode(), value.decode()))
        elif identifier in (CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA):
            texts[identifier], at = _read(block, at + 1)
        else:
            raise ValueError(f"property 0x{identifier:02X} is not one that is forwarded")
    content, response = texts.get(CONTENT_TYPE), texts.get(RESPONSE_TOPIC)
    return Forwarded(
        payload_format,
        None if content is None else content.decode(),
        None if response is None else response.decode(),
        texts.get(CORRELATION_DATA),
        tuple(user),
    )


def _read(block: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    stop = start + (block[at] << 8 | block[at + 1])
    if stop > len(block):
        raise ValueError("a property ends behind its block")
    return block[start:stop], stop


def encode(properties: Forwarded) -> bytes:
    """The block of a record, in the order of identifiers."""
    out = bytearray()
    if properties.payload_format is not None:
        out += bytes((PAYLOAD_FORMAT, properties.payload_format))
    if properties.content_type is not None:
        _put(out, CONTENT_TYPE, properties.content_type.encode())
    if properties.response_topic is not None:
        _put(out, RESPONSE_TOPIC, properties.response_topic.encode())
    if properties.correlation_data is not None:
        _put(out, CORRELATION_DATA, properties.correlation_data)
    for name, value in properties.user:
        _put(out, USER_PROPERTY, name.encode())
        raw = value.encode()
        out += len(raw).to_bytes(2, "big") + raw
    return bytes(out)


def _put(out: bytearray, identifier: int, raw: bytes) -> None:
    out.append(identifier)
    out += len(raw).to_bytes(2, "big") + raw
