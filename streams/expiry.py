"""Time limits: of messages, sessions and wills, when the wall clock may be believed about them, and a wheel of live timers.

Stored deadlines are ms of the wall clock with 0 for never; live timers are monotonic seconds. No clock is read here, every
time is an argument. gateway/ sets the deadlines, the store sweeps by them.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import StrEnum
from math import ceil
from typing import Final, Generic, TypeVar

from schemas.sessions import NEVER_EXPIRES

NEVER: Final = 0
"""A stored deadline that never comes."""

HOUR: Final = 3_600_000
"""Ms that the clock may be ahead of what is known without being doubted."""

HOLD: Final = 60.0
"""Seconds for which deadlines wait when it is further ahead: time for somebody, or for NTP, to set it right."""

BEHIND: Final = 1_000
"""Ms that the clock may be behind the newest record: records of one ms in a row, and nodes, differ by less."""

TICK: Final = 0.5
"""Seconds by which a timer of the wheel may be late."""

K = TypeVar("K", bound=Hashable)


def message_deadline(interval: int | None, received: int) -> int:
    """When a message with this expiry interval (seconds, None for none) that was received at ``received`` expires."""
    return NEVER if interval is None else received + interval * 1000


def is_expired(deadline: int, now: int) -> bool:
    """Past it a message is not delivered to new receivers [MQTT-3.3.2-5], and a session is over."""
    return NEVER < deadline <= now


def remaining_seconds(deadline: int, now: int) -> int | None:
    """The expiry interval to send on: what was received less the time it waited here [MQTT-3.3.2-6]; None for none.

    Rounded up, so that a message that hardly waited keeps its interval and one that still lives never says 0.
    """
    return None if deadline == NEVER else max(0, -(-(deadline - now) // 1000))


def session_deadline(expiry: int, ended: int) -> int:
    """When a session whose connection ended at ``ended`` is over; at once with an expiry of 0."""
    return NEVER if expiry == NEVER_EXPIRES else ended + expiry * 1000


def will_due(closed: int, delay: int, expiry: int) -> int:
    """When a will falls due: its delay after the connection closed, or with the end of the session if that comes first [MQTT-3.1.3-9]."""
    return closed + min(delay, expiry) * 1000


class Belief(StrEnum):
    """What is thought of the wall clock: deadlines fall due under FINE only."""

    FINE = "fine"
    BEHIND = "behind"
    AHEAD = "ahead"


class WallGuard:
    """Whether stored deadlines may be judged by the wall clock now.

    Behind the newest record it stands still for them until it has caught up. More than an hour ahead of what was known (at
    start the newest record, later the clock itself plus the time that passed) it is believed after a minute only: nothing is
    lost to a clock that somebody sets right in time.
    """

    __slots__ = ("_checked", "_held_until", "_known", "newest")

    def __init__(self, newest: int, monotonic: float) -> None:
        self.newest = newest
        """Time of the newest record, ms; whoever reads the log raises it. 0 where there is none, which doubts nothing."""
        self._known = newest
        self._checked = monotonic
        self._held_until = monotonic

    def check(self, wall: int, monotonic: float) -> Belief:
        """``wall`` is the clock as it stands, in ms. Who gets a new answer logs it; a deadline is due only under FINE."""
        expected = max(self._known + (monotonic - self._checked) * 1000, self.newest)
        if self._known and wall > expected + HOUR:
            self._held_until = monotonic + HOLD
        self._known, self._checked = wall, monotonic
        if wall < self.newest - BEHIND:
            return Belief.BEHIND
        return Belief.AHEAD if monotonic < self._held_until else Belief.FINE


class _Slot(dict[K, None]):
    """The keys of one tick, in the order of their scheduling. A timer points to it: a number of its own would be 32 bytes more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class TimerWheel(Generic[K]):
    """One timer a key, never early and at most a tick late; each call costs the same with 100,000 of them.

    Holds what is scheduled and nothing else: as many entries as keys. Whoever moves a deadline often (keep-alive) leaves the
    timer alone and schedules anew when it fires.
    """

    __slots__ = ("_done", "_slot_of", "_slots", "_tick")

    def __init__(self, now: float, tick: float = TICK) -> None:
        self._tick = tick
        self._done = int(now / tick)
        self._slot_of: dict[K, _Slot[K]] = {}
        self._slots: dict[int, _Slot[K]] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def schedule(self, key: K, due: float) -> None:
        """Fire at ``due``, or at the next look if that has passed; a timer that the key has already is moved."""
        number = max(ceil(due / self._tick), self._done + 1)
        before = self._slot_of.get(key)
        if before is not None:
            if before.number == number:
                return
            self._leave(key, before)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot(number)
        self._slot_of[key] = slot
        slot[key] = None

    def cancel(self, key: K) -> None:
        """No timer any more; none before is fine."""
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            self._leave(key, slot)

    def expired(self, now: float) -> list[K]:
        """The keys whose time has come, earlier ticks first, in the order of their scheduling; their timers are gone."""
        reached = int(now / self._tick)
        passed = reached - self._done
        if passed <= 0:
            return []
        # After a long pause there are fewer slots than ticks.
        slots = range(self._done + 1, reached + 1) if passed <= len(self._slots) else sorted(slot for slot in self._slots if slot <= reached)
        self._done = reached
        keys = [key for slot in slots for key in self._slots.pop(slot, ())]
        for key in keys:
            del self._slot_of[key]
        return keys

    def _leave(self, key: K, slot: _Slot[K]) -> None:
        del slot[key]
        if not slot:
            del self._slots[slot.number]
