"""Commands for shared subscriptions until they are settled: that a member is to have a record is told to one node, and that node may die.

A command is settled when its node was alive *after* its slot had the command: whoever takes over from a dead node reads its slot up to
an end that was asked for after the death. Until then neither a router's position nor a node's place in its slot passes the record, so that
nothing is lost with them either. A record that nobody can take now waits, since a session on its way is in no route for a moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from schemas.positions import At
from schemas.records import Record
from streams.routing.messages import Handed
from streams.routing.node_routes import NodeRoutes

MAX_OUTSTANDING: Final = 50_000
"""Whoever has more waits with routing."""
WAIT_MS: Final = 60_000
"""So long a record waits for a member on any node; then the subscription has none, and the record is dropped and counted."""


class Command(msgspec.Struct):
    """``place`` is what is held back until it is settled: a position in ``publish``, or in a slot. ``epoch`` 0: it waits since ``since`` (ms)."""

    place: At
    at: At
    record: Record
    group: str
    epoch: int
    tried: tuple[int, ...] = ()
    since: int = 0


class Handing:
    """``itself``: the node that can't place what it hands over; 0 for a router."""

    def __init__(self, routes: NodeRoutes, itself: int = 0) -> None:
        self.dropped = 0
        self._routes = routes
        self._itself = itself
        self._commands: dict[tuple[At, At, str], Command] = {}
        """By place, record and subscription: one that comes back while it is on its way is another command, or else two nodes that hand a
        record to each other would both take it for settled."""

    def __len__(self) -> int:
        return len(self._commands)

    @property
    def full(self) -> bool:
        return len(self._commands) >= MAX_OUTSTANDING

    def sent(self, at: At, record: Record, group: str, epoch: int, now: int) -> None:
        """A router told a command to a node; 0 where none that lives has a member."""
        self._commands[at, at, group] = Command(at, at, record, group, epoch, since=now)

    def hand(self, place: At, at: At, record: Record, group: str, tried: tuple[int, ...], now: int) -> list[Handed]:
        """Find another node than those that were tried: what is to be told to it."""
        command = self._commands[place, at, group] = Command(place, at, record, group, 0, (*tried, self._itself), now)
        return self._choose(command, now)

    def waiting(self) -> list[Command]:
        """What nobody could take yet: the node itself may have a member again, and says ``settled`` then."""
        return [command for command in self._commands.values() if not command.epoch]

    def settled(self, command: Command) -> None:
        del self._commands[_key(command)]

    def outstanding(self) -> list[tuple[Command, int]]:
        """Commands that are on their way, and to which node: to be confirmed once the slots have them and living nodes were asked for after that."""
        return [(command, command.epoch) for command in self._commands.values() if command.epoch]

    def confirm(self, sent: Iterable[tuple[Command, int]], alive: Collection[int], now: int) -> list[Handed]:
        """What is to be told anew, of commands to nodes that died and of those that wait."""
        for command, epoch in sent:
            if command.epoch == epoch and epoch in alive:
                self._commands.pop(_key(command), None)
        told = []
        for command in [command for command in self._commands.values() if command.epoch not in alive]:
            if command.epoch:
                command.since = now
            told += self._choose(command, now)
        return told

    def held(self) -> At | None:
        """The first place that isn't settled."""
        return min((command.place for command in self._commands.values()), default=None)

    def _choose(self, command: Command, now: int) -> list[Handed]:
        record = command.record
        command.epoch = self._routes.choose_other(record.client, record.topic, command.group, command.tried)
        # Who had no member a moment ago may have one then
        tried, command.tried = command.tried, (self._itself,)
        if command.epoch:
            return [Handed(command.epoch, command.at, record, command.group, tried)]
        if now - command.since >= WAIT_MS:
            del self._commands[_key(command)]
            self.dropped += 1
        return []


def _key(command: Command) -> tuple[At, At, str]:
    return command.place, command.at, command.group
