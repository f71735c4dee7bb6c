"""What is asked of all nodes about clients, sessions and the trace, and what each answers of itself (gateway/here.py).

Of a client the node itself is asked first, then the others, until one has it. What is counted or gathered needs all of them: those that
did not answer are named. Neighbours: asking.py (the way there and back), streams/tracing.py (pages of many nodes).
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.api.services import ClosedConnections, OnlineGroups, SessionInfo
from gateway.cluster.asking import Asking, Unanswered
from gateway.cluster.sharing import SHARES
from gateway.cluster.traces import gap_of, gaps_of_absent
from schemas.errors import StoreError
from schemas.traces import TracePage, TraceQuery
from streams.tracing import TraceOff, first_of, merged

if TYPE_CHECKING:
    from gateway.node import Node

SESSION: Final = "session"
CLOSE: Final = "close"
CLOSE_OF: Final = "close of"
ONLINE: Final = "online"
TRACE: Final = "trace"
YES: Final = b"\x01"
NO: Final = b""
"""Also where there is no session and nothing is traced: nothing else is empty."""

logger = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_session = msgspec.msgpack.Decoder(SessionInfo).decode
_decode_count = msgspec.msgpack.Decoder(int).decode
_decode_counts = msgspec.msgpack.Decoder(dict[str, int]).decode
_decode_query = msgspec.msgpack.Decoder(TraceQuery).decode
_decode_page = msgspec.msgpack.Decoder(TracePage).decode


class Everywhere:
    def __init__(self, node: Node) -> None:
        self._node = node
        answering = {SESSION: self._session, CLOSE: self._close, CLOSE_OF: self._close_of, ONLINE: self._online, TRACE: self._trace}
        if node.sharing is not None:
            answering[SHARES] = node.sharing.answer
        self.asking = Asking(node, answering)

    # What this node answers

    async def _session(self, body: bytes) -> bytes:
        found = self._node.here.session(body.decode())
        return NO if found is None else _encode(found)

    async def _close(self, body: bytes) -> bytes:
        return YES if self._node.here.close(body.decode()) else NO

    async def _close_of(self, body: bytes) -> bytes:
        return _encode(self._node.here.close_of(body.decode()))

    async def _online(self, body: bytes) -> bytes:
        return _encode(self._node.here.online(body.decode()))

    async def _trace(self, body: bytes) -> bytes:
        try:
            return _encode(await self._node.trace.find(_decode_query(body)))
        except TraceOff:
            return NO

    # What is asked

    async def session(self, client: str) -> SessionInfo | None:
        """Unanswered also while it is on its way from one node to another."""
        here = self._node.here.session(client)
        if here is not None:
            return here
        found = await self._of_one(SESSION, client)
        if found:
            return _decode_session(found)
        # No client id has U+0000, and PostgreSQL takes no text with it
        if "\x00" not in client and await self._node.store.cluster.owners([client]):
            raise Unanswered("the session of this client goes from one node to another: try again")
        return None

    async def close(self, client: str) -> bool:
        """False where no node has it connected."""
        return self._node.here.close(client) or bool(await self._of_one(CLOSE, client))

    async def _of_one(self, kind: str, client: str) -> bytes:
        """What the one node says that has the client; Unanswered where it may be one that says nothing."""
        replies = await self.asking.ask(kind, client.encode(), bool)
        found = next(filter(None, replies.bodies.values()), NO)
        if not found and replies.silent:
            raise Unanswered(f"no node that answers has this client, and there is no answer of: {', '.join(replies.silent)}")
        return found

    async def close_of(self, principal: str) -> ClosedConnections:
        """Of a key that is revoked. It is so already, and other nodes find out by themselves: that they can't be asked is no failure."""
        count = self._node.here.close_of(principal)
        try:
            replies = await self.asking.ask(CLOSE_OF, principal.encode())
        except (Unanswered, StoreError) as error:
            logger.warning("others-not-asked kind=%s error=%s", CLOSE_OF, error)
            return ClosedConnections(count, ["all others"])
        return ClosedConnections(count + sum(map(_decode_count, replies.bodies.values())), replies.silent)

    async def online(self, group: str) -> OnlineGroups:
        """A client that changes its node at this moment may count twice, or not at all."""
        replies = await self.asking.ask(ONLINE, group.encode())
        counts = Counter(self._node.here.online(group))
        for body in replies.bodies.values():
            counts.update(_decode_counts(body))
        return OnlineGroups(counts, replies.silent)

    async def trace(self, query: TraceQuery) -> TracePage:
        """What all nodes have; one that says nothing, traces nothing, or is down is a gap. TraceOff where none traces."""
        first = first_of(query)
        replies = await self.asking.ask(TRACE, _encode(first))
        pages = {name: _decode_page(body) for name, body in replies.bodies.items() if body}
        silent = [*replies.silent, *(name for name, body in replies.bodies.items() if not body)]
        name = self._node.settings.node.id
        try:
            pages[name] = await self._node.trace.find(first)
        except TraceOff:
            if not pages:
                raise
            silent.append(name)
        absent = await gaps_of_absent(self._node, query, [*pages, *silent])
        return merged(query, pages, [*(gap_of(each, query) for each in silent), *absent])
