"""The limit of retained messages: while there is room a set is let through by a count, without it the store is asked.

The count errs to the safe side (a set that replaces takes room as well), so the store is asked again when it has run out.
streams/retained.py decides then; a refused message is delivered all the same, only not kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.persistence import RETRY_AFTER
from schemas.errors import StoreError
from schemas.sessions import PutRetained
from streams.retained import admit, coalesce

if TYPE_CHECKING:
    from gateway.node import Node

COUNT_EVERY = 10.0
"""Seconds between counts of a store that is full."""


class RetainedRoom:
    """Asked by the downlink for each change, and settled with each batch."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._room = 0
        self._total = 0
        self._counted_at = -COUNT_EVERY
        self._undecided: list[PutRetained] = []

    def admits(self, change: PutRetained) -> bool:
        """Whether the change may be stored now; if not it is decided by ``settle``. Deletions always may."""
        if change.record is None:
            return True
        if self._room > 0:
            self._room -= 1
            return True
        self._undecided.append(change)
        return False

    async def settle(self) -> None:
        """Store or refuse what is undecided. The order among writes doesn't matter: the highest (time, id) wins."""
        while self._undecided:
            try:
                await self._decide()
            except StoreError:
                await asyncio.sleep(RETRY_AFTER)

    async def _decide(self) -> None:
        node = self._node
        changes = coalesce(self._undecided)
        await node.persistence.barrier()
        now = node.monotonic()
        if now - self._counted_at >= COUNT_EVERY or self._total < node.limits.retained_messages:
            self._total, self._counted_at = (await node.store.counts()).retained, now
        existing = {change.topic for change in changes if await node.store.retained(change.topic, "", 1)}
        admitted = admit(changes, existing, self._total, node.limits.retained_messages)
        self._undecided.clear()
        for change in admitted.changes:
            node.persistence.add(change)
        self._total = admitted.total
        self._room = node.limits.retained_messages - admitted.total
        if admitted.refused:
            node.counters.refused["retained_limit"] += len(admitted.refused)
