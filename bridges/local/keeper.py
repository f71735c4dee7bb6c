"""The keeper: the thread that does whatever blocks and is not a commit.

It makes segments ready, seals full ones, checks the write-ahead log in, unlinks what nobody needs, and reads for readers
that catch up. Each job has connections of its own, so the writer waits for none of it. Neighbours: segment.py (files),
writer.py (who takes spares and hands over full segments), reader.py (who asks for frames).
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import apsw

from bridges.local import segment as segments
from bridges.local.options import LogOptions
from bridges.local.segment import PAGE, TOPICS, Segment
from bridges.local.tail import Stored
from schemas.errors import LogDamaged, LogError, StartError
from schemas.records import FrameError, decode_frame

_log = logging.getLogger(__name__)

WAL_STEP: Final = PAGE + 24
"""Bytes that a page takes in the write-ahead log."""
_CONNECTIONS: Final = 4
"""Segments held open for reading."""
_ROUNDS: Final = 3
"""Passes of a checkpoint that runs after a busy writer."""


class OpenSegment:
    """A segment with the writer's connection, and how the two threads tell each other of its write-ahead log."""

    def __init__(self, segment: Segment, database: apsw.Connection) -> None:
        self.segment = segment
        self.database = database
        self.cursor = database.cursor()
        self.unchecked = 0
        """Bytes written since a checkpoint was asked for."""
        self.wal = 0
        """Bytes of the write-ahead log in use, about."""
        self.checking = False
        self.help = False
        """The keeper can't catch up: the writer checks the rest in, so that the log starts over."""
        self.turn = threading.Lock()
        """Of checkpoints: a second one at a time is refused, so the writer waits for the keeper's where the log must not grow any more."""


