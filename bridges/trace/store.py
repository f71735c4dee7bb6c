"""The trace's store: segments in a folder, one thread that writes and reads them, and what goes by age and size.

A call finds what was written before it, since both are jobs of that one thread, in order. Whatever fails here costs events of the trace,
which become a gap, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import apsw

from bridges.trace.segment import SUFFIX, Segment
from schemas.errors import StartError
from schemas.settings import TraceSettings
from schemas.traces import Row, TraceEvent, TraceGap, TracePage, TraceQuery
from streams.tracing import MAX_GAPS, TraceBusy

MAX_BATCHES: Final = 5
"""Batches on their way; a second's worth."""
MAX_QUERIES: Final = 16
SEGMENTS: Final = 16
"""What is kept is so many segments, about: the oldest one goes at a time."""
MAX_FILES: Final = 4 * SEGMENTS
SLACK_MS: Final = 60_000
"""An event may be written into a segment that was begun so much later than its own time."""

logger = logging.getLogger(__name__)


class TraceFolder:
    """``wall`` in ms."""

    def __init__(self, folder: Path, options: TraceSettings, wall: Callable[[], int] = lambda: int(time.time() * 1000)) -> None:
        self._folder = folder
        self._options = options
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trace")
        self._batches = 0
        self._queries = 0
        self._segments: list[Segment] = []
        self._is_open = False
        self._is_damaged = False
        self._failing = False
        self._owed: TraceGap | None = None
        """What could not be written, for when something can be."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._segments = [Segment(folder, int(path.stem)) for path in sorted(folder.glob("*" + SUFFIX)) if path.stem.isdecimal()]
        except OSError as error:
            raise StartError(f"trace: {folder} can't be used: {error.strerror}") from None

    # On the event loop

    def write(self, rows: Sequence[Row], gap: TraceGap | None) -> bool:
        """See ``streams.tracing.TraceStore``."""
        if self._batches >= MAX_BATCHES:
            return False
        self._batches += 1
        self._thread.submit(self._write, rows, gap)
        return True

    async def find(self, query: TraceQuery) -> TracePage:
        """See ``streams.tracing.TraceStore``."""
        if self._queries >= MAX_QUERIES:
            raise TraceBusy(f"{MAX_QUERIES} queries of the trace are under way: try again")
        self._queries += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._find, query)
        finally:
            self._queries -= 1

    async def close(self) -> None:
        """See ``streams.tracing.TraceStore``."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    # On the thread

    def _write(self, rows: Sequence[Row], gap: TraceGap | None) -> None:
        gap = _joined(self._owed, gap)
        try:
            self._current().write(rows, gap)
            self._owed = None
            if self._failing:
                self._failing = False
                logger.warning("trace-goes-on")
            self._retain()
        except (apsw.Error, OSError, ValueError) as error:
            now = self._wall()
            times = [row[0] for row in rows] or [now]
            self._owed = _joined(gap, TraceGap(begin=min(times), end=now, messages=0, events=len(rows)))
            if not self._failing:
                self._failing = True
                logger.warning("trace-failed error=%s", error)
            self._give_up(error)
        finally:
            self._batches -= 1

    def _current(self) -> Segment:
        """The segment to write to: the newest, until it is full or old."""
        now, options = self._wall(), self._options
        if self._segments:
            newest = self._segments[-1]
            has_room = newest.size * SEGMENTS < options.retention_bytes and now - newest.begin < options.retention_age * 1000 / SEGMENTS
            if has_room and not self._is_damaged:
                if not self._is_open:
                    newest.open()
                    self._is_open = True
                return newest
            newest.close()
            self._is_open = False
        segment = Segment(self._folder, max(now, self._segments[-1].begin + 1 if self._segments else 0))
        segment.open()
        self._segments.append(segment)
        self._is_open, self._is_damaged = True, False
        return segment

    def _give_up(self, error: Exception) -> None:
        """Open it anew at the next batch; one that is damaged is left as it is, for another one."""
        if self._is_open:
            self._segments[-1].close()
            self._is_open = False
        self._is_damaged = isinstance(error, apsw.CorruptError | apsw.NotADBError)

    def _retain(self) -> None:
        """Remove what is over the size or past its age, oldest first."""
        options, segments = self._options, self._segments
        oldest = self._wall() - options.retention_age * 1000
        size = sum(segment.size for segment in segments)
        while len(segments) > 1 and (size > options.retention_bytes or len(segments) > MAX_FILES or segments[1].begin < oldest):
            size -= segments[0].size
            segments.pop(0).remove()

    def _find(self, query: TraceQuery) -> TracePage:
        total, skip, limit = 0, (query.page - 1) * query.size, query.size
        events: list[TraceEvent] = []
        gaps: list[TraceGap] = []
        ends = [segment.begin for segment in self._segments[1:]] + [self._wall()]
        concerned = [
            (segment, end)
            for segment, end in zip(self._segments, ends, strict=False)  # before the first batch there is none
            if segment.begin - SLACK_MS <= query.end and end + SLACK_MS >= query.begin
        ]
        for segment, end in reversed(concerned) if query.newest_first else concerned:
            try:
                count, found, missed = segment.find(query, max(0, skip), limit - len(events))
            except (apsw.Error, OSError) as error:
                logger.warning("trace-unreadable segment=%s error=%s", segment.path.name, error)
                gaps.append(TraceGap(begin=segment.begin, end=end, messages=0, events=0))
                continue
            total, skip = total + count, skip - count
            events += found
            gaps += missed
        if self._owed is not None:
            gaps.append(self._owed)
        return TracePage(total, events, sorted(gaps, key=lambda gap: gap.begin)[-MAX_GAPS:])

    def _close(self) -> None:
        if self._is_open:
            self._segments[-1].close()


def _joined(one: TraceGap | None, other: TraceGap | None) -> TraceGap | None:
    if one is None or other is None:
        return one or other
    return TraceGap(
        begin=min(one.begin, other.begin),
        end=max(one.end, other.end),
        messages=one.messages + other.messages,
        events=one.events + other.events,
    )
