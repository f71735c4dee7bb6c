"""The writing side of one shard: records gather while the frame before them is on its way, then go together as the next one.

One frame of a shard is on its way at a time, so order holds through every retry. A frame that was once sent is never refused while
the log is open: no answer can prove that it won't show up later, so its medium sends it again, the same bytes under the same number,
until it is acknowledged; readers drop the repeats. What has not been sent can be refused. No task, future or closure per record.

A mark is a frame that is asked for where there may be no record to send. Where several nodes write into one shard its offset tells what
nobody else can: all that anybody was told durable before lies in front of it, and all that lies in front of it is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Record, encode_frame
from streams.log import Sink

_log = logging.getLogger(__name__)

ASK_AGAIN: Final = 0.05
"""Seconds between looks at whether this node may write again."""


class Group:
    """What goes as one frame."""

    __slots__ = ("records", "sent", "sinks", "size")

    def __init__(self, records: list[Record], sinks: list[Sink], size: int) -> None:
        self.records = records
        self.sinks = sinks
        self.size = size
        self.sent = False
        """It was given to the medium's client: whether it lies in the log is known when that says so."""


def always() -> bool:
    """Nobody could have taken the place of who writes."""
    return True


async def permitted(may_write: Callable[[], bool]) -> None:
    """Wait until this node may write, as the store says: asked before a frame leaves, and before it leaves again."""
    while not may_write():  # noqa: ASYNC110 - it ends when the store answers, or the process does
        await asyncio.sleep(ASK_AGAIN)


class Medium(Protocol):
    """What has the log: Kafka, RocketMQ."""

    @property
    def title(self) -> str:
        """Its name in messages."""

    async def deliver(self, group: Group, name: str, shard: int, body: bytes) -> int:
        """Send for as long as it takes, and say so in ``group.sent``: the frame's offset, or -1 where it takes none of that size."""

    def trouble(self, name: str, shard: int) -> str:
        """Why a frame of the shard does not get through just now, empty where none is held up."""

    def recovered(self, name: str, shard: int) -> bool:
        """A frame of the shard is through: whether there was trouble, which is over with this call."""

    def larger(self, name: str) -> str:
        """What to raise so that a larger record goes into the topic."""


class Writer(Protocol):
    """What a lane needs of the writing side (writing.py)."""

    medium: Medium
    node: str
    epoch: int
    group_records: int
    group_bytes: int
    largest: int
    """Bytes of a frame that the topic takes."""
    clock: Callable[[], float]

    def number(self) -> int:
        """The next frame's."""

    def settled(self, lane: Lane, group: Group, offset: int) -> None:
        """The group is durable at ``offset``; counted once its sinks were told."""

    def left(self, group: Group) -> None:
        """The group was refused."""


