"""Time, read in one place: the wall clock in ms that never goes back, and record ids made from it (design: ports, Record)."""

from __future__ import annotations

import time

COUNTER_BYTES = 5


class Clock:
    """``wall`` never falls below what it has answered, nor below the newest record of the log."""

    __slots__ = ("_last",)

    def __init__(self, newest: int = 0) -> None:
        self._last = newest

    def observe(self, newest: int) -> None:
        """The log has a record of that time."""
        self._last = max(self._last, newest)

    def wall(self) -> int:
        """Milliseconds."""
        now = int(time.time() * 1000)
        if now < self._last:
            return self._last
        self._last = now
        return now


class RecordIds:
    """Ids of 16 bytes: 48-bit ms, 16-bit node number, 24-bit node epoch, 40-bit counter; they sort and need no coordination."""

    __slots__ = ("_node", "counter")

    def __init__(self, node: int, epoch: int) -> None:
        self._node = (node & 0xFFFF).to_bytes(2, "big") + (epoch & 0xFFFFFF).to_bytes(3, "big")
        self.counter = 0

    def prefix(self, now: int) -> bytes:
        """The first 11 bytes of ids made at ``now``; the rest is the counter, which grows with each id."""
        return now.to_bytes(6, "big") + self._node

    def next(self, now: int) -> bytes:
        self.counter += 1
        return self.prefix(now) + self.counter.to_bytes(COUNTER_BYTES, "big")
