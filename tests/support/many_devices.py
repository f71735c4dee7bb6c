"""The many that a fault run has beside those it looks at most closely: devices with little to say, some of them away at any time.

A third publish, each to a topic of its own; the others have the topic of one of them each, in a kept session. All are judged by the ledger.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from tests.support.actors import Actor, PersistentSubscriber, Publisher
from tests.support.ledger import Ledger, Sent
from tests.support.wire import Clients

QOS = (0, 0, 1, 1, 1, 1, 1, 1, 1, 2)
"""Of ten publishers."""
AWAY = 0.2
"""Part of the subscribers."""


def on(topic: str) -> Callable[[Sent], bool]:
    return lambda sent: sent.topic == topic


class Devices:
    def __init__(self, ledger: Ledger, clients: Clients, count: int) -> None:
        topics = [f"devices/{n}" for n in range(count // 3)]
        self.publishers = [Publisher(ledger, clients, f"device{n}", [topic], version=4 + n % 2) for n, topic in enumerate(topics)]
        self._topics: dict[PersistentSubscriber, str] = {}
        for n in range(count - len(topics)):
            topic = topics[n % len(topics)]
            self._topics[PersistentSubscriber(ledger, clients, f"listener{n}", [topic], on(topic), version=5 - n % 2, qos=1 + n % 2)] = topic
        self.away: dict[Actor, None] = {}
        """In the order in which they left."""

    @property
    def subscribers(self) -> list[PersistentSubscriber]:
        return list(self._topics)

    @property
    def present(self) -> list[Actor]:
        return [device for device in (*self.publishers, *self._topics) if device not in self.away]

    def run(self, rate: float) -> list[asyncio.Task[None]]:
        """``rate`` a second of all together."""
        able = [(n, device) for n, device in enumerate(self.publishers) if device.online]
        return [asyncio.create_task(device.run(QOS[n % len(QOS)], rate / len(self.publishers))) for n, device in able]

    def next(self, chance: random.Random) -> Actor | None:
        """Who leaves, or comes back from being away."""
        if self.away and len(self.away) >= AWAY * len(self._topics):
            return next(iter(self.away))
        return chance.choice([device for device in self._topics if device.online] or [None])

    async def leave(self, device: Actor) -> None:
        """Its session stays."""
        await device.leave()
        self.away[device] = None

    def lacking(self, acked: Sequence[Sent]) -> list[tuple[str, list[Sent]]]:
        """What has not come yet, by subscriber."""
        by_topic: dict[str, list[Sent]] = defaultdict(list)
        for entry in acked:
            by_topic[entry.topic].append(entry)
        return [(device.name, device.lacks(by_topic[topic])) for device, topic in self._topics.items()]
