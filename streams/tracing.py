"""The trace's port, and which messages are traced: by a sum over the message id, so that all events of a message are there or none.

Above a rate every second, every fourth, every eighth message is picked, and so on: what is picked at a higher level is picked at the lower ones as
well, so that a change of level takes few messages apart. What is left out is counted. Of many nodes each traces what happens at it, and a page of
all is merged of theirs. Pure; gateway/trace.py and gateway/cluster/everywhere.py run it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final, Protocol
from zlib import crc32

import msgspec

from schemas.errors import SluicewayError
from schemas.records import Record
from schemas.traces import Row, TraceGap, TracePage, TraceQuery

MAX_LEVEL: Final = 20
AT_ONCE: Final = 2
"""Levels by which a burst raises it."""
CALM: Final = 4
"""Below a fourth of the rate the level falls by one, after which it is below half of it: no swinging."""

MAX_GAPS: Final = 1_000
"""Gaps of an answer, the newest."""
DEPTH: Final = 5_000
"""Events that each of many nodes is asked for at most: pages behind that are not to be had."""


class TraceOff(SluicewayError):
    """There is no trace to ask."""


class TraceBusy(SluicewayError):
    """Too many ask the trace at a time."""


class TraceTooDeep(SluicewayError):
    """Many nodes: the page lies behind ``DEPTH`` events."""


class TraceStore(Protocol):
    """Where the trace is kept. Its own file and thread: nothing that is durable waits for it."""

    def write(self, rows: Sequence[Row], gap: TraceGap | None) -> bool:
        """Take rows, in order; never blocks. False, and nothing taken, where it is too far behind."""

    async def find(self, query: TraceQuery) -> TracePage:
        """What was written before the call. TraceBusy where too many ask."""

    async def close(self) -> None:
        """Finish what was asked for."""


class Sampler:
    """One message in ``sample`` is picked, fewer while there are more than ``rate`` events a second."""

    __slots__ = ("_raised", "_rate", "_sample", "divisor", "left_out", "level")

    def __init__(self, sample: int, rate: int) -> None:
        self._sample = self.divisor = sample
        self._rate = rate
        self._raised = False
        self.level = 0
        self.left_out = 0
        """Messages that were not picked because of the level."""

    def picks(self, message: bytes) -> bool:
        """Whether a message is picked at this level."""
        return not crc32(message) % self.divisor

    def choose(self, records: Sequence[Record]) -> list[Record]:
        """Those of the publishes that are picked."""
        divisor = self.divisor
        chosen = [record for record in records if not crc32(record.id) % divisor and not record.kind]
        if self.level:
            publishes = sum([not record.kind for record in records])
            self.left_out += publishes // self._sample - len(chosen)
        return chosen

    def raise_at_once(self) -> None:
        """A burst came since ``adapt``: don't wait for the next time."""
        self._raised = True
        self._set(self.level + AT_ONCE)

    def adapt(self, events: int, seconds: float) -> None:
        """So many events of messages came in that time."""
        allowed = max(1.0, self._rate * seconds)
        if events > allowed and not self._raised:
            self._set(self.level + max(1, int(events / allowed).bit_length()))
        elif self.level and events * CALM < allowed:
            self._set(self.level - 1)
        self._raised = False

    def _set(self, level: int) -> None:
        self.level = min(MAX_LEVEL, level)
        self.divisor = self._sample << self.level


def first_of(query: TraceQuery) -> TraceQuery:
    """What to ask each of many nodes for, so that a page of all can be made of their answers. TraceTooDeep."""
    if query.page * query.size > DEPTH:
        raise TraceTooDeep(f"many nodes answer for the first {DEPTH} events: choose a later begin or an earlier end")
    return msgspec.structs.replace(query, page=1, size=query.page * query.size)


def merged(query: TraceQuery, pages: Mapping[str, TracePage], unknown: Sequence[TraceGap]) -> TracePage:
    """The page of what all nodes have, by their answers to ``first_of`` the query; ``unknown``: gaps of nodes without one."""
    names, skip = sorted(pages), (query.page - 1) * query.size  # ties are broken alike whoever merges
    events = heapq.merge(*(pages[name].events for name in names), key=lambda event: event.time, reverse=query.newest_first)
    gaps = [msgspec.structs.replace(gap, node=name) for name in names for gap in pages[name].gaps]
    known = sorted(gaps, key=lambda gap: gap.begin)[-MAX_GAPS:]
    total = sum(page.total for page in pages.values())
    return TracePage(total, list(islice(events, skip, skip + query.size)), [*known, *unknown])