class Keeper:
    """Jobs run in order on one thread; their number is bounded by the readers, and one of each other kind."""

    def __init__(self, folder: Path, options: LogOptions, wall: Callable[[], int]) -> None:
        self.segments: list[Segment] = []
        """Segments in use, in order; the writer appends, only this thread removes."""
        self.needed: Callable[[], Mapping[str, int]] = lambda: dict.fromkeys(TOPICS, 0)
        """By topic: the first record that some reader has not released."""
        self.number = 1
        self._folder = folder
        self._options = options
        self._wall = wall
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._spares: SimpleQueue[OpenSegment] = SimpleQueue()
        self._preparing = False
        self._narrow = False
        """The last spare could not be made: the next does without a wide write-ahead log, where the trouble may lie."""
        self._unsealed: list[Segment] = []
        self._reading: OrderedDict[int, apsw.Connection] = OrderedDict()
        self._stopped: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, job: Callable[[], None]) -> None:
        """Run ``job`` on the keeper's thread, after those before it."""
        self._jobs.put(job)

    def stop(self, stopped: Callable[[], None]) -> None:
        """Let go of the files behind the jobs that are posted, call ``stopped``, and end the thread."""
        self._stopped = stopped
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    # Called by the writer

    def take_spare(self) -> OpenSegment | None:
        """A segment made ready, if there is one; the next is then made."""
        try:
            return self._spares.get_nowait()
        except Empty:
            return None
        finally:
            self.ask_spare()

    def ask_spare(self) -> None:
        if not self._preparing:
            self._preparing = True
            self.post(self.prepare)

    def retire(self, held: OpenSegment, ends: Mapping[str, int]) -> None:
        """Seal a segment that the writer is done with, or unlink it where it holds nothing that was acknowledged."""
        held.segment.end = dict(ends)
        self.post(lambda: self._retire(held))

    def check_in(self, held: OpenSegment) -> None:
        """Bring the write-ahead log into the segment's file."""
        held.checking = True
        self.post(lambda: self._check_in(held))

    # Jobs

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._options.housekeeping)
                if job is None:
                    break
            except Empty:
                job = self._keep_house
            try:
                job()
            except (apsw.Error, OSError) as error:
                # What failed is asked for again by the writer or the next round; nothing acknowledged depends on it.
                _log.warning("log.housekeeping_failed error=%s", error)
        self._close()
        self._stopped()

    def _close(self) -> None:
        for number in list(self._reading):
            self._reading.pop(number).close()
        while not self._spares.empty():
            spare = self._spares.get_nowait()
            spare.database.close()
            try:
                segments.remove(spare.segment.path)
            except OSError as error:
                _log.warning("log.spare_left error=%s", error)

    def prepare_first(self) -> None:
        """At the start: without a place to write there is no log."""
        try:
            self.prepare()
        except (apsw.Error, OSError) as error:
            raise StartError(f"the log can't write to its folder {self._folder}: {error}") from error

    def prepare(self) -> None:
        """Make a spare segment, where there is none."""
        try:
            if not self._spares.empty():
                return
            path = segments.segment_path(self._folder, self.number)
            try:
                database = self._create(path)
            except (apsw.Error, OSError):
                self._narrow = not self._narrow
                segments.remove(path)
                raise
            self._narrow = False
            nothing = dict.fromkeys(TOPICS, 0)
            self._spares.put(OpenSegment(Segment(self.number, path, nothing, nothing, nothing), database))
            self.number += 1
        finally:
            self._preparing = False

    def _create(self, path: Path) -> apsw.Connection:
        segments.create(path, self._options.vfs)
        database = segments.connect(path, self._options.vfs)
        try:
            if not self._narrow:
                segments.widen_wal(database, self._options.wal_bytes)
        except apsw.Error:
            database.close()
            raise
        return database

    def _retire(self, held: OpenSegment) -> None:
        held.database.close()
        segment = held.segment
        if segment in self.segments:
            self._unsealed.append(segment)
            self._keep_house()
        else:
            segments.remove(segment.path)

    def _keep_house(self) -> None:
        for segment in list(self._unsealed):
            self._seal(segment)
        self._retain()

    def _seal(self, segment: Segment) -> None:
        if segment.number in self._reading:
            self._reading.pop(segment.number).close()
        segments.seal(segment.path, segment.end, self._options.vfs)
        segment.size = segment.path.stat().st_size
        segment.sealed = True
        self._unsealed.remove(segment)
        _log.info("log.segment_sealed number=%d bytes=%d", segment.number, segment.size)

    def _check_in(self, held: OpenSegment) -> None:
        try:
            if held.segment.sealed or held.segment not in self.segments:
                return
            database = self._connection(held.segment)
            with held.turn:
                for _ in range(_ROUNDS):
                    pages, done = database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                    held.wal = pages * WAL_STEP
                    if pages == done:
                        break
            held.help = held.wal * 4 > self._options.wal_bytes * 3
        finally:
            held.checking = False

    def _retain(self) -> None:
        """Unlink segments from the oldest on, as long as they are released and too old or too many. The last one stays: it knows the numbers."""
        needed = self.needed()
        oldest_kept = self._wall() - int(self._options.retention_age * 1000)
        total = sum(segment.size for segment in self.segments)
        while len(self.segments) > 1:
            segment = self.segments[0]
            released = all(segment.end[topic] <= max(needed[topic], segment.base[topic]) for topic in TOPICS)
            aged = max(segment.time.values()) < oldest_kept
            if not segment.sealed or not released or not (aged or total > self._options.retention_bytes):
                return
            if segment.number in self._reading:
                self._reading.pop(segment.number).close()
            self.segments.pop(0)
            segments.remove(segment.path)
            total -= segment.size
            _log.info("log.segment_removed number=%d bytes=%d", segment.number, segment.size)

    # Reading

    def first(self, topic: str) -> int:
        """The first record that is kept; any thread may ask."""
        kept = self.segments[:1]
        return kept[0].base[topic] if kept else 0

    def read(self, topic: str, number: int, below: int) -> list[Stored]:
        """Frames from the one that holds record ``number``, or the oldest left where retention has passed it; a job's part."""
        try:
            return self._read(topic, number, below)
        except (apsw.IOError, apsw.NoMemError, apsw.CantOpenError) as error:
            raise LogError(f"the log at record {number} of topic {topic} can't be read for now: {error}") from error
        except (apsw.Error, FrameError, ValueError) as error:
            raise LogDamaged(f"the log at record {number} of topic {topic} can't be read ({error}): restore the data folder from a copy") from error

    def _read(self, topic: str, number: int, below: int) -> list[Stored]:
        index = max(0, bisect_right(self.segments, number, key=lambda segment: segment.base[topic]) - 1)
        segment = self.segments[index]
        number = max(number, segment.base[topic])
        if index + 1 < len(self.segments):
            below = min(below, self.segments[index + 1].base[topic])
        frames: list[Stored] = []
        size = 0
        rows = segments.read(self._connection(segment), topic, number, below)
        try:
            for row in rows:
                frame = decode_frame(row.body)
                if row.next - row.first != len(frame.records) or (not frames and not row.first <= number < row.next):
                    break
                frames.append(Stored(row.first, frame.records, len(row.body), frame.node, frame.epoch, frame.sequence))
                size += len(row.body)
                if size >= self._options.read_ahead_bytes:
                    break
        finally:
            rows.close()
        if not frames:
            raise LogDamaged(f"the log's topic {topic} lacks record {number} in {segment.path}: restore the data folder from a copy")
        return frames

    def find_time(self, topic: str, time: int, end: int) -> int:
        """The first record of the first frame whose time is not before ``time``; ``end`` where there is none."""
        for index, segment in enumerate(self.segments):
            last = index + 1 == len(self.segments)
            if not last and (segment.time[topic] < time or segment.base[topic] == segment.end[topic]):
                continue
            high = end if last else segment.end[topic]
            if segment.base[topic] < high:
                return segments.find_time(self._connection(segment), topic, time, segment.base[topic], high)
        return end

    def _connection(self, segment: Segment) -> apsw.Connection:
        database = self._reading.get(segment.number)
        if database is None:
            while len(self._reading) >= _CONNECTIONS:
                self._reading.popitem(last=False)[1].close()
            vfs = self._options.vfs
            database = segments.connect_sealed(segment.path, vfs) if segment.sealed else segments.connect(segment.path, vfs)
            self._reading[segment.number] = database
        else:
            self._reading.move_to_end(segment.number)
        return database
