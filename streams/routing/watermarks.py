"""The node's side of the downlink: how far each shard is routed for this node, and with which version of its routes.

Messages may come again, late, from a router that has lost its shard, or never. What lies before the watermark was there already; what an
older version of the routes says doesn't count; and where a message begins behind the watermark something was lost, and this node reads
it from ``publish`` itself. Commands for shared subscriptions go by the router's token instead. Knows no session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.positions import At
from streams.routing.messages import Routed, Sent


class Taken(NamedTuple):
    """``hole``: to be read from ``publish`` for all sessions, before the rest is delivered. ``commands`` are for shared subscriptions only."""

    hole: tuple[At, At] | None
    plain: tuple[Sent, ...]
    commands: tuple[Sent, ...]


class Wait:
    """``places``: by shard, from where on it is routed with the version that was asked for, as far as it is known."""

    def __init__(self, version: int, shards: int) -> None:
        self.version = version
        self.places: dict[int, At] = {}
        self._shards = shards

    @property
    def done(self) -> bool:
        return len(self.places) == self._shards


class Watermarks:
    """``reached``: by shard, up to where this node has what is its own; in the beginning, where it starts."""

    def __init__(self, reached: Mapping[int, At]) -> None:
        self.reached = dict(reached)
        self._versions = dict.fromkeys(reached, 0)
        self._tokens = dict.fromkeys(reached, 0)
        self._commanded: dict[int, At] = {}
        """By shard, up to where the router of that token has told commands."""
        self._waits: list[Wait] = []

    def wait(self, version: int) -> Wait:
        """Where sessions whose filters were told under ``version`` may leave off reading ``publish``, or their clients be answered."""
        wait = Wait(version, len(self.reached))
        wait.places = {shard: self.reached[shard] for shard, known in self._versions.items() if known >= version}
        if not wait.done:
            self._waits.append(wait)
        return wait

    def take(self, message: Routed) -> Taken:
        commands = self._commands(message)
        shard = message.shard
        if message.version < self._versions[shard]:
            return Taken(None, (), commands)
        reached = self.reached[shard]
        hole = (reached, message.start) if message.start > reached else None
        self._versions[shard] = message.version
        self._place(shard, message.version, max(reached, message.start))
        self.reached[shard] = max(reached, message.upto)
        return Taken(hole, tuple(sent for sent in message.sent if sent.plain and sent.at >= reached), commands)

    def _place(self, shard: int, version: int, place: At) -> None:
        for wait in self._waits:
            if wait.version <= version:
                wait.places.setdefault(shard, place)
        self._waits = [wait for wait in self._waits if not wait.done]

    def _commands(self, message: Routed) -> tuple[Sent, ...]:
        shard = message.shard
        if message.token < self._tokens[shard]:
            return ()
        if message.token > self._tokens[shard]:
            self._tokens[shard] = message.token
            self._commanded[shard] = message.began
        commanded = self._commanded[shard]
        self._commanded[shard] = max(commanded, message.upto)
        return tuple(sent for sent in message.sent if sent.groups and sent.at >= commanded)
