"""The HTTP server: its socket, its limits, and that it leaves the process's signals and log alone."""

import asyncio
import signal
import socket

import pytest

from gateway.api import server as server_module
from gateway.api.server import serve
from schemas.errors import StartError
from schemas.settings import Address


@pytest.fixture
async def running(api):
    server = serve(api.app, Address("127.0.0.1", 0))
    address = await server.start()
    yield address
    await server.stop()


async def exchange(address, request):
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


GET = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"


async def test_it_serves_on_a_free_port(running):
    answer = await exchange(running, GET)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"status":"ok"}')
    assert b"server:" not in answer.lower()


async def test_it_serves_ipv6(api):
    server = serve(api.app, Address("::1", 0))
    try:
        address = await server.start()
        assert str(address).startswith("[::1]:")
        assert (await exchange(address, GET)).startswith(b"HTTP/1.1 200")
    finally:
        await server.stop()


async def test_a_port_that_is_taken_is_one_line(api):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(StartError, match=f"^http listener {address}: address already in use; choose another address with --http HOST:PORT$"):
            await serve(api.app, address).start()


async def test_a_host_that_is_not_known_is_one_line(api):
    with pytest.raises(StartError, match=r"^http listener host\.invalid:0: "):
        await serve(api.app, Address("host.invalid", 0)).start()


async def test_signal_handlers_stay_the_processs(api):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = serve(api.app, Address("127.0.0.1", 0))
    await server.start()
    assert {number: signal.getsignal(number) for number in before} == before
    await server.stop()


async def test_a_port_is_free_again_after_a_stop(api):
    server = serve(api.app, Address("127.0.0.1", 0))
    address = await server.start()
    await exchange(address, GET)
    await server.stop()
    again = serve(api.app, address)
    assert await again.start() == address
    await again.stop()
    await again.stop()


async def test_a_head_over_the_limit_is_refused(running):
    answer = await exchange(running, b"GET / HTTP/1.1\r\nX: " + b"x" * server_module.MAX_HEAD * 5 + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


async def test_connections_over_the_limit_get_503(api, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    server = serve(api.app, Address("127.0.0.1", 0))
    address = await server.start()
    idle = [await asyncio.open_connection(address.host, address.port) for _ in range(3)]
    assert (await exchange(address, GET)).startswith(b"HTTP/1.1 503")
    for _, writer in idle:
        writer.close()
    await server.stop()


@pytest.mark.slow
async def test_a_connection_that_stays_silent_is_closed(api, monkeypatch):
    monkeypatch.setattr(server_module, "SILENCE_TIMEOUT", 0.5)
    server = serve(api.app, Address("127.0.0.1", 0))
    address = await server.start()
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 10)
    writer.close()
    await server.stop()


async def test_a_connection_in_use_is_kept_though_it_is_idle_whenever_it_is_looked_at(api, monkeypatch):
    monkeypatch.setattr(server_module, "SILENCE_TIMEOUT", 0.5)
    now = asyncio.get_running_loop().time()
    server = serve(api.app, Address("127.0.0.1", 0))
    address = await server.start()
    reader, writer = await asyncio.open_connection(address.host, address.port)
    for _ in range(4):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"ok"), 10)
        server._server._close_silent(now := now + 0.4)
        await asyncio.sleep(0)
    assert server._server.server_state.connections
    server._server._close_silent(now + 0.6)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1000), 10)
    writer.close()
    await server.stop()


async def test_nothing_is_logged_for_a_request(running, caplog):
    await exchange(running, GET)
    assert not [record for record in caplog.records if record.name == "uvicorn.access"]
