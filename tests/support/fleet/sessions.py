"""A session at its node, and those that are being brought up there together."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.positions import At
from schemas.records import Record
from streams.resuming import OpenGap
from streams.routing.watermarks import Wait
from tests.support.fleet.clients import Client


@dataclass(eq=False)
class Sub:
    """``places``: from where on its records come live, by shard as far as known. ``late``: where the client was answered, if that was before."""

    subscribed: str
    asked: int
    places: dict[int, At]
    wait: Wait | None = None
    late: dict[int, At] | None = None
    answered: bool = False


@dataclass(eq=False)
class Session:
    client: Client
    node: int
    epoch: int
    subs: dict[str, Sub] = field(default_factory=dict)
    floor: dict[int, At] = field(default_factory=dict)
    gap: OpenGap[Session] | None = None
    box: dict[At, Record] = field(default_factory=dict)
    unsettled: dict[At, tuple[Record, str, At | None]] = field(default_factory=dict)
    """Sent and neither acknowledged nor stored, with the shared subscription and the place in the slot."""
    sent: set[At] = field(default_factory=set)
    """Stored ones that were sent on this connection."""
    online: bool = False


@dataclass(eq=False)
class Joining:
    gap: OpenGap[Session]
    wait: Wait
    sessions: list[Session]
