"""The store's second half: what many nodes need of it to be one gateway. Reached as ``Store.cluster``; one node alone needs none of it.

A node has a stable name and, from each start, an epoch (``Store.next_epoch``) that no other start of any node has; the epoch stands for
both. It lives as long as its lease, judged by the database's clock. One that is *dead* stays so: it was declared dead by whoever took
over from it, and nothing that it writes under a fence, and no claim of it, is applied any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from schemas.positions import At
from schemas.sessions import SessionState

if TYPE_CHECKING:
    from streams.store import Refused

LEASE_MS: Final = 5_000
RENEW_MS: Final = 1_500
POLL_SECONDS: Final = 1.0
"""Notices may be lost: so often there is one that says nothing."""
NOTICE_CHARACTERS: Final = 1_000
"""A notice's topic and detail: longer ones are refused."""
QUESTION_BYTES: Final = 64 * 1024
ANSWER_BYTES: Final = 4 * 1024 * 1024
QUESTIONS: Final = 16
"""Questions that a node may have at a time."""
KEPT_MS: Final = 10_000
"""A question and its answers that nobody withdrew go so long after their time, with the next question of any node."""


def routing_reader(epoch: int) -> str:
    """The reader as which a node's routing has its positions in the store; 0 for a node alone. A colon and the shard may follow."""
    return f"router/{epoch}" if epoch else "router"


def furthest(*reached: Iterable[At]) -> tuple[At, ...]:
    """By shard the furthest of positions."""
    found: dict[int, At] = {}
    for at in chain(*reached):
        found[at.shard] = max(at, found.get(at.shard, at))
    return tuple(found[shard] for shard in sorted(found))


_TAKEN: Final = -1
_LATE: Final = -2
"""Shards that no log has, in a session's floor: under which epoch its node took it, and before which epoch what lies behind the floor is late."""


def raised(floor: Iterable[At], resuming: object, reached: Iterable[At], epoch: int) -> tuple[At, ...]:
    """A session's floor as it leaves a node that has routed so far, under a new epoch; one that wasn't brought up there leaves as it came."""
    before = tuple(floor)
    late = [At(_LATE, at.offset, 0) for at in before if at.shard == _TAKEN]
    return furthest(before if resuming else furthest(before, reached, late), [At(_TAKEN, epoch, 0)])


def resume_of(floor: Iterable[At]) -> tuple[At, ...]:
    """Where to read on for a session."""
    return tuple(at for at in floor if at.shard >= 0)


def late_before(floor: Iterable[At]) -> int:
    """See SessionState."""
    return next((at.offset for at in floor if at.shard == _LATE), 0)


class NodeState(msgspec.Struct, frozen=True):
    """``detail`` is what the node says of itself to others. ``routes`` is the version of its newest route."""

    epoch: int
    node: str
    alive: bool
    detail: str = ""
    routes: int = 0


class Lease(msgspec.Struct, frozen=True):
    """``token`` grows whenever the holder changes; ``epoch`` is the holder's, 0 for none."""

    name: str
    token: int
    epoch: int


class Owner(msgspec.Struct, frozen=True):
    """Whose a session is: ``epoch`` the session's, ``node`` the node epoch, 0 for none."""

    session: int
    epoch: int
    node: int


class Route(msgspec.Struct, frozen=True):
    """``count`` sessions of a node have the filter; 0 for one that it has withdrawn."""

    epoch: int
    filter: str
    count: int
    version: int


class Routes(msgspec.Struct, frozen=True):
    """Routes by node, of each node by version. ``gone``: nodes that were asked about and are no more, with all their routes."""

    routes: tuple[Route, ...] = ()
    gone: tuple[int, ...] = ()


class Notice(msgspec.Struct, frozen=True):
    """A hint to read again, never authority. POLL says no more than that time has passed."""

    topic: str
    detail: str = ""

    def __post_init__(self) -> None:
        if not self.topic or " " in self.topic or "\0" in self.topic + self.detail or len(self.topic) + len(self.detail) > NOTICE_CHARACTERS:
            raise ValueError(f"a notice has a topic without spaces, no U+0000, and at most {NOTICE_CHARACTERS} characters")


POLL: Final = Notice("poll")
NODES: Final = "nodes"
"""A node came or went, or a lease changed hands."""
ROUTES: Final = "routes"
"""Detail: the node epoch whose routes changed."""
KEYS: Final = "keys"
"""An access key was made or changed."""
DOCUMENTS: Final = "documents"
"""Detail: the kind of which documents changed."""
SESSION: Final = "session"
"""Another node took a session, or it ended. Detail: the owner's node epoch until then, the session, and its epoch now, 0 where it ended."""


