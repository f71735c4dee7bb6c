"""Mistakes that nodes could make, each as a change of one method of the product: the simulation finds every one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

import pytest

from gateway.cluster import departures
from gateway.cluster.arrivals import Arrivals
from gateway.cluster.downlink import OwnRouter
from gateway.cluster.fleet import Fleet
from gateway.cluster.passing import Passing
from gateway.cluster.sharing import Sharing
from schemas.records import Record
from schemas.sessions import DropReceived, PutReceived
from streams.memory.changes import _APPLY
from streams.memory.state import State
from streams.resuming import Gap
from streams.runtime import Router

Patch = pytest.MonkeyPatch


async def _nothing(*_: Any, **__: Any) -> None:
    return


def a_gap_is_not_read(patch: Patch) -> None:
    patch.setattr(Gap, "owed", lambda self, topic, at: [])


def received_ids_are_not_folded(patch: Patch) -> None:
    patch.setattr(Arrivals, "_received", lambda self, session, record: None)


def late_writes_of_received_ids_count(patch: Patch) -> None:
    """By nodes that have the session no more."""

    def put(state: State, change: PutReceived) -> None:
        if change.session in state.sessions:
            state.sessions[change.session].received.add(change.packet_id)

    def drop(state: State, change: DropReceived) -> None:
        if change.session in state.sessions:
            state.sessions[change.session].received.discard(change.packet_id)

    patch.setitem(_APPLY, PutReceived, put)
    patch.setitem(_APPLY, DropReceived, drop)


def late_records_count(patch: Patch) -> None:
    """Of epochs before that under which a node took the session."""

    def fold(self: OwnRouter, record: Record) -> None:
        session = self._node.registry.get(record.client)
        if session is not None and session.id == record.session and not self._node.arrivals.routed(session, record):
            Router.fold_received(self, record)

    patch.setattr("streams.memory.store.late_before", lambda floor: 0)
    patch.setattr(OwnRouter, "fold_received", fold)


def sessions_are_not_let_go(patch: Patch) -> None:
    patch.setattr(departures, "let_go", lambda node, session: None)


def nothing_is_passed_on(patch: Patch) -> None:
    patch.setattr(Passing, "put", lambda self, record, at, group, epochs: None)


def members_on_their_way_are_not_expected(patch: Patch) -> None:
    patch.setattr(Sharing, "expected", lambda self, subscriptions: nullcontext())


def what_was_for_the_dead_is_not_read_again(patch: Patch) -> None:
    patch.setattr(Fleet, "_share_again", _nothing)


def nobody_cleans_up_after_the_dead(patch: Patch) -> None:
    patch.setattr(Fleet, "_clean", _nothing)


def who_came_and_went_between_two_looks_is_not_seen(patch: Patch) -> None:
    patch.setattr(Fleet, "_is_news", lambda self, living, dead: living != self._living)


class Mutation(NamedTuple):
    """Found with that seed, as a problem that begins so."""

    make: Callable[[Patch], None]
    seed: int
    finds: str


MUTATIONS: Final = (
    Mutation(a_gap_is_not_read, 0, "lost: of"),
    Mutation(received_ids_are_not_folded, 0, "lost: of"),
    Mutation(late_writes_of_received_ids_count, 0, "lost: of"),
    Mutation(late_records_count, 2, "lost: of"),
    Mutation(sessions_are_not_let_go, 0, "owners"),
    Mutation(nothing_is_passed_on, 0, "lost: $share"),
    Mutation(members_on_their_way_are_not_expected, 72, "lost: $share"),
    Mutation(what_was_for_the_dead_is_not_read_again, 2, "lost: $share"),
    Mutation(nobody_cleans_up_after_the_dead, 2, "events"),
    Mutation(who_came_and_went_between_two_looks_is_not_seen, 107, "events"),
)
