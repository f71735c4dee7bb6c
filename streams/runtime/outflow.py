"""Runs a rule that sends (outflow, status): live from the feed while it keeps up, with a reader of its own while it doesn't.

Its position moves only behind what the target has acknowledged. ``matched`` is what the feed saw of the rule's records, ``done`` what the
rule is through with; when it has caught up the difference is what retention took, exactly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from schemas.positions import At
from schemas.records import Record
from schemas.rules import Rule, RuleState
from streams.log import Batch, Log, Reader
from streams.repeats import Repeats
from streams.runtime.feed import MAX_BYTES, Feed, cut_between, number, open_reader, pick
from streams.runtime.progress import Progress
from streams.runtime.sending import Letters, Sender, Stopped
from streams.store import Change, DeadLetter, PutRuleState

SEND_RECORDS: Final = 4096
"""From so many on nothing more joins a batch: one batch is under way at a time, so what waits behind it makes the next one larger."""
BUFFER_RECORDS: Final = 20_000
BUFFER_BYTES: Final = 8 * 1024 * 1024
"""What a rule keeps in memory before it reads for itself."""
LAZY: Final = 25
"""An idle rule's position is stored every so many checkpoints."""


class Room:
    """Bytes that the buffers of all rules may hold together."""

    def __init__(self, most: int = 128 * 1024 * 1024) -> None:
        self.most = most
        self.used = 0


class Chunk(msgspec.Struct, gc=False):
    """The rule's records of one batch; ``counted`` of them count in ``done``. ``end`` lies behind the batch."""

    records: Sequence[Record]
    end: At
    counted: int
    size: int


