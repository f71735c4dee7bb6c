"""What nodes share: a log of shards, slots of the downlink that deliver late and again, and a store whose every call is one transaction."""

from __future__ import annotations

import heapq
import random
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

from schemas.positions import At
from schemas.records import Kind, Record
from streams.cluster import LEASE_MS, NodeState, PutRoute, Route, Routes
from streams.routing.messages import Message


class SharedLog:
    """A shard is one long frame: only the last number of a position moves."""

    def __init__(self, shards: int) -> None:
        self.shards: list[list[Record]] = [[] for _ in range(shards)]

    def append(self, client: str, topic: str, number: int) -> At:
        shard = zlib.crc32(f"{client} {topic}".encode()) % len(self.shards)
        self.shards[shard].append(Record(int(Kind.PUBLISH), b"", number, client, topic, qos=1))
        return At(shard, 0, len(self.shards[shard]) - 1)

    def ends(self) -> dict[int, At]:
        return {shard: At(shard, 0, len(records)) for shard, records in enumerate(self.shards)}

    def read(self, start: At, stop: At) -> list[tuple[At, Record]]:
        records = self.shards[start.shard][start.index : stop.index]
        return [(At(start.shard, 0, start.index + index), record) for index, record in enumerate(records)]


class Slots:
    """Messages of one writer to one node stay in order; they may be late, come again later, and (``loss``) not at all."""

    def __init__(self, rng: random.Random, *, delay: int, repeats: float, loss: float) -> None:
        self._random = rng
        self._delay, self._repeats, self._loss = delay, repeats, loss
        self.had: dict[int, list[Message]] = defaultdict(list)
        self._coming: list[tuple[int, int, int, str, Message]] = []
        self._last: dict[tuple[str, int], int] = {}
        self._waiting: dict[str, dict[int, None]] = defaultdict(dict)
        """By writer the numbers of messages that the slots don't have yet."""
        self.sent = 0

    def append(self, now: int, writer: str, message: Message) -> None:
        lane = (writer, message.epoch)
        due = self._last[lane] = max(now + self._random.randrange(self._delay), self._last.get(lane, 0))
        self._come(due, writer, message)
        self._waiting[writer][self.sent] = None
        if self._random.random() < self._repeats:
            self._come(due + self._random.randrange(20 * self._delay), "", message)

    def has(self, writer: str, upto: int) -> bool:
        """Whether what the writer sent before ``sent`` was ``upto`` has arrived."""
        waiting = self._waiting[writer]
        return not waiting or next(iter(waiting)) > upto

    def stick(self, writers: str, most: int) -> None:
        """What these writers have on its way comes up to ``most`` later, to half of the nodes."""
        late: dict[tuple[str, int], int] = defaultdict(lambda: self._random.choice((0, self._random.randrange(most))))
        coming = []
        for due, number, epoch, writer, message in self._coming:
            by = late[writer, epoch] if writer.startswith(writers) else 0
            coming.append((due + by, number, epoch, writer, message))
        self._coming = coming
        heapq.heapify(self._coming)
        for lane, by in late.items():
            self._last[lane] += by

    def _come(self, due: int, writer: str, message: Message) -> None:
        self.sent += 1
        heapq.heappush(self._coming, (due, self.sent, message.epoch, writer, message))

    def advance(self, now: int) -> None:
        while self._coming and self._coming[0][0] <= now:
            _, number, epoch, writer, message = heapq.heappop(self._coming)
            if writer:
                del self._waiting[writer][number]
            if self._random.random() >= self._loss:
                self.had[epoch].append(message)


@dataclass
class Row:
    """A session as stored. ``resume``: see SessionState; ``floor``: positions only grow. ``subscriptions``: since when, by shard."""

    owner: int = 0
    epoch: int = 0
    subscriptions: dict[str, dict[int, At]] = field(default_factory=dict)
    floor: dict[int, At] = field(default_factory=dict)
    resume: dict[int, At] | None = None
    inbox: dict[At, Record] = field(default_factory=dict)


