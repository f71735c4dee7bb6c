"""Enhanced authentication at CONNECT: AUTH packets to and fro before the connect goes on (MQTT 5, section 4.12). One method, SCRAM-SHA-256.

Secrets are those of custom identities. Hashing runs in threads, a few at a time. A connection is not authenticated anew while it lives.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from gateway.auth import scram
from gateway.auth.scram import ClientFirst, ScramRefused
from gateway.protocol.packets import Auth
from gateway.protocol.properties import NONE, Properties
from gateway.protocol.states import ConnectionState
from schemas.identities import Principal
from schemas.reasons import ReasonCode

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node

AT_ONCE: Final = 4
"""Hashes that are computed at the same time; more logins wait."""


class Authenticating:
    """Exchanges that are under way, each bounded by the time that CONNECT has."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: dict[Connection, asyncio.Future[bytes]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._finals: dict[Connection, bytes] = {}

    async def exchange(self, connection: Connection, client: str, first: ClientFirst) -> Principal:
        """The principal of a client that has proved who it is; ScramRefused or TimeoutError where it hasn't."""
        registers = self._node.registers
        identity, known = registers.identities.find(first.user, client)
        salt = registers.mint.derive("scram salt " + first.user)[:16]
        async with self._room:
            password = await asyncio.to_thread(scram.salted, identity.secret.reveal().encode(), salt)
        sent = scram.server_first(first, secrets.token_urlsafe(18), salt)
        answer = await self._ask(connection, sent.encode())
        self._finals[connection] = scram.finish(first, sent, answer, password, known=known)
        return Principal(identity.principal, "device", client, first.user)

    async def _ask(self, connection: Connection, data: bytes) -> bytes:
        """Send AUTH and wait for the client's [MQTT-4.12.0-2] [MQTT-4.12.0-3]."""
        if not connection.is_connecting():
            raise ScramRefused("the client is gone")
        future: asyncio.Future[bytes] = self._node.loop.create_future()
        self._waiting[connection] = future
        properties = Properties(authentication_method=scram.METHOD, authentication_data=data)
        connection.state = ConnectionState.AUTHENTICATING
        connection.send_packet(Auth(reason_code=ReasonCode.CONTINUE_AUTHENTICATION, properties=properties))
        connection.resume()
        try:
            async with asyncio.timeout(self._node.limits.connect_timeout):
                return await future
        finally:
            self._waiting.pop(connection, None)

    def answered(self, connection: Connection, packet: Auth) -> None:
        """The client's AUTH; what comes behind it waits for CONNACK."""
        properties = packet.properties or NONE
        future = self._waiting.get(connection)
        connection.state = ConnectionState.CONNECTING
        if future is None or future.done():
            return
        if properties.authentication_method != scram.METHOD or packet.reason_code != ReasonCode.CONTINUE_AUTHENTICATION:
            future.set_exception(ScramRefused("AUTH with another method or reason"))  # [MQTT-4.12.0-5]
        else:
            future.set_result(properties.authentication_data or b"")

    def ended(self, connection: Connection) -> None:
        """The client went in the middle of an exchange."""
        future = self._waiting.get(connection)
        if future is not None and not future.done():
            future.set_exception(ScramRefused("the client is gone"))

    def final(self, connection: Connection) -> bytes | None:
        """What CONNACK carries, once."""
        return self._finals.pop(connection, None) if self._finals else None
