"""The backend in memory, with what was sent in the order in which it came, and messages as another program would put them."""

from __future__ import annotations

from streams.backend import Incoming, Outgoing
from streams.memory.backend import MemoryBackend, Queue


class NotingBackend(MemoryBackend):
    def __init__(self, *topics: str) -> None:
        super().__init__()
        self.noted: list[Outgoing] = []
        self.closed = False
        for topic in topics:
            self.make(topic)

    def make(self, topic: str, queues: int = 4, kind: str = "") -> None:
        self.topics[topic] = {str(number): Queue() for number in range(queues)}
        self.kinds[topic] = kind

    def store(self, topic: str, queue: str, message: Outgoing) -> None:
        super().store(topic, queue, message)
        self.noted.append(message)

    def sent(self, topic: str) -> list[Outgoing]:
        return [message for message in self.noted if message.topic == topic]

    def put(self, topic: str, body: bytes, *properties: tuple[str, str], queue: int = 0, time: int = 0) -> None:
        kept = self.topics[topic][str(queue)]
        kept.messages.append(Incoming(topic, str(queue), kept.end, body, properties, time=time))
        self.wake()

    async def close(self) -> None:
        await super().close()
        self.closed = True
