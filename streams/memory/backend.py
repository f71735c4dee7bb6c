"""A backend in memory: the reference of the port, and the adversary that rules are tested against.

It does what real ones do to a sender and a receiver, and at the test's word: be down, answer late, refuse messages, store them and lose
the answer, store only the first of them, forget old ones. ``Faults`` is the table of that; all of it may change between two calls.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import BackendError
from streams.backend import Incoming, Outgoing, Rejected, SourceStart, TopicDescription

KEPT = 1_000_000
"""Messages a queue keeps; older ones are dropped."""


@dataclass
class Faults:
    """What goes wrong. The default is nothing."""

    down: str = ""
    """Why nothing works."""
    delay: float = 0.0
    """Seconds until anything is answered."""
    refuse: Callable[[Outgoing], str] = field(default=lambda _: "")
    """The reason for which a message is refused; empty where it is not."""
    refuse_half: bool = False
    """Every second message is refused, by its number since the start."""
    lose_answers: int = 0
    """So many sends are stored and not answered for."""
    store_first: int | None = None
    """The next send stores so many of its messages and then fails."""


@dataclass
class Queue:
    """``first`` is the offset of what is kept longest."""

    first: int = 0
    messages: deque[Incoming] = field(default_factory=deque)

    @property
    def end(self) -> int:
        return self.first + len(self.messages)

    def drop(self, count: int) -> None:
        for _ in range(min(count, len(self.messages))):
            self.messages.popleft()
            self.first += 1


class MemoryBackend:
    """See streams.backend.Backend. ``topics`` and ``committed`` (by rule and topic) are open to tests."""

    def __init__(self, *, largest: int = 0) -> None:
        self.faults = Faults()
        self.topics: dict[str, dict[str, Queue]] = {}
        self.kinds: dict[str, str] = {}
        self.committed: dict[tuple[str, str], dict[str, int]] = {}
        self._largest = largest
        self._sources: list[MemorySource] = []

    # The port.

    async def describe(self, topic: str) -> TopicDescription | None:
        await self.answer()
        queues = self.topics.get(topic)
        return None if queues is None else TopicDescription(len(queues), self.kinds[topic], self._largest)

    async def create_topic(self, topic: str, queues: int, kind: str = "") -> None:
        await self.answer()
        if topic in self.topics:
            raise BackendError(f"topic {topic} is there already")
        self.topics[topic] = {str(number): Queue() for number in range(queues)}
        self.kinds[topic] = kind

    def creation_hint(self, topic: str, *, ordered: bool = False) -> str:
        return f"create {topic}{' ordered' if ordered else ''}"

    async def resolve(self, topic: str, start: SourceStart) -> Mapping[str, int]:
        await self.answer()
        return {name: _start(name, queue, start) for name, queue in self.queues(topic).items()}

    def target(self, rule: str, *, ordered: bool) -> MemoryTarget:
        return MemoryTarget(self)

    def source(self, rule: str, topic: str, positions: Mapping[str, int], *, tags: str = "", sql: str = "") -> MemorySource:
        source = MemorySource(self, rule, topic, positions, tags)
        self._sources.append(source)
        return source

    @property
    def trouble(self) -> str:
        return self.faults.down

    async def close(self) -> None:
        for source in self._sources:
            await source.close()

    # What tests and its own parts do.

    async def answer(self) -> None:
        """After its delay, or as the fault says."""
        if self.faults.delay:
            await asyncio.sleep(self.faults.delay)
        if self.faults.down:
            raise BackendError(self.faults.down)

    def queues(self, topic: str) -> dict[str, Queue]:
        if topic not in self.topics:
            raise BackendError(f"there is no topic {topic}; it is made by: {self.creation_hint(topic)}")
        return self.topics[topic]

    def store(self, topic: str, queue: str, message: Outgoing) -> None:
        kept = self.queues(topic)[queue]
        kept.messages.append(Incoming(topic, queue, kept.end, message.body, message.properties, message.id, message.time, message.key, message.tag))
        if len(kept.messages) > KEPT:
            kept.drop(1)

    def wake(self) -> None:
        """What waits looks again: messages have come, or something has changed."""
        for source in self._sources:
            source.arrived.set()

    def add_queues(self, topic: str, count: int) -> None:
        queues = self.queues(topic)
        queues.update({str(number): Queue() for number in range(len(queues), len(queues) + count)})


class MemoryTarget:
    """See streams.backend.Target."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend
        self._turn = 0
        self._seen = 0

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[Rejected]:
        await self._backend.answer()
        faults, rejected = self._backend.faults, []
        for message in messages:
            self._backend.queues(message.topic)
        first, faults.store_first = faults.store_first, None
        for index, message in enumerate(messages):
            if first is not None and index >= first:
                self._backend.wake()
                raise BackendError(f"stored {first} of {len(messages)}")
            reason = self._refusal(message)
            if reason:
                rejected.append(Rejected(index, reason))
            else:
                self._store(message)
        self._backend.wake()
        if faults.lose_answers:
            faults.lose_answers -= 1
            raise BackendError("no answer")
        return rejected

    def _refusal(self, message: Outgoing) -> str:
        self._seen += 1
        if self._backend.faults.refuse_half and self._seen % 2:
            return "every second message is refused"
        size = len(message.body) + sum(len(name.encode()) + len(value.encode()) for name, value in message.properties)
        if self._backend._largest and size > self._backend._largest:  # noqa: SLF001 - of this module
            return f"{size} bytes"
        return self._backend.faults.refuse(message)

    def _store(self, message: Outgoing) -> None:
        names = list(self._backend.queues(message.topic))
        lane = message.key if message.lane is None else message.lane
        self._turn += 1
        place = self._turn if lane is None else zlib.crc32(lane.encode())
        self._backend.store(message.topic, names[place % len(names)], message)

    async def close(self) -> None:
        pass


