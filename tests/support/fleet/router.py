"""A node's half that routes: takes shards, reads them, tells nodes, and stores where it stands once what it told has arrived."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.positions import At
from streams.log import Batch
from streams.routing.assignment import assign
from streams.routing.handing import Command
from streams.routing.messages import Message
from streams.routing.router import ShardRouter
from tests.support.fleet.gateway import Gateway

BATCH = 200


class Shard:
    def __init__(self, router: ShardRouter, token: int) -> None:
        self.router, self.token = router, token
        self.leaving = False
        self.asked: tuple[int, At, list[tuple[Command, int]]] | None = None
        """What was told when this was noted: to be stored when the slots have it."""


class Router:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.shards: dict[int, Shard] = {}
        self.held_until = 0
        self._turns = 0
        self._seen = -1
        self._last = gateway.began
        self.routed = 0

    def turn(self, now: int) -> None:
        gateway = self.gateway
        self._turns += 1
        # Whoever was stopped or held back goes on where it was: with routes, and shards, that it had then
        was_held, self._last = now - self._last > 1_000, now
        if self._seen != gateway.store.version and not was_held:
            self._fold(now)
            self._assign(now)
        for number, shard in list(self.shards.items()):
            router = shard.router
            records = gateway.log.shards[number][router.position.index : router.position.index + BATCH]
            if records and not router.handing.full and not shard.leaving:
                self.routed += len(records)
                self._tell(now, number, router.route(Batch(router.position, records), now))
            if self._turns % 2 == 0:
                self._tell(now, number, router.marks(every=self._turns % 20 == 0))
            self._store(now, number, shard)
            if shard.leaving:
                self._give_up(number, shard)

    def _fold(self, now: int) -> None:
        store, routes = self.gateway.store, self.gateway.routes
        self._seen = store.version
        changed = routes.see(store.nodes()) | routes.fold(store.routes(routes.versions))
        for number, shard in self.shards.items():
            self._tell(now, number, shard.router.changed(changed))

    def _assign(self, now: int) -> None:
        gateway, store = self.gateway, self.gateway.store
        alive = {epoch: name for epoch, name in store.names.items() if epoch not in store.dead}
        wanted = assign(range(len(gateway.log.shards)), {shard: epoch for shard, (_, epoch) in store.leases.items()}, alive)
        for number, epoch in wanted.items():
            shard = self.shards.get(number)
            if shard is not None and store.leases[number][0] != shard.token:
                del self.shards[number]
            elif shard is not None:
                shard.leaving = epoch != gateway.epoch
            elif epoch == gateway.epoch:
                token = store.acquire(number, gateway.epoch)
                if token is not None:
                    self._fold(now)  # what this router knows is newer than its lease
                    router = ShardRouter(number, token, store.routed.get(number, At(number, 0, 0)), gateway.routes)
                    self.shards[number] = Shard(router, token)
                    self._tell(now, number, router.begin())

    def _give_up(self, number: int, shard: Shard) -> None:
        """Once all that was told has arrived."""
        if self.gateway.slots.has(self._writer(number), self.gateway.slots.sent) and not shard.router.handing:
            if self.gateway.store.route_to(number, shard.token, shard.router.reported):
                self.gateway.store.release(number, shard.token)
            del self.shards[number]

    def _store(self, now: int, number: int, shard: Shard) -> None:
        """In this order: told, arrived, living nodes asked for, stored."""
        handing, store = shard.router.handing, self.gateway.store
        if shard.asked is None:
            shard.asked = (self.gateway.slots.sent, shard.router.reported, handing.outstanding())
        upto, position, told = shard.asked
        if not self.gateway.slots.has(self._writer(number), upto):
            return
        shard.asked = None
        self._tell(now, number, handing.confirm(told, store.alive(), now))
        held = handing.held()
        store.route_to(number, shard.token, position if held is None else min(position, held))

    def _writer(self, number: int) -> str:
        return f"{self.gateway.epoch}r{number}"

    def _tell(self, now: int, number: int, messages: Iterable[Message]) -> None:
        for message in messages:
            self.gateway.slots.append(now, self._writer(number), message)

    def leave(self) -> None:
        """A planned end: what has arrived is stored, and the shards are free."""
        for number, shard in list(self.shards.items()):
            self._give_up(number, shard)