class Store:
    def __init__(self) -> None:
        self.version = 0
        """Grows when nodes, routes or leases change."""
        self.names: dict[int, str] = {}
        self.until: dict[int, int] = {}
        self.dead: dict[int, int] = {}
        """When it was declared dead."""
        self.leases: dict[int, tuple[int, int]] = {}
        """By shard token and epoch."""
        self.routed: dict[int, At] = {}
        """By shard where its router is."""
        self.positions: dict[int, dict[int, At]] = {}
        self.slot_read: dict[int, int] = {}
        self.slots_done: set[int] = set()
        self.rows: dict[str, Row] = defaultdict(Row)
        self.owned: dict[int, dict[str, None]] = defaultdict(dict)
        self.moved: dict[int, list[str]] = defaultdict(list)
        """By node that had them, sessions that others took."""
        self._routes: dict[int, dict[str, Route]] = {}
        self._newest: dict[int, int] = {}
        self._epochs = 0

    # Nodes

    def join(self, name: str, now: int, ends: dict[int, At]) -> int:
        self._epochs += 1
        epoch = self._epochs
        self.names[epoch], self.until[epoch] = name, now + LEASE_MS
        self.positions[epoch], self.slot_read[epoch], self._routes[epoch] = dict(ends), 0, {}
        self.version += 1
        return epoch

    def renew(self, epoch: int, now: int) -> bool:
        if epoch in self.dead or epoch not in self.names:
            return False
        self.until[epoch] = now + LEASE_MS
        return True

    def notice(self, now: int) -> None:
        """Whoever's lease ran out is dead from here on."""
        for epoch, until in self.until.items():
            if until <= now and epoch not in self.dead:
                self.dead[epoch] = now
                self.version += 1

    def nodes(self) -> list[NodeState]:
        return [NodeState(epoch, name, epoch not in self.dead) for epoch, name in self.names.items()]

    def alive(self) -> set[int]:
        return {epoch for epoch in self.names if epoch not in self.dead}

    def bury(self, epoch: int) -> None:
        for rows in (self.names, self.until, self.dead, self.positions, self.slot_read, self._routes, self._newest):
            rows.pop(epoch, None)  # type: ignore[attr-defined]
        self.version += 1

    # Leases of shards

    def acquire(self, shard: int, epoch: int) -> int | None:
        token, holder = self.leases.get(shard, (0, 0))
        if epoch in self.dead or (holder != epoch and holder in self.alive()):
            return None
        if holder != epoch:
            token += 1
            self.leases[shard] = (token, epoch)
            self.version += 1
        return token

    def release(self, shard: int, token: int) -> None:
        if self.leases[shard][0] == token:
            self.leases[shard] = (token, 0)
            self.version += 1

    def route_to(self, shard: int, token: int, at: At) -> bool:
        if self.leases[shard][0] != token:
            return False
        self.routed[shard] = at
        return True

    # Routes

    def put_routes(self, changes: list[PutRoute]) -> None:
        for change in changes:
            routes = self._routes.get(change.epoch)
            if routes is None or change.epoch in self.dead:
                continue
            routes.pop(change.filter, None)  # a dict in the order of versions
            routes[change.filter] = Route(change.epoch, change.filter, change.count, change.version)
            self._newest[change.epoch] = change.version
            self.version += 1

    def routes(self, known: dict[int, int]) -> Routes:
        found: list[Route] = []
        for epoch, newest in self._newest.items():
            after = known.get(epoch, 0)
            if newest > after:
                new = []
                for route in reversed(self._routes[epoch].values()):
                    if route.version <= after:
                        break
                    new.append(route)
                found += reversed(new)
        return Routes(tuple(found), tuple(epoch for epoch in known if epoch not in self.names))

    # Sessions

    def claim(self, client: str, epoch: int) -> Row:
        row = self.rows[client]
        if row.owner != epoch:
            if row.owner and row.resume is None:
                reached = self.positions[row.owner]
                row.resume = {shard: max(at, row.floor.get(shard, at)) for shard, at in reached.items()}
            if row.owner:
                del self.owned[row.owner][client]
                self.moved[row.owner].append(client)
            row.owner = epoch
            self.owned[epoch][client] = None
        row.epoch += 1
        return row

    def write(self, client: str, epoch: int) -> Row | None:
        """The row, for a change under the session's epoch; None where that is old."""
        row = self.rows[client]
        return row if row.epoch == epoch else None
