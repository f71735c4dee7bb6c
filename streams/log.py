"""The port of the log: the durable, ordered store that everything flows through.

Implementations: streams/memory/log.py (reference, adversarial), bridges/local (embedded), bridges/kafka, bridges/rocketmq. A call that appends never
blocks and no coroutine, future or closure exists per record: outcomes come a run at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import Record


class Sink(Protocol):
    """Who is told what became of its records. Called on the event loop's thread, never from within ``append``.

    Per group, consecutive records with the same sink are told of in one call; every appended record in exactly one
    call of one of the two methods, in the order of the appends of one (topic, key). Only what is refused because the log
    takes nothing more (it is closed, has too much waiting, or waits too long for its medium) may be told before earlier outcomes.
    """

    def appended(self, records: Sequence[Record], first: At) -> None:
        """Durable. ``records[i]`` lies at ``At(first.shard, first.offset, first.index + i)``."""

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        """Not durable, and nobody will ever read them from the log.

        One exception: a log on other machines that closes while they don't answer can't know what became of the frames on their way. It
        says so in the error; whoever sends again is in the case of a lost acknowledgement.
        """


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Records of one frame of one shard, in order; ``records[i]`` lies at ``At(first.shard, first.offset, first.index + i)``.

    ``end`` is the position from which reading goes on behind them. A reader that has had a frame hands out no record of its repeat,
    only the place behind it: such a batch is empty.
    """

    first: At
    records: Sequence[Record]
    following: At | None = None
    """Where the next frame begins, from a log in which that doesn't follow from the number of records."""

    @property
    def end(self) -> At:
        return self.following or At(self.first.shard, self.first.offset, self.first.index + len(self.records))


class Pressure(msgspec.Struct, frozen=True, gc=False):
    """What was appended and is not durable yet. ``stalled_since``: monotonic seconds since nothing has become durable, 0.0 when it flows."""

    records: int
    size: int
    stalled_since: float


Start = Literal["earliest", "latest"] | Mapping[int, At] | int
"""Where a reader starts: an end, positions by shard (inclusive), or a time in milliseconds of the wall clock."""


class Reader(Protocol):
    """Reads the shards it was opened with, each in order. Positions live in the store, not here."""

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """The next records of one shard; waits where there are none. At least one record, whatever its size, or the place of a repeat.

        LogDamaged where the position to start from lies behind the log's end, if ``open`` did not find that.
        """

    def lag(self) -> int:
        """Records behind the last one handed out, as far as is known without asking anybody."""

    def release(self, upto: At) -> None:
        """This reader won't ask again for what lies before ``upto``; a log that forgets by need may forget it."""

    def close(self) -> None:
        """Stop reading; a waiting ``next`` is cancelled."""


class Log(Protocol):
    """Topics are ``schemas.records.PUBLISH_TOPIC`` and ``PRESENCE_TOPIC``."""

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """Take a record; order is kept per (topic, key). Never blocks and never raises for a failing medium: the sink is told."""

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        """A reader of all shards, or of some. Positions that retention has passed start at the oldest that is left.

        LogDamaged for a position behind the log's end, from here or from the first ``next``. "latest" is the end that this log knows of,
        from its own appends, its readers, and ``ends``. The repeat of a frame that lies before the start is not seen either.
        """

    def place(self, at: At) -> int:
        """A number by which positions of a shard compare. What lies between two of them it tells only where offsets count records."""

    async def ends(self, topic: str) -> Mapping[int, tuple[At, At]]:
        """By shard: the first position that is kept and the position behind the last durable record."""

    def pressure(self) -> Pressure:
        """What is pending now."""

    async def close(self) -> None:
        """Make durable what was taken, tell the sinks, and let go of the medium."""
