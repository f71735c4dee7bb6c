"""Routes: which targets a topic goes to. A target is a session on the way to devices, or a node on the way to sessions.

Filters without wildcards lie in a dict by topic, the others in a trie by level; what a topic leads to is derived once
and kept until a filter changes that could match it. Knows nothing of sessions, QoS or shared groups: fanout.py makes
plans from matches. Filters and topics were checked by schemas/topics.py when they entered.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

CACHED_TOPICS: Final = 65_536
"""Topics whose plans are kept; when there are more, all are forgotten at once, which costs less than keeping them in order of use."""

CACHED_BYTES: Final = 16 * 1024 * 1024
"""The same limit by estimated size, so that long topics and wide fan-outs don't pin more."""

ENTRY_BYTES: Final = 100
"""What a cached topic, and each of its matches, is taken to weigh; the topic's own characters come on top."""

CROWD: Final = 512
"""With more trie nodes abreast a topic is walked in crowds, whose steps are remembered; below, walking anew costs less (about 0.1 ms)."""

CROWD_NODES: Final = 500_000
"""Trie nodes that all remembered crowds may refer to; past it they are forgotten."""

T = TypeVar("T")
V = TypeVar("V")
P = TypeVar("P")

Held: TypeAlias = "dict[T, V] | tuple[T, V]"
"""The targets of one filter with their values: a bare pair as long as there is one, the most frequent case and a quarter of a dict's size."""


class _Node(Generic[T, V]):
    """A level of the trie: ``here`` are the targets of the filter that ends in it, ``rest`` those of the filter that goes on with `#`."""

    __slots__ = ("children", "here", "plus", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T, V]] | None = None
        self.plus: _Node[T, V] | None = None
        self.here: Held[T, V] | None = None
        self.rest: Held[T, V] | None = None

    def is_empty(self) -> bool:
        return not self.children and self.plus is None and self.here is None and self.rest is None


class _Crowd(Generic[T, V]):
    """All trie nodes that the first levels of a topic lead to, and the crowds that further levels led to.

    Levels that no filter names here lead to one and the same crowd, so whoever publishes to ever new topics under
    filters full of `+` pays for the many nodes once.
    """

    __slots__ = ("following", "literals", "nodes", "rests")

    def __init__(self, nodes: list[_Node[T, V]]) -> None:
        self.nodes = nodes
        self.following: dict[str | None, _Crowd[T, V]] = {}
        self.rests = [node.rest for node in nodes if node.rest is not None]
        self.literals: Container[str] = _literals(nodes)