class MemorySource:
    """See streams.backend.Source. ``sql`` is not obeyed; ``tags`` are."""

    def __init__(self, backend: MemoryBackend, rule: str, topic: str, positions: Mapping[str, int], tags: str) -> None:
        self._backend = backend
        self._rule = rule
        self._topic = topic
        self._positions = dict(positions)
        self._tags = frozenset(tag.strip() for tag in tags.split("||")) if tags.strip() not in ("", "*") else None
        self._skipped = 0
        self._turn = 0
        self._closed = False
        self.arrived = asyncio.Event()

    @property
    def skipped(self) -> int:
        return self._skipped

    async def next(self, max_messages: int, max_bytes: int) -> Sequence[Incoming]:
        while True:
            self.arrived.clear()
            await self._backend.answer()
            if self._closed:
                raise asyncio.CancelledError
            found = self._take(max_messages, max_bytes)
            if found:
                return found
            await self.arrived.wait()

    def _take(self, max_messages: int, max_bytes: int) -> list[Incoming]:
        """From the queues in turn, at least one message where there is one."""
        taken: list[Incoming] = []
        size = 0
        names = list(self._backend.queues(self._topic))
        self._turn += 1
        for name in [*names[self._turn % len(names) :], *names[: self._turn % len(names)]]:
            queue = self._backend.topics[self._topic][name]
            position = self._positions.get(name, queue.first)
            if not queue.first <= position <= queue.end:
                self._skipped += max(queue.first - position, 0)
                position = queue.first
            while position < queue.end and len(taken) < max_messages:
                message = queue.messages[position - queue.first]
                if self._tags is not None and message.tag not in self._tags:
                    position += 1
                    continue
                if taken and size + len(message.body) > max_bytes:
                    break
                taken.append(message)
                size += len(message.body)
                position += 1
            self._positions[name] = position
        return taken

    async def commit(self, positions: Mapping[str, int]) -> None:
        if not self._backend.faults.down:
            self._backend.committed.setdefault((self._rule, self._topic), {}).update(positions)

    async def ends(self) -> Mapping[str, tuple[int, int]]:
        await self._backend.answer()
        return {name: (queue.first, queue.end) for name, queue in self._backend.queues(self._topic).items()}

    async def close(self) -> None:
        self._closed = True
        self.arrived.set()


def _start(name: str, queue: Queue, start: SourceStart) -> int:
    if start == "earliest":
        return queue.first
    if start == "now":
        return queue.end
    if isinstance(start, Mapping):
        return start.get(name, queue.first)
    return next((message.offset for message in queue.messages if message.time >= int(start)), queue.end)
