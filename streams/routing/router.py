"""The router of one shard: batches of records in, what nodes are to be told out.

A node is told of its own records only, one message a batch, and of how far the shard is routed with which version of its routes: with its
records, when its routes changed, and now and then (``marks``). Routes are folded between batches; whoever folds them tells every router of
the process (``changed``) before the next one.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.positions import At
from schemas.records import Flag, Kind, Record
from streams.log import Batch
from streams.routing.handing import Handing
from streams.routing.messages import Routed, Sent
from streams.routing.node_routes import NodePlan, NodeRoutes

PUBLISH = int(Kind.PUBLISH)
P2P = int(Flag.P2P)


class ShardRouter:
    """``token`` is the lease's; ``start`` the position that the router before stored."""

    def __init__(self, shard: int, token: int, start: At, routes: NodeRoutes) -> None:
        self.shard = shard
        self.position = start
        self.handing = Handing(routes)
        self._token = token
        self._began = start
        self._routes = routes
        self._told: dict[int, tuple[At, int]] = {}
        """By node, up to where and with which version of its routes it was told."""
        for epoch, version in routes.versions.items():
            self._told[epoch] = (start, version)

    def begin(self) -> list[Routed]:
        """To all nodes, first of all."""
        return self.marks(every=True)

    def route(self, batch: Batch, now: int) -> list[Routed]:
        """What the nodes concerned are to be told; ``now`` in ms. Not called while ``handing`` is full."""
        first = batch.first
        by_node: dict[int, list[Sent]] = {}
        for index, record in enumerate(batch.records):
            if record.kind != PUBLISH or record.flags & P2P:  # a message to one device has no subscribers
                continue
            plan = self._routes.plan(record.topic)
            if not plan.nodes and not plan.groups:
                continue
            at = At(first.shard, first.offset, first.index + index)
            if plan.groups:
                self._share(plan, at, record, by_node, now)
                continue
            sent = Sent(at, record)
            for epoch in plan.nodes:
                by_node.setdefault(epoch, []).append(sent)
        self.position = batch.end
        return [self._tell(epoch, tuple(sent)) for epoch, sent in by_node.items()]

    def _share(self, plan: NodePlan, at: At, record: Record, by_node: dict[int, list[Sent]], now: int) -> None:
        """A node has the record once, for its own subscribers and as the one that was chosen."""
        chosen: dict[int, tuple[str, ...]] = {}
        for group, epochs in plan.groups:
            epoch = self._routes.choose(record.client, record.topic, group, epochs)
            if epoch:
                chosen[epoch] = (*chosen.get(epoch, ()), group)
            self.handing.sent(at, record, group, epoch, now)
        for epoch in dict.fromkeys((*plan.nodes, *chosen)):
            by_node.setdefault(epoch, []).append(Sent(at, record, epoch in plan.nodes, chosen.get(epoch, ())))

    def changed(self, epochs: Iterable[int]) -> list[Routed]:
        """Routes of these nodes were folded, or they are new: up to here the old ones count, from here on the new ones."""
        messages = []
        for epoch in epochs:
            if epoch in self._told and self._told[epoch][0] < self.position:
                messages.append(self._tell(epoch, ()))
            self._told[epoch] = (self.position, self._routes.versions[epoch])
            messages.append(self._tell(epoch, ()))
        return messages

    def marks(self, *, every: bool = False) -> list[Routed]:
        """What nodes don't know yet of how far this shard is routed, for every 100 ms; ``every``: whatever they know, for every second, since
        messages may get lost."""
        for epoch in [epoch for epoch in self._told if epoch not in self._routes.versions]:
            del self._told[epoch]
        position = self.position
        return [self._tell(epoch, ()) for epoch, (told, _) in self._told.items() if every or told < position]

    @property
    def reported(self) -> At:
        """Up to where every node was told of this shard. Whoever takes it over goes on there, so that no node finds a hole."""
        return min((told for told, _ in self._told.values()), default=self.position)

    def safe(self) -> At:
        """The position that may be stored once the slots have all messages so far."""
        held = self.handing.held()
        return self.reported if held is None else min(self.reported, held)

    def _tell(self, epoch: int, sent: tuple[Sent, ...]) -> Routed:
        start, version = self._told[epoch]
        self._told[epoch] = (self.position, version)
        return Routed(epoch, self.shard, self._token, self._began, start, self.position, version, sent)
