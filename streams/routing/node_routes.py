"""Which nodes have sessions for a topic: an index folded from the route table of the store.

The trie and the cache by topic are ``streams/routes.py``; here its targets are nodes and a node's shares of shared subscriptions, so what a
record costs grows with the nodes that it goes to, not with those that there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from schemas.topics import parse_subscription
from streams.cluster import NodeState, Route
from streams.cluster import Routes as Changes
from streams.routes import Routes
from streams.routing.choosing import Share, choose_node
from streams.routing.own_routes import ONLINE, SHARE

Target = int | tuple[int, str]
"""A node epoch, or that with a shared subscription, as subscribed."""


class NodePlan(NamedTuple):
    """``nodes``: epochs of those with plain subscribers; ``groups``: shared subscriptions, as subscribed, with the epochs of those with members."""

    nodes: tuple[int, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]


NOBODY: Final = NodePlan((), ())


class NodeRoutes:
    """``versions``: of each node that is known, the version up to which its routes are in here."""

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self._routes: Routes[Target, int, NodePlan] = Routes()
        self._filters: dict[int, set[str]] = {}
        self._members: dict[Target, int] = {}
        self._online: dict[Target, int] = {}
        self._alive: frozenset[int] = frozenset()

    def __len__(self) -> int:
        """Routes, of plain and of shared subscriptions."""
        return len(self._routes)

    def see(self, states: Iterable[NodeState]) -> set[int]:
        """Take in which nodes there are; epochs of the living that are new."""
        alive = frozenset(state.epoch for state in states if state.alive)
        new = alive - self._alive
        self._alive = alive
        for epoch in new:
            self.versions.setdefault(epoch, 0)
        return set(new)

    def fold(self, changes: Changes) -> set[int]:
        """Take in what the store says; the epochs whose routes changed."""
        changed = set()
        for route in changes.routes:
            if route.version > self.versions.get(route.epoch, 0):
                self._put(route)
                self.versions[route.epoch] = route.version
                changed.add(route.epoch)
        for epoch in changes.gone:
            self._forget(epoch)
            changed.discard(epoch)
        return changed

    def plan(self, topic: str) -> NodePlan:
        return self._routes.match_cached(topic, _derive)

    def choose(self, publisher: str, topic: str, group: str, epochs: Collection[int]) -> int:
        """The living node among ``epochs`` whose member is to have a record; 0 where there is none."""
        shares = [Share(epoch, members, self._online.get((epoch, group), 0)) for epoch, members in self._shares(group, epochs)]
        return choose_node(publisher, topic, shares) if shares else 0

    def choose_other(self, publisher: str, topic: str, group: str, tried: Collection[int]) -> int:
        """The same among all but those that were tried."""
        return self.choose(publisher, topic, group, self._alive.difference(tried))

    def _shares(self, group: str, epochs: Collection[int]) -> list[tuple[int, int]]:
        found = [(epoch, self._members.get((epoch, group), 0)) for epoch in epochs if epoch in self._alive]
        return [(epoch, members) for epoch, members in found if members]

    def _put(self, route: Route) -> None:
        if route.filter.startswith(ONLINE):
            _set(self._online, (route.epoch, SHARE + route.filter[len(ONLINE) :]), route.count)
            return
        parsed = parse_subscription(route.filter)
        if parsed is None:
            return
        target: Target = (route.epoch, route.filter) if parsed.group else route.epoch
        if parsed.group:
            _set(self._members, target, route.count)
        filters = self._filters.setdefault(route.epoch, set())
        if not route.count:
            self._routes.remove(parsed.filter, target)
            filters.discard(route.filter)
        elif route.filter not in filters:
            self._routes.add(parsed.filter, target, route.count)
            filters.add(route.filter)

    def _forget(self, epoch: int) -> None:
        for subscribed in list(self._filters.pop(epoch, ())):
            self._put(Route(epoch, subscribed, 0, 0))
        self._filters.pop(epoch, None)
        for target in [target for target in self._online if isinstance(target, tuple) and target[0] == epoch]:
            del self._online[target]
        self.versions.pop(epoch, None)


def _set(counts: dict[Target, int], target: Target, count: int) -> None:
    if count:
        counts[target] = count
    else:
        counts.pop(target, None)


def _derive(matches: Sequence[tuple[Target, int]]) -> NodePlan:
    if not matches:
        return NOBODY
    nodes: dict[int, None] = {}
    groups: dict[str, list[int]] = {}
    for target, _ in matches:
        if isinstance(target, tuple):
            groups.setdefault(target[1], []).append(target[0])
        else:
            nodes[target] = None
    return NodePlan(tuple(nodes), tuple((group, tuple(epochs)) for group, epochs in groups.items()))