class Lane:
    """Filled at the ends of its three lists by ``Log.append``."""

    def __init__(self, writer: Writer, topic: str, name: str, shard: int) -> None:
        self.topic = topic
        """As the port knows it; ``name`` is the medium's."""
        self.name = name
        self.shard = shard
        self.records: list[Record] = []
        self.sinks: list[Sink] = []
        self.sizes: list[int] = []
        self.idle = True
        self.groups: list[Group] = []
        """What was taken and is not settled, the one on its way last: more than one where a frame was too large."""
        self.since = 0.0
        """Since when, monotonic; 0.0 where nothing is."""
        self.stuck = False
        """For longer than ``refuse_after``: nothing is taken."""
        self.acknowledged = 0
        """The number of the newest frame that is durable. Those before it are, or can't be in the log."""
        self.end = 0
        """The offset behind it: what lies before that in the shard is durable, whoever wrote it."""
        self._writer = writer
        self._filled = asyncio.Event()
        self._mark: asyncio.Future[int] | None = None
        """Waits for the next frame that is begun; ``_marked`` for the one on its way."""
        self._marked: asyncio.Future[int] | None = None

    def ring(self) -> None:
        """There is something to send."""
        self._filled.set()

    async def mark(self) -> int:
        """The offset of a frame that was begun after this call and is durable, an empty one where no record waits. One for all who ask meanwhile.

        LogError where the log closes before.
        """
        if self._mark is None:
            self._mark = asyncio.get_running_loop().create_future()
            self._filled.set()
        # Who gives up must not take it from the others
        return await asyncio.shield(self._mark)

    async def run(self) -> None:
        """Send for as long as the log is open."""
        while True:
            if not self.records and self._mark is None:
                self.idle = True
                self._filled.clear()
                await self._filled.wait()
                continue
            group = self.take()
            self._marked, self._mark = self._mark, None
            before, self.since = self.acknowledged, self._writer.clock()
            await self._deliver(group)
            if self._marked is not None:
                if self.acknowledged == before:  # all of it was refused
                    await self._deliver(Group([], [], 0))
                self._marked.set_result(self.end - 1)
                self._marked = None
            self.since, self.stuck = 0.0, False

    def take(self, all_of_it: bool = False) -> Group:
        """The next group: what waits, as far as the limits go."""
        writer, count = self._writer, len(self.records)
        if not all_of_it:
            count = min(count, writer.group_records)
            if sum(self.sizes[:count]) > writer.group_bytes:
                count = max(1, sum(1 for size in accumulate(self.sizes[:count]) if size <= writer.group_bytes))
        if count == len(self.records):
            group = Group(self.records, self.sinks, sum(self.sizes))
            self.records, self.sinks, self.sizes = [], [], []
            return group
        group = Group(self.records[:count], self.sinks[:count], sum(self.sizes[:count]))
        del self.records[:count], self.sinks[:count], self.sizes[:count]
        return group

    async def _deliver(self, group: Group) -> None:
        """Until the group is in the log or can't be. What is too large goes in halves, one after the other."""
        writer, groups = self._writer, self.groups
        groups.append(group)
        while groups:
            group = groups[-1]
            try:
                number = writer.number()
                body = encode_frame(writer.node, writer.epoch, number, group.records)
            except (TypeError, ValueError, OverflowError) as error:
                groups[-1:] = self._without_bad(group, error)
                continue
            offset = await writer.medium.deliver(group, self.name, self.shard, body) if len(body) <= writer.largest else -1
            if offset < 0:
                groups[-1:] = self._halves(group, len(body))
            else:
                groups.pop()
                self.acknowledged, self.end = number, max(self.end, offset + 1)
                writer.settled(self, group, offset)

    def _halves(self, group: Group, size: int) -> list[Group]:
        """The second half first, as a stack has it."""
        half = len(group.records) // 2
        if not half:
            self.refuse(group, LogError(f"the record is too large for the log: {size} bytes; raise {self._writer.medium.larger(self.name)}"))
            return []
        first = Group(group.records[:half], group.sinks[:half], group.size // 2)
        return [Group(group.records[half:], group.sinks[half:], group.size - first.size), first]

    def _without_bad(self, group: Group, error: Exception) -> list[Group]:
        """Records that can't be written are refused, the rest goes on."""
        good, bad = Group([], [], 0), Group([], [], 0)
        for record, sink in zip(group.records, group.sinks, strict=True):
            try:
                encode_frame(self._writer.node, self._writer.epoch, 0, (record,))
                target = good
            except (TypeError, ValueError, OverflowError):
                target = bad
            target.records.append(record)
            target.sinks.append(sink)
        (good if good.records else bad).size = group.size
        self.refuse(bad, LogError(f"the record can't be written: {error}"))
        return [good] if good.records else []

    def refuse(self, group: Group, error: LogError) -> None:
        """Tell that nothing of the group is in the log."""
        self._writer.left(group)
        tell_runs(group, lambda sink: sink.refused, lambda _: error)

    def refuse_waiting(self, error: LogError) -> None:
        """What was not sent yet."""
        if self.records:
            self.refuse(self.take(all_of_it=True), error)

    def leave_marks(self, error: LogError) -> None:
        """The log closes: no mark will be told any more."""
        for mark in (self._marked, self._mark):
            if mark is not None and not mark.done():
                mark.set_exception(error)
                mark.exception()  # where nobody waits any more that is no mistake
        self._marked = self._mark = None


def tell_runs(group: Group, method: Callable[[Sink], Callable[[Sequence[Record], Any], None]], what: Callable[[int], At | LogError]) -> None:
    """Consecutive records of one sink in one call."""
    records, sinks = group.records, group.sinks
    start, count = 0, len(sinks)
    for index in range(1, count + 1):
        if index < count and sinks[index] is sinks[start]:
            continue
        try:
            method(sinks[start])(records if index - start == count else records[start:index], what(start))
        except Exception:  # noqa: BLE001
            # One sink's mistake must not keep the others from their answers.
            _log.exception("log.sink_failed")
        start = index
