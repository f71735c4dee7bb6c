"""The port of the store: the database of state. Implementations: streams/memory/store.py (reference), bridges/database.

All calls are served in the order in which they were made, by one worker, in groups: calls that arrive while a transaction
is on its way share the next one. A read therefore sees every change asked for before it and none asked for after it.

No text that is given to it holds U+0000, which MQTT forbids and PostgreSQL doesn't take: such a call fails alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus, Will
from schemas.records import Record
from schemas.rules import Rule, RuleState
from schemas.sessions import (
    BoxEntry,
    DropEntry,
    DropReceived,
    DropSubscription,
    EndConnection,
    PutEntry,
    PutReceived,
    PutRetained,
    PutSubscription,
    RemoveSession,
    ReserveBlock,
    Resumed,
    RetainedMessage,
    SessionState,
    SetEntry,
    TrimBox,
)
from streams.backend import Incoming
from streams.cluster import Cluster, Fence, PutRoute, Tell, TrimRoutes

BODY_MS: Final = 600_000
"""A record that is delivered everywhere stays as long, so that another box may refer to it."""
TOMBSTONE_MS: Final = 3_600_000
"""How long a deletion of a retained message is remembered against older writes that come late."""


class OpenChannel(msgspec.Struct, frozen=True):
    """A connection that has a connect event and no tcpclean yet, or one whose will is not published yet.

    ``node_epoch`` is that of the node that accepted it. ``will_due`` is 0 while the connection lives, else the ms of the wall clock
    at which its will falls due, ``rights`` what the connect event says.
    """

    channel: str
    client: str
    session: int
    principal: str
    address: str
    node_epoch: int
    connected: int
    session_expiry: int
    will: Will | None
    will_due: int = 0
    rights: bytes = b""


class PutChannel(msgspec.Struct, frozen=True, tag=True):
    channel: OpenChannel


class DropChannel(msgspec.Struct, frozen=True, tag=True):
    channel: str


class PutStatus(msgspec.Struct, frozen=True, tag=True):
    """``state`` is the encoded fold (streams/status.py), from which ``status`` is derived; the row is replaced."""

    status: ClientStatus
    state: bytes


class Document(msgspec.Struct, frozen=True, gc=False):
    """Something that was registered: a group id, a policy, an identity. The store knows it by kind and name; what it says is its maker's.

    ``expires_at`` in ms of the wall clock, 0 for never; one past its time is there until a sweep takes it.
    """

    kind: str
    name: str
    body: bytes = b""
    expires_at: int = 0


class PutDocument(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace."""

    document: Document


class DropDocument(msgspec.Struct, frozen=True, tag=True):
    kind: str
    name: str


class FinishReplayed(msgspec.Struct, frozen=True, tag=True):
    """The node's position has passed ``upto``: entries in state DONE before it may go.

    ``owner``: of that node epoch's sessions only, and of those that came from another node when they are ``Resumed``.
    """

    upto: At
    owner: int = 0


class DeadLetter(msgspec.Struct, frozen=True):
    """What a rule could not carry: a record (outflow, status) or a message (inflow), and why. ``number`` is the rule's own count; ``time`` in ms."""

    rule: str
    number: int
    time: int
    reason: str
    record: Record | None = None
    message: Incoming | None = None


