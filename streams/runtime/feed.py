"""One reader of a topic of the log for all rules that keep up: a look-up a record, and each rule is handed its records a batch at a time.

What a rule does with them is its own affair (outflow.py): one that doesn't keep up takes no more, and reads for itself until it has caught up.
The feed counts what is a rule's either way, and where it stands is stored together with those counts: so a cut by retention is counted exactly.
It never holds the log's segments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from schemas.positions import At
from schemas.records import Kind
from streams.log import Batch, Log, Reader
from streams.repeats import Repeats

MAX_RECORDS: Final = 1024
MAX_BYTES: Final = 1024 * 1024
MAX_NAMES: Final = 50_000
"""Topics (or clients) whose takers are remembered."""
FOREVER: Final = 2**62
"""Where a reader releases up to so that the log needn't keep anything for it."""

_PUBLISH = int(Kind.PUBLISH)
_NOTHING_NEW = frozenset((int(Kind.RELEASE), int(Kind.SHARED)))
"""What lies in ``publish`` and is no message of its own."""


class Taker(Protocol):
    """A rule, as the feed sees it."""

    def take(self, batch: Batch, picks: Sequence[int]) -> None:
        """The records of the batch at ``picks`` are the rule's."""

    def cut(self, records: int) -> None:
        """Retention took so many records before the feed had seen them."""

    def is_mine(self, name: str) -> bool:
        """Whether records of this topic (or, of presence, of this client) are the rule's."""


def number(at: At) -> int:
    """For counts of what lies between positions. Where frames have one offset each it is their number; what comes first, ``Log.place`` says."""
    return at.offset + at.index


def open_reader(log: Log, topic: str, positions: Mapping[int, At]) -> Reader:
    """A reader that holds nothing back from retention."""
    reader = log.open(topic, positions)
    for shard in positions:
        reader.release(At(shard, FOREVER, 0))
    return reader


async def cut_between(log: Log, topic: str, expected: At, found: At) -> int:
    """Records between the two that retention removed; 0 where the log only dropped a frame that it had twice."""
    if log.place(found) <= log.place(expected):
        return 0
    first = (await log.ends(topic))[expected.shard][0]
    return max(1, number(found) - number(expected)) if log.place(first) > log.place(expected) else 0


class Feed:
    """``positions``: where reading goes on, by shard."""

    def __init__(self, log: Log, topic: str) -> None:
        self.positions: dict[int, At] = {}
        self.size = 0
        self.records = 0
        """Bytes and records seen, for the mean size of one."""
        self.place = log.place
        self._log = log
        self._topic = topic
        self._takers: list[Taker] = []
        self._by_name: dict[str, tuple[Taker, ...]] = {}
        self._reader: Reader | None = None
        self.repeats = Repeats()

    async def open(self, positions: Mapping[int, At] | None) -> None:
        """Begin at stored positions, or at the end of the log; what the log doesn't have any more is told to the takers by ``run``."""
        ends = await self._log.ends(self._topic)
        self.positions = {shard: min((positions or {}).get(shard, last), last, key=self.place) for shard, (_, last) in ends.items()}
        self._reader = open_reader(self._log, self._topic, self.positions)

    def attach(self, taker: Taker) -> None:
        self._takers.append(taker)
        self._by_name.clear()

    def detach(self, taker: Taker) -> None:
        if taker in self._takers:
            self._takers.remove(taker)
        self._by_name.clear()

    def __len__(self) -> int:
        return len(self._takers)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def run(self) -> None:
        """Feed for ever."""
        reader = self._reader
        assert reader is not None  # noqa: S101 - opened
        while True:
            batch = await reader.next(MAX_RECORDS, MAX_BYTES)
            expected = self.positions[batch.first.shard]
            if self.place(batch.first) != self.place(expected):
                missing = await cut_between(self._log, self._topic, expected, batch.first)
                if missing:
                    self.repeats = Repeats()  # releases may be among what is gone
                for taker in self._takers if missing else ():
                    taker.cut(missing)
            self.dispatch(batch)
            self.positions[batch.first.shard] = batch.end
            await asyncio.sleep(0)

    def dispatch(self, batch: Batch) -> None:
        """Hand each rule what is its own. ``positions`` still lies before the batch."""
        records = batch.records
        self.records += len(records)
        self.size += sum([len(record.payload) for record in records])
        if not self._takers:
            return
        picked: dict[Taker, list[int]] = {}
        known = self._by_name.get
        first = batch.first
        for index, record in enumerate(records):
            kind = record.kind
            if record.qos == 2 and record.session and self.repeats.is_repeat(record, At(first.shard, first.offset, first.index + index)):
                continue
            if kind in _NOTHING_NEW:
                continue
            name = record.topic if kind == _PUBLISH else record.client
            takers = known(name)
            if takers is None:
                takers = self._learn(name)
                known = self._by_name.get
            for taker in takers:
                picks = picked.get(taker)
                if picks is None:
                    picks = picked[taker] = []
                picks.append(index)
        for taker, picks in picked.items():
            taker.take(batch, picks)

    def _learn(self, name: str) -> tuple[Taker, ...]:
        if len(self._by_name) >= MAX_NAMES:
            self._by_name = {}
        takers = self._by_name[name] = tuple(taker for taker in self._takers if taker.is_mine(name))
        return takers


def pick(batch: Batch, repeats: Repeats, is_mine: Callable[[str], bool], sources: frozenset[int]) -> list[int]:
    """The same choice for a rule that reads for itself."""
    picks, first = [], batch.first
    for index, record in enumerate(batch.records):
        if record.qos == 2 and record.session and repeats.is_repeat(record, At(first.shard, first.offset, first.index + index)):
            continue
        if record.kind not in _NOTHING_NEW and record.source in sources and is_mine(record.topic if record.kind == _PUBLISH else record.client):
            picks.append(index)
    return picks
