"""The connections of one client, by address: opened when they are first needed, and again, with growing pauses, when they are lost.

client.py asks through these; connection.py is one of them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from bridges.rocketmq.connection import Connection, Sign, connect
from bridges.rocketmq.errors import Unreachable
from schemas.errors import BackendError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2.0
PAUSE_FIRST, PAUSE_LONGEST = 0.2, 5.0
"""Seconds between tries to connect: they double. Short enough that a rule goes on soon after its broker does."""

PEERS_LIMIT = 4096
"""Addresses that name servers may tell us to connect to."""


class _Peer:
    """An address. ``trouble`` is why it can't be used just now."""

    __slots__ = ("connection", "opening", "pause", "retry_at", "trouble")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.opening: asyncio.Task[Connection] | None = None
        self.pause = PAUSE_FIRST
        self.retry_at = 0.0
        self.trouble = ""


class Peers:
    """``opened`` is called with each new connection before anybody else gets it."""

    def __init__(self, context: ssl.SSLContext | None, sign: Sign | None, opened: Callable[[Connection], None]) -> None:
        self._context = context
        self._sign = sign
        self._opened = opened
        self._peers: dict[str, _Peer] = {}
        self._closed = False

    def ready(self, address: str) -> Connection | None:
        """The connection if there is a live one."""
        peer = self._peers.get(address)
        return peer.connection if peer is not None and peer.connection is not None and not peer.connection.closed else None

    def live(self) -> list[Connection]:
        return [peer.connection for peer in self._peers.values() if peer.connection is not None and not peer.connection.closed]

    async def connection(self, address: str) -> Connection:
        """A live connection. Unreachable at once while the address is in a pause after a failure."""
        connection = self.ready(address)
        if connection is not None:
            return connection
        if self._closed:
            raise Unreachable("the connection is closed")
        peer = self._peers.get(address)
        if peer is None:
            if len(self._peers) >= PEERS_LIMIT:
                raise Unreachable(f"name servers told of more than {PEERS_LIMIT} addresses")
            peer = self._peers[address] = _Peer()
        if peer.opening is None:
            if asyncio.get_running_loop().time() < peer.retry_at:
                raise Unreachable(peer.trouble)
            peer.opening = asyncio.create_task(self._open(address, peer))
            # The error reaches those who wait; nobody may be left when it comes.
            peer.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        # A caller that is cancelled must not cancel the others' connection.
        return await asyncio.shield(peer.opening)

    async def _open(self, address: str, peer: _Peer) -> Connection:
        try:
            connection = await connect(address, self._context, self._sign, within=CONNECT_TIMEOUT)
        except BackendError as error:
            self._failed(peer, str(error))
            log.info("rocketmq_unreachable error=%s", error)
            raise
        finally:
            peer.opening = None
        peer.connection = connection
        self._opened(connection)
        return connection

    def _failed(self, peer: _Peer, words: str) -> None:
        self._look(peer)
        peer.trouble = words
        peer.retry_at = asyncio.get_running_loop().time() + peer.pause
        peer.pause = min(peer.pause * 2, PAUSE_LONGEST)

    def _look(self, peer: _Peer) -> None:
        """A peer that speaks is well. That it took a connection says nothing: a process that was stopped does."""
        connection = peer.connection
        if peer.trouble and connection is not None and connection.heard and not connection.closed:
            log.info("rocketmq_reachable peer=%s", connection.peer)
            peer.pause, peer.trouble = PAUSE_FIRST, ""

    def suspect(self, connection: Connection, words: str) -> None:
        """It owed an answer for too long: what comes next gets a new connection, after the pause of a failure."""
        peer = self._peers.get(connection.peer)
        if peer is not None and peer.connection is connection and not connection.closed:
            self._failed(peer, words)
            connection.close(words)

    def trouble(self, address: str) -> str:
        """Why the address can't be used just now, empty while it can or nobody tried."""
        peer = self._peers.get(address)
        if peer is None:
            return ""
        self._look(peer)
        return peer.trouble

    def retain(self, addresses: set[str]) -> None:
        """Close connections to all others: their brokers are no more."""
        for address in self._peers.keys() - addresses:
            peer = self._peers[address]
            if peer.opening is None:
                if peer.connection is not None:
                    peer.connection.close()
                del self._peers[address]

    async def close(self) -> None:
        self._closed = True
        opening = [peer.opening for peer in self._peers.values() if peer.opening is not None]
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in self.live():
            connection.close()
        self._peers.clear()
