"""The writing side of a log: a lane per topic and shard, what may be pending, deadlines, and what becomes of it all at the end.

A record that was given to the medium stays pending until it is in the log, for as long as the log is open; what waits behind it is
refused after ``refuse_after``. Only ``close`` gives up on what is on its way, and says so. lanes.py has one shard, the bridges the medium.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final
from zlib import crc32

from bridges.framed.lanes import Group, Lane, Medium, tell_runs
from bridges.framed.options import FramedOptions
from bridges.framed.reading import RECORD_OVERHEAD
from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Record
from streams.log import Pressure, Sink

_log = logging.getLogger(__name__)

WATCH_EVERY: Final = 0.25


class Writing:
    """``names`` are the medium's, by topic; ``largest`` the bytes of a frame that it takes. ``watched`` is called every ``WATCH_EVERY``."""

    def __init__(
        self,
        medium: Medium,
        names: Mapping[str, str],
        shards: int,
        identity: tuple[str, int],
        *,
        largest: int,
        limits: FramedOptions,
        clock: Callable[[], float],
        durable: Callable[[Lane], None] = lambda _: None,
        watched: Callable[[], None] = lambda: None,
    ) -> None:
        self.medium = medium
        self.node, self.epoch = identity
        self.group_records, self.group_bytes, self.largest = limits.group_records, limits.group_bytes, largest
        self.clock = clock
        self.frames = self.records = 0
        """Made durable, for metrics."""
        self.lanes = {topic: [Lane(self, topic, name, shard) for shard in range(shards)] for topic, name in names.items()}
        self.ends = {topic: dict.fromkeys(range(shards), 0) for topic in names}
        """By topic and shard the offset behind the newest frame that is known of."""
        self.refusal: LogError | None = None
        """Why nothing is taken any more."""
        self._limits = limits
        self._durable = durable
        self._watched = watched
        self._loop = asyncio.get_running_loop()
        self._sequence = 0
        self._pending_records = 0
        self._pending_bytes = 0
        self._drained: asyncio.Future[None] | None = None
        self._tasks = [self._loop.create_task(lane.run()) for lane in self._all()]
        self._tasks.append(self._loop.create_task(self._watch()))

    def _all(self) -> list[Lane]:
        return [lane for lanes in self.lanes.values() for lane in lanes]

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """As the port says. Past ``pending_records`` or ``pending_bytes`` a record is refused, which its sink may hear before earlier outcomes."""
        lanes = self.lanes[topic]
        lane = lanes[crc32(key.encode("utf-8", "surrogatepass")) % len(lanes)]
        size = len(record.payload) + len(record.topic) + len(record.properties) + RECORD_OVERHEAD
        limits = self._limits
        if self._pending_records >= limits.pending_records or self._pending_bytes > limits.pending_bytes or self.refusal is not None or lane.stuck:
            self._loop.call_soon(sink.refused, [record], self._why_refused(lane))
            return
        self._pending_records += 1
        self._pending_bytes += size
        lane.records.append(record)
        lane.sinks.append(sink)
        lane.sizes.append(size)
        if lane.idle:
            lane.idle = False
            # At the end of this round of the loop, so that the first frame is not one record.
            self._loop.call_soon(lane.ring)

    def _why_refused(self, lane: Lane) -> LogError:
        if self.refusal is not None:
            return self.refusal
        if lane.stuck:
            return LogError(f"{self.medium.title} has not answered for {self._limits.refuse_after:g} s: {self.medium.trouble(lane.name, lane.shard)}")
        return LogError(f"the log has more records waiting than its limit: {self.medium.title} is too slow or does not answer")

    def pressure(self) -> Pressure:
        """As the port says. A frame that takes longer than ``hang_after`` is a stall; one shard that is stuck counts for all."""
        oldest = min((lane.since for lane in self._all() if lane.since), default=0.0)
        stalled = oldest if oldest and self.clock() - oldest > self._limits.hang_after else 0.0
        return Pressure(self._pending_records, self._pending_bytes, stalled)

    async def close(self) -> None:
        """Once. What the medium does not acknowledge within ``close_within`` is refused."""
        self.refusal = LogError("the log is closed")
        if self._pending_records:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=self._limits.close_within)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._all():
            self._give_up(lane)

    def _give_up(self, lane: Lane) -> None:
        words = f"the log closed before {self.medium.title} acknowledged"
        while lane.groups:
            group = lane.groups.pop()
            lane.refuse(group, LogError(f"{words}: the record may be in the log all the same" if group.sent else f"{words}: nothing was sent"))
        lane.refuse_waiting(LogError(f"the log closed before the record was sent: {self.medium.title} does not answer"))
        lane.leave_marks(LogError("the log is closed"))

    # What lanes tell

    def number(self) -> int:
        """See ``lanes.Writer``."""
        self._sequence += 1
        return self._sequence

    def settled(self, lane: Lane, group: Group, offset: int) -> None:
        """See ``lanes.Writer``."""
        shard = lane.shard
        known = self.ends[lane.topic]
        known[shard] = max(known[shard], offset + 1)
        self.frames += 1
        self.records += len(group.records)
        self.left(group)
        if self.medium.recovered(lane.name, shard):
            _log.info("log.resumed topic=%s shard=%d seconds=%.1f", lane.name, shard, self.clock() - lane.since)
        tell_runs(group, lambda sink: sink.appended, lambda index: At(shard, offset, index))
        self._durable(lane)

    def left(self, group: Group) -> None:
        """See ``lanes.Writer``."""
        self._pending_records -= len(group.records)
        self._pending_bytes -= group.size
        if self._drained is not None and not self._pending_records and not self._drained.done():
            self._drained.set_result(None)

    async def _watch(self) -> None:
        """Deadlines."""
        limits = self._limits
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self._watched()
            now = self.clock()
            for lane in self._all():
                if lane.since and now - lane.since > limits.refuse_after:
                    lane.stuck = True
                    lane.refuse_waiting(self._why_refused(lane))
