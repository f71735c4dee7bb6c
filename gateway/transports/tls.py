"""Accepts connections of a listener with TLS or behind proxies, and sees headers and handshakes through, within a deadline each.

What comes out is the loop's own transport with the connection as its protocol: no layer of ours stays in between.
Neighbours: certificates.py has the context in force, proxy.py reads headers, listeners.py admits and makes connections.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, cast

import msgspec

from gateway.transports.certificates import Certificates
from gateway.transports.endpoints import ByteProtocol, ListenerSpec
from gateway.transports.peer import is_within
from gateway.transports.proxy import ProxyRefused, read_header
from gateway.transports.sockets import BACKLOG

_log = logging.getLogger(__name__)

ACCEPTS_AT_ONCE: Final = 64
"""Accepts in one turn of the loop, so that a herd leaves room for the connections that are there."""
ACCEPT_PAUSE: Final = 1.0
"""Seconds without accepting when the system has no file or memory left for a socket; trying again at once would spin."""
SHUTDOWN_WITHIN: Final = 5.0
"""Seconds that a peer has to answer the end of TLS."""


class Acceptor:
    """One listening socket. ``certificates`` None: without TLS. ``admit`` counts a refusal itself; ``make`` gives the protocol of a connection."""

    def __init__(
        self,
        spec: ListenerSpec,
        sock: socket.socket,
        certificates: Certificates | None,
        handshake_within: float,
        admit: Callable[[], bool],
        make: Callable[[ListenerSpec], ByteProtocol],
        refused: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._sock = sock
        self._certificates = certificates
        self._handshake_within = handshake_within
        self._admit = admit
        self._make = make
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self.handshakes: dict[asyncio.Task[None], socket.socket] = {}
        """Bounded by the limit of connections, which counts them."""

    def start(self) -> None:
        self._sock.listen(BACKLOG)
        self._loop.add_reader(self._sock, self._accept)

    def stop(self) -> None:
        """Accept no more; handshakes go on."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    async def close(self) -> None:
        """Stop, and break off handshakes."""
        self.stop()
        for task in self.handshakes:
            task.cancel()
        await asyncio.gather(*self.handshakes, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("accept paused listener=%s seconds=%s reason=%s", self._sock.getsockname(), ACCEPT_PAUSE, error.strerror)
                self._loop.remove_reader(self._sock)
                self._retry = self._loop.call_later(ACCEPT_PAUSE, self._resume)
                return
            if not self._admit():
                sock.close()
                continue
            sock.setblocking(False)
            task = self._loop.create_task(self._open(sock, address))
            self.handshakes[task] = sock
            task.add_done_callback(self._done)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock, self._accept)

    def _done(self, task: asyncio.Task[None]) -> None:
        sock = self.handshakes.pop(task)
        if task.cancelled():
            sock.close()  # a task cancelled before its first step has given it to nobody

    async def _open(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """From a socket to a connection. Who comes from no proxy speaks for itself: a header of its own is no MQTT, TLS or HTTP, and ends it."""
        spec = self._spec
        if spec.proxies and is_within(address[0], spec.proxies):
            try:
                async with asyncio.timeout(self._handshake_within):
                    spec = msgspec.structs.replace(spec, source=await read_header(sock) or address[:2])
            except (ProxyRefused, OSError) as error:  # a TimeoutError is one
                sock.close()
                self._refused("proxy_header")
                _log.info("proxy-header-refused proxy=%s reason=%s", address[0], str(error) or "it came too slowly")
                return
        await self._shake_hands(sock, spec)

    async def _shake_hands(self, sock: socket.socket, spec: ListenerSpec) -> None:
        make = cast("Callable[[], asyncio.Protocol]", lambda: self._make(spec))
        try:
            if self._certificates is None:
                await self._loop.connect_accepted_socket(make, sock)
                return
            await self._loop.connect_accepted_socket(
                make,
                sock,
                ssl=self._certificates.context,
                ssl_handshake_timeout=self._handshake_within,
                ssl_shutdown_timeout=SHUTDOWN_WITHIN,
            )
        except OSError as error:
            self._refused("tls_handshake")
            _log.debug("handshake failed reason=%s", error)
