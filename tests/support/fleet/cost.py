"""What routing costs, counted and not timed: lines of the core that run for a record, and bytes that a route takes.

Sessions are no more than filters here, so that there may be a million of them: each has a filter of its own, one in ten also one for a
site, one in a hundred is a member of a shared subscription. The same sessions are spread over few nodes or over many.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psutil

from schemas.positions import At
from schemas.records import Kind, Record
from streams.cluster import NodeState, Route, Routes
from streams.log import Batch
from streams.routing.node_routes import NodeRoutes
from streams.routing.own_routes import OwnRoutes
from streams.routing.router import ShardRouter

SITES = 1_000
GROUPS = 50


@dataclass
class Cost:
    nodes: int
    sessions: int
    routes: int
    bytes_a_route: float
    """Of the router's index."""
    lines_a_record: float
    sent_a_record: float


def filters(session: int) -> list[str]:
    found = [f"device/{session}/cmd"]
    if session % 10 == 0:
        found.append(f"site/{session % SITES}/+/alarm")
    if session % 100 == 0:
        found.append(f"$share/g{session // 100 % GROUPS}/meter/{session // 100 % GROUPS}/#")
    return found


def fill(nodes: int, sessions: int) -> NodeRoutes:
    """The index of a router whose fleet has these sessions; those with one shared filter or site lie on three nodes, however many there are."""
    index = NodeRoutes()
    index.see([NodeState(epoch, f"n{epoch}", True) for epoch in range(1, nodes + 1)])
    own = {epoch: OwnRoutes(epoch) for epoch in range(1, nodes + 1)}
    for session in range(sessions):
        for subscribed in filters(session):
            own[1 + place(session, subscribed, nodes)].add(subscribed)
    for each in own.values():
        index.fold(Routes(tuple(Route(change.epoch, change.filter, change.count, change.version) for change in each.changes(0))))
    return index


def place(session: int, subscribed: str, nodes: int) -> int:
    if subscribed.startswith("device/"):
        return session % nodes
    return (hash_of(subscribed) + session // 10 % 3) % nodes


def hash_of(text: str) -> int:
    return sum(text.encode())


def batches(sessions: int, count: int, seed: int) -> list[Batch]:
    """Commands to devices, alarms of sites, readings for a shared subscription; 50 to a frame."""
    rng, found = random.Random(seed), []
    for offset in range(count // 50):
        topics = [
            rng.choice((f"device/{rng.randrange(sessions)}/cmd", f"site/{rng.randrange(0, SITES, 10)}/5/alarm", f"meter/{rng.randrange(GROUPS)}/7"))
            for _ in range(50)
        ]
        found.append(Batch(At(0, offset, 0), [Record(int(Kind.PUBLISH), b"", 0, "p", topic) for topic in topics], At(0, offset + 1, 0)))
    return found


def measure(nodes: int, sessions: int, records: int, seed: int = 1) -> Cost:
    gc.collect()
    before = psutil.Process().memory_info().rss
    index = fill(nodes, sessions)
    gc.collect()
    size = psutil.Process().memory_info().rss - before
    router = ShardRouter(0, 1, At(0, 0, 0), index)
    coming = batches(sessions, records, seed)
    sent = 0

    def route() -> None:
        nonlocal sent
        for batch in coming:
            for message in router.route(batch, 0):
                sent += len(message.sent)

    lines = lines_of(route)
    return Cost(nodes, sessions, len(index), size / max(1, len(index)), lines / records, sent / records)


def lines_of(run: Callable[[], None]) -> int:
    """How many lines of the core ``run`` goes through."""
    count = 0

    def local(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        return local if "/streams/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count
