"""Packets as bytes, with what they mean: the packet, or the error and its reason code. Data of test_vectors.py and others.

Bytes are written so that lengths need no counting: hex digits stand for themselves, ``"text"`` is a string with its length in
two bytes, ``'text'`` is the text alone, and ``[`` to ``]`` is what stands between, with its length as a variable byte integer
before it. ``10 [ "MQTT" 04 02 003c "a" ]`` is a CONNECT.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError
from gateway.protocol.packets import Packet

BOTH = (4, 5)

_TOKENS = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\[)|(\])|([0-9a-f]+)|\s+')


class Vector(NamedTuple):
    """``packet`` or ``error`` with ``code``. ``shortest``: the encoder writes just these bytes."""

    name: str
    version: int
    data: bytes
    packet: Packet | None = None
    error: type[PacketError] | None = None
    code: int = 0
    from_server: bool = False
    shortest: bool = True


def written(text: str) -> bytes:
    """The bytes of a text in the notation above."""
    stack = [bytearray()]
    at = 0
    while at < len(text):
        token = _TOKENS.match(text, at)
        assert token is not None, f"not in the notation: {text[at:]}"
        at = token.end()
        string, plain, opening, closing, digits = token.groups()
        if string is not None:
            raw = string.encode("utf-8")
            stack[-1] += len(raw).to_bytes(2, "big") + raw
        elif plain is not None:
            stack[-1] += plain.encode("utf-8")
        elif opening:
            stack.append(bytearray())
        elif closing:
            block = stack.pop()
            stack[-1] += _length(len(block)) + block
        elif digits:
            stack[-1] += bytes.fromhex(digits)
    (whole,) = stack
    return bytes(whole)


def _length(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes((low,)) if not high else bytes((low | 0x80,)) + _length(high)


def good(name: str, versions: int | tuple[int, ...], text: str, packet: Packet, *, from_server: bool = False, shortest: bool = True) -> list[Vector]:
    return [Vector(f"{name}-v{version}", version, written(text), packet, from_server=from_server, shortest=shortest) for version in _each(versions)]


def malformed(name: str, versions: int | tuple[int, ...], text: str, code: int = 0x81, *, from_server: bool = False) -> list[Vector]:
    return [
        Vector(f"{name}-v{version}", version, written(text), error=MalformedPacket, code=code, from_server=from_server) for version in _each(versions)
    ]


def refused(name: str, versions: int | tuple[int, ...], text: str, code: int = 0x82, *, from_server: bool = False) -> list[Vector]:
    return [
        Vector(f"{name}-v{version}", version, written(text), error=ProtocolError, code=code, from_server=from_server) for version in _each(versions)
    ]


def _each(versions: int | tuple[int, ...]) -> tuple[int, ...]:
    return (versions,) if isinstance(versions, int) else versions


def flat(*groups: list[Vector]) -> tuple[Vector, ...]:
    return tuple(vector for group in groups for vector in group)
