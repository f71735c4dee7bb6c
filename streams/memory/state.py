"""What the store in memory holds. Neighbours: changes.py and sweep.py alter it, store.py reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.rules import Rule, RuleState
from schemas.sessions import BoxEntry, BoxState, PutRetained, Subscription
from streams.store import DeadLetter, Document, OpenChannel


@dataclass
class Box:
    """Deliveries by position. ``epoch`` guards a session's; a mailbox has 0."""

    epoch: int = 0
    entries: dict[At, BoxEntry] = field(default_factory=dict)

    def queued(self) -> list[BoxEntry]:
        """QUEUED entries in log order."""
        return [self.entries[at] for at in sorted(self.entries) if self.entries[at].state == BoxState.QUEUED]


@dataclass
class Session:
    id: int
    client: str
    principal: str
    expiry: int = 0
    expires_at: int = 0
    next_block: int = 1
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)


@dataclass
class State:
    """All of it. ``bodies`` has, by record id, the time from which an unreferenced record may go."""

    numbers: int = 0
    connections: int = 0
    node_epoch: int = 0
    sessions: dict[int, Session] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)
    mailboxes: dict[str, int] = field(default_factory=dict)
    bodies: dict[bytes, int] = field(default_factory=dict)
    retained: dict[str, PutRetained] = field(default_factory=dict)
    channels: dict[str, OpenChannel] = field(default_factory=dict)
    statuses: dict[str, tuple[ClientStatus, bytes]] = field(default_factory=dict)
    positions: dict[str, dict[int, At]] = field(default_factory=dict)
    keys: dict[str, AccessKey] = field(default_factory=dict)
    documents: dict[tuple[str, str], Document] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    rule_states: dict[str, RuleState] = field(default_factory=dict)
    letters: dict[tuple[str, int], DeadLetter] = field(default_factory=dict)

    def next_number(self) -> int:
        """For a session or a mailbox."""
        self.numbers += 1
        return self.numbers

    def session_of(self, client: str) -> Session | None:
        return next((session for session in self.sessions.values() if session.client == client), None)

    def remove_session(self, number: int) -> None:
        """With all that belongs to it."""
        del self.sessions[number]
        del self.boxes[number]