class Routes(Generic[T, V, P]):
    """Filters, the targets that asked for them with a value each, and what is derived from the matches of a topic."""

    def __init__(self, *, cached_topics: int = CACHED_TOPICS, cached_bytes: int = CACHED_BYTES) -> None:
        self.version = 0
        """Grows with every change."""
        self._cached_topics = cached_topics
        self._cached_bytes = cached_bytes
        self._exact: dict[str, Held[T, V]] = {}
        self._root: _Node[T, V] = _Node()
        self._ranks: dict[T, int] = {}
        self._counts: dict[T, int] = {}
        self._next_rank = 0
        self._plans: dict[str, P] = {}
        self._weights: dict[str, dict[str, int]] = {}
        """By first level, the cached topics with their weight: what a filter under that level makes stale."""
        self._weight = 0
        self._crowds: dict[bool, _Crowd[T, V] | None] = {}
        self._crowd_nodes = 0
        self._size = 0

    def __len__(self) -> int:
        """How many (filter, target) there are."""
        return self._size

    def add(self, topic_filter: str, target: T, value: V) -> None:
        """Route a filter to a target; a value that is there already is replaced [MQTT-3.8.4-3].

        A shared subscription is another target than the same client's plain one of the same filter; the caller tells them apart.
        """
        if _has_wildcard(topic_filter):
            node = self._make_path(topic_filter)
            if topic_filter.endswith("#"):
                node.rest, is_new = _with(node.rest, target, value)
            else:
                node.here, is_new = _with(node.here, target, value)
        else:
            self._exact[topic_filter], is_new = _with(self._exact.get(topic_filter), target, value)
        if is_new:
            self._count(target)
        self._changed(topic_filter)

    def remove(self, topic_filter: str, target: T) -> bool:
        """End a route; false where there was none."""
        remove = self._remove_wildcard if _has_wildcard(topic_filter) else self._remove_exact
        removed = remove(topic_filter, target)
        if removed:
            self._uncount(target)
            self._changed(topic_filter)
        return removed

    def match(self, topic: str) -> list[tuple[T, V]]:
        """Every (target, value) whose filter matches [MQTT-3.3.2-3], in the order in which the targets came; a target once per filter of its own."""
        exact = self._exact.get(topic)
        matches = [] if exact is None else _pairs(exact)
        if not self._root.is_empty():
            for held in self._walk(topic.split("/")):
                matches += _pairs(held)
        if len(matches) > 1:
            ranks = self._ranks
            matches.sort(key=lambda match: ranks[match[0]])
        return matches

    def match_cached(self, topic: str, derive: Callable[[Sequence[tuple[T, V]]], P]) -> P:
        """What ``derive`` makes of the topic's matches, made once until they change. One Routes is asked with one ``derive``."""
        plan = self._plans.get(topic)
        return self._remember(topic, derive) if plan is None else plan

    # The trie.

    def _make_path(self, topic_filter: str) -> _Node[T, V]:
        node = self._root
        for level in topic_filter.split("/"):
            if level == "#":
                break
            if level == "+":
                if node.plus is None:
                    node.plus = _Node()
                node = node.plus
                continue
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        return node

    def _remove_exact(self, topic_filter: str, target: T) -> bool:
        held = self._exact.get(topic_filter)
        left, removed = _without(held, target)
        if left is not None:
            self._exact[topic_filter] = left
        elif held is not None:
            del self._exact[topic_filter]
        return removed

    def _remove_wildcard(self, topic_filter: str, target: T) -> bool:
        levels = topic_filter.split("/")
        path = [self._root]
        for level in levels:
            if level == "#":
                break
            child = path[-1].plus if level == "+" else (path[-1].children or {}).get(level)
            if child is None:
                return False
            path.append(child)
        node = path[-1]
        if levels[-1] == "#":
            node.rest, removed = _without(node.rest, target)
        else:
            node.here, removed = _without(node.here, target)
        for index in range(len(path) - 1, 0, -1):
            if not path[index].is_empty():
                break
            _unlink(path[index - 1], levels[index - 1])
        return removed

    def _walk(self, levels: list[str]) -> list[Held[T, V]]:
        """The targets of wildcard filters, level by level; iterative, since a topic may have 65,535 slashes."""
        active = [self._root]
        hidden = levels[0].startswith("$")
        found: list[Held[T, V]] = []
        for level in levels:
            following = []
            for node in active:
                if node.children is not None:
                    child = node.children.get(level)
                    if child is not None:
                        following.append(child)
                if hidden:  # `#` and `+` don't match a first level that begins with `$` [MQTT-4.7.2-1]
                    continue
                if node.rest is not None:
                    found.append(node.rest)
                if node.plus is not None:
                    following.append(node.plus)
            if not following:
                return found
            if len(following) > CROWD:
                return self._walk_crowds(levels)
            hidden = False
            active = following
        return found + _ends(active)

    def _walk_crowds(self, levels: list[str]) -> list[Held[T, V]]:
        """The same where many nodes stand abreast: set by set, each step remembered until a wildcard filter changes."""
        hidden = levels[0].startswith("$")
        crowd = self._crowds.get(hidden)
        if crowd is None:
            crowd = self._crowds[hidden] = _Crowd([self._root])
        found: list[Held[T, V]] = []
        for level in levels:
            if not hidden:
                found += crowd.rests
            known = level if level in crowd.literals else None
            following = crowd.following.get(known)
            if following is None:
                following = self._join(crowd, known, _step(crowd.nodes, level, hidden))
            if not following.nodes:
                return found
            hidden = False
            crowd = following
        return found + _ends(crowd.nodes)

    def _join(self, crowd: _Crowd[T, V], known: str | None, nodes: list[_Node[T, V]]) -> _Crowd[T, V]:
        following: _Crowd[T, V] = _Crowd(nodes)
        self._crowd_nodes += 1 + len(nodes)
        if self._crowd_nodes > CROWD_NODES:
            self._forget_crowds()
        else:
            crowd.following[known] = following
        return following

    def _forget_crowds(self) -> None:
        self._crowds.clear()
        self._crowd_nodes = 0

    # Targets in the order in which they came.

    def _count(self, target: T) -> None:
        self._size += 1
        count = self._counts.get(target, 0)
        if not count:
            self._ranks[target] = self._next_rank
            self._next_rank += 1
        self._counts[target] = count + 1

    def _uncount(self, target: T) -> None:
        self._size -= 1
        count = self._counts[target] - 1
        if count:
            self._counts[target] = count
        else:
            del self._counts[target], self._ranks[target]

    # What is remembered of topics.

    def _remember(self, topic: str, derive: Callable[[Sequence[tuple[T, V]]], P]) -> P:
        matches = self.match(topic)
        plan = derive(matches)
        weight = len(topic) + ENTRY_BYTES * (1 + len(matches))
        if len(self._plans) >= self._cached_topics or self._weight + weight > self._cached_bytes:
            self.forget()
        if weight <= self._cached_bytes:
            self._plans[topic] = plan
            self._weights.setdefault(_first_level(topic), {})[topic] = weight
            self._weight += weight
        return plan

    def _changed(self, topic_filter: str) -> None:
        """Forget what the filter could have a part in: its topic, or the topics under its first level, or all."""
        self.version += 1
        first = _first_level(topic_filter)
        if not _has_wildcard(topic_filter):
            if self._plans.pop(topic_filter, None) is not None:
                self._weight -= self._weights[first].pop(topic_filter)
                if not self._weights[first]:
                    del self._weights[first]
            return
        self._forget_crowds()
        if first in ("+", "#"):
            self.forget()
            return
        for topic, weight in self._weights.pop(first, {}).items():
            del self._plans[topic]
            self._weight -= weight

    def forget(self) -> None:
        """Derive every plan anew: something other than filters has changed that plans depend on, such as permissions."""
        self._plans.clear()
        self._weights.clear()
        self._weight = 0


