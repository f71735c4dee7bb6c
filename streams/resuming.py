"""The resume rule: what sessions that came from another node are owed by the log alone.

A session comes with the positions up to which its last owner had routed: what lies before them is settled or stored. It is put into the
routes of its new owner in one step, and from where those had ``reached`` in that step on it gets its records live. Between the two lies
what is read once more, for these sessions only. Repeats are dropped by where they lie. Knows no reader, session or clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from schemas.positions import At
from schemas.sessions import Subscription
from schemas.topics import parse_subscription
from streams.routes import Routes

T = TypeVar("T")
NEVER = At(-1, -1, -1)
LAST = 2**63 - 1
"""An offset that no log reaches."""


def places(positions: Iterable[At]) -> dict[int, At]:
    """By shard, the earliest of each."""
    found: dict[int, At] = {}
    for at in positions:
        found[at.shard] = min(at, found.get(at.shard, at))
    return found


def is_since(since: Iterable[At], at: At) -> bool:
    """Whether a record lies where a subscription was there already."""
    return all(at >= place for place in since if place.shard == at.shard)


class Gap(Generic[T]):
    """Sessions that are brought up together; ``reached`` is where live routing went on when they were in its routes."""

    def __init__(self, reached: Mapping[int, At]) -> None:
        self._reached = dict(reached)
        self._routes: Routes[T, Subscription, None] = Routes()
        self._resumes: dict[T, dict[int, At]] = {}

    def add(self, target: T, resume: Iterable[At], subscriptions: Iterable[Subscription]) -> None:
        """A session that comes from positions; of a shard that they don't name it is owed all."""
        self._resumes[target] = places(resume)
        for subscription in subscriptions:
            parsed = parse_subscription(subscription.filter)
            if parsed is not None and not parsed.group:
                self._routes.add(parsed.filter, target, subscription)

    def ranges(self, firsts: Mapping[int, At]) -> dict[int, tuple[At, At]]:
        """By shard where to read from and up to; ``firsts`` are the first positions that the log still has. Shards without a gap are left out."""
        found = {}
        for shard, stop in self._reached.items():
            first = firsts.get(shard, At(shard, 0, 0))
            start = min((max(first, resume.get(shard, first)) for resume in self._resumes.values()), default=stop)
            if start < stop:
                found[shard] = (start, stop)
        return found

    def is_owed(self, target: T, at: At) -> bool:
        """Whether the record at a place is the session's by way of the gap."""
        resume = self._resumes.get(target)
        return resume is not None and resume.get(at.shard, NEVER) <= at < self._reached.get(at.shard, NEVER)

    def owed(self, topic: str, at: At) -> list[tuple[T, Subscription]]:
        """Who gets the record of that topic at that place, by which subscriptions."""
        return [(target, held) for target, held in self._routes.match(topic) if self.is_owed(target, at) and is_since(held.since, at)]


class Progress:
    """How far ranges have been read."""

    def __init__(self, ranges: Mapping[int, tuple[At, At]]) -> None:
        self._left = {shard: stop for shard, (_, stop) in ranges.items()}

    def passed(self, end: At) -> None:
        """A shard was read up to ``end``."""
        stop = self._left.get(end.shard)
        if stop is not None and end >= stop:
            del self._left[end.shard]

    @property
    def done(self) -> bool:
        return not self._left


def hold(marks: Mapping[int, At], resumes: Iterable[Sequence[At]]) -> dict[int, At]:
    """How far a node's position may go while sessions are being brought up: what they are owed is behind none of it yet."""
    held = dict(marks)
    for resume in resumes:
        known = places(resume)
        for shard in held:
            held[shard] = min(held[shard], known.get(shard, At(shard, 0, 0)))
    return held
