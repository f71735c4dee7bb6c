"""`$SYS/broker/…`: what the broker tells of itself, every ten seconds and to each new subscriber. QoS 0, never in the log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from schemas.positions import At
from schemas.records import Flag, Kind, Record, Source
from schemas.topics import matches
from streams.fanout import Delivery, fan_out

if TYPE_CHECKING:
    from gateway.node import Node

EVERY = 10.0
SHARD = -1
PREFIX = "$SYS/broker/"


class BrokerTopics:
    """Values are read when they are sent."""

    def __init__(self, node: Node, version: str) -> None:
        self._node = node
        self._started = node.monotonic()
        counters = node.counters
        self._values: dict[str, Callable[[], int | str]] = {
            "version": lambda: f"sluiceway {version}",
            "uptime": lambda: f"{int(node.monotonic() - self._started)} seconds",
            "clients/connected": lambda: sum(1 for s in node.registry.sessions.values() if s.connection is not None),
            "clients/total": lambda: len(node.registry.sessions),
            "subscriptions/count": lambda: len(node.routes),
            "publish/messages/received": lambda: counters.published,
            "publish/messages/sent": lambda: counters.delivered,
            "publish/messages/dropped": lambda: sum(counters.dropped.values()),
            "bytes/received": lambda: counters.bytes_in,
            "bytes/sent": lambda: counters.bytes_out,
            "store/messages/count": lambda: counters.offline_stored,
        }

    def _record(self, name: str) -> tuple[Record, At]:
        node = self._node
        now = node.clock.wall()
        payload = str(self._values[name]()).encode()
        record = Record(int(Kind.PUBLISH), node.ids.next(now), now, "", PREFIX + name, payload, flags=int(Flag.RETAIN), source=int(Source.SYSTEM))
        return record, At(SHARD, node.epoch << 40 | node.ids.counter, 0)

    def publish(self) -> None:
        """Tell those who subscribe."""
        routes, derive = self._node.routes, self._node.derive_plan
        for name in self._values:
            topic = PREFIX + name
            plan = routes.match_cached(topic, partial(derive, topic))
            if plan.variants or plan.picky or plan.groups:
                record, at = self._record(name)
                fan_out(plan, (record,), (at,))

    def current(self, topic_filter: str) -> list[Delivery]:
        """What a new subscriber of the filter gets at once."""
        if not topic_filter.startswith("$SYS/"):
            return []
        found = []
        for name in self._values:
            if matches(topic_filter, PREFIX + name):
                record, at = self._record(name)
                found.append(Delivery(record, at, 0, retain=True, identifiers=()))
        return found