def _has_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def _first_level(topic: str) -> str:
    return topic.partition("/")[0]


def _with(held: Held[T, V] | None, target: T, value: V) -> tuple[Held[T, V], bool]:
    """The targets with one more, and whether it is new among them."""
    if held is None:
        return (target, value), True
    if isinstance(held, tuple):
        if held[0] == target:
            return (target, value), False
        return {held[0]: held[1], target: value}, True
    is_new = target not in held
    held[target] = value
    return held, is_new


def _without(held: Held[T, V] | None, target: T) -> tuple[Held[T, V] | None, bool]:
    """The targets without one, None for none left, and whether it was among them."""
    if held is None:
        return None, False
    if isinstance(held, tuple):
        return (None, True) if held[0] == target else (held, False)
    if target not in held:
        return held, False
    del held[target]
    return (next(iter(held.items())) if len(held) == 1 else held), True


def _pairs(held: Held[T, V]) -> list[tuple[T, V]]:
    return [held] if isinstance(held, tuple) else list(held.items())


def _unlink(node: _Node[T, V], level: str) -> None:
    if level == "+":
        node.plus = None
    elif node.children is not None:
        del node.children[level]
        if not node.children:
            node.children = None


def _literals(nodes: list[_Node[T, V]]) -> Container[str]:
    """The levels that filters name behind these nodes."""
    if len(nodes) == 1:
        return nodes[0].children or ()
    return {level for node in nodes if node.children is not None for level in node.children}


def _step(nodes: list[_Node[T, V]], level: str, hidden: bool) -> list[_Node[T, V]]:
    following = [child for node in nodes if node.children is not None and (child := node.children.get(level)) is not None]
    if not hidden:
        following += [node.plus for node in nodes if node.plus is not None]
    return following


def _ends(nodes: list[_Node[T, V]]) -> list[Held[T, V]]:
    """The filters that end with the topic; `#` takes its parent level too (MQTT 5.0, 4.7.1.2)."""
    found = [node.here for node in nodes if node.here is not None]
    found += [node.rest for node in nodes if node.rest is not None]
    return found
