"""A record whose writer waits: the log's answer as a future. For single events, never on the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Record


class Waiting:
    """Give it to ``Log.append`` as the sink and await ``future``; LogError where the record is refused."""

    __slots__ = ("at", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self.at: At | None = None
        """Where the record lies, once it does."""

    def appended(self, records: Sequence[Record], first: At) -> None:
        self.at = first
        if not self.future.done():
            self.future.set_result(None)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
