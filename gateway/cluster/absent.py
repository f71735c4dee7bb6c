"""Messages to devices that are connected to no node and have no session: the node that leads puts them into mailboxes.

Whether a device is away, one node can't see by itself. The store says who has a session, who is online as far as events were folded, and
which nodes live; so a message is looked at when a node that died at its moment would be known to be dead. A device that came online about
then may get it twice.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.clock import epoch_of, epoch_within
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.records import Record
from schemas.sessions import BoxEntry, PutEntry, TrimBox
from streams.cluster import LEASE_MS, Notice, Owner, Tell

if TYPE_CHECKING:
    from gateway.node import Node

MAILBOX: Final = "mailbox"
"""A notice: something was put into a mailbox. Detail: its number and the client id."""
LOOK_AFTER: Final = LEASE_MS / 1_000 + 2.0
"""Seconds until a message is looked at: a lease, and the time for events to be folded."""
CLOCKS_APART: Final = 2_000
"""Ms by which the clocks of two nodes may differ here."""
MAX_WAITING: Final = 100_000


class Waiting(NamedTuple):
    client: str
    record: Record
    at: At
    since: float


def is_taken_care_of(waiting: Waiting, owners: Mapping[str, Owner], status: ClientStatus | None, living: Container[int]) -> bool:
    """Whether the device's own node has the message: it has a session, or was connected well before to a node that lives."""
    if waiting.client in owners:
        return True
    if status is None or not status.online or status.time >= waiting.record.time - CLOCKS_APART:
        return False
    return epoch_of(bytes.fromhex(status.channel)) in living


class Absent:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: list[Waiting] = []
        self.leads = False

    def put(self, client: str, records: Sequence[Record], ats: Sequence[At]) -> None:
        """Nobody here is that device."""
        if not self.leads:
            return
        now = self._node.monotonic()
        for record, at in zip(records, ats, strict=True):
            if len(self._waiting) >= MAX_WAITING:
                self._node.counters.dropped["mailbox_limit"] += 1
                continue
            self._waiting.append(Waiting(client, record, at, now))
        self._hold()

    def _hold(self) -> None:
        """The node's position stays before what isn't stored."""
        resuming = self._node.registry.resuming
        if not self._waiting:
            resuming.pop(self, None)
            return
        places = dict(self._node.routed)
        for waiting in self._waiting:
            places[waiting.at.shard] = min(waiting.at, places.get(waiting.at.shard, waiting.at))
        resuming[self] = tuple(places.values())

    async def look(self) -> None:
        """Store what has waited long enough and is nobody's. A StoreError leaves all as it is."""
        node = self._node
        ripe = [waiting for waiting in self._waiting if waiting.since <= node.monotonic() - LOOK_AFTER]
        if not ripe:
            return
        clients = list({waiting.client for waiting in ripe})
        statuses = await node.store.statuses(clients)
        owners = await node.store.cluster.owners(clients)
        living = {epoch_within(each.epoch) for each in await node.store.cluster.nodes() if each.alive}
        boxes: dict[str, int] = {}
        for waiting in ripe:
            client = waiting.client
            known = statuses.get(client)
            if not is_taken_care_of(waiting, owners, known[0] if known is not None else None, living):
                if client not in boxes:
                    boxes[client] = node.mailboxes[client] = node.mailboxes.get(client) or await node.store.mailbox(client)
                node.persistence.add(PutEntry(box=boxes[client], epoch=0, entry=BoxEntry(waiting.at, waiting.record, waiting.record.qos)))
                node.counters.offline_stored += 1
        for client, box in boxes.items():
            node.persistence.add(TrimBox(box=box, epoch=0, keep=node.limits.mailbox_messages))
            node.persistence.add(Tell(Notice(MAILBOX, f"{box} {client}")))
        await node.persistence.barrier()
        done = set(ripe)
        self._waiting = [waiting for waiting in self._waiting if waiting not in done]
        self._hold()

    def heard(self, notice: Notice) -> None:
        """Something lies in a mailbox: its device may be here."""
        if notice.topic != MAILBOX:
            return
        number, _, client = notice.detail.partition(" ")
        node = self._node
        node.mailboxes[client] = int(number)
        session = node.registry.get(client)
        if session is not None and session.connection is not None and session.connection.ready:
            node.backlog.mailbox_filled(session, int(number))
