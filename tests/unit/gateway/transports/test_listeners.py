"""Listeners over real sockets: addresses, refusals to start that leave nothing open, the limit of connections, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.transports import listeners as module
from gateway.transports.listeners import Listeners, ListenerSpec, start_listeners
from gateway.transports.peer import describe, local_address
from gateway.transports.sockets import bind
from schemas.errors import StartError
from schemas.limits import Limits
from tests.unit.gateway.transports.fakes import WITHIN, FakeTransport, Harbour, until

PLAIN = ListenerSpec("mqtt", "127.0.0.1", 0)
WEB = ListenerSpec("ws", "127.0.0.1", 0)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address (::1)")


async def dial(listeners: Listeners, number: int = 0, host: str | None = None) -> Stream:
    spec = listeners.addresses[number]
    async with asyncio.timeout(WITHIN):
        return await asyncio.open_connection(host or spec.host, spec.port)


async def echoed(stream: Stream, data: bytes) -> None:
    reader, writer = stream
    writer.write(data)
    async with asyncio.timeout(WITHIN):
        assert await reader.readexactly(len(data)) == data


async def is_cut(stream: Stream) -> bool:
    async with asyncio.timeout(WITHIN):
        try:
            return await stream[0].read() == b""
        except ConnectionResetError:
            return True


async def hang_up(*streams: Stream) -> None:
    for _, writer in streams:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def refuses(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


# Serving


async def test_connection_is_the_protocol_of_the_socket(harbour: Harbour) -> None:
    """[MQTT-4.2-1]"""
    listeners = await harbour.open(PLAIN)
    stream = await dial(listeners)
    await echoed(stream, b"hello")
    (connection,) = harbour.connections
    assert connection.transport is not None
    assert connection.transport.get_protocol() is connection
    sock = connection.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await hang_up(stream)
    await connection.is_lost()


async def test_peer_is_described(harbour: Harbour) -> None:
    listeners = await harbour.open(PLAIN)
    stream = await dial(listeners)
    await echoed(stream, b"x")
    host, port = stream[1].get_extra_info("sockname")
    (connection,) = harbour.connections
    peer = connection.peer
    assert peer is not None
    assert connection.transport is not None
    assert (peer.host, peer.port, peer.address) == (host, port, f"127.0.0.1:{port}")
    assert (peer.listener, peer.is_loopback, peer.is_secure, peer.certificate) == ("mqtt", True, False, None)
    assert local_address(connection.transport) == listeners.addresses[0].address
    await hang_up(stream)


@pytest.mark.parametrize(
    ("name", "address", "loopback"),
    [
        (("192.0.2.7", 80), "192.0.2.7:80", False),
        (("127.9.9.9", 80), "127.9.9.9:80", True),
        (("::1", 80, 0, 0), "[::1]:80", True),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80", False),
        (("::ffff:127.0.0.1", 80, 0, 0), "127.0.0.1:80", True),
        (("::ffff:192.0.2.7", 80, 0, 0), "192.0.2.7:80", False),
        (None, ":0", False),
    ],
)
def test_address_of_a_peer(name: tuple[object, ...] | None, address: str, loopback: bool) -> None:
    class Named(FakeTransport):
        def __init__(self) -> None:
            pass

        def get_extra_info(self, key: str, default: object = None) -> object:
            return name if key == "peername" else default

    peer = describe(Named(), PLAIN)
    assert (peer.address, peer.is_loopback) == (address, loopback)


@needs_ipv6
async def test_ipv6_listener(harbour: Harbour) -> None:
    listeners = await harbour.open(ListenerSpec("mqtt", "::1", 0))
    stream = await dial(listeners)
    await echoed(stream, b"six")
    peer = harbour.connections[0].peer
    assert peer is not None
    assert peer.address.startswith("[::1]:")
    assert peer.is_loopback
    assert listeners.addresses[0].address == f"[::1]:{listeners.addresses[0].port}"
    await hang_up(stream)


@needs_ipv6
async def test_name_listens_on_all_its_addresses_on_one_port(harbour: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0))]

    class Loop:
        getaddrinfo = both

    with monkeypatch.context() as patch:
        patch.setattr("gateway.transports.sockets.asyncio.get_running_loop", lambda: Loop)
        sockets = await bind(ListenerSpec("mqtt", "twofold", 0))
    ports = {sock.getsockname()[1] for sock in sockets}
    families = [sock.family for sock in sockets]
    for sock in sockets:
        sock.close()
    assert len(ports) == 1
    assert families == [socket.AF_INET, socket.AF_INET6]


@needs_ipv6
async def test_all_addresses_of_both_families_share_a_port() -> None:
    (six,) = await bind(ListenerSpec("mqtt", "::", 0))
    with six:
        six.listen()
        (four,) = await bind(ListenerSpec("mqtt", "0.0.0.0", six.getsockname()[1]))
        four.close()


async def test_port_is_free_again_after_connections_that_we_closed(harbour: Harbour) -> None:
    """A restart must not wait for the kernel to forget them."""
    listeners = await harbour.open(PLAIN)
    stream = await dial(listeners)
    await echoed(stream, b"x")
    transport = harbour.connections[0].transport
    assert transport is not None
    transport.close()
    assert await is_cut(stream)
    await hang_up(stream)
    await listeners.close()
    await harbour.open(*listeners.addresses)


async def test_several_kinds_at_once(harbour: Harbour) -> None:
    listeners = await harbour.open(PLAIN, WEB, PLAIN)
    assert [spec.kind for spec in listeners.addresses] == ["mqtt", "ws", "mqtt"]
    assert len({spec.port for spec in listeners.addresses}) == 3
    streams = [await dial(listeners, 0), await dial(listeners, 2)]
    for stream in streams:
        await echoed(stream, b"x")
    await hang_up(*streams)


async def test_websocket_client_of_a_library(harbour: Harbour) -> None:
    """An independent client: frames of its own making, large messages, ping, close."""
    listeners = await harbour.open(WEB)
    address = listeners.addresses[0].address
    async with connect(f"ws://{address}/mqtt", subprotocols=["mqtt"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "mqtt"
        await client.send(b"hello")
        assert await client.recv() == b"hello"
        await client.send([b"frag", b"men", b"ted"])
        await client.send(bytes(300_000))
        async with asyncio.timeout(WITHIN):
            while len(harbour.connections[0].stream) < 5 + 10 + 300_000:
                await client.recv()
        await (await client.ping())
    await harbour.connections[0].is_lost()
    assert harbour.connections[0].lost == [None]
    peer = harbour.connections[0].peer
    assert peer is not None
    assert (peer.listener, peer.is_secure, peer.is_loopback) == ("ws", False, True)


async def test_websocket_client_without_the_subprotocol_is_refused(harbour: Harbour) -> None:
    """[MQTT-6.0.0-3]"""
    listeners = await harbour.open(WEB)
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(f"ws://{listeners.addresses[0].address}/mqtt"):
            pass
    assert refusal.value.response.status_code == 400
    assert harbour.refused == {"websocket_upgrade": 1}
    assert harbour.connections == []


async def test_upgrade_byte_by_byte_for_ever_is_cut(harbour: Harbour) -> None:
    listeners = await harbour.open(WEB, limits=Limits(connect_timeout=0.05))
    reader, writer = await dial(listeners)
    writer.write(b"GET /mqtt HTTP/1.1\r\n")

    async def drip() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.005)

    dripping = asyncio.ensure_future(drip())
    assert await is_cut((reader, writer))
    dripping.cancel()
    await harbour.has_refused("websocket_upgrade")
    await hang_up((reader, writer))


# Not starting


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ListenerSpec("ws", "no-such-host.invalid", 0), "ws listener no-such-host.invalid:0: the host no-such-host.invalid is unknown"),
        (ListenerSpec("mqtt", "203.0.113.1", 0), "mqtt listener 203.0.113.1:0: this machine has no such address"),
        (ListenerSpec("mqtts", "127.0.0.1", 0), "tls.certificate: a listener with TLS (mqtts, wss) needs"),
    ],
)
async def test_what_cannot_start_says_why_in_one_line(spec: ListenerSpec, words: str) -> None:
    with pytest.raises(StartError) as failure:
        await start_listeners([spec], lambda _: pytest.fail("made"), None, Limits(), occupied=lambda: 0, refused=lambda _: None)
    assert str(failure.value).startswith(words)
    assert "\n" not in str(failure.value)


async def test_occupied_port_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        taken = other.getsockname()[1]
        specs = [ListenerSpec("mqtt", "127.0.0.1", free), ListenerSpec("ws", "127.0.0.1", taken)]
        with pytest.raises(StartError, match=rf"^ws listener 127.0.0.1:{taken}: another program uses it; .*--ws HOST:PORT"):
            await start_listeners(specs, lambda _: pytest.fail("made"), None, Limits(), occupied=lambda: 0, refused=lambda _: None)
        assert await refuses("127.0.0.1", free)


async def test_one_port_twice_leaves_nothing_open(harbour: Harbour) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = ListenerSpec("mqtt", "127.0.0.1", port)
    with pytest.raises(StartError, match="another program uses it"):
        await harbour.open(spec, spec)
    assert await refuses("127.0.0.1", port)


# The limit


async def test_connection_over_the_limit_is_cut_at_once_and_counted(harbour: Harbour) -> None:
    listeners = await harbour.open(PLAIN, limits=Limits(connections=2))
    inside = [await dial(listeners), await dial(listeners)]
    for stream in inside:
        await echoed(stream, b"x")
    outside = await dial(listeners)
    assert await is_cut(outside)
    assert harbour.refused == {"connections": 1}
    assert len(harbour.connections) == 2
    await hang_up(inside.pop(), outside)
    await until(lambda: len(harbour.live) == 1)
    again = await dial(listeners)
    await echoed(again, b"x")
    await hang_up(again, *inside)


async def test_burst_does_not_outrun_the_limit(harbour: Harbour) -> None:
    listeners = await harbour.open(PLAIN, limits=Limits(connections=5))
    streams = await asyncio.gather(*(dial(listeners) for _ in range(40)))
    await until(lambda: len(harbour.connections) + harbour.refused["connections"] == 40)
    assert len(harbour.connections) == 5
    await hang_up(*streams)


async def test_upgrades_under_way_count_against_the_limit(harbour: Harbour) -> None:
    listeners = await harbour.open(WEB, limits=Limits(connections=1))
    first = await dial(listeners)
    first[1].write(b"GET")
    await until(lambda: len(listeners._upgrading) == 1)
    second = await dial(listeners)
    assert await is_cut(second)
    assert harbour.refused == {"connections": 1}
    await hang_up(first, second)


# Ends


async def test_stop_accepting_leaves_connections_alive(harbour: Harbour) -> None:
    listeners = await harbour.open(PLAIN, WEB)
    stream = await dial(listeners)
    await echoed(stream, b"x")
    listeners.stop_accepting()
    assert await refuses("127.0.0.1", listeners.addresses[0].port)
    assert await refuses("127.0.0.1", listeners.addresses[1].port)
    await echoed(stream, b"still")
    await hang_up(stream)


async def test_close_breaks_off_upgrades(harbour: Harbour) -> None:
    listeners = await harbour.open(WEB)
    stream = await dial(listeners)
    stream[1].write(b"GET")
    await until(lambda: len(listeners._upgrading) == 1)
    await listeners.close()
    assert await is_cut(stream)
    await hang_up(stream)


async def test_listener_that_the_loop_gave_up_is_opened_again(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY", 0.01)
    listeners = await harbour.open(PLAIN)
    (lost,) = listeners._plain
    lost.server.close()  # what uvloop does after an accept that failed
    await until(lambda: lost.is_lost)
    await until(lambda: listeners._plain[0] is not lost)
    stream = await dial(listeners)
    await echoed(stream, b"back")
    assert "listener opened again" in caplog.text
    await hang_up(stream)
