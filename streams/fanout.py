"""Who gets a copy of a record, and which copy: pure fan-out from matched subscriptions to deliveries.

A plan is derived once per topic and cached with the routes. Deliveries are made per run (consecutive records of one
topic and QoS) and per variant (QoS, retain flag, identifiers), so that fifty subscribers share one object and one
encoding. Knows sessions only as targets; how they queue and send is gateway/session.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from schemas.identities import Principal
from schemas.positions import At
from schemas.records import Flag, Record
from schemas.sessions import Subscription
from schemas.traces import TraceAction
from streams.shared import Member, choose

RETAIN = int(Flag.RETAIN)
PUSH = int(TraceAction.PUSH)
HEAD = 32
"""More than what a PUBLISH has besides payload, properties, topic (4 bytes a character at most) and identifiers (5 bytes each)."""
MAX_HEADS = 64
"""Encoded heads kept per topic: one per payload size, QoS and flag in use."""


class Delivery(msgspec.Struct, gc=False):
    """One copy of a record as it is owed to its receivers. ``mailbox``: kept for the client id even without a session.

    ``group`` is the shared subscription, as subscribed, whose member the receiver is: another member may have to take it over.
    ``traced`` is the action under which the trace is told of it (schemas/traces.py), 0 for none.
    """

    record: Record
    at: At
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    mailbox: bool = False
    group: str = ""
    traced: int = 0


class Variant(NamedTuple):
    """What makes copies differ between receivers."""

    qos: int
    retain_as_published: bool
    identifiers: tuple[int, ...]


class Run:
    """Deliveries of consecutive records of one topic, of equal QoS and retain flag, in log order.

    ``heads`` is the topic's cache of encoded heads; ``wire3`` and ``wire5`` belong to the encoder (gateway/protocol/hot.py),
    which fills them once for all receivers. No packet of the run is larger than ``largest``. ``traced`` are the deliveries of which the
    trace is told.
    """

    __slots__ = ("deliveries", "heads", "largest", "qos", "topic", "traced", "wire3", "wire5")

    def __init__(self, topic: str, qos: int, deliveries: list[Delivery], heads: dict[int, bytes], largest: int) -> None:
        self.topic = topic
        self.qos = qos
        self.deliveries = deliveries
        self.heads = heads
        self.largest = largest
        self.traced: Sequence[Delivery] = ()
        self.wire3: list[tuple[bytes, bytes]] | bytes | None = None
        self.wire5: list[tuple[bytes, bytes]] | bytes | None = None


class Target(Protocol):
    """A session as the fan-out sees it."""

    client: str
    principal: Principal

    def deliver(self, run: Run) -> None:
        """Take the run: send, queue or store it."""

    def queue_length(self) -> int:
        """Deliveries that wait in memory."""

    def availability(self) -> int:
        """2 online with a free window, 1 online, 0 offline: the order of preference in a shared subscription."""


class Picky(NamedTuple):
    """A target with a no-local subscription: its copies differ for what it published itself [MQTT-3.8.3-3]."""

    target: Target
    others: Variant
    own: Variant | None


class Plan:
    """Everything that a topic's records need, derived from its matching subscriptions."""

    __slots__ = ("groups", "heads", "picky", "topic", "variants")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.variants: list[tuple[Variant, list[Target]]] = []
        self.picky: list[Picky] = []
        self.groups: list[tuple[str, list[tuple[Target, Variant]]]] = []
        self.heads: dict[int, bytes] = {}

    def receivers(self, *, shared: bool = True) -> int:
        """How many get a copy of a record, at most; without ``shared``, by subscriptions of their own."""
        return sum(len(targets) for _, targets in self.variants) + len(self.picky) + (len(self.groups) if shared else 0)


