"""Retained messages: what a record does to its topic's one, who gets it on SUBSCRIBE, and how many there may be.

Decisions only: the store applies them under the rule that the higher (time, id) wins, so that writes may come in any order
and again. Knows no session and no clock. Neighbours: runtime/router.py asks in the step that routes the record.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from schemas.records import Flag, Kind, Record
from schemas.sessions import PutRetained, Subscription

_RETAIN = int(Flag.RETAIN)
_P2P = int(Flag.P2P)
_PUBLISH = int(Kind.PUBLISH)


class Admitted(NamedTuple):
    """What may be written, the topics that may not for want of room, and the total of retained messages then."""

    changes: list[PutRetained]
    refused: list[str]
    total: int


def is_retained(record: Record) -> bool:
    """Whether a record sets or deletes its topic's retained message [MQTT-3.3.1-8]. The retain flag of P2P is not obeyed."""
    return record.kind == _PUBLISH and record.flags & (_RETAIN | _P2P) == _RETAIN


def retained_change(record: Record) -> PutRetained:
    """The write of a record for which ``is_retained`` holds: it replaces what is there [MQTT-3.3.1-5].

    An empty payload deletes and is not stored itself [MQTT-3.3.1-6] [MQTT-3.3.1-7]; the store keeps its (time, id) as a tombstone.
    """
    return PutRetained(topic=record.topic, time=record.time, id=record.id, record=record if record.payload else None)


def wants_retained(subscription: Subscription, *, is_new: bool) -> bool:
    """Whether a SUBSCRIBE asks for retained messages; ``is_new`` where the session had no subscription with this filter.

    Retain handling 0: yes [MQTT-3.3.1-9]; 1: if new [MQTT-3.3.1-10]; 2: no [MQTT-3.3.1-11]. Shared subscriptions never get any.
    """
    if subscription.filter.startswith("$share/"):
        return False
    return subscription.retain_handling == 0 or (subscription.retain_handling == 1 and is_new)


def coalesce(changes: Iterable[PutRetained]) -> list[PutRetained]:
    """One write a topic: of several the one with the highest (time, id), at the place of the topic's first."""
    newest: dict[str, PutRetained] = {}
    for change in changes:
        known = newest.get(change.topic)
        if known is None or (change.time, change.id) > (known.time, known.id):
            newest[change.topic] = change
    return list(newest.values())


def admit(changes: Iterable[PutRetained], existing: Container[str], count: int, limit: int) -> Admitted:
    """Keep ``count`` retained messages below ``limit``: a topic of ``existing`` may change and go, a new one needs room.

    ``changes`` are coalesced. A refused message is delivered all the same, only not kept.
    """
    admitted: list[PutRetained] = []
    refused: list[str] = []
    for change in changes:
        exists = change.topic in existing
        if change.record is None:
            count -= exists
        elif not exists:
            if count >= limit:
                refused.append(change.topic)
                continue
            count += 1
        admitted.append(change)
    return Admitted(admitted, refused, count)
