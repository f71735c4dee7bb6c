"""How many clients of each group are online: counted from the connections, anew at most so often that no flood of questions costs the loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from schemas.resources import SEPARATOR

if TYPE_CHECKING:
    from gateway.node import Node

FRESH: Final = 0.5
"""Seconds for which a count is told again."""


class OnlineCounts:
    """Of client ids `<group id>@@@<device id>`; others are of no group."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._counted_at = float("-inf")
        self._counts: Mapping[str, int] = {}

    def by_group(self) -> Mapping[str, int]:
        """Groups without anyone online are left out."""
        now = self._node.monotonic()
        if now - self._counted_at >= FRESH:
            self._counted_at = now
            clients = (c.session.client for c in self._node.connections.all() if c.ready and c.session is not None)
            self._counts = Counter(client.partition(SEPARATOR)[0] for client in clients if SEPARATOR in client)
        return self._counts
