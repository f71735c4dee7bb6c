"""The writer: the one thread that makes groups of records durable.

It takes what waits, encodes it, writes it in one transaction with one sync, and tells the event loop once a group. A group
that fails is tried again until it succeeds or the log closes; after anything but a full disk it is written into a new
segment, because a file handle whose sync failed once proves nothing any more. Neighbours: log.py (fills the lanes),
segment.py (the transaction), keeper.py (new segments, checkpoints).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Final

import apsw

from bridges.local import segment as segments
from bridges.local.keeper import WAL_STEP, Keeper, OpenSegment
from bridges.local.options import LogOptions
from bridges.local.segment import PAGE, TOPICS, Row, make_row
from schemas.errors import LogError
from schemas.records import Record, encode_frame
from streams.log import Sink

_log = logging.getLogger(__name__)

_SAME_HANDLE: Final = (apsw.FullError, apsw.BusyError, apsw.LockedError)
"""Errors before anything was synced, after which SQLite writes the same place again."""


class Lane:
    """What waits for the writer in one topic: three lists of equal length, filled at their ends by the event loop's thread.

    There is no lock: each step is one call on a list, which the interpreter lock makes whole. ``sizes`` is appended to last
    and is the one whose length counts.
    """

    __slots__ = ("records", "sinks", "sizes")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.sinks: list[Sink] = []
        self.sizes: list[int] = []

    def take(self, most: int, room: int) -> Part | None:
        """The oldest records, at most ``most`` and ``room`` bytes, but at least one."""
        sizes = self.sizes[:most]
        if not sizes or most <= 0:
            return None
        size = sum(sizes)
        while size > room and len(sizes) > 1:
            size -= sizes.pop()
        count = len(sizes)
        part = Part(self.records[:count], self.sinks[:count], size)
        del self.records[:count], self.sinks[:count], self.sizes[:count]
        return part


class Part:
    """The records of one topic in a group; with ``frame`` once it is durable, or ``error`` where it never will be."""

    __slots__ = ("error", "first", "records", "sequence", "sinks", "size", "topic", "width")

    def __init__(self, records: list[Record], sinks: list[Sink], size: int) -> None:
        self.records = records
        self.sinks = sinks
        self.size = size
        """As accounted when they were appended."""
        self.topic = ""
        self.first = 0
        self.sequence = 0
        self.width = 0
        """Bytes of the frame."""
        self.error: LogError | None = None


class Writer:
    """Attributes without underscore are for metrics, and for ``pressure``; this thread writes them, anyone reads them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: LogOptions,
        keeper: Keeper,
        identity: tuple[str, int],
        clock: Callable[[], float],
        told: Callable[[list[Part]], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.lanes = {topic: Lane() for topic in TOPICS}
        self.idle = False
        """Waits for the bell; who appends then rings it."""
        self.closing = False
        self.under_way: list[Part] = []
        """The group that was taken and not told of yet."""
        self.groups = 0
        self.records = 0
        self.bytes = 0
        self.commit_seconds = 0.0
        self.retries = 0
        self.last_error = ""
        self.started = 0.0
        """When the commit under way began; 0.0 for none."""
        self.failing_since = 0.0
        self._loop = loop
        self._options = options
        self._keeper = keeper
        self.node, self.epoch = identity
        self._clock = clock
        self._told = told
        self._ended = ended
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._give_up = threading.Event()
        self._held: OpenSegment | None = None
        self._roll_at = 0.0
        self._written = 0
        self._next: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._sequence = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self, ends: Mapping[str, int], times: Mapping[str, int]) -> None:
        """Go on where the topics end."""
        self._next, self._times = dict(ends), dict(times)
        self._thread.start()

    def ring(self) -> None:
        """Wake the writer."""
        self._bell.put(None)

    def give_up(self) -> None:
        """Don't try again what fails."""
        self._give_up.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while parts := self._wait_for_work():
                self.under_way = parts
                self._make_durable(parts)
                self.under_way = []
                self._loop.call_soon_threadsafe(self._told, parts)
            if self._held is not None:
                self._keeper.retire(self._held, self._next)
        except BaseException as error:  # noqa: BLE001 a dead writer must be heard of, whatever killed it
            failure = error
        self._loop.call_soon_threadsafe(self._ended, failure)

    def _wait_for_work(self) -> list[Part]:
        """The next group; empty when the log closes and nothing is left."""
        while True:
            parts = self._take()
            if parts:
                return parts
            if self.closing:
                return []
            self.idle = True
            # Looked at again after saying so: who appended before did not ring.
            if not any(lane.sizes for lane in self.lanes.values()) and not self.closing:
                self._bell.get()
            self.idle = False

    def _take(self) -> list[Part]:
        most, room = self._options.group_records, self._options.group_bytes
        parts: list[Part] = []
        for topic, lane in self.lanes.items():
            if lane.sizes and room > 0 and (part := lane.take(most, room)) is not None:
                part.topic = topic
                most -= len(part.records)
                room -= part.size
                parts.append(part)
        return parts

    def _make_durable(self, parts: list[Part]) -> None:
        """Write the group, however often it takes; what can't be is marked with its error."""
        rows = [row for part in list(parts) for row in self._encode(part, parts)]
        self.started = self._clock()
        pause = self._options.backoff_first
        while rows:
            try:
                self._commit(rows)
                break
            except (apsw.Error, LogError) as error:
                self._note(error)
            if self._give_up.wait(pause):
                self._refuse(parts)
                break
            pause = min(pause * 2, self._options.backoff_longest)
        self.started = 0.0

    def _encode(self, part: Part, parts: list[Part]) -> list[Row]:
        """The part's frame; none where no record of it can be written. Records that can't be become a part of their own."""
        try:
            body = encode_frame(self.node, self.epoch, self._sequence, part.records)
        except (TypeError, ValueError, OverflowError) as error:
            self._set_apart(part, parts, error)
            if not part.records:
                parts.remove(part)
                return []
            body = encode_frame(self.node, self.epoch, self._sequence, part.records)
        part.first, part.sequence, part.width = self._next[part.topic], self._sequence, len(body)
        self._sequence += 1
        time = max(self._times[part.topic], part.records[-1].time)
        return [make_row(part.topic, part.first, len(part.records), time, body)]

    def _set_apart(self, part: Part, parts: list[Part], error: Exception) -> None:
        bad = Part([], [], 0)
        bad.topic = part.topic
        bad.error = LogError(f"the record can't be written: {error}")
        good = Part([], [], part.size)
        for record, sink in zip(part.records, part.sinks, strict=True):
            try:
                encode_frame(self.node, self.epoch, 0, (record,))
                target = good
            except (TypeError, ValueError, OverflowError):
                target = bad
            target.records.append(record)
            target.sinks.append(sink)
        part.records, part.sinks = good.records, good.sinks
        if not part.records:
            bad.size = part.size
        parts.insert(0, bad)

    def _commit(self, rows: list[Row]) -> None:
        held = self._held or self._next_segment()
        self._held = held
        segment = held.segment
        fresh = segment not in self._keeper.segments[-1:]
        begun = self._clock()
        segments.write(held.cursor, rows, self._next if fresh else None)
        now = self._clock()
        if fresh:
            segment.base, segment.end, segment.time = dict(self._next), dict(self._next), dict(self._times)
            self._keeper.segments.append(segment)
            self._roll_at, self._written = now + self._options.segment_age, 0
        for row in rows:
            self._next[row.topic] = row.next
            self._times[row.topic] = segment.time[row.topic] = row.time
            self._count(held, row)
        self.groups += 1
        self.commit_seconds += now - begun
        if self.failing_since:
            _log.info("log.resumed seconds=%.1f", now - self.failing_since)
            self.failing_since = 0.0
        if now >= self._roll_at or self._written >= self._options.segment_bytes:
            self._roll(held, now)
        elif held.help or held.unchecked >= self._options.checkpoint_bytes:
            self._check_in(held)

    def _count(self, held: OpenSegment, row: Row) -> None:
        size = len(row.body)
        wal = (size // PAGE + 2) * WAL_STEP
        held.unchecked += wal
        held.wal += wal
        self._written += size
        self.bytes += size
        self.records += row.next - row.first

    def _next_segment(self) -> OpenSegment:
        spare = self._keeper.take_spare()
        if spare is None:
            raise LogError("no new segment can be made")
        return spare

    def _roll(self, held: OpenSegment, now: float) -> None:
        """Go on in the next segment, if one is ready; else in this one for a while."""
        spare = self._keeper.take_spare()
        if spare is not None:
            self._keeper.retire(held, self._next)
            self._held = spare
        else:
            self._roll_at, self._written = now + self._options.backoff_longest, 0

    def _check_in(self, held: OpenSegment) -> None:
        """Ask for a checkpoint. Where the writer has outrun it, do the rest of it here: pages of the last moment, and one sync."""
        if held.help or held.wal > 4 * max(self._options.wal_bytes, self._options.checkpoint_bytes):
            held.help, held.unchecked = False, 0
            try:
                with held.turn:
                    pages, done = held.database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error as error:
                _log.warning("log.checkpoint_failed error=%s", error)
                return
            held.wal = 0 if pages == done else pages * WAL_STEP
        elif not held.checking:
            held.unchecked = 0
            self._keeper.check_in(held)

    def _note(self, error: Exception) -> None:
        """A commit failed: remember it, and leave the segment unless it is certain that nothing of the group was synced."""
        self.retries += 1
        self.last_error = str(error)
        if not self.failing_since:
            self.failing_since = self._clock()
            _log.error("log.commit_failed error=%s", error)
        if self._held is not None and not isinstance(error, _SAME_HANDLE):
            held, self._held = self._held, None
            self._keeper.retire(held, self._next)

    def _refuse(self, parts: list[Part]) -> None:
        for part in parts:
            if part.error is None:
                part.error = LogError(f"the log closed before the record was durable: {self.last_error}")
