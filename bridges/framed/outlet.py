"""Where a reader of a log hands out what it has fetched, to one caller at a time. Neighbours: reading.py holds it, the bridges' readers fill it."""

from __future__ import annotations

import asyncio

from bridges.framed.reading import Fetch
from schemas.errors import LogError, SluicewayError
from streams.log import Batch


class Outlet:
    """``fetched`` is filled by the reader's tasks, which say so with ``wake``, or with ``fail`` that nothing more will come."""

    def __init__(self, fetched: Fetch) -> None:
        self._fetched = fetched
        self._news: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._failure: SluicewayError | None = None
        self._closed = False

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """As ``streams.log.Reader`` says."""
        while not self._fetched:
            if self._closed:
                raise LogError("the reader of the log is closed")
            if self._failure is not None:
                raise self._failure
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        if self._closed:
            raise LogError("the reader of the log is closed")
        batch = self._fetched.cut(max_records, max_bytes)
        self._room.set()
        return batch

    async def room(self, most: int) -> None:
        """Until no more than ``most`` bytes wait to be handed out."""
        while self._fetched.size > most:
            self._room.clear()
            await self._room.wait()

    def wake(self) -> None:
        """There may be something to hand out."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def fail(self, error: SluicewayError) -> None:
        """What is there is handed out, then this is raised."""
        self._failure = error
        self.wake()

    def close(self) -> None:
        """Nothing is handed out any more; who waits is cancelled."""
        self._closed = True
        if self._news is not None:
            self._news.cancel()
