"""What the store in memory holds. Neighbours: changes.py and sweep.py alter it, store.py reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.rules import Rule, RuleState
from schemas.sessions import BoxEntry, BoxState, PutRetained, Subscription
from streams.cluster import Answer, Lease, Notice, Question, Route, raised, routing_reader
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
    owner: int = 0
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)
    floor: tuple[At, ...] = ()
    resuming: bool = False


@dataclass
class Node:
    """``until`` in ms of the clock."""

    node: str
    detail: str = ""
    until: int = 0
    dead: bool = False
    routes: int = 0


@dataclass
class Asked:
    """``until`` in ms of the clock; answers by node epoch."""

    question: Question
    until: int
    answers: dict[int, Answer] = field(default_factory=dict)


@dataclass
class ClusterState:
    """By node epoch, name, (node epoch, filter), and (node epoch, number). ``told`` are notices that the commit under way gives rise to."""

    nodes: dict[int, Node] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    routes: dict[tuple[int, str], Route] = field(default_factory=dict)
    asked: dict[tuple[int, int], Asked] = field(default_factory=dict)
    told: dict[Notice, None] = field(default_factory=dict)


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
    cluster: ClusterState = field(default_factory=ClusterState)
    rules: dict[str, Rule] = field(default_factory=dict)
    rule_states: dict[str, RuleState] = field(default_factory=dict)
    letters: dict[tuple[str, int], DeadLetter] = field(default_factory=dict)

    def next_number(self) -> int:
        """For a session or a mailbox."""
        self.numbers += 1
        return self.numbers

    def session_of(self, client: str) -> Session | None:
        return next((session for session in self.sessions.values() if session.client == client), None)

    def owned(self, owner: int) -> list[int]:
        """The numbers of a node's sessions."""
        return sorted(number for number, session in self.sessions.items() if session.owner == owner)

    def routed(self, owner: int) -> tuple[At, ...]:
        """How far a node has routed."""
        reader = routing_reader(owner)
        return tuple(at for name, shards in self.positions.items() if name.partition(":")[0] == reader for at in shards.values())

    def hand(self, session: Session, owner: int) -> None:
        """The session's owner is that node from now on, under the box's epoch."""
        if owner not in (0, session.owner):
            session.floor = raised(session.floor, session.resuming, self.routed(session.owner), self.boxes[session.id].epoch)
            session.resuming = True
        session.owner = owner

    def remove_session(self, number: int) -> None:
        """With all that belongs to it."""
        del self.sessions[number]
        del self.boxes[number]
