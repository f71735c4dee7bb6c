"""What a record costs on a node of few and of many, counted and not timed: lines of the product that run for it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from gateway.cluster.absent import Absent
from gateway.cluster.downlink import OwnRouter, SharedDownlink
from gateway.cluster.starting import Unread
from schemas.positions import At
from schemas.records import Kind, Record
from streams.log import Batch
from tests.support.crowd import GROUPS, Crowd, make_room
from tests.support.many_bed import ManyBed, One

FRAME = 50
DEVICES = 100
"""Those that are sent commands: how many different topics there are says how often a plan is made."""


class Cost(NamedTuple):
    """Lines a record: where its device's session is, on each other node, and for choosing the node of a shared subscription's member."""

    here: float
    elsewhere: float
    choice: float


def measure(folder: Path, nodes: int, sessions: int, records: int) -> Cost:
    bed = ManyBed(folder)
    make_room(bed)
    try:
        for number in range(nodes):
            bed.start(f"n{number}")
        Crowd(bed, sessions)
        bed.advance(2.0)  # all have told of their members
        first, second = list(bed.living.values())[:2]
        devices = [session.client for session in first.node.registry.sessions.values()][:DEVICES]
        coming = _commands(devices, records)
        return Cost(_routing(first, coming) / records, _routing(second, coming) / records, _choosing(first, records) / records)
    finally:
        bed.close()


def _commands(devices: list[str], count: int) -> list[Batch]:
    """To devices of one node."""
    rng, found = random.Random(1), []
    for offset in range(count // FRAME):
        topics = [f"device/{rng.choice(devices).removeprefix('device')}/cmd" for _ in range(FRAME)]
        found.append(Batch(At(0, offset, 0), [_record(topic) for topic in topics], At(0, offset + 1, 0)))
    return found


def _record(topic: str) -> Record:
    return Record(int(Kind.PUBLISH), bytes(16), 0, "backend", topic, qos=1)


def _routing(one: One, coming: list[Batch]) -> int:
    router = OwnRouter(Unread(), SharedDownlink(one.node, Absent(one.node)), one.node)

    def route() -> None:
        for batch in coming:
            router.step(batch)

    return lines_of(route)


def _choosing(one: One, count: int) -> int:
    sharing = one.node.sharing
    assert sharing is not None
    readings = [_record(f"meter/{number % GROUPS}/7") for number in range(count)]

    def choose() -> None:
        for reading in readings:
            assert sharing.stamped(reading).shares

    return lines_of(choose)


def lines_of(run: Callable[[], None]) -> int:
    """How many lines of the product ``run`` goes through."""
    count = 0

    def local(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        return local if "/streams/" in name or "/gateway/" in name else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count
