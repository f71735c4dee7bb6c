"""Which queue a message goes to, and which messages make a batch. Without I/O.

A lane's queue follows from the lane and the topic's writable queues alone, so that every node and every start says the same. When queues come or
go, only the lanes of those queues move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from bridges.rocketmq.routes import Queue

BATCH_MESSAGES = 256
BATCH_BYTES = 3_670_016
"""3.5 MiB: a broker takes 4 MiB unless it is told otherwise."""

LANES_REMEMBERED = 65_536
"""Lanes whose queue is remembered; more are computed again."""

Item = tuple[int, bytes]
"""A message's index in the call, and the message as part of a batch."""


class Placing:
    """Places of one topic. A new set of queues needs no care here: the caller has nothing in flight when it brings one."""

    def __init__(self) -> None:
        self._queues: tuple[Queue, ...] = ()
        self._lanes: dict[str, Queue] = {}
        self._turn = 0

    def use(self, queues: tuple[Queue, ...]) -> None:
        if queues != self._queues:
            self._queues = queues
            self._lanes.clear()

    def of_lane(self, lane: str) -> Queue:
        """The queue with the highest hash of itself and the lane."""
        queue = self._lanes.get(lane)
        if queue is None:
            if len(self._lanes) >= LANES_REMEMBERED:
                self._lanes.clear()
            key = lane.encode(errors="surrogatepass")
            queue = self._lanes[lane] = max(self._queues, key=lambda candidate: _weight(candidate, key))
        return queue

    def turns(self) -> list[Queue]:
        """All queues, beginning with the one whose turn it is: where one does not take a batch, the next may."""
        self._turn = (self._turn + 1) % len(self._queues)
        return [*self._queues[self._turn :], *self._queues[: self._turn]]


def _weight(queue: Queue, lane: bytes) -> bytes:
    return blake2b(queue.name.encode() + b"\x00" + lane, digest_size=8).digest()


def batches(items: Sequence[Item], largest: int = BATCH_BYTES) -> Iterator[list[Item]]:
    """In order, each within the limits; a message over ``largest`` makes a batch of its own."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= BATCH_MESSAGES or size + len(item[1]) > largest):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item[1])
    if batch:
        yield batch
