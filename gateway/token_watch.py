"""Tokens of connections that live: a notice before one expires, a notice and the close when one has expired or was revoked, and new ones.
A connection by JWT ends with it.

A client that logged in with tokens is sent nothing until it has shown one to read with: what comes for its persistent session is stored
meanwhile. Notices are QoS 0 and need no subscription; the close may overtake them, as the model product says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.auth.tokens import ShownTokens, Token, TokenFault
from gateway.protocol.packets import Publish
from schemas.identities import Principal
from schemas.reasons import ReasonCode
from streams.control import parse_upload_token
from streams.expiry import TimerWheel

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node

EXPIRE_NOTICE: Final = "$SYS/tokenExpireNotice"
INVALID_NOTICE: Final = "$SYS/tokenInvalidNotice"

NOTICE_BEFORE_MS: Final = 300_000
LOOK_EVERY: Final = 60.0
"""Seconds after which a connection is looked at again at the latest: expiry is by the wall clock, which may be set."""
NO_TOKENS: Final = ShownTokens()


def shown_by(connection: Connection) -> ShownTokens | None:
    """The tokens of a connection; None for one that logged in by other means."""
    tokens = connection.principal.tokens
    return tokens if isinstance(tokens, ShownTokens) else None


class TokenWatch:
    """Holds the connections with tokens, and nothing of others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wheel: TimerWheel[Connection] = TimerWheel(node.monotonic())
        self._holders: dict[bytes, set[Connection]] = {}
        """Connections by the token that they have shown."""
        self._noticed: dict[Connection, set[bytes]] = {}

    def began(self, connection: Connection) -> None:
        """A connection with tokens, or one that has an end, is answered."""
        shown = shown_by(connection) or NO_TOKENS
        self._noticed[connection] = set()
        for token in shown.by_type.values():
            self._holders.setdefault(token.id, set()).add(connection)
        self._schedule(connection, shown)

    def ended(self, connection: Connection) -> None:
        if self._noticed.pop(connection, None) is None:
            return
        self._wheel.cancel(connection)
        for token in (shown_by(connection) or NO_TOKENS).by_type.values():
            self._leave(connection, token)

    def tick(self, now: float) -> None:
        """``now`` in monotonic seconds."""
        for connection in self._wheel.expired(now):
            self._look(connection)

    def revoked(self, token: Token) -> None:
        """A token was revoked: whoever has shown it is sent away."""
        for connection in list(self._holders.get(token.id, ())):
            self.close(connection, TokenFault.REVOKED, token.type)

    def evaluate(self) -> None:
        """Rights have changed: tokens of keys that are gone end."""
        for connection in list(self._noticed):
            self._look(connection)

    def as_of(self, principal: Principal, now: int) -> Principal | None:
        """A principal of a connection that may be over, with those tokens that are valid; None where its time has run out or its signer is gone."""
        if 0 < principal.expires <= now or not self._node.registers.has_signer(principal):
            return None
        if not isinstance(principal.tokens, ShownTokens):
            return principal
        fault, shown = self._node.registers.mint.fault, principal.tokens.by_type.values()
        return msgspec.structs.replace(principal, tokens=ShownTokens(token for token in shown if fault(token, now) is None))

    def refused(self, connection: Connection, action: Literal["publish", "subscribe"]) -> None:
        """A publish or subscription that no token covers. The type told is that of the token which was asked."""
        shown = shown_by(connection)
        if shown is not None and connection.ready:
            asked = shown.types(action)
            fault, kind = (TokenFault.RESOURCE, asked[0]) if asked else (TokenFault.ACTION, "W" if action == "publish" else "R")
            self._send(connection, INVALID_NOTICE, {"code": int(fault), "type": kind})

    def close(self, connection: Connection, fault: TokenFault, kind: str) -> None:
        """Say why, then close."""
        self._node.counters.refused["token_" + fault.name.lower()] += 1
        if connection.ready:
            self._send(connection, INVALID_NOTICE, {"code": int(fault), "type": kind})
        connection.close(ReasonCode.NOT_AUTHORIZED, "not authorized")

    def upload(self, connection: Connection, payload: bytes) -> ReasonCode:
        """`$SYS/uploadToken`: a new token in the place of the one of its type; one that is not valid ends the connection."""
        shown = shown_by(connection)
        if shown is None:
            return ReasonCode.NOT_AUTHORIZED
        wanted = parse_upload_token(payload)
        if isinstance(wanted, str):
            return ReasonCode.PAYLOAD_FORMAT_INVALID
        node = self._node
        token = node.registers.mint.read_of(wanted.type, wanted.token, connection.principal.name, node.clock.wall())
        if isinstance(token, TokenFault):
            self.close(connection, token, wanted.type)
            return ReasonCode.NOT_AUTHORIZED
        before = shown.by_type.get(token.type)
        if before is not None:
            self._leave(connection, before)
        shown.by_type[token.type] = token
        self._holders.setdefault(token.id, set()).add(connection)
        self._schedule(connection, shown)
        connection.topics = None
        session = connection.session
        if session is not None:
            node.rights.narrowed(session)
        return ReasonCode.SUCCESS

    def _look(self, connection: Connection) -> None:
        """Whatever is due for a connection."""
        if not connection.ready:
            return
        node, shown = self._node, shown_by(connection) or NO_TOKENS
        now = node.clock.wall()
        if 0 < connection.principal.expires <= now:
            connection.close(ReasonCode.NOT_AUTHORIZED, "not authorized")
            return
        for token in shown.by_type.values():
            fault = node.registers.mint.fault(token, now)
            if fault is not None:
                self.close(connection, fault, token.type)
                return
            noticed = self._noticed[connection]
            if token.expires - NOTICE_BEFORE_MS <= now and token.id not in noticed:
                noticed.add(token.id)
                self._send(connection, EXPIRE_NOTICE, {"expireTime": token.expires, "type": token.type})
        self._schedule(connection, shown)

    def _schedule(self, connection: Connection, shown: ShownTokens) -> None:
        now = self._node.clock.wall()
        due = min(self._due(connection, shown.by_type.values()), default=connection.principal.expires)
        self._wheel.schedule(connection, self._node.monotonic() + min(LOOK_EVERY, max(0, due - now) / 1000))

    def _due(self, connection: Connection, tokens: Iterable[Token]) -> Iterable[int]:
        noticed = self._noticed.get(connection, ())
        return (token.expires if token.id in noticed else token.expires - NOTICE_BEFORE_MS for token in tokens)

    def _leave(self, connection: Connection, token: Token) -> None:
        holders = self._holders.get(token.id)
        if holders is not None:
            holders.discard(connection)
            if not holders:
                del self._holders[token.id]

    def _send(self, connection: Connection, topic: str, content: dict[str, object]) -> None:
        connection.send_packet(Publish(topic=topic, payload=msgspec.json.encode(content), qos=0, retain=False, dup=False, packet_id=0))
