"""What a node tells the others of its sessions: the filters that at least one has, and of shared subscriptions how many members, how many online.

A filter counts for those who know the version under which it was told. Counts of plain filters between one and many are nobody's business and
are not written; of members the order of magnitude is enough, since it is a weight.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from streams.cluster import PutRoute

SHARE: Final = "$share/"
ONLINE: Final = "$share//"
"""Before `<group>/<filter>`: the route that counts members online. No subscription has that form, since a share name is not empty [MQTT-4.8.2-1]."""
LINGER_MS: Final = 30_000
"""A shared subscription of a session that another node took is withdrawn so much later. In between that node tells its own, or dies and
yet another does; a record that is routed meanwhile is handed on from here, while one for a subscription that nobody has told is for nobody."""


class OwnRoutes:
    """Counts, and the changes that follow from them; those are stored in the order of their versions."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.version = 0
        self._held: dict[str, tuple[int, int]] = {}
        """By route its count, and the version under which it was told first."""
        self._told: dict[str, int] = {}
        """Of shared subscriptions, the count that was told last."""
        self._changes: dict[str, PutRoute] = {}
        self._lingering: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, subscribed: str) -> int:
        """One more session has the filter; the version that others need for it."""
        return self._count(subscribed, 1)

    def remove(self, subscribed: str) -> None:
        self._count(subscribed, -1)

    def moved(self, subscribed: str, now: int) -> None:
        """The session that had the filter is another node's. ``now`` in ms, and never less than before."""
        if subscribed.startswith(SHARE):
            self._lingering.append((now + LINGER_MS, subscribed))
        else:
            self.remove(subscribed)

    def online(self, subscribed: str, by: int) -> None:
        """A member of a shared subscription came online (1) or went (-1)."""
        self._count(ONLINE + subscribed[len(SHARE) :], by)

    def changes(self, now: int) -> list[PutRoute]:
        """What is to be stored since this was asked last, by version."""
        while self._lingering and self._lingering[0][0] <= now:
            self.remove(self._lingering.popleft()[1])
        changes = sorted(self._changes.values(), key=lambda change: change.version)
        self._changes = {}
        return changes

    def _count(self, route: str, by: int) -> int:
        before, version = self._held.get(route, (0, 0))
        count = before + by
        if count < 0:
            raise ValueError(f"no session has {route}")
        if not before or not count or (route.startswith(SHARE) and count.bit_length() != self._told[route].bit_length()):
            told = self._tell(route, count)
            version = version or told
        if count:
            self._held[route] = (count, version)
        else:
            del self._held[route]
        return version

    def _tell(self, route: str, count: int) -> int:
        self.version += 1
        self._changes[route] = PutRoute(self.epoch, route, count, self.version)
        if not count:
            self._told.pop(route, None)
        elif route.startswith(SHARE):
            self._told[route] = count
        return self.version
