"""The newest frames in memory, for readers that keep up. Used on the event loop's thread only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.records import Record


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A durable frame: records ``first`` to ``next`` of its topic. ``size`` in bytes, as encoded."""

    first: int
    records: Sequence[Record]
    size: int
    node: str
    epoch: int
    sequence: int

    @property
    def next(self) -> int:
        return self.first + len(self.records)


class Tail:
    """A topic's newest frames without a gap, at most ``frames`` of them and ``size`` bytes, but always the last one."""

    def __init__(self, frames: int, size: int) -> None:
        self._most = frames
        self._room = size
        self._frames: dict[int, Stored] = {}
        self._size = 0

    def add(self, frame: Stored) -> None:
        """Take the frame that follows the last one."""
        frames = self._frames
        frames[frame.first] = frame
        self._size += frame.size
        while len(frames) > 1 and (len(frames) > self._most or self._size > self._room):
            self._size -= frames.pop(next(iter(frames))).size

    def forget(self, before: int) -> None:
        """All readers are past ``before``: frames that end there or earlier are of no use, but for the last one."""
        frames = self._frames
        while len(frames) > 1 and next(iter(frames.values())).next <= before:
            self._size -= frames.pop(next(iter(frames))).size

    def find(self, number: int) -> Stored | None:
        """The frame that holds record ``number``; None where it is not in memory."""
        frame = self._frames.get(number)
        if frame is not None or not self._frames or number < next(iter(self._frames)):
            return frame
        for frame in reversed(self._frames.values()):
            if frame.first <= number:
                return frame if number < frame.next else None
        return None