ASK: Final = "ask"
"""A node has a question. Detail: its epoch."""
ANSWER: Final = "answer"
"""A question has an answer. Detail: the asking node's epoch, and the question's number."""


class Question(msgspec.Struct, frozen=True):
    """What a node asks all others: ``epoch`` is its own, ``number`` tells its questions apart."""

    epoch: int
    number: int
    kind: str
    body: bytes = b""

    def __post_init__(self) -> None:
        if len(self.body) > QUESTION_BYTES:
            raise ValueError(f"a question has at most {QUESTION_BYTES} bytes")


class Answer(msgspec.Struct, frozen=True):
    """``epoch``: of the node that answers."""

    epoch: int
    body: bytes

    def __post_init__(self) -> None:
        if len(self.body) > ANSWER_BYTES:
            raise ValueError(f"an answer has at most {ANSWER_BYTES} bytes")


# Fences: what a commit stands on. Where one of them doesn't hold, nothing of the commit is applied.


class NodeFence(msgspec.Struct, frozen=True, tag=True):
    """The node is registered and not dead."""

    epoch: int


class LeaseFence(msgspec.Struct, frozen=True, tag=True):
    """Nobody has taken the lease since ``token`` was given out."""

    name: str
    token: int


Fence = NodeFence | LeaseFence


# Changes, for ``Store.commit``.


class PutRoute(msgspec.Struct, frozen=True, tag=True):
    """The node sets ``version``, for each change of a route one higher than for the one before. Refused (session 0) where the node is dead."""

    epoch: int
    filter: str
    count: int
    version: int


class TrimRoutes(msgspec.Struct, frozen=True, tag=True):
    """Routers have seen the node's routes up to a version: withdrawn ones up to there may be forgotten."""

    epoch: int
    upto: int


class Tell(msgspec.Struct, frozen=True, tag=True):
    """A notice to all nodes, this one included, once the commit is durable."""

    notice: Notice


class Cluster(Protocol):
    """Raises StoreError where the medium fails."""

    async def join(self, node: str, epoch: int, detail: str, lease_ms: int = LEASE_MS) -> NodeState | Refused:
        """Register a start of a node. Refused while another start of that node lives. Asked again it changes detail and lease."""

    async def renew(self, epoch: int, lease_ms: int = LEASE_MS) -> bool:
        """False where the node is dead or was never registered: it has lost everything."""

    async def leave(self, epoch: int) -> None:
        """The lease ends at once. Sessions and routes are still its own, for another node to take over."""

    async def nodes(self) -> list[NodeState]:
        """By epoch; dead ones are listed until they are buried."""

    async def bury(self, epoch: int) -> bool:
        """Forget a node that doesn't live and owns no session any more, with its routes, leases and routing positions. False while it isn't so."""

    async def acquire(self, name: str, epoch: int) -> Lease | None:
        """Take a lease, or keep it. It is held as long as its holder lives: there is nothing else to renew.

        None while another holder lives, or where the asking node is dead.
        """

    async def release(self, name: str, epoch: int) -> None:
        """Give a lease up, if it is the node's. Its token is not given out again."""

    async def leases(self) -> list[Lease]:
        """By name; those that nobody holds are listed too."""

    async def adopt(self, dead: int, epoch: int, limit: int) -> list[SessionState] | Refused:
        """Take over sessions of a node that doesn't live, each under an epoch one higher, and declare that node dead.

        States are as from ``Store.sessions``, with ``resume`` as from a claim; ``dead`` 0 stands for a node alone that was here before.
        None may be left to take while ``bury`` is still refused: another node is busy with the rest.
        """

    async def owners(self, clients: Sequence[str]) -> Mapping[str, Owner]:
        """Of the clients that have a session."""

    async def routes(self, known: Mapping[int, int], limit: int) -> Routes:
        """Changes behind the versions known, by node epoch; at most ``limit``, and fewer only where there are no more."""

    async def ask(self, question: Question, within_ms: int) -> list[NodeState] | Refused:
        """Put a question to all other nodes that live now, which are told: they have so long to answer. Refused past QUESTIONS of one node."""

    async def asked(self, epoch: int) -> list[Question]:
        """What others ask, as long as they wait, and this node has not answered."""

    async def answer(self, question: Question, answer: Answer) -> bool:
        """The asking node is told. False where it waits no more, or has this node's answer: then nothing is kept."""

    async def answers(self, question: Question, known: Collection[int] = ()) -> list[Answer]:
        """By node epoch, those that there are, but of the nodes that are known."""

    async def withdraw(self, question: Question) -> None:
        """Forget a question and its answers."""

    def listen(self, heard: Callable[[Notice], None]) -> Callable[[], None]:
        """Call with every notice, on the loop's thread, until the function returned is called.

        Where other nodes use the store as well, POLL comes every POLL_SECONDS.
        """
