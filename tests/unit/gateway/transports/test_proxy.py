"""PROXY headers: whose connection it is by the word of a listed proxy, and that nothing else is believed, missed or eaten of what follows."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import socket

import pytest

from gateway.transports.endpoints import ListenerSpec, Network
from gateway.transports.listeners import Listeners
from gateway.transports.peer import is_within
from gateway.transports.proxy import MAX_BINARY, SIGNATURE, Header, ProxyRefused, parse
from schemas.limits import Limits
from tests.support.certificates import Authority
from tests.unit.gateway.transports.fakes import WITHIN, Harbour, until
from tests.unit.gateway.transports.rig import head
from tests.unit.gateway.transports.test_tls import settings

TCP4, TCP6, UNIX = 0x11, 0x21, 0x31


def text(*words: str) -> bytes:
    return " ".join(("PROXY", *words)).encode() + b"\r\n"


def binary(family: int, block: bytes, *, version: int = 2, command: int = 1, size: int | None = None) -> bytes:
    return SIGNATURE + bytes((version << 4 | command, family)) + (len(block) if size is None else size).to_bytes(2, "big") + block


def addresses(source: str, target: str, port: int = 4711) -> bytes:
    return ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed + port.to_bytes(2, "big") + (1883).to_bytes(2, "big")


def field(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


FOUR, SIX = addresses("192.0.2.7", "192.0.2.1"), addresses("2001:db8::7", "2001:db8::1")
FIELDS = field(0x01, b"mqtt") + field(0x20, b"\x01\x00\x00\x00\x00" + field(0x21, b"TLSv1.3")) + field(0x04, b"")
GOOD = [
    (text("TCP4", "192.0.2.7", "192.0.2.1", "4711", "1883"), ("192.0.2.7", 4711)),
    (text("TCP4", "255.255.255.255", "255.255.255.255", "65535", "65535"), ("255.255.255.255", 65535)),
    (text("TCP4", "192.0.2.7", "192.0.2.1", "0", "0"), ("192.0.2.7", 0)),
    (text("TCP6", "2001:db8::7", "2001:db8::1", "4711", "1883"), ("2001:db8::7", 4711)),
    (text("TCP6", *["ffff:" * 7 + "ffff"] * 2, "65535", "65535"), ("ffff:" * 7 + "ffff", 65535)),
    (text("TCP6", "::ffff:192.0.2.7", "::1", "4711", "1883"), ("192.0.2.7", 4711)),
    (text("UNKNOWN"), None),
    (text("UNKNOWN", "whatever", "follows"), None),
    (binary(TCP4, FOUR), ("192.0.2.7", 4711)),
    (binary(TCP4, FOUR + FIELDS), ("192.0.2.7", 4711)),
    (binary(TCP6, SIX), ("2001:db8::7", 4711)),
    (binary(TCP6, SIX + FIELDS), ("2001:db8::7", 4711)),
    (binary(TCP6, addresses("::ffff:192.0.2.7", "::1")), ("192.0.2.7", 4711)),
    (binary(0, b"", command=0), None),
    (binary(TCP4, FOUR, command=0), None),
    (binary(UNIX, bytes(216), command=0), None),
    (binary(TCP4, FOUR + field(0x04, bytes(MAX_BINARY - 31))), ("192.0.2.7", 4711)),
]


# The parser


@pytest.mark.parametrize(("data", "source"), GOOD)
def test_a_header_is_read_and_nothing_behind_it(data: bytes, source: tuple[str, int] | None) -> None:
    for rest in (b"", b"\x10\x0c\x00\x04MQTT", b"\r\n", data):
        assert parse(data + rest) == Header(len(data), source)


@pytest.mark.parametrize(("data", "source"), GOOD)
def test_every_cut_of_a_header_wants_more(data: bytes, source: tuple[str, int] | None) -> None:
    for end in range(len(data)):
        assert parse(data[:end]) is None, data[:end]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x10\x0c\x00\x04MQTT", "no header"),
        (b"\x16\x03\x01", "no header"),
        (b"GET / HTTP/1.1\r\n", "no header"),
        (b"proxy TCP4", "no header"),
        (b"PROXY\r\n", "no header"),
        (SIGNATURE[:-1] + b"\x00", "no header"),
        *((SIGNATURE[:at] + bytes((SIGNATURE[at] ^ 1,)), "no header") for at in range(1, len(SIGNATURE))),
        (text(""), "not TCP4"),
        (text("TCP4"), "not TCP4"),
        (text("TCP5", "192.0.2.7", "192.0.2.1", "4711", "1883"), "not TCP4"),
        (text("tcp4", "192.0.2.7", "192.0.2.1", "4711", "1883"), "not TCP4"),
        (text("TCP4", "192.0.2.7", "192.0.2.1", "4711"), "not TCP4"),
        (text("TCP4", "192.0.2.7", "192.0.2.1", "4711", "1883", "x"), "not TCP4"),
        (text("TCP4", "192.0.2.7", "192.0.2.1", "4711", "1883", ""), "not TCP4"),
        (text("TCP4", "", "192.0.2.7", "192.0.2.1", "4711", "1883"), "not TCP4"),
        (text("TCP4", "192.0.2.7", "192.0.2.256", "4711", "1883"), "an address"),
        (text("TCP4", "192.0.02.7", "192.0.2.1", "4711", "1883"), "an address"),
        (text("TCP4", "2001:db8::7", "2001:db8::1", "4711", "1883"), "an address"),
        (text("TCP6", "192.0.2.7", "192.0.2.1", "4711", "1883"), "an address"),
        (text("TCP6", "fe80::1%eth0", "2001:db8::1", "4711", "1883"), "not TCP4"),
        (text("TCP4", "host", "192.0.2.1", "4711", "1883"), "an address"),
        *((text("TCP4", "192.0.2.7", "192.0.2.1", port, "1883"), "not a port") for port in ("-1", "65536", "04711", "+1", "1e3", "4x", "")),
        (text("TCP4", "192.0.2.7", "192.0.2.1", "4711", "99999"), "not a port"),
        (b"PROXY TCP4 192.0.2.7\xff 192.0.2.1 1 1\r\n", "not ASCII"),
        (b"PROXY UNKNOWN " + b"x" * 100, "no end of line within 107 bytes"),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "no end of line within 107 bytes"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 1883\n" + b"x" * 80, "no end of line"),
        (binary(TCP4, FOUR, version=1), "unknown version or command"),
        (binary(TCP4, FOUR, version=3), "unknown version or command"),
        (binary(TCP4, FOUR, command=2), "unknown version or command"),
        (binary(TCP4, FOUR, command=15), "unknown version or command"),
        (binary(0, b""), "no TCP address"),
        (binary(UNIX, bytes(216)), "no TCP address"),
        (binary(0x12, FOUR), "no TCP address"),
        (binary(0x22, SIX), "no TCP address"),
        (binary(0x10, FOUR), "no TCP address"),
        (binary(0xFF, SIX), "no TCP address"),
        (binary(TCP4, FOUR[:-1]), "addresses are cut short"),
        (binary(TCP6, FOUR), "addresses are cut short"),
        (binary(TCP6, b""), "addresses are cut short"),
        *((binary(TCP4, FOUR + field(1, b"abc")[:end]), "fields are cut short") for end in range(1, 6)),
        (binary(TCP4, FOUR + FIELDS + b"\x01"), "fields are cut short"),
        (binary(TCP4, FOUR, size=MAX_BINARY - 15), "header of 4097 bytes"),
        (binary(TCP4, b"", size=65_535), "header of 65551 bytes"),
        (binary(0, b"", command=0, size=65_535), "header of 65551 bytes"),
    ],
)
def test_what_is_no_header_is_refused_with_its_reason(data: bytes, words: str) -> None:
    with pytest.raises(ProxyRefused, match=words):
        parse(data)


def test_random_bytes_are_a_header_more_or_a_refusal_and_the_same_however_they_come() -> None:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    dice = random.Random(seed)
    for _ in range(20_000):
        data = bytearray(dice.choice(GOOD)[0])
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        outcomes = []
        for end in range(1, len(data) + 1) if dice.random() < 0.02 else (len(data),):
            try:
                outcomes.append(parse(bytes(data[:end])))
            except ProxyRefused:
                outcomes.append(None)
                break
        for earlier, later in zip(outcomes, outcomes[1:], strict=False):
            assert earlier is None or earlier == later


@pytest.mark.parametrize(
    ("host", "inside"), [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.1.2.3", False), ("fd00::1", True), ("fe80::1%eth0", False)]
)
def test_networks(host: str, inside: bool) -> None:
    assert is_within(host, (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))) is inside


# Listeners

HEADERS = [text("TCP4", "192.0.2.7", "192.0.2.1", "4711", "1883"), binary(TCP4, FOUR + FIELDS)]
HERE: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE: tuple[Network, ...] = (ipaddress.ip_network("10.0.0.0/8"),)


def behind(kind: str, proxies: tuple[Network, ...] = HERE) -> ListenerSpec:
    return ListenerSpec(kind, "127.0.0.1", 0, proxies)  # type: ignore[arg-type]


async def dial(listeners: Listeners) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", listeners.addresses[0].port)


async def read(reader: asyncio.StreamReader, size: int = -1) -> bytes:
    async with asyncio.timeout(WITHIN):
        return await (reader.read() if size < 0 else reader.readexactly(size))


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_client_behind_a_proxy_has_its_own_address(harbour: Harbour, header: bytes, step: int) -> None:
    listeners = await harbour.open(behind("mqtt"))
    reader, writer = await dial(listeners)
    for at in range(0, len(header), step):
        writer.write(header[at : at + step])
        await asyncio.sleep(0.0005)
    writer.write(b"hello")
    assert await read(reader, 5) == b"hello"
    (connection,) = harbour.connections
    assert connection.stream == b"hello"
    peer = connection.peer
    assert peer is not None
    assert (peer.address, peer.is_loopback, peer.is_secure) == ("192.0.2.7:4711", False, False)
    writer.transport.abort()


async def test_header_and_data_in_one_segment(harbour: Harbour) -> None:
    listeners = await harbour.open(behind("mqtt"))
    reader, writer = await dial(listeners)
    writer.write(HEADERS[0] + b"\x10rest" * 2000)
    assert await read(reader, 10_000) == b"\x10rest" * 2000
    writer.transport.abort()


@pytest.mark.parametrize("header", HEADERS)
async def test_tls_begins_behind_the_header(harbour: Harbour, authority: Authority, header: bytes) -> None:
    listeners = await harbour.open(behind("mqtts"), tls=settings(authority.issue("server")))
    with socket.create_connection(("127.0.0.1", listeners.addresses[0].port)) as raw:
        raw.sendall(header)
        raw.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=raw.dup(), ssl=authority.client_context(), server_hostname="localhost")
        writer.write(b"x")
        assert await read(reader, 1) == b"x"
        peer = harbour.connections[0].peer
        assert peer is not None
        assert (peer.address, peer.is_secure, peer.is_loopback) == ("192.0.2.7:4711", True, False)
        writer.transport.abort()


async def test_a_websocket_begins_behind_the_header(harbour: Harbour) -> None:
    listeners = await harbour.open(behind("ws"))
    reader, writer = await dial(listeners)
    writer.write(HEADERS[1] + head())
    async with asyncio.timeout(WITHIN):
        assert b"101" in await reader.readline()
    peer = harbour.connections[0].peer
    assert peer is not None
    assert peer.address == "192.0.2.7:4711"
    writer.transport.abort()


@pytest.mark.parametrize("header", [text("UNKNOWN"), binary(0, b"", command=0)])
async def test_a_proxys_own_connection_has_the_proxys_address_and_no_rights_of_this_machine(harbour: Harbour, header: bytes) -> None:
    listeners = await harbour.open(behind("mqtt"))
    reader, writer = await dial(listeners)
    writer.write(header + b"x")
    await read(reader, 1)
    peer = harbour.connections[0].peer
    assert peer is not None
    assert (peer.host, peer.port, peer.is_loopback) == ("127.0.0.1", writer.get_extra_info("sockname")[1], False)
    writer.transport.abort()


@pytest.mark.parametrize("kind", ["mqtt", "mqtts", "ws"])
@pytest.mark.parametrize("data", [b"\x10\x0c\x00\x04MQTT", binary(UNIX, bytes(216)), text("TCP4", "x", "y", "1", "2"), b"PROXY " + b"x" * 200])
async def test_from_a_proxy_nothing_comes_in_without_a_good_header(
    harbour: Harbour, authority: Authority, caplog: pytest.LogCaptureFixture, kind: str, data: bytes
) -> None:
    caplog.set_level(logging.INFO)
    listeners = await harbour.open(behind(kind), tls=settings(authority.issue("server")))
    reader, writer = await dial(listeners)
    writer.write(data)
    with contextlib.suppress(ConnectionError):  # what was not read of it resets the connection
        assert await read(reader) == b""
    await harbour.has_refused("proxy_header")
    assert harbour.connections == []
    assert caplog.messages[-1].startswith("proxy-header-refused proxy=127.0.0.1 reason=")
    writer.close()


async def test_from_elsewhere_a_header_is_no_header(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(behind("mqtt", ELSEWHERE), behind("mqtts", ELSEWHERE), tls=settings(authority.issue("server")))
    reader, writer = await dial(listeners)
    writer.write(HEADERS[0])
    assert await read(reader, len(HEADERS[0])) == HEADERS[0], "it went to the connection, which knows no such packet"
    peer = harbour.connections[0].peer
    assert peer is not None
    assert (peer.host, peer.is_loopback) == ("127.0.0.1", True)
    writer.transport.abort()
    reader, writer = await asyncio.open_connection("127.0.0.1", listeners.addresses[1].port)
    writer.write(HEADERS[1])
    await read(reader)
    await harbour.has_refused("tls_handshake")
    writer.close()


async def test_a_listener_without_proxies_knows_no_header(harbour: Harbour) -> None:
    listeners = await harbour.open(ListenerSpec("mqtt", "127.0.0.1", 0))
    reader, writer = await dial(listeners)
    writer.write(HEADERS[0])
    assert await read(reader, len(HEADERS[0])) == HEADERS[0]
    writer.transport.abort()


@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 ", SIGNATURE])
async def test_a_header_that_does_not_end_is_cut(harbour: Harbour, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    caplog.set_level(logging.INFO)
    listeners = await harbour.open(behind("mqtt"), limits=Limits(connect_timeout=0.05))
    reader, writer = await dial(listeners)
    writer.write(data)
    assert await read(reader) == b""
    assert caplog.messages[-1] == "proxy-header-refused proxy=127.0.0.1 reason=it came too slowly"
    writer.close()


async def test_a_proxy_that_hangs_up_within_its_header(harbour: Harbour) -> None:
    listeners = await harbour.open(behind("mqtt"))
    _, writer = await dial(listeners)
    writer.write(b"PROXY TCP4 ")
    writer.close()
    await harbour.has_refused("proxy_header")
    await until(lambda: not listeners._acceptors[0].handshakes)  # a task has ended a step before its callback says so


async def test_headers_under_way_count_against_the_limit_and_end_with_the_listeners(harbour: Harbour) -> None:
    listeners = await harbour.open(behind("mqtt"), limits=Limits(connections=1))
    first, writer = await dial(listeners)
    second, other = await dial(listeners)
    assert await read(second) == b""
    assert harbour.refused == {"connections": 1}
    await listeners.close()
    assert await read(first) == b""
    for each in (writer, other):
        each.close()
