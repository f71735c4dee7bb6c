"""Who is here: sessions by client id, connections with their deadlines, and the turns of connects that want one client id."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from schemas.positions import At
from schemas.reasons import ReasonCode
from streams.expiry import TimerWheel

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node
    from gateway.session import Session

CLOSE_WITHIN = 3.0
"""Seconds for the last bytes of a connection that we close."""


class Registry:
    """Sessions of this node: connected ones, and persistent ones that are offline."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.active: set[Session] = set()
        """Sessions with kept deliveries that may be unsettled: what the settle tick looks at."""
        self.claiming: set[Session] = set()
        """Sessions whose claim is under way: what arrives for them meanwhile is in memory only and holds the position."""

        self.resuming: dict[object, tuple[At, ...]] = {}
        """Sessions that came from another node and are being brought up from the log, from these positions on; and what else holds the position."""

    def get(self, client: str) -> Session | None:
        return self.sessions.get(client)


class Connections:
    """Open connections: counted against the limit, closed at their deadlines."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: set[Connection] = set()
        self._wheel: TimerWheel[Connection] = TimerWheel(node.monotonic())

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> list[Connection]:
        return list(self._open)

    def opened(self, connection: Connection) -> None:
        """A connection was accepted; CONNECT must be complete within ``connect_timeout``."""
        self._open.add(connection)
        self._wheel.schedule(connection, connection.seen + self._node.limits.connect_timeout)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._node.guarding.left(connection)
        self._wheel.cancel(connection)

    def closing(self, connection: Connection) -> None:
        """We closed; a peer that does not take what was written last is cut off after ``CLOSE_WITHIN``."""
        if connection in self._open:
            self._wheel.schedule(connection, self._node.tick + CLOSE_WITHIN)

    def connected(self, connection: Connection) -> None:
        """The connect is answered: from now on keep-alive counts [MQTT-3.1.2-22]. The timer of the connect may fire first; it is looked at then."""
        if 0 < connection.keep_alive * 1.5 < self._node.limits.connect_timeout:
            self._wheel.schedule(connection, connection.seen + connection.keep_alive * 1.5)

    def tick(self, now: float) -> None:
        """Close those whose time is up; ``now`` monotonic seconds."""
        for connection in self._wheel.expired(now):
            if not connection.ready:
                if not connection.is_closed():
                    self._node.counters.refused["connect_timeout"] += 1
                    connection.shut()
                connection.cut()
                continue
            if not connection.keep_alive:
                continue
            due = connection.seen + connection.keep_alive * 1.5
            if connection.paused:
                due = now + connection.keep_alive * 1.5
            if due > now:
                self._wheel.schedule(connection, due)
            else:
                connection.close(ReasonCode.KEEP_ALIVE_TIMEOUT, "no heart")


class Turns:
    """One connect at a time per client id. Of those that wait only the newest is kept: the others are told to go."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy: dict[str, asyncio.Future[bool] | None] = {}

    async def take(self, client: str) -> bool:
        """Wait for the turn; False where a newer connect came in the meantime. Who gets True must ``give``."""
        if client not in self._busy:
            self._busy[client] = None
            return True
        waiting = self._busy[client]
        if waiting is not None and not waiting.done():
            waiting.set_result(False)
        mine: asyncio.Future[bool] = self._loop.create_future()
        self._busy[client] = mine
        return await mine

    def give(self, client: str) -> None:
        waiting = self._busy[client]
        if waiting is None or waiting.done():
            del self._busy[client]
        else:
            self._busy[client] = None
            waiting.set_result(True)