class PutRule(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace a rule; its state and dead letters stay."""

    rule: Rule


class DropRule(msgspec.Struct, frozen=True, tag=True):
    """A rule goes with its state and dead letters."""

    id: str


class PutRuleState(msgspec.Struct, frozen=True, tag=True):
    """Left out where there is no such rule: it was deleted meanwhile."""

    rule: str
    state: RuleState


class PutDeadLetter(msgspec.Struct, frozen=True, tag=True):
    """Replaces a letter of the same number. Left out where there is no such rule."""

    letter: DeadLetter


class DropDeadLetters(msgspec.Struct, frozen=True, tag=True):
    """Of a rule, the letters ``first`` to ``last``."""

    rule: str
    first: int
    last: int


Change = (
    PutSubscription
    | DropSubscription
    | PutEntry
    | SetEntry
    | DropEntry
    | TrimBox
    | EndConnection
    | RemoveSession
    | ReserveBlock
    | Resumed
    | PutReceived
    | DropReceived
    | PutRetained
    | PutChannel
    | DropChannel
    | PutStatus
    | PutDocument
    | DropDocument
    | FinishReplayed
    | PutRoute
    | TrimRoutes
    | Tell
    | PutRule
    | DropRule
    | PutRuleState
    | PutDeadLetter
    | DropDeadLetters
)


class Refused(msgspec.Struct, frozen=True):
    """A claim that changes nothing: the client id belongs to ``principal``, or the count of sessions is at its limit."""

    reason: str
    principal: str = ""


class Stale(msgspec.Struct, frozen=True):
    """A change of this session (or box) was asked for under an old epoch, or the session is gone; it was not applied.

    ``epoch`` is the change's; 0 for one that no epoch guards, whose session or mailbox is not there.
    """

    session: int
    epoch: int


class CommitResult(msgspec.Struct, frozen=True):
    """``stale``: each (session, epoch) once. ``trimmed``: by box, how many entries TrimBox dropped.

    ``lost``: fences that don't hold; then nothing was applied.
    """

    stale: tuple[Stale, ...] = ()
    trimmed: tuple[tuple[int, int], ...] = ()
    lost: tuple[Fence, ...] = ()


class Swept(msgspec.Struct, frozen=True):
    """What a sweep removed: sessions (id, client) past their expiry, entries by reason, bodies, tombstones, expired retained messages and documents.

    A figure that has reached the sweep's ``limit`` says that another sweep would find more.
    """

    sessions: tuple[tuple[int, str], ...] = ()
    expired_entries: int = 0
    aged_entries: int = 0
    over_limit_entries: int = 0
    bodies: int = 0
    tombstones: int = 0
    expired_retained: int = 0
    expired_documents: int = 0


class Counts(msgspec.Struct, frozen=True):
    """``entries`` are QUEUED ones, ``retained`` leaves tombstones out."""

    sessions: int
    entries: int
    retained: int
    open_channels: int


class Store(Protocol):
    """Sessions, boxes, retained messages, presence, keys, documents and readers' positions. Raises StoreError where the medium fails."""

    @property
    def cluster(self) -> Cluster:
        """What many nodes need."""

    async def claim(
        self, client: str, principal: str, *, clean_start: bool, expiry: int, now: int, limit: int, owner: int = 0
    ) -> SessionState | Refused:
        """Take a session for a new connection, under an epoch one higher.

        ``clean_start`` ends a stored session first. ``expiry`` 0 keeps none: the state returned then has id 0 (its mailbox aside) and an
        epoch that no other claim gets; a stored session is resumed all the same, to end with this connection.
        A stored session past its ``expires_at`` is gone. A session owned by another principal is refused; ``limit`` is the most sessions kept.
        ``owner`` is the node epoch that the session is then owned by, 0 for a node alone; a dead node is refused. A session of another node comes
        with ``resume``: how far that node had routed (``streams.cluster.routing_reader``), unless it came there itself and wasn't resumed yet.
        """

    def commit(self, changes: Sequence[Change], positions: Mapping[str, At] | None = None, fences: Sequence[Fence] = ()) -> Awaitable[CommitResult]:
        """One transaction, with the positions of named readers. Changes under an old epoch are left out and reported.

        Where one of ``fences`` doesn't hold, all of it is left out, and that is reported.

        The work is asked for at once; awaiting is only for its outcome, and not awaiting it is fine.
        """

    async def mailbox(self, client: str) -> int:
        """The number of the client id's mailbox, made where there is none."""

    async def mailboxes(self) -> Mapping[str, int]:
        """All mailboxes by client id: what a start loads."""

    async def entries(self, box: int, after: At | None, limit: int, *, newest_first: bool = False, epoch: int = 0) -> list[BoxEntry]:
        """QUEUED entries of a box behind ``after``, in log order; or from its end backwards, then ``after`` is the last one had on that way.

        A page may be shorter than ``limit`` where its records are large; only an empty one is the end. ``epoch``: none where the box is
        under another one, since what lies there is then for another node to send.
        """

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[RetainedMessage]:
        """Retained messages under a filter, by topic, behind the topic ``after`` (empty for the first)."""

    async def sessions(self, after: int, limit: int) -> list[SessionState]:
        """Stored sessions by number behind ``after``, as a claim gives them but without ``in_flight``: what a start loads."""

    async def positions(self) -> Mapping[str, Mapping[int, At]]:
        """By reader name and shard."""

    async def channels(self) -> list[OpenChannel]:
        """Channels that a start has to clean up after."""

    async def statuses(self, clients: Sequence[str]) -> Mapping[str, tuple[ClientStatus, bytes]]:
        """Status and encoded fold of the clients that are known."""

    async def statuses_of(self, prefix: str, after: str, limit: int) -> list[ClientStatus]:
        """Of the known clients whose ids begin with ``prefix``, which isn't empty; by client id, in the order of code points, behind ``after``."""

    async def sweep(self, now: int, *, entries_per_box: int, entries_total: int, entry_age: int, limit: int) -> Swept:
        """Remove what is past its time or over a limit, at most ``limit`` of each; expiry times in ms of the wall clock, ages in seconds.

        Of entries only QUEUED ones are swept, the oldest first: a delivery that has begun ends with its session. Age is by the time
        in the record's id. Expired retained messages become tombstones, tombstones go after ``TOMBSTONE_MS``; a body goes when nothing
        refers to it and its record is older than ``BODY_MS``.
        """

    async def rules(self) -> list[tuple[Rule, RuleState | None]]:
        """All rules by id, with where they stand."""

    async def dead_letters(self, rule: str, after: int, limit: int) -> list[DeadLetter]:
        """A rule's dead letters by number behind ``after``; a page ends early where letters are large."""

    async def counts(self) -> Counts:
        """For metrics."""

    async def next_epoch(self) -> int:
        """The node's epoch, one higher at each call; a start calls it once."""

    async def put_key(self, key: AccessKey) -> None:
        """Insert or replace an access key."""

    async def keys(self) -> list[AccessKey]:
        """All access keys, revoked ones included."""

    async def add_document(self, document: Document) -> bool:
        """Insert; False, and nothing changed, where there is one of that kind and name."""

    async def documents(self, kind: str, after: str, limit: int) -> list[Document]:
        """Documents of a kind by name, in the order of code points, behind the name ``after`` (empty for the first)."""

    async def property(self, name: str, default: str | None = None) -> str | None:
        """A named value of the installation, such as the instance id; with ``default``, set to it where it is missing."""

    async def put_property(self, name: str, value: str) -> None:
        """Set a named value, whatever it was."""

    async def close(self) -> None:
        """Finish what was asked for and let go of the medium."""
