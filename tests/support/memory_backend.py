"""A backend in memory that does what a test tells it: be down, be slow, lose answers, refuse messages, lack topics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from schemas.errors import BackendError
from streams.backend import Incoming, Outgoing, Rejected, SourceStart, TopicDescription

QUEUES = 4


class MemoryBackend:
    """``topics``: by name the messages of each queue, as sent. ``calls`` is the size of every batch that was stored, in order."""

    def __init__(self, *topics: str, queues: int = QUEUES, kind: str = "") -> None:
        self.topics: dict[str, list[list[Outgoing]]] = {}
        self.log: list[Outgoing] = []
        self.kinds: dict[str, str] = {}
        self.queues = queues
        for topic in topics:
            self._make(topic, queues, kind)
        self.down = ""
        """Why calls fail."""
        self.lose_answers = 0
        """So many calls store and then say that they don't know."""
        self.delay = 0.0
        self.hung: asyncio.Event | None = None
        self.refuses: Callable[[Outgoing], str] = lambda message: ""
        self.calls: list[int] = []
        self.attempts = 0
        self.committed: dict[str, dict[str, int]] = {}
        self.first: dict[str, int] = {}
        self.closed = False
        self._news = asyncio.Event()
        self._turn = 0

    def _make(self, topic: str, queues: int, kind: str) -> None:
        self.topics[topic] = [[] for _ in range(queues)]
        self.kinds[topic] = kind

    def sent(self, topic: str) -> list[Outgoing]:
        """All messages in the order in which they came, queue by queue interleaved by arrival."""
        return [message for message in self.log if message.topic == topic]

    def post(self, message: Outgoing) -> None:
        queues = self.topics[message.topic]
        number = hash(message.lane) % len(queues) if message.lane is not None else self._turn % len(queues)
        self._turn += 1
        queues[number].append(message)
        self.log.append(message)
        self._news.set()

    def put(self, topic: str, body: bytes, *properties: tuple[str, str], queue: int = 0, time: int = 0) -> None:
        """As another program would."""
        self.topics[topic][queue].append(Outgoing(topic, body, properties, "", time))
        self._news.set()

    async def _reach(self) -> None:
        if self.hung is not None:
            await self.hung.wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        else:
            await asyncio.sleep(0)
        if self.down:
            raise BackendError(self.down)

    async def describe(self, topic: str) -> TopicDescription | None:
        await self._reach()
        return TopicDescription(len(self.topics[topic]), self.kinds[topic]) if topic in self.topics else None

    async def create_topic(self, topic: str, queues: int, kind: str = "") -> None:
        await self._reach()
        self._make(topic, queues, kind)

    def creation_hint(self, topic: str, *, ordered: bool = False) -> str:
        return f"make-topic {topic}"

    async def resolve(self, topic: str, start: SourceStart) -> Mapping[str, int]:
        await self._reach()
        queues = self.topics[topic]
        if isinstance(start, Mapping):
            return {str(number): start.get(str(number), 0) for number in range(len(queues))}
        if isinstance(start, int):
            return {str(n): next((i for i, m in enumerate(messages) if m.time >= start), len(messages)) for n, messages in enumerate(queues)}
        return {str(number): 0 if start == "earliest" else len(messages) for number, messages in enumerate(queues)}

    def target(self, rule: str, *, ordered: bool) -> MemoryTarget:
        return MemoryTarget(self)

    def source(self, rule: str, topic: str, positions: Mapping[str, int], *, tags: str = "", sql: str = "") -> MemorySource:
        return MemorySource(self, rule, topic, dict(positions))

    @property
    def trouble(self) -> str:
        return self.down

    async def close(self) -> None:
        self.closed = True


class MemoryTarget:
    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend
        self._busy = False

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[Rejected]:
        backend = self._backend
        assert not self._busy, "calls overlap"
        self._busy = True
        try:
            backend.attempts += 1
            await backend._reach()
            if any(message.topic not in backend.topics for message in messages):
                raise BackendError("no such topic")
            rejected = []
            for index, message in enumerate(messages):
                reason = backend.refuses(message)
                if reason:
                    rejected.append(Rejected(index, reason))
                else:
                    backend.post(message)
            backend.calls.append(len(messages))
            if backend.lose_answers:
                backend.lose_answers -= 1
                raise BackendError("the answer was lost")
            return rejected
        finally:
            self._busy = False

    async def close(self) -> None:
        """Nothing."""


class MemorySource:
    def __init__(self, backend: MemoryBackend, rule: str, topic: str, positions: dict[str, int]) -> None:
        self._backend, self._rule, self._topic, self._positions = backend, rule, topic, positions
        self.skipped = 0

    async def next(self, max_messages: int, max_bytes: int) -> Sequence[Incoming]:
        backend = self._backend
        while True:
            await backend._reach()
            for number, messages in enumerate(backend.topics[self._topic]):
                queue = str(number)
                place = self._positions.get(queue, 0)
                first = backend.first.get(queue, 0)
                if place < first:
                    self.skipped += first - place
                    place = first
                found = messages[place : place + max_messages]
                if found:
                    self._positions[queue] = place + len(found)
                    return [
                        Incoming(self._topic, queue, place + index, m.body, m.properties, m.id, m.time, m.key, m.tag) for index, m in enumerate(found)
                    ]
            backend._news.clear()
            await backend._news.wait()

    async def commit(self, positions: Mapping[str, int]) -> None:
        self._backend.committed[self._rule] = dict(positions)

    async def ends(self) -> Mapping[str, tuple[int, int]]:
        return {str(n): (self._backend.first.get(str(n), 0), len(messages)) for n, messages in enumerate(self._backend.topics[self._topic])}

    async def close(self) -> None:
        """Nothing."""