def derive_plan(topic: str, matches: Iterable[tuple[Target, Subscription]], may_read: Callable[[Principal, str], bool]) -> Plan:
    """The plan of a topic: one copy a target, of the highest QoS [MQTT-3.3.4-2], with all identifiers [MQTT-3.3.4-3] [MQTT-3.3.4-4].

    A shared subscription's copy is one of its own, with its own identifier [MQTT-3.3.4-5].

    ``may_read(principal, topic)`` is asked for each target; who may not read gets nothing.
    """
    plan = Plan(topic)
    plain: dict[int, tuple[Target, list[Subscription]]] = {}
    groups: dict[str, list[tuple[Target, Variant]]] = {}
    for target, subscription in matches:
        if not may_read(target.principal, topic):
            continue
        if subscription.filter.startswith("$share/"):
            groups.setdefault(subscription.filter, []).append((target, _variant([subscription])))
        else:
            plain.setdefault(id(target), (target, []))[1].append(subscription)
    by_variant: dict[Variant, list[Target]] = {}
    for target, subscriptions in plain.values():
        variant = _variant(subscriptions)
        if any(s.no_local for s in subscriptions):
            rest = [s for s in subscriptions if not s.no_local]
            plan.picky.append(Picky(target, variant, _variant(rest) if rest else None))
        else:
            by_variant.setdefault(variant, []).append(target)
    plan.variants = list(by_variant.items())
    plan.groups = list(groups.items())
    return plan


def _variant(subscriptions: Sequence[Subscription]) -> Variant:
    return Variant(
        max(s.qos for s in subscriptions),
        any(s.retain_as_published for s in subscriptions),
        tuple(s.identifier for s in subscriptions if s.identifier),
    )


def make_run(
    topic: str, heads: dict[int, bytes], variant: Variant, records: Sequence[Record], ats: Sequence[At], chosen: Collection[bytes] = ()
) -> Run:
    """The run of one variant; all records have the same QoS and retain flag. Deliveries of ``chosen`` record ids are marked for the trace."""
    first = records[0]
    qos = min(first.qos, variant.qos)  # [MQTT-3.8.4-8]
    # [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    retain = variant.retain_as_published and first.flags & RETAIN != 0
    identifiers = variant.identifiers
    deliveries = [Delivery(record, at, qos, retain, identifiers) for record, at in zip(records, ats, strict=True)]
    largest = max([len(record.payload) + len(record.properties) for record in records]) + 4 * len(topic) + 5 * len(identifiers) + HEAD
    run = Run(topic, qos, deliveries, heads, largest)
    if chosen:
        run.traced = [delivery for delivery in deliveries if delivery.record.id in chosen]
        for delivery in run.traced:
            delivery.traced = PUSH
    return run


def fan_out(plan: Plan, records: Sequence[Record], ats: Sequence[At], chosen: Collection[bytes] = (), *, shared: bool = True) -> None:
    """Give each receiver its copies of consecutive records of the plan's topic, of equal QoS and retain flag. ``chosen``: see ``make_run``.

    Without ``shared``, shared subscriptions are left to ``fan_out_shared``.
    """
    for variant, targets in plan.variants:
        run = make_run(plan.topic, plan.heads, variant, records, ats, chosen)
        for target in targets:
            target.deliver(run)
    for picky in plan.picky:
        for record, at in zip(records, ats, strict=True):
            variant_or_none = picky.own if record.client == picky.target.client else picky.others
            if variant_or_none is not None:
                picky.target.deliver(make_run(plan.topic, plan.heads, variant_or_none, (record,), (at,), chosen))
    for name, members in plan.groups if shared else ():
        fan_out_shared(plan, name, members, records, ats, chosen)


def fan_out_shared(
    plan: Plan, name: str, group: list[tuple[Target, Variant]], records: Sequence[Record], ats: Sequence[At], chosen: Collection[bytes]
) -> None:
    """One member a record; availability is asked anew for each, since a delivery may take the last place in a window."""
    for record, at in zip(records, ats, strict=True):
        members = [Member(target.client, target.availability()) for target, _ in group]
        index = members.index(choose(record.client, plan.topic, members))
        target, variant = group[index]  # the member's own QoS [MQTT-4.8.2-3]
        run = make_run(plan.topic, plan.heads, variant, (record,), (at,), chosen)
        run.deliveries[0].group = name
        target.deliver(run)
