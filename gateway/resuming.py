"""What was in flight when the last connection ended goes out first: same packet id and DUP, or PUBREL where PUBREC was seen [MQTT-4.4.0-1].

A client may take fewer at once than it did then: the rest waits for acknowledgements, and whatever is newer waits behind it
(``Session.hold``). Functions over a Session (gateway/session.py); gateway/connecting.py calls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway import keeping, outbound
from gateway.protocol import hot
from schemas.sessions import BoxEntry, BoxState
from streams.fanout import Delivery

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.session import Session

WAIT_FOR_ROOM = 0.02


def resume(session: Session, entries: tuple[BoxEntry, ...]) -> dict[int, Delivery]:
    """Send again as much as the window allows; what is left by packet id, to be given to ``finish``.

    That is so for shared subscriptions too [MQTT-4.8.2-4], and whether or not a message has expired meanwhile [MQTT-4.3.3-7].
    """
    left: dict[int, Delivery] = {}
    if session.muted:
        session.waiting = entries
        return left
    now = session.node.clock.wall()
    room = session.window
    for entry in entries:
        delivery = Delivery(entry.record, entry.at, entry.qos, entry.retain, entry.identifiers)
        delivery.traced = session.node.trace.offline_mark(entry.record)
        if entry.state != BoxState.RELEASED and not session.node.may_have(session.principal, entry.record):
            keeping.refuse(session, delivery, session.id)
            continue
        if entry.state != BoxState.RELEASED and outbound.too_large(session, delivery, now):
            session.node.counters.dropped["packet_too_large"] += 1
            keeping.drop(session, delivery, session.id)
            continue
        session.in_flight[entry.packet_id] = delivery
        session.stored_boxes()[entry.packet_id] = session.id
        if entry.state == BoxState.RELEASED:
            session.released_ids().add(entry.packet_id)
            if session.connection is not None:
                session.connection.acknowledge(hot.PUBREL | entry.packet_id)
        elif room:
            room -= 1
            _send_again(session, delivery, entry.packet_id)
        else:
            left[entry.packet_id] = delivery
    if left:
        session.hold += 1
    return left


async def finish(session: Session, connection: Connection, left: dict[int, Delivery]) -> None:
    """Send what is left, each as soon as there is room for it [MQTT-3.3.4-9]; then what is newer may go out."""
    while left and connection.ready:
        packet_id = next(iter(left))
        unsent = sum(1 for number in left if number in session.in_flight)
        if len(session.in_flight) - unsent >= session.window or not connection.writable:
            await asyncio.sleep(WAIT_FOR_ROOM)
            continue
        delivery = left.pop(packet_id)
        if session.in_flight.get(packet_id) is delivery and not (session.released and packet_id in session.released):
            _send_again(session, delivery, packet_id)
    if session.connection is connection:
        session.hold -= 1
        session.refresh()
        session.pump()


def _send_again(session: Session, delivery: Delivery, packet_id: int) -> None:
    outbound.write(session, delivery, packet_id, session.node.clock.wall(), dup=True)
    session.node.counters.redelivered += 1
