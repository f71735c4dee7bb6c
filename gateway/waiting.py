"""A record whose writer waits: the log's answer as a future. For single events, never on the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Record


class Waiting:
    """Give it to ``Log.append`` as the sink and await ``future``; LogError where the record is refused."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()

    def appended(self, records: Sequence[Record], first: At) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
