"""What a reader has fetched of a log whose messages are frames: which of them are repeats, what is handed out next, and how much is left.

A frame that a reader has had (node, epoch, number) is passed over, and so is any of the same node with a lower number: it was sent again,
and its first copy or what came after it is there already. Frames from before the start are looked at, so that it is known whose repeats
may follow. Where other nodes write too, any number of frames lies between the two copies: what one reader of this process has found to be a
repeat is one to all that come there later (``Repeated``). Without I/O; the bridges' readers fetch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec

from bridges.framed.options import FramedOptions
from schemas.errors import LogDamaged
from schemas.positions import At
from schemas.records import Frame, Record
from streams.log import Batch, Start

RECORD_OVERHEAD: Final = 64
"""Bytes that a record counts beside its payload, topic and properties."""
AVERAGED: Final = 1024
"""Frames whose size stands for that of the next ones."""
INDEX_BITS: Final = 20
"""Enough for the index of any record in its frame."""
REMEMBERED: Final = 100_000
"""Repeats whose places are kept: few are ever made."""
TAIL: Final = 8
"""Newest frames of each shard that a start looks at, to see whether its database knows who wrote them."""
EARLIEST: Final = -1
"""The offset of a place that is wherever the shard begins."""


def place(at: At) -> int:
    """See ``streams.log.Log.place``: a frame has one offset, however many records it has."""
    return at.offset << INDEX_BITS | at.index


def places_of(start: Start, tails: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """By shard the places that follow from a start without asking anybody, so that the lag is known at once: none where it is a time.

    ``tails``: where the shards ended when the reader was opened.
    """
    if isinstance(start, int):
        return {}
    if isinstance(start, Mapping):
        wanted = {shard: start.get(shard) for shard in tails}
        return {shard: (EARLIEST, 0) if at is None else (at.offset, at.index) for shard, at in wanted.items()}
    return {shard: (tail if start == "latest" else EARLIEST, 0) for shard, tail in tails.items()}


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """What a frame has to hand out, from its record ``base`` on; nothing where it is a repeat."""

    shard: int
    offset: int
    base: int
    records: Sequence[Record]
    size: int


class Repeated:
    """Where a topic has repeats, as far as the readers of this process have come across them. ``identity``: the node that reads, and its epoch."""

    def __init__(self, options: FramedOptions, identity: tuple[str, int]) -> None:
        self._node, self._epoch = identity
        self.began: dict[int, int] = {}
        """By shard where it ended before this process wrote anything."""
        self._look_back, self._from_now_on = options.look_back_first, options.look_back
        self._places: dict[tuple[int, int], None] = {}

    def look_back(self) -> int:
        """Frames that the reader which is opened now has to look back, where it begins."""
        look_back, self._look_back = self._look_back, self._from_now_on
        return look_back

    def check(self, shard: int, offset: int, frame: Frame) -> None:
        """Before it began, this node wrote under earlier epochs alone; else all that it writes now would be taken for repeats."""
        if frame.epoch >= self._epoch and frame.node == self._node and offset < self.began.get(shard, 0):
            raise LogDamaged(
                f"the log has what node {self._node} wrote at its start {frame.epoch}, and by the database this is start {self._epoch}: the database "
                "is older than the log, or another one; restore both from the same moment, or give this database a log of its own (log.prefix)"
            )

    def add(self, shard: int, offset: int) -> None:
        """The frame there is one."""
        self._places[shard, offset] = None
        if len(self._places) > REMEMBERED:
            del self._places[next(iter(self._places))]

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self._places


class Fetch:
    """Of one reader, over all its shards. ``places``: by shard the next offset and index to fetch, as far as they are known."""

    def __init__(self, repeated: Repeated) -> None:
        self._repeated = repeated
        self.places: dict[int, tuple[int, int]] = {}
        self.times: dict[int, tuple[int, int]] = {}
        """By shard a time, and an offset before which older records are left out until one comes that is not."""
        self.size = 0
        """Bytes that wait to be handed out."""
        self._frames: deque[Fetched] = deque()
        self._index = 0
        """How much of the first one was handed out."""
        self._had: dict[tuple[int, str], tuple[int, int]] = {}
        self._counted = self._records = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def take(self, shard: int, offset: int, frame: Frame, size: int) -> None:
        """A frame to hand out, one to know of, or a repeat."""
        wanted, index = self.places[shard]
        writer, written = (shard, frame.node), (frame.epoch, frame.sequence)
        had = self._had.get(writer, (-1, -1))
        self._had[writer] = max(had, written)
        if offset < wanted:
            return
        records: Sequence[Record] = frame.records
        base = index if offset == wanted else 0
        # A frame of which a part was had is no repeat, whatever lies before it
        if had >= written and not base:
            self._repeated.add(shard, offset)
            records = ()
        elif (shard, offset) in self._repeated:
            records, base = (), 0
        self.places[shard] = (offset + 1, 0)
        if shard in self.times:
            base = self._since(shard, offset, records)
        self._count(len(records))
        self.size += size
        self._frames.append(Fetched(shard, offset, base, records[base:] if base else records, size))

    def _since(self, shard: int, offset: int, records: Sequence[Record]) -> int:
        since, until = self.times[shard]
        base = next((place for place, record in enumerate(records) if record.time >= since), len(records)) if offset < until else 0
        if base < len(records) or offset >= until:
            del self.times[shard]
        return base

    def cut(self, max_records: int, max_bytes: int) -> Batch:
        """The next batch; there is a frame to cut it from."""
        frame, index = self._frames[0], self._index
        records = frame.records
        if index or len(records) > max_records:
            records = records[index : index + max_records]
        if frame.size > max_bytes and records:
            sizes = accumulate(len(record.payload) + len(record.topic) + len(record.properties) + RECORD_OVERHEAD for record in records)
            records = records[: max(1, sum(1 for size in sizes if size <= max_bytes))]
        first = At(frame.shard, frame.offset, frame.base + index)
        self._index += len(records)
        if self._index < len(frame.records):
            return Batch(first, records)
        self._frames.popleft()
        self._index = 0
        self.size -= frame.size
        return Batch(first, records, At(frame.shard, frame.offset + 1, 0))

    def lag(self, ends: dict[int, int]) -> int:
        """Records that are left; frames that were not fetched yet count as many as those that were do on average."""
        fetched = sum(len(frame.records) for frame in self._frames) - self._index
        frames = sum(max(0, ends[shard] - max(offset, 0)) for shard, (offset, _) in self.places.items())
        return fetched + frames * max(1, self._records // max(1, self._counted))

    def _count(self, records: int) -> None:
        self._counted += 1
        self._records += records
        if self._counted > AVERAGED:
            self._counted, self._records = self._counted // 2, self._records // 2
