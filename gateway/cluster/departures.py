"""Sessions that other nodes have: found by their connect events in the log, by a notice of the store, or by writes that it refused, and let go of.

The log and the store are the authority: a connect event says that a client has gone elsewhere, the store whose a session is that outlives its
connection; of that one it gives a notice, too, which needs no log that answers. Nothing of one that is gone is stored, and its connection is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from schemas.errors import StoreError
from schemas.positions import At
from schemas.reasons import ReasonCode
from schemas.records import Kind, Record
from streams.cluster import SESSION, Notice
from streams.store import Stale

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session
    from streams.log import Reader

MAX_RECORDS: Final = 1024
MAX_BYTES: Final = 1024 * 1024
AGAIN: Final = 0.2
BETWEEN: Final = 0.1
CONNECT: Final = int(Kind.CONNECT)

logger = logging.getLogger(__name__)


class Departures:
    """Follows the presence events of all nodes; ``reached`` is told how far."""

    def __init__(self, node: Node, reached: dict[int, At]) -> None:
        self._node = node
        self._reached = reached
        self._told: set[int] = set()
        """Sessions of which the store gave notice."""
        self._looking: asyncio.Task[None] | None = None

    async def run(self, reader: Reader) -> None:
        """For ever; ``reader`` is of ``presence``, from where it ended when this node came."""
        stop = self._node.store.cluster.listen(self._heard)
        try:
            while True:
                batch = await reader.next(MAX_RECORDS, MAX_BYTES)
                first = batch.first
                elsewhere = [
                    (record, At(first.shard, first.offset, first.index + index))
                    for index, record in enumerate(batch.records)
                    if record.kind == CONNECT and record.epoch != self._node.epoch
                ]
                if elsewhere:
                    await self._connected_elsewhere(elsewhere)
                self._reached[batch.end.shard] = batch.end
                reader.release(batch.end)
        finally:
            stop()
            if self._looking is not None:
                self._looking.cancel()

    def _heard(self, notice: Notice) -> None:
        if notice.topic != SESSION:
            return
        owner, number, _ = notice.detail.split(" ")
        if owner == str(self._node.owner):
            self._told.add(int(number))
            if self._looking is None or self._looking.done():
                self._looking = self._node.loop.create_task(self._look())

    async def _look(self) -> None:
        """Many at a time: to find sessions by their numbers costs a walk over all."""
        while self._told:
            numbers, self._told = self._told, set()
            clients = [session.client for session in self._node.registry.sessions.values() if session.id in numbers]
            for session in await self._gone(clients) if clients else ():
                let_go(self._node, session)
            await asyncio.sleep(BETWEEN)

    async def _connected_elsewhere(self, events: Sequence[tuple[Record, At]]) -> None:
        registry = self._node.registry
        kept = [record.client for record, _ in events if (session := registry.get(record.client)) is not None and session.id]
        gone = await self._gone(kept) if kept else set()
        for record, at in events:
            session = registry.get(record.client)
            if session is not None and (session in gone if session.id else _came_before(session, at)):
                let_go(self._node, session)
            self._node.ending.wills.connected_elsewhere(record.client, record.session)

    async def _gone(self, clients: Sequence[str]) -> set[Session]:
        """Which of the clients' sessions are another node's, or no more."""
        while True:
            registry = self._node.registry
            asked = {client: (session, session.epoch) for client in clients if (session := registry.get(client)) is not None and session.id}
            try:
                owners = await self._node.store.cluster.owners(list(asked))
            except StoreError:
                await asyncio.sleep(AGAIN)
                continue
            gone = set()
            for client, (session, epoch) in asked.items():
                owner = owners.get(client)
                if session.epoch == epoch and (owner is None or owner.session != session.id or owner.node != self._node.owner):
                    gone.add(session)
            return gone

    def stale(self, refused: Iterable[Stale]) -> None:
        """The store refused changes: what is still held under that epoch is another node's, or ended."""
        numbers = {stale.session: stale.epoch for stale in refused if stale.session and stale.epoch}
        if numbers:
            for session in [s for s in self._node.registry.sessions.values() if numbers.get(s.id) == s.epoch]:
                let_go(self._node, session)


def let_go(node: Node, session: Session) -> None:
    """Another node has it, or had it."""
    connection = session.connection
    if node.sharing is not None:
        node.sharing.let_go(session)
    if connection is not None:
        node.ending.moved(connection)
    forget(node, session)
    if connection is not None:
        connection.close(ReasonCode.SESSION_TAKEN_OVER, "clientId conflict")  # [MQTT-3.1.4-3]
    node.counters.refused["session_moved"] += 1


def forget(node: Node, session: Session) -> None:
    """Out of memory and routes, without a word to the store."""
    for subscribed in session.subscriptions:
        node.routes_remove(session, subscribed, moved=True)
    session.subscriptions = {}
    if node.registry.sessions.get(session.client) is session:
        del node.registry.sessions[session.client]
    node.registry.active.discard(session)
    node.registry.resuming.pop(session, None)
    # Nothing more is kept for it: its box is not ours
    session.id = session.mailbox = session.stored_count = 0


def _came_before(session: Session, at: At) -> bool:
    """Whether the session's own connect event lies before that place; one that is on its way comes later."""
    mine = session.connected_at
    return mine is not None and mine < at
