"""What one node knows of its own clients, and does to their connections. Who asks for all nodes asks gateway/cluster/everywhere.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.api.services import SessionInfo
from gateway.online import OnlineCounts
from schemas.reasons import ReasonCode

if TYPE_CHECKING:
    from gateway.node import Node


class Here:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._online = OnlineCounts(node)

    def session(self, client: str) -> SessionInfo | None:
        """Connected or not; None where there is none."""
        session = self._node.registry.get(client)
        if session is None:
            return None
        return SessionInfo(
            client_id=session.client,
            principal=session.principal.name,
            connected=session.connection is not None,
            session_expiry=session.expiry,
            queued=session.queue_length() + max(0, session.stored_count - len(session.stored or ())),
            in_flight=len(session.in_flight),
            subscriptions=list(session.subscriptions.values()),
            node=self._node.settings.node.id if self._node.owner else "",
        )

    def close(self, client: str) -> bool:
        """Close a client's connection as an administrator does; False where there is none."""
        session = self._node.registry.get(client)
        if session is None or session.connection is None:
            return False
        session.connection.close(ReasonCode.ADMINISTRATIVE_ACTION, "closed by administrator")
        return True

    def close_of(self, principal: str) -> int:
        """Close the connections of a revoked key; how many they were."""
        mine = [c for c in self._node.connections.all() if c.ready and c.principal.name == principal]
        for connection in mine:
            connection.close(ReasonCode.NOT_AUTHORIZED, "key revoked")
        self._node.routes.forget()
        return len(mine)

    def online(self, group: str = "") -> Mapping[str, int]:
        """By group id, how many of its clients are online, of one group or of all; groups without any are left out."""
        counts = self._online.by_group()
        if not group:
            return counts
        return {group: counts[group]} if group in counts else {}
