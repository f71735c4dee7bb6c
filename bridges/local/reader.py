"""A reader of the embedded log: from memory while it keeps up, from disk while it catches up.

A place is a record number (``offset + index``), and frames follow each other without a gap, so the way from disk to
memory and back needs no handover. Runs on the event loop's thread; disk reads are jobs of the keeper (keeper.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from bridges.local.tail import Stored, Tail
from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Record
from streams.log import Batch

_T = TypeVar("_T")

RECORD_OVERHEAD = 64
"""Bytes that a record counts beside its payload, topic and properties."""


def record_size(record: Record) -> int:
    """What a record counts in limits of bytes."""
    return len(record.payload) + len(record.topic) + len(record.properties) + RECORD_OVERHEAD


class Feed(Protocol):
    """What a reader needs of its topic; log.py has it."""

    end: int
    """Behind the newest record that is durable and told."""
    tail: Tail

    def load(self, number: int) -> asyncio.Future[list[Stored]]:
        """Frames from disk from record ``number`` on, before ``end``."""

    def find(self, time: int) -> asyncio.Future[int]:
        """The first frame that is not older than ``time``."""


class EmbeddedReader:
    """One consumer at a time. ``released``: what lies before it may be forgotten."""

    def __init__(self, feed: Feed, number: int, time: int | None, closed: Callable[[EmbeddedReader], None]) -> None:
        self.released = number
        self._feed = feed
        self._number = number
        self._time = time
        """Where to start, until it was looked up."""
        self._closed_by = closed
        self._closed = False
        self._loaded: deque[Stored] = deque()
        self._had: dict[str, tuple[int, int]] = {}
        """By node the newest (epoch, sequence) that was read."""
        self._news: asyncio.Future[None] | None = None
        self._asked: asyncio.Future[Any] | None = None
        """What a waiting ``next`` waits for, ``_news`` or an answer of the keeper."""

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """As the port says."""
        while True:
            if self._closed:
                raise LogError("the reader of the log is closed")
            if self._time is not None:
                await self._seek(self._time)
            number = self._number
            if number >= self._feed.end:
                await self._more()
                continue
            frame = self._find(number)
            if frame is None:
                await self._load(number)
            elif number > frame.first or self._is_new(frame):
                return self._cut(frame, number, max_records, max_bytes)
            else:
                self._number = frame.next

    @property
    def number(self) -> int:
        """The next record to read."""
        return self._number

    def lag(self) -> int:
        """As the port says."""
        return self._feed.end - self._number

    def release(self, upto: At) -> None:
        """As the port says."""
        self.released = max(self.released, upto.offset + upto.index)

    def close(self) -> None:
        """As the port says."""
        self._closed = True
        if self._asked is not None:
            self._asked.cancel()
        self._closed_by(self)

    def wake(self) -> None:
        """There are new records."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _more(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._answer(self._news)
        finally:
            self._news = None

    async def _answer(self, asked: asyncio.Future[_T]) -> _T:
        """Wait so that ``close`` can end it."""
        self._asked = asked
        try:
            return await asked
        finally:
            self._asked = None

    async def _seek(self, time: int) -> None:
        """The first frame that is not older, and in it the first record."""
        self._number = await self._answer(self._feed.find(time))
        if self._number < self._feed.end:
            frame = self._find(self._number) or (await self._load(self._number))
            self._number += next((index for index, record in enumerate(frame.records) if record.time >= time), 0)
        self._time = None

    def _find(self, number: int) -> Stored | None:
        loaded = self._loaded
        while loaded and loaded[0].next <= number:
            loaded.popleft()
        return loaded[0] if loaded else self._feed.tail.find(number)

    async def _load(self, number: int) -> Stored:
        """Read ahead from disk; retention may have passed ``number`` meanwhile."""
        frames = await self._answer(self._feed.load(number))
        self._loaded.extend(frames)
        self._number = max(number, frames[0].first)
        return frames[0]

    def _is_new(self, frame: Stored) -> bool:
        return self._had.get(frame.node, (-1, -1)) < (frame.epoch, frame.sequence)

    def _cut(self, frame: Stored, number: int, max_records: int, max_bytes: int) -> Batch:
        """The frame's records from ``number`` on, as many as the limits allow."""
        self._had[frame.node] = (frame.epoch, frame.sequence)
        index = number - frame.first
        records = frame.records
        if index or len(records) > max_records:
            records = records[index : index + max_records]
        if frame.size > max_bytes:
            sizes = accumulate(map(record_size, records))
            fitting = sum(1 for size in sizes if size <= max_bytes)
            records = records[: max(1, fitting)]
        self._number = number + len(records)
        return Batch(At(0, frame.first, index), records)
