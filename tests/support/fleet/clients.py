"""Devices: each has one persistent session, plain and shared subscriptions, and remembers what it got and what it is owed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.positions import At
from schemas.records import Record

if TYPE_CHECKING:
    from tests.support.fleet.sessions import Session


@dataclass
class Interval:
    """What was appended at or behind ``start`` is owed; at or behind ``stop`` not any more."""

    subscribed: str
    start: dict[int, At]
    stop: dict[int, At] | None = None


@dataclass
class Client:
    name: str
    session: Session | None = None
    """The session at the node to which there is a connection."""
    got: list[Record] = field(default_factory=list)
    owed: list[Interval] = field(default_factory=list)
    acks: list[At] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)
    """Filters that were asked for and not given up."""
    asked: set[str] = field(default_factory=set)
    """Whatever it asked for ever."""
    stale: int = 0
    """Deliveries on its connection by a node that had lost the session."""

    def receive(self, session: Session, at: At, record: Record, *, owned: bool) -> None:
        """What comes on a connection that this device has left is not seen by anybody."""
        if self.session is session:
            self.stale += not owned
            self.got.append(record)
            self.acks.append(at)
