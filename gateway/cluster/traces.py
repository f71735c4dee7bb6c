"""Which nodes have traced within what is kept: the trace of one that is down is in its own folder, and a gap in what the others answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from typing import TYPE_CHECKING, Final

from schemas.errors import StoreError
from schemas.traces import TraceGap, TraceQuery
from streams.store import Document, PutDocument

if TYPE_CHECKING:
    from gateway.node import Node

TRACED: Final = "traced"
"""Documents by node: up to when it may have traced, ms as decimal digits."""
EVERY: Final = 3_600.0
"""Seconds after which a node says again that it traces; it may have for twice as long."""
AGAIN: Final = 10.0
MOST: Final = 1_000
"""Nodes that are told of."""

logger = logging.getLogger(__name__)


async def tell_traced(node: Node) -> None:
    """For ever, where this node traces."""
    while node.trace.on:
        until = node.clock.wall() + int(2 * EVERY * 1000)
        kept = int(node.settings.trace.retention_age * 1000)
        document = Document(TRACED, node.settings.node.id, b"%d" % until, expires_at=until + kept)
        try:
            await node.store.commit([PutDocument(document)])
        except StoreError as error:
            logger.warning("traced-not-told error=%s", error)
            await asyncio.sleep(AGAIN)
        else:
            await asyncio.sleep(EVERY)
    await asyncio.Event().wait()


async def gaps_of_absent(node: Node, query: TraceQuery, present: Container[str]) -> list[TraceGap]:
    """Of the nodes that are not among those present, and may have traced what is asked for."""
    found = await node.store.documents(TRACED, "", MOST)
    absent = [(each.name, int(each.body)) for each in found if each.name not in present and each.expires_at > node.clock.wall()]
    return [gap_of(name, query, until) for name, until in absent if until >= query.begin]


def gap_of(name: str, query: TraceQuery, until: int | None = None) -> TraceGap:
    end = query.end if until is None else min(query.end, until)
    return TraceGap(begin=query.begin, end=end, messages=0, events=0, node=name)
