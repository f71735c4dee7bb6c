"""Runs an HTTP application by uvicorn inside the running event loop: no signal handlers, no access log, a bounded number of connections.

Opens its socket itself, so that a port that is taken is one line before anything has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import msgspec
import uvicorn
from fastapi import FastAPI

from gateway.transports.certificates import Certificates, choose_by_name
from schemas.errors import StartError
from schemas.settings import Address, TlsSettings

MAX_CONNECTIONS: Final = 200
"""Past it requests get 503 without being looked at."""

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's line and headers."""

SILENCE_TIMEOUT: Final = 10.0
"""Seconds for which a connection may have no request under way, one that it began to send included."""

STOP_TIMEOUT: Final = 2
"""Seconds that requests under way get at a stop."""


class _Config(uvicorn.Config):
    """With a TLS context that is made already; uvicorn would make one of files and keep it."""

    secure: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.ssl = self.secure


def _current(certificates: Certificates) -> ssl.SSLContext:
    """A context that hands each handshake the one in force for its server name, so that a new certificate needs no new listener."""
    context = certificates.context
    choose_by_name(context, certificates.for_name)
    return context


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, closing connections that stay silent (it has a limit only between requests)."""

    def __init__(self, config: uvicorn.Config, certificates: Certificates | None) -> None:
        super().__init__(config)
        self._silent_since: dict[object, tuple[object, float]] = {}
        """By connection its last request, and since when that is answered."""
        self._certificates = certificates

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._close_silent(asyncio.get_running_loop().time())
            if self._certificates is not None:
                self._certificates.check()
        return await super().on_tick(counter)

    def _close_silent(self, now: float) -> None:
        silent: dict[object, tuple[object, float]] = {}
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                continue
            last, since = self._silent_since.get(connection, (cycle, now))
            if last is not cycle:  # it was answered between two looks
                since = now
            silent[connection] = (cycle, since)
            transport = getattr(connection, "transport", None)
            if transport is not None and now - since > SILENCE_TIMEOUT:
                transport.abort()
        self._silent_since = silent


class HttpServer:
    """One HTTP listener; with certificates an HTTPS one."""

    def __init__(self, app: FastAPI, address: Address, certificates: Certificates | None = None) -> None:
        self._address = address
        config = _Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_graceful_shutdown=STOP_TIMEOUT,
        )
        config.secure = None if certificates is None else _current(certificates)
        self._server = _Server(config, certificates)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> Address:
        """Serve; the address that it listens on. StartError where that is not to be had."""
        listener = _listen(self._address)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started:
            if self._serving.done():
                listener.close()
                self._serving.result()
                raise StartError(f"http listener {self._address}: it ended before it served")
            await asyncio.sleep(0)
        return Address(self._address.host, listener.getsockname()[1])

    async def stop(self) -> None:
        """Take no more requests and let those under way end."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._serving = None


def _listen(address: Address) -> socket.socket:
    """A listening socket of the first address that the host stands for."""
    listener = None
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.setblocking(False)
    except OSError as error:
        if listener is not None:
            listener.close()
        words = (error.strerror or str(error)).lower()
        raise StartError(f"http listener {address}: {words}; choose another address with --http HOST:PORT") from None
    return listener


def probe(address: Address) -> None:
    """StartError where the address can't be listened on; for a start that wants to know before it changes anything."""
    _listen(address).close()


def serve(app: FastAPI, address: Address, tls: TlsSettings | None = None) -> HttpServer:
    """A server of the application; ``start`` and ``stop`` it. With ``tls`` it is HTTPS: keys say who calls, no client certificate is asked for."""
    if tls is None:
        return HttpServer(app, address)
    asking_nobody = msgspec.structs.replace(tls, client_ca=None, client_crl=None, require_client_certificate=False)
    return HttpServer(app, address, Certificates(asking_nobody))
