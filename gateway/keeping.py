"""What a session keeps in the store: its box (or the client id's mailbox), and the packet ids reserved there.

A delivery is stored when it can't be sent, when it stays unacknowledged for ``settle_within``, and when the connection
ends. Prompt sessions cost the store nothing. Functions over a Session (gateway/session.py); nothing here waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.positions import At
from schemas.sessions import BoxEntry, BoxState, DropEntry, PutEntry, ReserveBlock, SetEntry, TrimBox
from streams.fanout import Delivery

if TYPE_CHECKING:
    from gateway.session import Session

BLOCK = 1024
"""Packet ids reserved in the store at a time; a crash starts a new block (design: QoS 2)."""
SPILL_AT = 5_000
"""A queue in memory beyond which it moves to the store, where the session keeps its deliveries."""


def keeps(session: Session, delivery: Delivery) -> bool:
    """Whether the delivery outlives the connection: by the session, or in the client id's mailbox. Preset apsaramq: not under QoS 2."""
    if session.id != 0 and (delivery.qos == 1 or (delivery.qos == 2 and not session.node.strict)):
        return True
    return delivery.mailbox and delivery.qos > 0 and (session.id or session.mailbox) != 0


def box_of(session: Session) -> int:
    return session.id or session.mailbox


def epoch_of(session: Session, box: int) -> int:
    """A session's own box is guarded by its epoch; a mailbox belongs to no session."""
    return session.epoch if box == session.id else 0


def put(session: Session, delivery: Delivery, state: int = BoxState.QUEUED, packet_id: int = 0) -> PutEntry:
    """The change that stores a delivery."""
    box = box_of(session)
    entry = BoxEntry(delivery.at, delivery.record, delivery.qos, delivery.retain, delivery.identifiers, state, packet_id)
    return PutEntry(box=box, epoch=epoch_of(session, box), entry=entry)


def store(session: Session, delivery: Delivery, state: int = BoxState.QUEUED, packet_id: int = 0) -> None:
    """Store a delivery; past the limit the oldest queued one goes."""
    node = session.node
    if session.claiming is not None:
        if len(session.claiming) < node.limits.offline_messages:
            session.claiming.append(delivery)
        else:
            node.counters.dropped["offline_limit"] += 1
        return
    node.persistence.add(put(session, delivery, state, packet_id))
    if delivery.group and node.sharing is not None:
        node.sharing.passing.storing(session, delivery)
    node.counters.offline_stored += 1
    session.stored_count += 1
    limit = node.limits.offline_messages if session.id else node.limits.mailbox_messages
    if session.stored_count > limit:
        box = box_of(session)
        node.persistence.add(TrimBox(box=box, epoch=epoch_of(session, box), keep=limit))
        session.stored_count = limit


def move_in(session: Session, delivery: Delivery) -> int:
    """From the client id's mailbox into the session's own box, in one transaction, before it is sent under a packet id; the new box."""
    persistence = session.node.persistence
    persistence.add(DropEntry(box=session.mailbox, epoch=session.epoch, at=delivery.at, session=session.id))
    persistence.add(put(session, delivery))
    session.stored_count += 1
    return session.id


def drop(session: Session, delivery: Delivery, box: int) -> None:
    """The delivery is settled; ``box`` is where it is stored, 0 for nowhere."""
    if box:
        session.stored_count -= 1
        session.node.persistence.add(DropEntry(box=box, epoch=epoch_of(session, box), at=delivery.at))


def mark_in_flight(session: Session, delivery: Delivery, box: int, packet_id: int) -> SetEntry:
    """The change by which a stored delivery is in flight under a packet id."""
    return SetEntry(box=box, epoch=epoch_of(session, box), at=delivery.at, state=BoxState.IN_FLIGHT, packet_id=packet_id)


def watch(session: Session) -> None:
    """Have the settle tick look at the session."""
    if not session.active:
        session.active = True
        session.node.registry.active.add(session)


