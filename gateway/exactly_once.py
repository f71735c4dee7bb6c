"""QoS 2 towards a client (section 4.3.3). For a session that outlives its connection each step is durable before it is sent:

(packet id, position) before PUBLISH, the release before PUBREL; a finished delivery stays as DONE until the node's
position has passed it, so that a replay after a crash finds it. Functions over a Session (gateway/session.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import failpoints, keeping, outbound
from gateway.protocol import hot
from schemas.sessions import BoxState, SetEntry
from streams.fanout import Delivery

if TYPE_CHECKING:
    from gateway.session import Session


def begin(session: Session, delivery: Delivery, packet_id: int, box: int) -> None:
    """Have the delivery durable as in flight until PUBREC [MQTT-4.3.3-3], then send it (``committed``).

    ``box`` is where it is stored already, 0 for nowhere.
    """
    stored = session.stored_boxes()
    if box:
        stored[packet_id] = box
        change = keeping.mark_in_flight(session, delivery, box, packet_id)
        session.node.persistence.add_then(change, session, _token(session, packet_id))
    else:
        stored[packet_id] = keeping.box_of(session)
        session.stored_count += 1
        put = keeping.put(session, delivery, BoxState.IN_FLIGHT, packet_id)
        session.node.persistence.add_then(put, session, _token(session, packet_id))


def committed(session: Session, packet_id: int) -> None:
    """The last step of this packet id is durable: take the next."""
    delivery = session.in_flight.get(packet_id)
    if delivery is None:
        return
    if session.released and packet_id in session.released:
        _send_pubrel(session, packet_id)
    else:
        outbound.write(session, delivery, packet_id, session.node.clock.wall())


def pubrec(session: Session, packet_id: int, *, refused: bool) -> bool:
    """The client has the message [MQTT-4.3.3-4], or refuses it. False where the id is unknown and the client is to be told."""
    delivery = session.in_flight.get(packet_id)
    if delivery is None or delivery.qos != 2:
        return False
    if refused:
        session.released_ids().discard(packet_id)
        _finish(session, packet_id)
        return True
    released = session.released_ids()
    known = packet_id in released
    released.add(packet_id)  # no PUBLISH of it any more [MQTT-4.3.3-6]
    if known or not session.id or packet_id not in session.stored_boxes():
        _send_pubrel(session, packet_id)
        return True
    if failpoints.ARMED:
        failpoints.reach("pubrec-recorded")
    change = SetEntry(box=session.id, epoch=session.epoch, at=delivery.at, state=BoxState.RELEASED, packet_id=packet_id)
    session.node.persistence.add_then(change, session, _token(session, packet_id))
    return True


def pubcomp(session: Session, packet_id: int) -> None:
    """Done: until now PUBREL was unacknowledged [MQTT-4.3.3-5]; the packet id is free again."""
    if session.released is None or packet_id not in session.released:
        return
    session.released.discard(packet_id)
    _finish(session, packet_id)


def _finish(session: Session, packet_id: int) -> None:
    """A delivery from the log leaves its row, so that a replay knows it; a retained message, which no replay brings, leaves none."""
    delivery = session.in_flight.pop(packet_id)
    if delivery.traced:
        session.node.trace.acknowledged(session.client, delivery)
    box = abs(session.stored_boxes().pop(packet_id, 0))
    if session.id and box and delivery.at.shard >= 0:
        session.stored_count -= 1
        done = SetEntry(box=session.id, epoch=session.epoch, at=delivery.at, state=BoxState.DONE, packet_id=packet_id)
        session.node.persistence.add(done)
    else:
        keeping.drop(session, delivery, box)


def _send_pubrel(session: Session, packet_id: int) -> None:
    if session.connection is not None:
        session.connection.acknowledge(hot.PUBREL | packet_id)


def _token(session: Session, packet_id: int) -> int:
    return session.epoch << 16 | packet_id
