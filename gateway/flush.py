"""Writes at the end of a loop tick: what a connection sent in the tick leaves as one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

AGAIN = 0.05


class Flushable(Protocol):
    def flush(self) -> None: ...


class Flusher:
    """Holds the connections that have bytes to send; at most one entry each.

    ``may_send`` is set where others could have taken this node's place: asked before each flush, and while it says no nothing leaves.
    """

    __slots__ = ("_dirty", "_loop", "_scheduled", "may_send")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Flushable] = []
        self._scheduled = False
        self.may_send: Callable[[], bool] | None = None

    def holds_back(self) -> bool:
        return self.may_send is not None and not self.may_send()

    def add(self, connection: Flushable) -> None:
        self._dirty.append(connection)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self.may_send is not None and not self.may_send():
            self._loop.call_later(AGAIN, self.flush)
            return
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()
