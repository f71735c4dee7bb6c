"""Mistakes that routing could make, each as a change of one method of the core or of the fleet: the simulation finds every one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

import pytest

from schemas.positions import At
from schemas.records import Record
from streams.resuming import OpenGap
from streams.routing.handing import Handing
from streams.routing.messages import Routed
from streams.routing.node_routes import NodeRoutes
from streams.routing.own_routes import OwnRoutes
from streams.routing.router import ShardRouter
from streams.routing.watermarks import Taken, Watermarks
from tests.support.fleet import takeover
from tests.support.fleet.gateway import Gateway
from tests.support.fleet.sessions import Session, Sub
from tests.support.fleet.shared import Store

Patch = pytest.MonkeyPatch


def suback_does_not_wait(patch: Patch) -> None:
    """And nothing is read once more: what routers send from any version on counts."""
    original = Watermarks.wait
    patch.setattr(Watermarks, "wait", lambda self, version: original(self, 0))


def watermark_too_early(patch: Patch) -> None:
    """A shard counts as routed with new routes from a little before where it is."""
    original = Watermarks._place

    def place(self: Watermarks, shard: int, version: int, place: At) -> None:
        original(self, shard, version, At(shard, place.offset, max(0, place.index - 3)))

    patch.setattr(Watermarks, "_place", place)


def holes_are_not_read(patch: Patch) -> None:
    original = Watermarks.take
    patch.setattr(Watermarks, "take", lambda self, message: original(self, message)._replace(hole=None))


def repeats_are_not_dropped(patch: Patch) -> None:
    original = Watermarks.take

    def take(self: Watermarks, message: Routed) -> Taken:
        return original(self, message)._replace(plain=tuple(sent for sent in message.sent if sent.plain))

    patch.setattr(Watermarks, "take", take)


def old_versions_count(patch: Patch) -> None:
    original = Watermarks.take

    def take(self: Watermarks, message: Routed) -> Taken:
        self._versions[message.shard] = min(self._versions[message.shard], message.version)
        return original(self, message)

    patch.setattr(Watermarks, "take", take)


def new_version_is_told_for_old_routing(patch: Patch) -> None:
    """The router says of what it routed before it folded routes that it had them."""
    original = ShardRouter.changed

    def changed(self: ShardRouter, epochs: Collection[int]) -> list[Routed]:
        for epoch in epochs:
            if epoch in self._told:
                self._told[epoch] = (self._told[epoch][0], self._routes.versions[epoch])
        return [message for message in original(self, epochs) if message.sent or message.start < message.upto]

    patch.setattr(ShardRouter, "changed", changed)


def a_gap_is_left_too_early(patch: Patch) -> None:
    patch.setattr(OpenGap, "is_closed", lambda self, firsts: True)


def a_gap_is_not_read(patch: Patch) -> None:
    patch.setattr(OpenGap, "owed", lambda self, topic, at: [])


def live_records_do_not_wait_for_the_gap(patch: Patch) -> None:
    """Whoever arrives gets live records from the first one on, and reads them once more."""
    patch.setattr(OpenGap, "is_live", lambda self, target, at: True)
    original = Gateway._receive

    def receive(self: Gateway, session: Session, at: At, record: Record, group: str = "", place: At | None = None) -> bool:
        if session.gap is not None and session.online:
            self._send(session, at, record)
            return True
        return original(self, session, at, record, group, place)

    patch.setattr(Gateway, "_receive", receive)


def a_dead_node_is_chosen(patch: Patch) -> None:
    """And nobody asks whether it lived when the command had arrived."""

    def shares(self: NodeRoutes, group: str, epochs: Collection[int]) -> list[tuple[int, int]]:
        found = [(epoch, self._members.get((epoch, group), 0)) for epoch in epochs]
        return [(epoch, members) for epoch, members in found if members]

    patch.setattr(NodeRoutes, "_shares", shares)
    commands_are_settled_when_sent(patch)


def commands_are_settled_when_sent(patch: Patch) -> None:
    original = Handing.confirm

    def confirm(self: Handing, sent: Any, alive: Collection[int], now: int) -> Any:
        return original(self, sent, {*alive, *(epoch for _, epoch in sent)}, now)

    patch.setattr(Handing, "confirm", confirm)


def routers_store_what_is_not_settled(patch: Patch) -> None:
    patch.setattr(Handing, "held", lambda self: None)


def slots_of_the_dead_are_not_read(patch: Patch) -> None:
    patch.setattr(takeover, "take_slot", lambda gateway, epoch, now: gateway.store.slots_done.add(epoch))


def what_nobody_takes_is_dropped(patch: Patch) -> None:
    patch.setattr("streams.routing.handing.WAIT_MS", 0)


def shared_routes_do_not_linger(patch: Patch) -> None:
    patch.setattr(OwnRoutes, "moved", lambda self, subscribed, now: self.remove(subscribed))


def tokens_do_not_count(patch: Patch) -> None:
    """A router that takes a shard over decides nothing anew."""
    original = Watermarks._commands

    def commands(self: Watermarks, message: Routed) -> Any:
        self._tokens[message.shard] = message.token
        self._commanded.setdefault(message.shard, message.began)
        return original(self, message)

    patch.setattr(Watermarks, "_commands", commands)


def a_node_goes_on_without_its_lease(patch: Patch) -> None:
    patch.setattr(Gateway, "holds", lambda self, now: True)
    patch.setattr(Store, "renew", lambda self, epoch, now: True)


def positions_pass_what_is_unsettled(patch: Patch) -> None:
    def commit(self: Gateway) -> None:
        self.store.positions[self.epoch] = dict(self.marks.reached)
        self.store.slot_read[self.epoch] = self.read

    patch.setattr(Gateway, "_commit", commit)


def early_subacks_read_nothing_again(patch: Patch) -> None:
    patch.setattr(Gateway, "_read_late", lambda self, session, sub, start, stop: None)


def since_is_forgotten(patch: Patch) -> None:
    """A session that moves gets what lies before its subscriptions, too."""
    original = Gateway._suback

    def suback(self: Gateway, session: Session, sub: Sub, done: bool) -> None:
        original(self, session, sub, done)
        row = self.store.write(session.client.name, session.epoch)
        if row is not None and sub.subscribed in row.subscriptions:
            row.subscriptions[sub.subscribed] = {shard: At(shard, 0, 0) for shard in row.subscriptions[sub.subscribed]}

    patch.setattr(Gateway, "_suback", suback)


class Mutation(NamedTuple):
    """Found in that plan (plans.py) with that seed, as a problem that begins so."""

    make: Callable[[Patch], None]
    plan: str
    seed: int
    finds: str


MUTATIONS: Final = (
    Mutation(suback_does_not_wait, "calm", 0, "lost: c"),
    Mutation(watermark_too_early, "faults", 0, "lost: c"),
    Mutation(holes_are_not_read, "lossy", 0, "lost: c"),
    Mutation(repeats_are_not_dropped, "still", 0, "repeat"),
    Mutation(old_versions_count, "held", 11, "lost: c"),
    Mutation(new_version_is_told_for_old_routing, "faults", 0, "lost: c"),
    Mutation(a_gap_is_left_too_early, "calm", 0, "lost: c"),
    Mutation(a_gap_is_not_read, "calm", 0, "lost: c"),
    Mutation(live_records_do_not_wait_for_the_gap, "faults", 0, "order"),
    Mutation(a_dead_node_is_chosen, "faults", 0, "lost: no"),
    Mutation(commands_are_settled_when_sent, "faults", 0, "lost: no"),
    Mutation(routers_store_what_is_not_settled, "deaths", 0, "lost: no"),
    Mutation(slots_of_the_dead_are_not_read, "faults", 0, "lost: no"),
    Mutation(what_nobody_takes_is_dropped, "faults", 0, "lost: no"),
    Mutation(shared_routes_do_not_linger, "moving", 0, "lost: no"),
    Mutation(tokens_do_not_count, "deaths", 0, "lost: no"),
    Mutation(a_node_goes_on_without_its_lease, "held", 0, "stale"),
    Mutation(positions_pass_what_is_unsettled, "faults", 0, "lost: c"),
    Mutation(early_subacks_read_nothing_again, "held", 1, "lost: c"),
    Mutation(since_is_forgotten, "faults", 0, "order"),
)
