"""The header by which a proxy says whose connection it passes on: PROXY protocol, versions 1 (text) and 2 (binary). The parser is pure.

A header is believed from listed networks alone (settings `[[proxy]]`), and demanded there. One without a client's address is refused, unless the
proxy says that the connection is its own, as its health checks are. Neighbours: tls.py accepts and reads the header before anything else.
"""

from __future__ import annotations

import asyncio
import re
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
TEXT: Final = b"PROXY "
MAX_TEXT: Final = 107
"""Bytes of a header of version 1 at most, its end of line included: what the protocol says."""
MAX_BINARY: Final = 4096
"""Bytes of a header of version 2. The protocol asks for 536 at least; what takes more are certificates, which are of no use here."""
FIXED: Final = 16
"""Bytes of version 2 up to the addresses."""

_TCP: Final = {0x11: 4, 0x21: 16}
"""Family and transport: the size of an address."""
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")


class ProxyRefused(Exception):
    """No header, or one that is not to be believed; its words are for the log."""


class Header(msgspec.Struct, frozen=True):
    """``source``: the client's address; None where the connection is the proxy's own. ``size``: bytes of the header."""

    size: int
    source: tuple[str, int] | None


def parse(data: bytes) -> Header | None:
    """The header that begins what was received; None while more has to come."""
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return _parse_binary(data)
    if TEXT.startswith(data[: len(TEXT)]):
        return _parse_text(data)
    raise ProxyRefused("no header")


def _parse_binary(data: bytes) -> Header | None:
    if len(data) < FIXED:
        return None
    version, command, family = data[12] >> 4, data[12] & 15, data[13]
    size = FIXED + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ProxyRefused("unknown version or command")
    if size > MAX_BINARY:
        raise ProxyRefused(f"header of {size} bytes")
    if len(data) < size:
        return None
    if command == 0:
        return Header(size, None)
    if family not in _TCP:
        raise ProxyRefused("no TCP address of the client")
    width = _TCP[family]
    block = data[FIXED:size]
    if len(block) < 2 * width + 4:
        raise ProxyRefused("addresses are cut short")
    _check_rest(block[2 * width + 4 :])
    address = IPv4Address(block[:width]) if width == 4 else IPv6Address(block[:width])
    return Header(size, _source(address, int.from_bytes(block[2 * width : 2 * width + 2], "big")))


def _check_rest(rest: bytes) -> None:
    """What follows the addresses are fields of type, length and value. None of them is used, but they have to add up."""
    at = 0
    while at < len(rest):
        at += 3 + int.from_bytes(rest[at + 1 : at + 3], "big")
    if at != len(rest):
        raise ProxyRefused("fields are cut short")


def _parse_text(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_TEXT)
    if end < 0:
        if len(data) >= MAX_TEXT:
            raise ProxyRefused(f"no end of line within {MAX_TEXT} bytes")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyRefused("not ASCII") from None
    if words[1] == "UNKNOWN":
        return Header(end + 2, None)
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6 or "%" in data[:end].decode("ascii"):
        raise ProxyRefused("not TCP4, TCP6 or UNKNOWN with two addresses and two ports")
    try:
        source, _ = [IPv4Address(word) if words[1] == "TCP4" else IPv6Address(word) for word in words[2:4]]
    except ValueError:
        raise ProxyRefused("an address of another family, or none") from None
    if not all(_PORT.fullmatch(port) and int(port) <= 65_535 for port in words[4:]):
        raise ProxyRefused("not a port")
    return Header(end + 2, _source(source, int(words[4])))


def _source(address: IPv4Address | IPv6Address, port: int) -> tuple[str, int]:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address), port


async def read_header(sock: socket.socket) -> tuple[str, int] | None:
    """Take the header off a socket, and nothing of what follows; ProxyRefused, OSError. See Header for the answer."""
    taken = b""
    while True:
        await _is_readable(sock)
        try:
            seen = sock.recv(MAX_BINARY - len(taken), socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            continue
        header = parse(taken + seen)
        if not seen:
            raise ProxyRefused("closed before its header was complete")
        taken += sock.recv(len(seen) if header is None else header.size - len(taken))  # all there: it was seen
        if header is not None:
            return header.source


async def _is_readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
