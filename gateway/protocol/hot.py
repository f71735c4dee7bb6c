"""PUBLISH and its acknowledgements, the fast way: what every message passes. The rest is in decode.py and encode.py.

Encodes a run once for all its receivers, who add only their packet ids. Bytes are the same as encode.py's (tests compare).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from schemas.records import Record
from streams.expiry import remaining_seconds
from streams.fanout import MAX_HEADS, Delivery, Run

PACKET_IDS: Final[list[bytes]] = [struct.pack(">H", packet_id) for packet_id in range(65536)]
"""The two bytes of each packet id: 3 MiB once, against an encoding per delivery."""

PUBLISH_FIRST: Final = 0x30
DUP: Final = 0x08
"""For what is sent again and nothing else [MQTT-3.3.1-1] [MQTT-3.3.1-3]: a run is new [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]."""
RETAIN: Final = 0x01
PUBACK: Final = 0x40020000
PUBREC: Final = 0x50020000
PUBREL: Final = 0x62020000
PUBCOMP: Final = 0x70020000
"""An acknowledgement of four bytes as a number: add the packet id, that of the PUBLISH [MQTT-2.2.1-5]."""

NO_PROPERTIES: Final = b"\x00"


def acknowledgements(words: Sequence[int]) -> bytes:
    """The bytes of many four-byte acknowledgements, each ``PUBACK + packet id`` or the like."""
    return struct.pack(f">{len(words)}I", *words)


def varint(value: int) -> bytes:
    """A variable byte integer of up to four bytes [MQTT-1.5.5-1]."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def head(first: int, topic: str, behind: int) -> bytes:
    """First byte, remaining length and topic name; ``behind`` counts what follows the topic name."""
    name = topic.encode()
    return bytes((first,)) + varint(2 + len(name) + behind) + len(name).to_bytes(2, "big") + name


def _cached_head(heads: dict[int, bytes], first: int, topic: str, behind: int) -> bytes:
    key = behind << 8 | first
    found = heads.get(key)
    if found is None:
        if len(heads) >= MAX_HEADS:
            heads.clear()
        found = heads[key] = head(first, topic, behind)
    return found


def publish_block(record: Record, identifiers: Sequence[int], now: int) -> bytes:
    """The property block of an outgoing PUBLISH, without its length: what is left of the expiry [MQTT-3.3.2-6], identifiers, what is forwarded."""
    left = remaining_seconds(record.expires_at, now)
    if left is None and not identifiers:
        return record.properties
    parts = [] if left is None else [b"\x02" + left.to_bytes(4, "big")]
    parts += [b"\x0b" + varint(identifier) for identifier in identifiers]
    parts.append(record.properties)
    return b"".join(parts)


def wire3(run: Run) -> list[tuple[bytes, bytes]]:
    """Head and tail of each delivery of a QoS 1 or 2 run, for 3.1.1; between them goes the packet id."""
    first = PUBLISH_FIRST | run.qos << 1 | run.deliveries[0].retain
    heads, topic = run.heads, run.topic
    made = run.wire3 = [(_cached_head(heads, first, topic, 2 + len(d.record.payload)), d.record.payload) for d in run.deliveries]
    return made


def wire5(run: Run, now: int) -> list[tuple[bytes, bytes]]:
    """As ``wire3`` for 5.0; a tail begins with the properties."""
    first = PUBLISH_FIRST | run.qos << 1 | run.deliveries[0].retain
    heads, topic = run.heads, run.topic
    made: list[tuple[bytes, bytes]] = []
    for delivery in run.deliveries:
        tail = _tail5(delivery, now)
        made.append((_cached_head(heads, first, topic, 2 + len(tail)), tail))
    run.wire5 = made
    return made


def _tail5(delivery: Delivery, now: int) -> bytes:
    record = delivery.record
    if not record.properties and not record.expires_at and not delivery.identifiers:
        return NO_PROPERTIES + record.payload
    block = publish_block(record, delivery.identifiers, now)
    return varint(len(block)) + block + record.payload


def joined3(run: Run) -> bytes:
    """All packets of a QoS 0 run for 3.1.1."""
    first = PUBLISH_FIRST | run.deliveries[0].retain
    parts: list[bytes] = []
    for delivery in run.deliveries:
        payload = delivery.record.payload
        parts += (_cached_head(run.heads, first, run.topic, len(payload)), payload)
    made = run.wire3 = b"".join(parts)
    return made


def joined5(run: Run, now: int) -> bytes:
    """All packets of a QoS 0 run for 5.0."""
    first = PUBLISH_FIRST | run.deliveries[0].retain
    parts: list[bytes] = []
    for delivery in run.deliveries:
        tail = _tail5(delivery, now)
        parts += (_cached_head(run.heads, first, run.topic, len(tail)), tail)
    made = run.wire5 = b"".join(parts)
    return made


def single(delivery: Delivery, topic: str, packet_id: int, *, version: int, dup: bool, now: int, alias: int = 0) -> bytes:
    """One PUBLISH, as it is sent from a queue or again. ``topic`` is empty where ``alias`` stands for it; 0 is no alias."""
    record = delivery.record
    first = PUBLISH_FIRST | delivery.qos << 1 | delivery.retain | (DUP if dup else 0)
    tail = record.payload
    if version == 5:
        block = publish_block(record, delivery.identifiers, now)
        if alias:
            block = b"\x23" + alias.to_bytes(2, "big") + block
        tail = varint(len(block)) + block + tail
    if delivery.qos:
        tail = PACKET_IDS[packet_id] + tail
    return head(first, topic, len(tail)) + tail
