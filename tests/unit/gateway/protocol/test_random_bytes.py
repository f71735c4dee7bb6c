"""Any bytes give a packet, or MalformedPacket or ProtocolError with a reason code that the answer may carry; never another exception.

And what decodes, encodes, and decodes to the same. Counts: SLUICEWAY_FUZZ (100,000; the long shard takes 10,000,000), from
the seed SLUICEWAY_SEED, which a failure names.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from typing import NamedTuple

import pytest

from gateway.protocol.decode import answer_version, decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError
from gateway.protocol.packets import PacketType
from gateway.protocol.reason_tables import REASONS
from schemas.limits import Limits
from tests.support.frames import Framer
from tests.unit.gateway.protocol.test_vectors import VECTORS

LIMITS = Limits()
COUNT = int(os.environ.get("SLUICEWAY_FUZZ", "100000"))
SEED = int(os.environ.get("SLUICEWAY_SEED", "3"))
GOOD = [vector for vector in VECTORS if vector.packet is not None and len(vector.data) < 128]
BAD = [vector for vector in VECTORS if vector.packet is None and len(vector.data) < 128]
LIMIT = 8 * 1024


class Input(NamedTuple):
    data: bytes
    version: int
    from_server: bool


def _mutated(rng: random.Random) -> Input:
    seed = rng.choice(GOOD if rng.random() < 0.8 else BAD)
    version, from_server = seed.version, seed.from_server
    if rng.random() < 0.2:
        version, from_server = 9 - version, not from_server
    data = bytearray(seed.data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0:
                data[at:at] = bytes((rng.choice((0, 1, 0x7F, 0x80, 0xC0, 0xFF, rng.randrange(256))),))
            case 1:
                del data[at : at + rng.choice((1, 1, 2, 5))]
            case 2 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 3 if at < len(data):
                data[at] = rng.randrange(256)
            case 4:
                other = rng.choice(GOOD).data
                data[at:] = other[rng.randrange(len(other)) :]
            case 5:
                data += data[at:]
            case _ if len(data) > 2:
                data[2] = rng.choice((0, 1, 4, 0xFF))
    if len(data) > 2 and rng.random() < 0.9:  # a remaining length that fits again
        data[1] = (len(data) - 2) % 128
        del data[2 + data[1] :]
    return Input(bytes(data), version, from_server)


def _random(rng: random.Random) -> Input:
    size = rng.choice((0, 1, 2, 3, 5, 10, 30, 100))
    few = bytes(rng.choice((0, 0, 1, 2, 4, 5, 0x26, 0x61, 0xFF)) for _ in range(size))
    body = rng.choice((few, rng.randbytes(size)))
    first_byte = rng.choice((rng.randrange(256), rng.choice(GOOD).data[0], rng.choice(GOOD).data[0]))
    data = bytes((first_byte, size)) + body if rng.random() < 0.8 else body
    return Input(data, rng.choice((4, 5)), rng.random() < 0.5)


def _check(given: Input) -> str:
    """What came of it: "" for nothing yet, "refused" or "packet" for the last one."""
    outcome = ""
    data, version, from_server = given
    try:
        for first_byte, body in Framer(LIMIT).feed(data):
            kind = PacketType(first_byte >> 4) if first_byte >> 4 else None
            try:
                packet = decode_packet(first_byte, body, version, LIMITS, from_server=from_server)
            except PacketError as error:
                assert type(error) in (MalformedPacket, ProtocolError)
                answer = PacketType.CONNACK if kind == PacketType.CONNECT else PacketType.DISCONNECT
                assert error.reason_code in REASONS[answer] and error.reason_code >= 0x80
                outcome = "refused"
                continue
            outcome = "packet"
            ((again, shorter),) = Framer(LIMITS.packet).feed(encode_packet(packet, version))
            assert len(shorter) <= len(body)
            assert decode_packet(again, shorter, version, LIMITS, from_server=from_server) == packet
    except PacketError as error:  # by the framer
        assert error.reason_code in (0x81, 0x95)
        outcome = "refused"
    assert answer_version(data) in (4, 5)
    return outcome


@pytest.mark.slow
@pytest.mark.timeout(max(60, COUNT // 1000))
@pytest.mark.parametrize("draw", [_mutated, _random], ids=["mutated", "random"])
def test_any_bytes(draw) -> None:  # type: ignore[no-untyped-def]
    print(f"seed {SEED}, {COUNT // 2} inputs")
    rng = random.Random(f"{SEED} {draw.__name__}")
    outcomes: Counter[str] = Counter()
    for index in range(COUNT // 2):
        given = draw(rng)
        try:
            outcomes[_check(given)] += 1
        except Exception as error:
            raise AssertionError(f"seed {SEED}, input {index}: {given.data.hex()}") from error
    assert min(outcomes["packet"], outcomes["refused"]) > COUNT / 200, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
def test_every_short_body(version: int) -> None:
    """All first bytes with all bodies of up to one byte, and of two bytes out of those that matter most."""
    bodies = [b"", *(bytes((byte,)) for byte in range(256))]
    bodies += [bytes((high, low)) for high in (0, 1, 0x7F, 0x80, 0xFF) for low in (0, 1, 0x7F, 0x80, 0xFF)]
    for first_byte in range(256):
        for body in bodies:
            data = bytes((first_byte, len(body))) + body
            _check(Input(data, version, from_server=False))
            _check(Input(data, version, from_server=True))


FLOODS = [
    b"\x26\x00\x00\x00\x00" * 1638,
    b"\x0b\x01" * 4096,
    b"\x09\x1f\xfd" + bytes(8189),
    b"\x01\x00" * 4096,
    b"\x03\x00\x01a" * 2048,
]


@pytest.mark.parametrize("block", FLOODS, ids=lambda block: block[:3].hex())
@pytest.mark.parametrize("from_server", [True, False])
def test_a_flood_of_properties_takes_time_like_its_bytes(block: bytes, from_server: bool) -> None:
    length = bytes((len(block) & 0x7F | 0x80, len(block) >> 7))
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        with contextlib.suppress(PacketError):
            decode_packet(0x30, b"\x00\x01t" + length + block, 5, LIMITS, from_server=from_server)
        best = min(best, time.perf_counter() - start)
    assert best < 0.02