class OutflowRunner:
    def __init__(
        self,
        rule: Rule,
        state: RuleState,
        log: Log,
        topic: str,
        feed: Feed,
        sender: Sender,
        progress: Progress,
        letters: Letters,
        room: Room,
        *,
        is_mine: Callable[[str], bool],
        wall: Callable[[], int],
    ) -> None:
        self.rule = rule
        self.progress = progress
        self.letters = letters
        self.sender = sender
        self.is_mine = is_mine
        self.oldest = 0
        """Time of the oldest record that is not through, in ms; 0 for none."""
        self._log = log
        self._place = log.place
        self._topic = topic
        self._feed = feed
        self._room = room
        self._wall = wall
        self._sources = sender.mapper.sources
        self._positions = dict(state.positions)
        self._matched, self._done = state.matched, state.done
        self._counted_from = dict(state.counted_from)
        self._has_gap = progress.behind = state.has_gap
        self._buffer: deque[Chunk] = deque()
        self._buffered = self._buffered_bytes = self._sending = 0
        self._news = asyncio.Event()
        self._live = False
        self._read: dict[int, At] = dict(self._positions)
        self._skip: dict[int, At] = {}
        self._reader: Reader | None = None
        self._repeats = Repeats(feed.repeats)
        self._dirty = True
        self._idle_for = 0

    # What the feed tells

    def take(self, batch: Batch, picks: Sequence[int]) -> None:
        """See ``feed.Taker``."""
        records, sources = batch.records, self._sources
        mine = [records[index] for index in picks]
        if any(record.source not in sources for record in mine):
            picks = [index for index in picks if records[index].source in sources]
            mine = [records[index] for index in picks]
        if not mine:
            return
        self._matched += len(mine)
        self._dirty = True
        if not self._live:
            return
        shard = batch.first.shard
        if shard in self._skip:
            base, upto = self._place(batch.first), self._place(self._skip[shard])
            mine = [records[index] for index in picks if base + index >= upto]
            if not mine:
                return
        size = sum([len(record.payload) for record in mine])
        self._buffer.append(Chunk(mine, batch.end, len(mine), size))
        self._buffered += len(mine)
        self._buffered_bytes += size
        self._room.used += size
        if self._buffered > BUFFER_RECORDS or self._buffered_bytes > BUFFER_BYTES or self._room.used > self._room.most:
            self._fall_behind(batch)
        self._news.set()

    def cut(self, records: int) -> None:
        """See ``feed.Taker``: of the live ones it is known at once."""
        self._matched += records
        if self._live:
            self._done += records
            self.progress.lost += records
        self._dirty = True

    def _fall_behind(self, batch: Batch) -> None:
        self._live = False
        self._read = {**self._feed.positions, batch.first.shard: batch.end}
        for shard, upto in self._skip.items():
            if self._place(self._read[shard]) < self._place(upto):
                self._read[shard] = upto
        self._skip.clear()

    # The run

    async def run(self) -> None:
        """Until poison stops the rule."""
        try:
            while True:
                chunk = await self._next()
                if chunk is None:
                    continue
                self._sending = chunk.counted
                if chunk.records:
                    self.oldest = chunk.records[0].time
                    await self.sender.send(chunk.records)
                self._through(chunk)
                await asyncio.sleep(0)
        except Stopped as stopped:
            self.progress.stops(str(stopped), self._wall())
        finally:
            self._close_reader()

    def _through(self, chunk: Chunk) -> None:
        self._positions[chunk.end.shard] = chunk.end
        self._done += chunk.counted
        self._sending = 0
        self._dirty = True
        if not self._buffer:
            self.oldest = 0

    async def _next(self) -> Chunk | None:
        if self._buffer:
            return self._from_buffer()
        if self._live:
            self._news.clear()
            await self._news.wait()
            return None
        if self._is_caught_up():
            self._go_live()
            return None
        return await self._from_log()

    def _from_buffer(self) -> Chunk:
        """One chunk, or several of one shard made one: many records a call."""
        first = self._buffer.popleft()
        records, size, end = list(first.records), first.size, first.end
        counted = first.counted
        while self._buffer and len(records) < SEND_RECORDS and size < MAX_BYTES and self._buffer[0].end.shard == end.shard:
            following = self._buffer.popleft()
            records += following.records
            size, end, counted = size + following.size, following.end, counted + following.counted
        self._buffered -= counted
        self._buffered_bytes -= size
        self._room.used -= size
        return Chunk(records, end, counted, size)

    async def _from_log(self) -> Chunk:
        if self._reader is None:
            self._reader = open_reader(self._log, self._topic, self._read)
            self._repeats = Repeats(self._feed.repeats)
        batch = await self._reader.next(SEND_RECORDS, MAX_BYTES)
        shard = batch.first.shard
        expected = self._read[shard]
        if self._place(batch.first) != self._place(expected):
            await self._look_for_gap(expected, batch.first)
        self._read[shard] = batch.end
        picks = pick(batch, self._repeats, self.is_mine, self._sources)
        base, since = self._place(batch.first), self._place(self._counted_from[shard])
        counted = len(picks) if base >= since else sum(1 for index in picks if base + index >= since)
        return Chunk([batch.records[index] for index in picks], batch.end, counted, 0)

    async def _look_for_gap(self, expected: At, found: At) -> None:
        """What lies before ``counted_from`` was never seen by anybody: of it the log's own count is told."""
        if not await cut_between(self._log, self._topic, expected, found):
            return
        self._repeats = Repeats(self._feed.repeats)
        since = number(self._counted_from[expected.shard])
        self.progress.lost += max(0, min(number(found), since) - number(expected))
        self._has_gap = self.progress.behind = self._dirty = True

    def _is_caught_up(self) -> bool:
        return all(self._place(self._read[shard]) >= self._place(at) for shard, at in self._feed.positions.items())

    def _go_live(self) -> None:
        """From here on the feed has everything; what this reader has read beyond the feed is skipped once."""
        self._close_reader()
        self._live = True
        self._skip = {shard: read for shard, at in self._feed.positions.items() if self._place(read := self._read[shard]) > self._place(at)}
        if not self._skip:
            self._settle()

    def _settle(self) -> None:
        """Caught up: what was matched, and is neither done nor waiting here, is gone."""
        missing = self._matched - self._done - self._buffered - self._sending
        if self._has_gap and missing > 0:
            self.progress.lost += missing
        self._done += missing
        if self._has_gap:
            self._has_gap = self.progress.behind = False
            if self.progress.state == "gap":
                self.progress.state = "running"
        self._dirty = True

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # What is told and stored

    @property
    def is_idle(self) -> bool:
        return self._live and not self._buffer and not self._sending and not self._skip

    def lag(self) -> int:
        """Records that are the rule's and not through; more than that while a part of the log was not looked at."""
        unseen = sum(max(0, number(self._counted_from[shard]) - number(at)) for shard, at in self._positions.items() if shard in self._counted_from)
        return max(0, self._matched - self._done) + unseen

    def backlog(self) -> int:
        """Records of the log, of whatever topic, between the rule's position and the feed's."""
        if self.is_idle:
            return 0
        return sum(max(0, number(at) - number(self._positions[shard])) for shard, at in self._feed.positions.items() if shard in self._positions)

    def changes(self) -> list[Change]:
        """What the next checkpoint stores of this rule; nothing where nothing is new."""
        self._pass_skips()
        if self.is_idle:
            self._positions = dict(self._feed.positions)
        self._idle_for += 1
        if not self._dirty and not self.letters.pending and self._idle_for < LAZY:
            return []
        self._dirty, self._idle_for = False, 0
        return [*self.letters.pending, PutRuleState(self.rule.id, self.state())]

    def failed(self) -> None:
        """The checkpoint could not be stored."""
        self._dirty = True

    def state(self) -> RuleState:
        return RuleState(
            dict(self._positions),
            {},
            self.progress.counts(),
            self._matched,
            self._done,
            dict(self._counted_from),
            self._has_gap,
            self.progress.letters,
        )

    def _pass_skips(self) -> None:
        if self._skip:
            passed = self._feed.positions
            self._skip = {shard: upto for shard, upto in self._skip.items() if self._place(passed[shard]) < self._place(upto)}
            if not self._skip:
                self._settle()

    async def resend(self, letters: Sequence[DeadLetter]) -> list[tuple[int, str]]:
        """See ``Sender.resend``."""
        return await self.sender.resend(letters)

    def release_room(self) -> None:
        """The runner ends: what it held is given back."""
        self._room.used -= self._buffered_bytes
        self._buffered_bytes = 0


def begin(state: RuleState | None, feed: Mapping[int, At], start: Mapping[int, At]) -> RuleState:
    """Where a rule begins that is made or switched on: at its own positions if it has some, else at ``start``; counting anew from the feed's."""
    known = state if state is not None else RuleState()
    return msgspec.structs.replace(known, positions=dict(known.positions or start), matched=0, done=0, counted_from=dict(feed), has_gap=False)


def resume(state: RuleState, feed: Mapping[int, At], place: Callable[[At], int]) -> RuleState:
    """Where a rule goes on after a restart. One that was through with all that the feed had seen is where the feed is."""
    through = state.matched == state.done and not state.has_gap
    counted = {shard: place(at) for shard, at in state.counted_from.items()}
    if through and all(counted.get(shard, 0) <= place(at) <= place(feed[shard]) for shard, at in state.positions.items()):
        return msgspec.structs.replace(state, positions=dict(feed))
    return state