def settle(session: Session, marks: Mapping[int, At]) -> bool:
    """Store as in flight what was routed before ``marks`` and is unacknowledged; False where nothing is left to watch.

    ``marks`` are where all shards stood at one moment: deliveries are sent in the order of routing, so the first that came later ends it.
    """
    stored = session.stored_boxes()
    for packet_id, delivery in session.in_flight.items():
        if not _is_before(delivery.at, marks):
            break
        _store_in_flight(session, stored, packet_id, delivery)
    queue = session.queue
    if queue and any(_is_before(d.at, marks) and keeps(session, d) for d in queue):
        spill(session)
    return bool(session.in_flight or session.queue)


def _is_before(at: At, marks: Mapping[int, At]) -> bool:
    """Retained messages come from no shard of the log, and from before them all."""
    mark = marks.get(at.shard)
    return mark is None or at < mark


def _store_in_flight(session: Session, stored: dict[int, int], packet_id: int, delivery: Delivery) -> None:
    box = stored.get(packet_id, 0)
    if box > 0 or not keeps(session, delivery):
        return
    if not session.id:
        # A mailbox outlives the session, whose packet ids don't: what is unacknowledged lies there as if it were not sent
        if box == 0:
            stored[packet_id] = -session.mailbox
            store(session, delivery)
    elif box == 0:
        stored[packet_id] = box_of(session)
        store(session, delivery, BoxState.IN_FLIGHT, packet_id)
    else:
        stored[packet_id] = -box
        session.node.persistence.add(mark_in_flight(session, delivery, -box, packet_id))


def keep_unsettled(session: Session) -> list[tuple[Delivery, bool]]:
    """The connection ends: store what is in flight and queued, as far as it is kept. The rest of QoS 1 and 2, and whether it was sent.

    A session that ends with its connection keeps nothing, though it may have a box.
    """
    node = session.node
    stored = session.stored_boxes()
    released = session.released or ()
    ends = session.id != 0 and not session.expiry
    left: list[tuple[Delivery, bool]] = []
    for packet_id, delivery in session.in_flight.items():
        if not ends and keeps(session, delivery):
            _store_in_flight(session, stored, packet_id, delivery)
        elif packet_id not in released:
            left.append((delivery, True))
            session.stored_count -= packet_id in stored
    for delivery in session.queue or ():
        node.queued_bytes -= len(delivery.record.payload)
        if not ends and keeps(session, delivery):
            store(session, delivery)
        elif delivery.qos:
            left.append((delivery, False))
    return left


def abandon(session: Session) -> list[tuple[Delivery, bool]]:
    """Another node has the session, and what is unsettled from its box or from the log."""
    session.node.queued_bytes -= sum(len(delivery.record.payload) for delivery in session.queue or ())
    return []


def spill(session: Session) -> None:
    """Move what is queued and kept to the box; it comes back through the backlog, in order."""
    queue, session.queue = session.queue, None
    for delivery in queue or ():
        session.node.queued_bytes -= len(delivery.record.payload)
        if keeps(session, delivery):
            store(session, delivery)
            session.box_writes += 1
        else:
            session.enqueue(delivery)
    session.backlog = session.node.backlog.diverts
    session.refresh()
    session.node.backlog.wake(session)


def reserve(session: Session) -> None:
    """Take the next block of packet ids; it is asked for with the connect, so it is durable before CONNACK."""
    session.reserved = session.used + BLOCK
    following = (session.last_packet_id + BLOCK) % 65535 + 1
    session.node.persistence.add(ReserveBlock(session=session.id, epoch=session.epoch, next_block=following))


def reserve_more(session: Session) -> None:
    """Ask for another block; it may be used once the store has it."""
    ahead = session.reserved + BLOCK - session.used
    change = ReserveBlock(session=session.id, epoch=session.epoch, next_block=(session.last_packet_id + ahead) % 65535 + 1)
    session.reserving = True
    session.node.persistence.add_then(change, session, -session.epoch)


def refuse(session: Session, delivery: Delivery, box: int) -> None:
    """A stored delivery that its receiver may not read: it goes. Where tokens say what may be read it stays, for another token."""
    if session.principal.tokens is not None:
        return
    session.node.counters.dropped["not_authorized"] += 1
    if box == box_of(session):
        drop(session, delivery, box)
    else:
        session.node.persistence.add(DropEntry(box=box, epoch=0, at=delivery.at))
