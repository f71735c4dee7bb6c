"""Opens the listeners and lets connections in, up to a limit. All of them open or none does. Each is a stream of bytes [MQTT-4.2-1].

On mqtt and mqtts the connection itself is the protocol of the loop's transport; on ws and wss a WebSocketProtocol stands
between. Knows no MQTT: connections come from a factory. Neighbours: sockets.py, tls.py, websocket.py, certificates.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final, cast

import msgspec

from gateway.transports.certificates import Certificates
from gateway.transports.endpoints import SECURE_KINDS, WEBSOCKET_KINDS, ByteProtocol, ListenerSpec
from gateway.transports.sockets import BACKLOG, bind, connection_limit, start_error
from gateway.transports.tls import ACCEPTS_AT_ONCE, Acceptor
from gateway.transports.websocket import WebSocketProtocol
from schemas.errors import StartError
from schemas.limits import Limits
from schemas.settings import TlsSettings

__all__ = ["ListenerSpec", "Listeners", "start_listeners"]

_log = logging.getLogger(__name__)

WATCH_EVERY: Final = 1.0
"""Seconds between looks at certificate files and at listeners that the loop has given up."""

Factory = Callable[[ListenerSpec], ByteProtocol]


class _Refused(asyncio.Protocol):
    """Cuts a connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


_REFUSED: Final = _Refused()


class _Plain:
    """A listening socket that the loop accepts from."""

    def __init__(self, spec: ListenerSpec, sock: socket.socket, server: asyncio.Server) -> None:
        self.spec = spec
        self.sock = sock
        self.server = server

    def stop(self) -> None:
        self.server.close()

    @property
    def is_lost(self) -> bool:
        """uvloop closes a listener for good after an accept that fails for another reason than its open-file reserve can cover."""
        return self.sock.fileno() < 0


class Listeners:
    """What listens. ``addresses``: the specs, with the ports that port 0 became."""

    def __init__(
        self,
        factory: Factory,
        certificates: Certificates | None,
        limits: Limits,
        occupied: Callable[[], int],
        refused: Callable[[str], None],
    ) -> None:
        self.addresses: tuple[ListenerSpec, ...] = ()
        self.connection_limit = connection_limit(limits.connections)
        self._factory = factory
        self._certificates = certificates
        self._limits = limits
        self._occupied = occupied
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._plain: list[_Plain] = []
        self._acceptors: list[Acceptor] = []
        self._upgrading: set[WebSocketProtocol] = set()
        self._accepted = 0
        self._serving = True
        self._watcher: asyncio.Task[None] | None = None

    async def open(self, bound: Sequence[tuple[ListenerSpec, socket.socket]]) -> None:
        for spec, sock in bound:
            try:
                if spec.kind in SECURE_KINDS or spec.proxies:
                    self._open_acceptor(spec, sock)
                else:
                    self._plain.append(_Plain(spec, sock, await self._serve(spec, sock)))
            except OSError as error:
                raise start_error(spec, error) from None
        self._watcher = self._loop.create_task(self._watch())

    def check(self) -> None:
        """New certificates come into force; a listener that the loop gave up is reported and opened again by the watch."""
        if self._certificates is not None:
            self._certificates.check()

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections live on."""
        self._serving = False
        for plain in self._plain:
            plain.stop()
        for acceptor in self._acceptors:
            acceptor.stop()

    async def close(self) -> None:
        """Stop accepting and break off what has not become a connection yet."""
        self.stop_accepting()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for acceptor in self._acceptors:
            await acceptor.close()
        for web in tuple(self._upgrading):
            web.abort()

    # Accepting

    def _admit(self) -> bool:
        """Whether there is room, counting connections, handshakes, upgrades and what was accepted in this turn of the loop."""
        opening = self._accepted + len(self._upgrading) + sum(len(acceptor.handshakes) for acceptor in self._acceptors)
        if self._occupied() + opening < self.connection_limit:
            return True
        self._refused("connections")
        return False

    def _accept(self, spec: ListenerSpec) -> asyncio.BaseProtocol:
        """The protocol of an accepted connection without TLS. It counts itself from ``connection_made`` on, the next thing to happen."""
        if not self._admit():
            return _REFUSED
        self._accepted += 1
        self._loop.call_soon(self._made_one)
        return cast("asyncio.BaseProtocol", self._make(spec))

    def _made_one(self) -> None:
        self._accepted -= 1

    def _make(self, spec: ListenerSpec) -> ByteProtocol:
        if spec.kind in WEBSOCKET_KINDS:
            return WebSocketProtocol(lambda: self._factory(spec), self._limits, self._upgrading, self._refused)
        return self._factory(spec)

    async def _serve(self, spec: ListenerSpec, sock: socket.socket) -> asyncio.Server:
        sock.listen(BACKLOG)  # here, since uvloop keeps its failure to itself
        server = await self._loop.create_server(lambda: self._accept(spec), sock=sock, backlog=ACCEPTS_AT_ONCE)
        sock.listen(BACKLOG)  # the loop's own argument is also how often asyncio tries in a row when no files are left
        return server

    def _open_acceptor(self, spec: ListenerSpec, sock: socket.socket) -> None:
        certificates = self._certificates if spec.kind in SECURE_KINDS else None
        acceptor = Acceptor(spec, sock, certificates, self._limits.connect_timeout, self._admit, self._make, self._refused)
        acceptor.start()
        self._acceptors.append(acceptor)

    # Watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self.check()
            for listener in self._plain:
                if listener.is_lost and self._serving:
                    await self._reopen(listener)

    async def _reopen(self, listener: _Plain) -> None:
        index = self._plain.index(listener)
        try:
            sock = next(iter(await bind(listener.spec)))
            try:
                server = await self._serve(listener.spec, sock)
            except BaseException:
                sock.close()
                raise
        except (StartError, OSError) as error:
            _log.error("listener lost listener=%s reason=%s", listener.spec.address, error)
            return
        self._plain[index] = _Plain(listener.spec, sock, server)
        _log.warning("listener opened again listener=%s", listener.spec.address)


async def start_listeners(
    specs: Sequence[ListenerSpec],
    factory: Factory,
    tls: TlsSettings | None,
    limits: Limits,
    *,
    occupied: Callable[[], int],
    refused: Callable[[str], None],
    trusted: Callable[[], str] = str,
) -> Listeners:
    """Open all of ``specs``, or raise StartError and leave nothing open. ``trusted``: see Certificates.

    ``occupied`` tells how many connections there are now; ``refused`` is told the reason of each one that was not let in:
    connections, proxy_header, tls_handshake, websocket_upgrade.
    """
    certificates = Certificates(tls or TlsSettings(), trusted) if any(spec.kind in SECURE_KINDS for spec in specs) else None
    listeners = Listeners(factory, certificates, limits, occupied, refused)
    bound: list[tuple[ListenerSpec, socket.socket]] = []
    addresses: list[ListenerSpec] = []
    try:
        for spec in specs:
            sockets = await bind(spec)
            bound += ((_bound_spec(spec, sock), sock) for sock in sockets)
            addresses.append(msgspec.structs.replace(spec, port=sockets[0].getsockname()[1]))
        listeners.addresses = tuple(addresses)
        await listeners.open(bound)
    except BaseException:
        await listeners.close()
        for _, sock in bound:
            with contextlib.suppress(OSError):
                sock.close()
        raise
    return listeners


def _bound_spec(spec: ListenerSpec, sock: socket.socket) -> ListenerSpec:
    """The spec of one of a listener's sockets."""
    host, port = sock.getsockname()[:2]
    return msgspec.structs.replace(spec, host=host, port=port)
