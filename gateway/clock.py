"""Time, read in one place: the wall clock in ms that never goes back, and record ids made from it (design: ports, Record)."""

from __future__ import annotations

import time

COUNTER_BYTES = 5


class Clock:
    """``wall`` never falls below what it has answered, nor below the newest record of the log.

    ``last`` is its latest answer, asked for many times a second; ``newest`` is the time of that record, ``doubted`` whether
    deadlines wait (streams/expiry.py: WallGuard, asked in gateway/ticks.py).
    """

    __slots__ = ("doubted", "last", "newest")

    def __init__(self, newest: int = 0) -> None:
        self.last = self.newest = newest
        self.doubted = False

    def observe(self, newest: int) -> None:
        """The log has a record of that time."""
        self.newest = max(self.newest, newest)
        self.last = max(self.last, newest)

    def raw(self) -> int:
        """Milliseconds as the system has them, right or wrong."""
        return int(time.time() * 1000)

    def due(self) -> int:
        """The time up to which stored deadlines have passed: 0 while the clock is doubted, so that none has."""
        return 0 if self.doubted else self.wall()

    def wall(self) -> int:
        """Milliseconds."""
        now = int(time.time() * 1000)
        if now < self.last:
            return self.last
        self.last = now
        return now


def epoch_within(epoch: int) -> int:
    """What of a node's epoch is in its ids."""
    return epoch & 0xFFFFFF


def epoch_of(record_id: bytes) -> int:
    """The same, from an id."""
    return int.from_bytes(record_id[8:11], "big")


class RecordIds:
    """Ids of 16 bytes: 48-bit ms, 16-bit node number, 24-bit node epoch, 40-bit counter; they sort and need no coordination."""

    __slots__ = ("_node", "counter")

    def __init__(self, node: int, epoch: int) -> None:
        self._node = (node & 0xFFFF).to_bytes(2, "big") + epoch_within(epoch).to_bytes(3, "big")
        self.counter = 0

    def prefix(self, now: int) -> bytes:
        """The first 11 bytes of ids made at ``now``; the rest is the counter, which grows with each id."""
        return now.to_bytes(6, "big") + self._node

    def next(self, now: int) -> bytes:
        self.counter += 1
        return self.prefix(now) + self.counter.to_bytes(COUNTER_BYTES, "big")
