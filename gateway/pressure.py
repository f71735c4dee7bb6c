"""When acknowledgements are held back: the log, the router or the store lags (design: backpressure and limits).

Held-back publishers stop by themselves: their windows are full. Nothing is dropped here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.persistence import PENDING_LIMIT
from schemas.reasons import ReasonCode

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node

CLOSE_A_TICK = 20
"""Connections told SERVER_BUSY per tick once the log has stood still for ``log_wait``."""


class PressureValve:
    """``withhold`` is renewed each tick; ``withheld`` are the connections with acknowledgements held back."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.withhold = False
        self.withheld: set[Connection] = set()
        self.lag = 0
        """Records that are durable and not routed yet."""

    def reasons(self) -> list[str]:
        """Why acknowledgements are held back now, for readiness and metrics."""
        node, limits = self._node, self._node.limits
        pending = node.log.pressure()
        found = []
        if pending.records > limits.pending_records or pending.size > limits.pending_bytes:
            found.append("the log has more pending records than its limit")
        if pending.stalled_since:
            found.append("the log stores nothing at the moment")
        if self.lag > limits.routing_lag:
            found.append("routing lags behind")
        if node.flusher.holds_back():
            found.append("the lease of this node has run out: the store does not answer")
        if node.persistence.pending > 10 * PENDING_LIMIT or node.persistence.failing:
            found.append("the store lags behind")
        return found

    def tick(self, now: float) -> None:
        """Look anew; ``now`` monotonic seconds."""
        self.withhold = bool(self.reasons())
        if not self.withhold:
            for connection in [c for c in self.withheld if c.slowed_until <= now]:
                self.withheld.discard(connection)
                connection.release_withheld()
        since = self._node.log.pressure().stalled_since
        if since and now - since > self._node.limits.log_wait:
            waiting = [c for c in self._node.connections.all() if c.pending and c.version == 5][:CLOSE_A_TICK]
            for connection in waiting:
                connection.close_without_will(ReasonCode.SERVER_BUSY, "log stalled")
