"""The embedded log: the port ``streams.log.Log`` over segments in a folder of this machine, one shard a topic.

This is the part on the event loop's thread: it takes records, tells their sinks a group at a time, and feeds readers with
the very objects that became durable. The writer's thread commits (writer.py), the keeper's does whatever else blocks
(keeper.py). Its parts know nothing of MQTT.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bridges.local.keeper import Keeper
from bridges.local.options import LogOptions
from bridges.local.reader import RECORD_OVERHEAD, EmbeddedReader
from bridges.local.recovery import lock_folder, recover
from bridges.local.segment import TOPICS
from bridges.local.tail import Stored, Tail
from bridges.local.writer import Lane, Part, Writer
from schemas.errors import LogDamaged, LogError
from schemas.positions import At
from schemas.records import Record
from streams.log import Pressure, Reader, Sink, Start

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_DEFAULTS = LogOptions()


def _wall() -> int:
    return time.time_ns() // 1_000_000


class _Topic:
    """One topic: what waits for the writer, what is durable, who reads (a ``reader.Feed``)."""

    def __init__(self, name: str, lane: Lane, tail: Tail, log: EmbeddedLog) -> None:
        self.name = name
        self.lane = lane
        self.tail = tail
        self.end = 0
        self.readers: set[EmbeddedReader] = set()
        self._log = log

    def load(self, number: int) -> asyncio.Future[list[Stored]]:
        return self._log.ask(partial(self._log.keeper.read, self.name, number, self.end))

    def find(self, time: int) -> asyncio.Future[int]:
        return self._log.ask(partial(self._log.keeper.find_time, self.name, time, self.end))


async def open_log(
    folder: Path,
    *,
    node: str,
    epoch: int,
    loop: asyncio.AbstractEventLoop | None = None,
    options: LogOptions = _DEFAULTS,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], int] = _wall,
) -> EmbeddedLog:
    """The log in ``folder``, checked and ready. StartError or LogDamaged with one line where it can't be; the folder is then as it was.

    ``epoch`` is higher than at any earlier start of ``node``. ``wall`` in milliseconds.
    """
    log = EmbeddedLog(folder, (node, epoch), loop or asyncio.get_running_loop(), options, (monotonic, wall))
    log.keeper.start()
    try:
        await log.ask(log.start)
    except BaseException:
        await log.let_go()
        raise
    return log


class EmbeddedLog:
    """Made by ``open_log``. ``writer`` and ``keeper`` carry counters for metrics."""

    def __init__(
        self,
        folder: Path,
        identity: tuple[str, int],
        loop: asyncio.AbstractEventLoop,
        options: LogOptions,
        clocks: tuple[Callable[[], float], Callable[[], int]],
    ) -> None:
        monotonic, wall = clocks
        self.keeper = Keeper(folder, options, wall)
        self.writer = Writer(loop, options, self.keeper, identity, monotonic, self._told, self._ended)
        self._folder = folder
        self._loop = loop
        self._options = options
        self._clock = monotonic
        self._topics = {name: _Topic(name, self.writer.lanes[name], Tail(options.tail_frames, options.tail_bytes), self) for name in TOPICS}
        self._pending_records = 0
        self._pending_bytes = 0
        self._refusal: LogError | None = None
        """Why nothing more is taken."""
        self._lock = -1
        self._hung = False
        """The writer was left behind; what it says from then on counts no more."""
        self._done: asyncio.Future[None] = loop.create_future()
        self.keeper.needed = self._needed

    def start(self) -> None:
        """Check the folder and begin to write; on the keeper's thread."""
        self._lock = lock_folder(self._folder)
        found = recover(self._folder, self._options.vfs, self.writer.node, self.writer.epoch)
        self.keeper.segments = found.kept
        self.keeper.number = found.number
        for name, topic in self._topics.items():
            topic.end = found.ends[name]
        self.keeper.prepare_first()
        self.writer.start(found.ends, found.times)

    # The port

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """As the port says. Past ``pending_records`` or ``pending_bytes`` a record is refused, which its sink may hear before earlier outcomes."""
        lane = self._topics[topic].lane
        size = len(record.payload) + len(record.topic) + len(record.properties) + RECORD_OVERHEAD
        if self._pending_records >= self._options.pending_records or self._pending_bytes > self._options.pending_bytes or self._refusal is not None:
            error = self._refusal or LogError("the log has more records waiting than its limit: its medium is too slow or fails")
            self._loop.call_soon(self._tell, sink.refused, [record], error)
            return
        self._pending_records += 1
        self._pending_bytes += size
        lane.records.append(record)
        lane.sinks.append(sink)
        lane.sizes.append(size)
        writer = self.writer
        if writer.idle:
            writer.idle = False
            # At the end of this round of the loop, so that the first group is not one record.
            self._loop.call_soon(writer.ring)

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        """As the port says."""
        if shards is not None and list(shards) != [0]:
            raise ValueError(f"the embedded log has shard 0 only, not {list(shards)}")
        state = self._topics[topic]
        number, since = self._start_of(state, start)
        reader = EmbeddedReader(state, number, since, state.readers.discard)
        state.readers.add(reader)
        return reader

    def _start_of(self, topic: _Topic, start: Start) -> tuple[int, int | None]:
        first = self.keeper.first(topic.name)
        if start == "latest":
            return topic.end, None
        if start == "earliest":
            return first, None
        if isinstance(start, int):
            return first, start
        at = start.get(0)
        number = first if at is None else max(first, at.offset + at.index)
        if number > topic.end:
            raise LogDamaged(
                f"the log in {self._folder} ends at record {topic.end} of topic {topic.name}, a position says {number}: "
                "log and store are not of one data folder"
            )
        return number, None

    def place(self, at: At) -> int:
        """As the port says: the record's number."""
        return at.offset + at.index

    async def ends(self, topic: str) -> Mapping[int, tuple[At, At]]:
        """As the port says."""
        state = self._topics[topic]
        return {0: (At(0, self.keeper.first(topic), 0), At(0, state.end, 0))}

    def pressure(self) -> Pressure:
        """As the port says. A commit that hangs counts as a stall after ``hang_after``."""
        writer = self.writer
        stalled = writer.failing_since
        started = writer.started
        if not stalled and started and self._clock() - started > self._options.hang_after:
            stalled = started
        return Pressure(self._pending_records, self._pending_bytes, stalled)

    async def close(self) -> None:
        """As the port says; what the medium does not take within ``close_within`` is refused."""
        if self._refusal is not None:
            return
        self._refusal = LogError("the log is closed")
        self.writer.closing = True
        self.writer.ring()
        patience = self._options.close_within
        timer = self._loop.call_later(patience, self.writer.give_up)
        try:
            # A sync that hangs can't be called back: the thread is left behind, and what waits is refused.
            await asyncio.wait_for(asyncio.shield(self._done), patience + self._options.backoff_longest + self._options.hang_after)
        except TimeoutError:
            _log.error("log.close_hangs pending=%d", self._pending_records)
            self._leave_behind()
        finally:
            timer.cancel()
        for topic in self._topics.values():
            for reader in list(topic.readers):
                reader.close()
        await self.let_go()
        if not self._hung:
            self.writer.join(1.0)

    async def let_go(self) -> None:
        """Stop the keeper and free the folder."""
        gone: asyncio.Future[None] = self._loop.create_future()
        self.keeper.stop(partial(self._answer, gone, None, None))
        try:
            await asyncio.wait_for(gone, self._options.close_within + self._options.hang_after)
        except TimeoutError:
            _log.error("log.close_hangs pending=0")
        else:
            self.keeper.join(1.0)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _leave_behind(self) -> None:
        error = LogError("the log closed before the record was durable: its medium hangs")
        under_way = self.writer.under_way
        for part in under_way:
            part.error = error
        self._tell_group(under_way)
        self._hung = True
        self._refuse_waiting(error)

    # What the writer tells, on the loop's thread

    def _told(self, parts: list[Part]) -> None:
        if not self._hung:
            self._tell_group(parts)

    def _tell_group(self, parts: list[Part]) -> None:
        """A group is durable, or refused: first its sinks, then the readers."""
        for part in parts:
            self._pending_records -= len(part.records)
            self._pending_bytes -= part.size
            topic = self._topics[part.topic]
            if part.error is None:
                frame = Stored(part.first, part.records, part.width, self.writer.node, self.writer.epoch, part.sequence)
                topic.tail.add(frame)
                topic.tail.forget(min((reader.number for reader in topic.readers), default=0))
                topic.end = frame.next
            self._tell_runs(part)
            if part.error is None:
                for reader in topic.readers:
                    reader.wake()

    def _tell_runs(self, part: Part) -> None:
        records, sinks = part.records, part.sinks
        start = 0
        sink = sinks[0]
        for index, other in enumerate(sinks):
            if other is not sink:
                self._tell_run(part, sink, records[start:index], start)
                start, sink = index, other
        self._tell_run(part, sink, records[start:] if start else records, start)

    def _tell_run(self, part: Part, sink: Sink, records: list[Record], index: int) -> None:
        if part.error is None:
            self._tell(sink.appended, records, At(0, part.first, index))
        else:
            self._tell(sink.refused, records, part.error)

    def _tell(self, call: Callable[[Sequence[Record], Any], None], records: Sequence[Record], what: At | LogError) -> None:
        try:
            call(records, what)
        except Exception:  # noqa: BLE001
            # One sink's mistake must not keep the others from their answers.
            _log.exception("log.sink_failed")

    def _ended(self, failure: BaseException | None) -> None:
        """The writer's thread is through; too early if it died."""
        if failure is not None:
            _log.critical("log.writer_died", exc_info=failure)
            self._refusal = self._refusal or LogError(f"the log's writer died: {failure}")
            for part in self.writer.under_way:
                part.error = self._refusal
            self._tell_group(self.writer.under_way)
            self._refuse_waiting(self._refusal)
        if not self._done.done():
            self._done.set_result(None)

    def _refuse_waiting(self, error: LogError) -> None:
        for topic in self._topics.values():
            part = topic.lane.take(len(topic.lane.sizes), self._pending_bytes)
            if part is not None:
                part.topic, part.error = topic.name, error
                self._tell_group([part])

    # What the keeper does for us

    def _needed(self) -> dict[str, int]:
        """On the keeper's thread: what readers have not released; without a reader, all. Copying a set is one step under the interpreter lock."""
        return {name: min((reader.released for reader in list(topic.readers)), default=0) for name, topic in self._topics.items()}

    def ask(self, question: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run it on the keeper's thread."""
        answer: asyncio.Future[_T] = self._loop.create_future()

        def job() -> None:
            try:
                result, error = question(), None
            except Exception as problem:  # noqa: BLE001 it is raised where the answer is awaited
                result, error = None, problem
            self._answer(answer, result, error)

        self.keeper.post(job)
        return answer

    def _answer(self, answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        """From the keeper's thread to the loop's."""
        self._loop.call_soon_threadsafe(_settle, answer, result, error)


def _settle(answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
