"""The port of backends: the Kafka and RocketMQ topics that rules send to and receive from.

Implementations: streams/memory/backend.py (reference, adversarial), bridges/kafka, bridges/rocketmq. A named connection
of the settings is one Backend; it connects by itself, and goes on connecting for as long as it is used. What a message
holds is decided by streams/mapping; where a rule stands is kept in the store, never by a backend's consumer groups,
which are told positions only so that the backend's own tools show a lag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message to a backend topic.

    ``id`` is 32 upper-case hex digits, the record's id. ``properties`` are user properties (RocketMQ) or headers (Kafka), without
    control characters. ``key``: the Kafka key, None for none. ``lane``: messages of one lane go into one queue or partition, in order;
    None: anywhere. ``tag``: RocketMQ's, empty for none. ``time`` is ms of the wall clock.
    """

    topic: str
    body: bytes
    properties: tuple[tuple[str, str], ...]
    id: str
    time: int
    key: str | None = None
    lane: str | None = None
    tag: str = ""


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A message of a backend topic. ``queue`` names its queue or partition (`broker-a:3`, `3`), ``offset`` is its place there."""

    topic: str
    queue: str
    offset: int
    body: bytes
    properties: tuple[tuple[str, str], ...]
    id: str = ""
    time: int = 0
    key: str | None = None
    tag: str = ""


class Rejected(msgspec.Struct, frozen=True):
    """The backend refuses this message as such (too large, a property it doesn't take, ...); sending it again won't help."""

    index: int
    reason: str


class TopicDescription(msgspec.Struct, frozen=True):
    """``kind``: RocketMQ's message type (NORMAL, FIFO, ...), else empty. ``largest``: most bytes of a message with its properties, 0 unknown."""

    queues: int
    kind: str = ""
    largest: int = 0


SourceStart = Literal["earliest", "now"] | int | Mapping[str, int]
"""An end, a time in ms of the wall clock, or the next offset by queue; a queue that the mapping lacks is read from its first message."""


class Target(Protocol):
    """Where one rule sends. Calls don't overlap: the runner awaits one batch before it sends the next, which is what keeps order."""

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[Rejected]:
        """All messages but those returned are stored, as durably as the connection's settings demand.

        BackendError: unknown which are stored, the caller sends all of them again (at least once). Failures that pass by themselves
        (a broker away, a leader elected) are raised at once or after a few seconds, never waited out for longer than 10 s.
        """

    async def close(self) -> None:
        """Let go; the connection stays for others."""


class Source(Protocol):
    """What one rule receives. Queues that come later are found within 30 s."""

    async def next(self, max_messages: int, max_bytes: int) -> Sequence[Incoming]:
        """The next messages of one or more queues, each queue's in order; waits where there are none. BackendError where it can't receive.

        After an error the next call goes on behind what was returned last. An offset that the backend has no more goes on at the first it
        has; ``skipped`` counts what was lost by that.
        """

    @property
    def skipped(self) -> int:
        """Messages that the backend had dropped before they were received."""

    async def commit(self, positions: Mapping[str, int]) -> None:
        """Tell the backend the next offset by queue, for its own tools. Best effort: a failure is no error."""

    async def ends(self) -> Mapping[str, tuple[int, int]]:
        """By queue: the first offset kept and the one behind the last message."""

    async def close(self) -> None:
        """Stop receiving; a waiting ``next`` is cancelled."""


class Backend(Protocol):
    """One named connection."""

    async def describe(self, topic: str) -> TopicDescription | None:
        """What the topic is; None where the backend says that there is none. BackendError where it can't be asked."""

    async def create_topic(self, topic: str, queues: int, kind: str = "") -> None:
        """Make a topic. BackendError where that is refused."""

    def creation_hint(self, topic: str, *, ordered: bool = False) -> str:
        """The command of the backend's own tools that makes the topic: shown where a rule's topic is missing."""

    async def resolve(self, topic: str, start: SourceStart) -> Mapping[str, int]:
        """The next offset by queue at which ``start`` lies: what a new rule stores before it receives anything."""

    def target(self, rule: str, *, ordered: bool) -> Target:
        """Where the rule sends; its topics are in the messages."""

    def source(self, rule: str, topic: str, positions: Mapping[str, int], *, tags: str = "", sql: str = "") -> Source:
        """Receive a topic from ``positions`` on. ``tags`` (`a || b`) and ``sql`` (SQL92) filter at a RocketMQ broker; Kafka has neither."""

    @property
    def trouble(self) -> str:
        """Why the connection does not work just now, in words; empty while it does."""

    async def close(self) -> None:
        """Close everything that was opened through it."""
