"""The metrics page: counters and gauges of a running gateway in Prometheus' text format, read when the page is asked for.

The hot path counts in plain numbers (gateway/counters.py); nothing here is called from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.counters import Counters
from gateway.rules.info import RuleStatus
from schemas.settings import Role

_COUNTERS: Final = (
    ("published", "Publishes taken from clients"),
    ("acknowledged", "Publishes acknowledged, which are durable"),
    ("delivered", "Messages written to receivers"),
    ("redelivered", "Messages written to receivers once more"),
    ("offline_stored", "Deliveries stored for clients that are away or slow"),
    ("retained_set", "Retained messages set or deleted"),
    ("wills", "Wills published"),
    ("trace_left_out", "Messages that are not traced since there were too many"),
    ("trace_lost", "Events that the trace lost"),
    ("bytes_in", "Bytes read from clients"),
    ("bytes_out", "Bytes written to clients"),
    ("connects", "Connections accepted with CONNACK"),
)

_BY_REASON: Final = (
    ("disconnects", "Connections ended, by reason"),
    ("dropped", "Deliveries not made, by reason"),
    ("refused", "Requests not granted, by reason"),
    ("throttled", "Pauses in reading from a client that is past a rate, by limit"),
)

_GAUGES: Final = {
    "connections": "Clients connected",
    "sessions": "Sessions kept, of connected clients and others",
    "subscriptions": "Subscriptions",
    "offline_messages": "Deliveries stored",
    "retained_messages": "Retained messages",
    "pending_records": "Records appended and not durable yet",
    "pending_bytes": "Bytes appended and not durable yet",
    "stalled_seconds": "Seconds for which nothing has become durable though something waits",
    "routing_lag": "Durable records not routed yet",
    "queued_bytes": "Bytes of records that wait in memory for receivers",
    "loop_lag_seconds": "How late the event loop was when last looked at",
    "ready": "1 where /readyz says ready",
    "durability_doubts": "Reasons why acknowledged messages could be lost, where the log's durability is taken as configured",
}

_RULE_COUNTS: Final = {
    "sent": "Messages that a rule has carried",
    "filtered": "Messages that a rule's filter left out, or whose time was over",
    "dead": "Messages that became dead letters",
    "looped": "Messages left out since they had passed the rule before",
    "lost": "Records that retention cut before the rule could send them",
    "skipped": "Messages that the source had no more",
    "letters_dropped": "Dead letters given up since there were too many",
}

_RULE_GAUGES: Final[dict[str, tuple[str, Callable[[RuleStatus], float]]]] = {
    "running": ("1 where the rule runs", lambda status: float(status.state == "running")),
    "lag_records": ("Records that wait for the rule", lambda status: float(status.lag_records)),
    "lag_seconds": ("Age of the oldest record that waits for the rule", lambda status: status.lag_age),
    "alarm": ("1 where retention will soon cut what waits for the rule", lambda status: float(status.alarm)),
}


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What there is now."""

    connections: int = 0
    sessions: int = 0
    subscriptions: int = 0
    offline_messages: int = 0
    retained_messages: int = 0
    pending_records: int = 0
    pending_bytes: int = 0
    stalled_seconds: float = 0.0
    routing_lag: int = 0
    queued_bytes: int = 0
    loop_lag_seconds: float = 0.0
    ready: bool = True
    durability_doubts: int = 0


class MetricsPage(Collector):
    """``gauges`` is called once a page. ``version`` and ``preset`` label ``sluiceway_info``."""

    def __init__(
        self,
        counters: Counters,
        gauges: Callable[[], Gauges],
        rules: Callable[[], Sequence[tuple[str, str, RuleStatus]]] = list,
        roles: Callable[[], Mapping[Role, int]] = dict,
        *,
        version: str,
        preset: str,
    ) -> None:
        self._counters = counters
        self._gauges = gauges
        self._rules = rules
        self._roles = roles
        self._labels = {"version": version, "preset": preset}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def page(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing at registration: names are checked by the tests instead."""
        return []

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("sluiceway_info", "Version and preset of this gateway", labels=list(self._labels))
        info.add_metric(list(self._labels.values()), 1)
        yield info
        for name, words in _COUNTERS:
            yield CounterMetricFamily(f"sluiceway_{name}", words, value=getattr(self._counters, name))
        for name, words in _BY_REASON:
            family = CounterMetricFamily(f"sluiceway_{name}", words, labels=["reason"])
            for reason, count in sorted(getattr(self._counters, name).items()):
                family.add_metric([reason], count)
            yield family
        gauges = self._gauges()
        for name, words in _GAUGES.items():
            yield GaugeMetricFamily(f"sluiceway_{name}", words, value=float(getattr(gauges, name)))
        nodes = GaugeMetricFamily("sluiceway_role_nodes", "Living nodes that have a role, as this node sees them", labels=["role"])
        for role, count in self._roles().items():
            nodes.add_metric([role], count)
        yield nodes
        yield from self._of_rules()

    def _of_rules(self) -> Iterator[Metric]:
        rules = self._rules()
        for name, words in _RULE_COUNTS.items():
            counter = CounterMetricFamily(f"sluiceway_rule_{name}", words, labels=["rule", "kind"])
            for rule, kind, status in rules:
                counter.add_metric([rule, kind], getattr(status.counts, name))
            yield counter
        for name, (words, read) in _RULE_GAUGES.items():
            gauge = GaugeMetricFamily(f"sluiceway_rule_{name}", words, labels=["rule", "kind"])
            for rule, kind, status in rules:
                gauge.add_metric([rule, kind], read(status))
            yield gauge
