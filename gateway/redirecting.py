"""Where clients are sent that can't stay here: to another node while this one stops, or for good where it has moved.

MQTT 5 clients alone can be told: 0x9C or 0x9D with a Server Reference. Others are told what they always were.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.cluster.roles import said, say
from gateway.protocol.packets import MQTT_5_0
from schemas.errors import StoreError
from schemas.reasons import ReasonCode

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.membership import Membership
    from gateway.node import Node

ASK_WITHIN: Final = 1.0
"""Seconds that the store may take to say who else is there: a stop doesn't wait for a store that is away."""
AROUND: Final = 16
"""Bytes of a CONNACK or DISCONNECT around its Server Reference, at most."""


class Redirecting:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._others: tuple[str, ...] = ()
        self._turn = 0
        self._asking: asyncio.Task[None] | None = None

    async def leave(self, membership: Membership) -> None:
        """Before a stop: have nobody sent here any more, and know where to send those who are here."""
        self._asking = self._node.loop.create_task(self._ask(membership))
        await asyncio.wait({self._asking}, timeout=ASK_WITHIN)

    async def _ask(self, membership: Membership) -> None:
        node, own = self._node, self._node.settings.node
        try:
            await membership.say(say(own, leaving=True))
            nodes = await node.store.cluster.nodes()
        except StoreError:
            return
        addresses = {said(each.detail).address for each in nodes if each.alive and each.epoch != node.epoch}
        self._others = tuple(sorted(addresses - {"", own.advertise}))  # who shares this one's address may be stopping as well

    def refusal(self, connection: Connection) -> tuple[ReasonCode, str, str] | None:
        """The answer to a CONNECT that is not taken now, for ConnectRefused."""
        if self._moved_to(connection):
            return ReasonCode.SERVER_MOVED, "moved", self._moved_to(connection)
        if not self._node.draining:
            return None
        reference = self._next(connection)
        if reference:
            return ReasonCode.USE_ANOTHER_SERVER, "draining", reference
        return ReasonCode.SERVER_UNAVAILABLE, "draining", ""  # CONNACK has no 0x8B [MQTT-3.2.2-8]

    def part(self, connection: Connection) -> None:
        """Close a connection since the gateway stops."""
        moved_to = self._moved_to(connection)
        reference = moved_to or self._next(connection)
        code = ReasonCode.SERVER_MOVED if moved_to else ReasonCode.USE_ANOTHER_SERVER if reference else ReasonCode.SERVER_SHUTTING_DOWN
        connection.close_without_will(code, "gateway stopped", reference)

    def _moved_to(self, connection: Connection) -> str:
        reference = self._node.settings.node.moved_to
        return reference if _takes(connection, reference) else ""

    def _next(self, connection: Connection) -> str:
        """One of the others, in turn."""
        if not self._others:
            return ""
        reference = self._others[self._turn % len(self._others)]
        if not _takes(connection, reference):
            return ""
        self._turn += 1
        return reference


def _takes(connection: Connection, reference: str) -> bool:
    """Whether the client can be told [MQTT-3.1.2-24]."""
    return connection.version == MQTT_5_0 and len(reference) + AROUND <= connection.send_packet_maximum
