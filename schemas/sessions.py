"""What is kept of a session across connections and restarts, and the changes by which it is kept.

A *box* is an ordered store of deliveries that wait: a session's inbox, or the mailbox of a client id. Boxes of both
kinds draw their number from one sequence; a session's inbox has the session's own number.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from schemas.positions import At
from schemas.records import Record

NEVER_EXPIRES = 0xFFFFFFFF
"""A session expiry interval that means: keep it [MQTT-3.1.2.11.2]."""


class Subscription(msgspec.Struct, frozen=True, array_like=True):
    """One subscription. ``filter`` is as subscribed, `$share/…` included. Records before ``since`` don't match it."""

    filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int = 0
    since: tuple[At, ...] = ()


class BoxState(IntEnum):
    """How far a stored delivery has come."""

    QUEUED = 0
    IN_FLIGHT = 1
    """Sent as PUBLISH under ``packet_id``, unacknowledged."""
    RELEASED = 2
    """QoS 2: PUBREC seen, PUBREL is to be sent (again)."""
    DONE = 3
    """QoS 2: finished; kept until the node's position has passed it, so that a replay finds it."""


class BoxEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A delivery that waits. ``qos`` and ``retain`` are those of the delivery; ``identifiers`` the subscriptions'."""

    at: At
    record: Record
    qos: int
    retain: bool = False
    identifiers: tuple[int, ...] = ()
    state: int = BoxState.QUEUED
    packet_id: int = 0


class SessionState(msgspec.Struct, frozen=True, array_like=True):
    """A stored session as its owner gets it from ``Store.claim``.

    ``present`` is false for one that the claim created. ``expiry`` is the session expiry interval in seconds.
    ``next_block`` is the first packet id of the block to use; ``in_flight`` lists entries in state IN_FLIGHT and RELEASED
    in log order; ``queued`` counts the rest; ``mailbox`` is the client id's mailbox, 0 for none, and
    ``received`` the inbound QoS 2 packet ids that await PUBREL. ``owner`` is the node epoch that owned it before the claim, 0 for none.
    ``resume``: from these positions on the log alone says what the session is owed, until ``Resumed`` is committed; None for a session that
    has not come from another node. They only grow, though a node may have routed less far than the one before it.
    What was written under an epoch below ``late_before`` and lies behind those positions is late: the session's node had read all that its client
    could have been told of, and took it only then.
    """

    id: int
    epoch: int
    client: str
    principal: str
    present: bool
    expiry: int
    subscriptions: tuple[Subscription, ...] = ()
    next_block: int = 1
    in_flight: tuple[BoxEntry, ...] = ()
    queued: int = 0
    mailbox: int = 0
    received: tuple[int, ...] = ()
    expires_at: int = 0
    owner: int = 0
    resume: tuple[At, ...] | None = None
    late_before: int = 0


# Changes: what one transaction of the store applies. Those with ``epoch`` are bound to a session and refused when it is old.


class PutSubscription(msgspec.Struct, frozen=True, tag=True):
    session: int
    epoch: int
    subscription: Subscription


class DropSubscription(msgspec.Struct, frozen=True, tag=True):
    session: int
    epoch: int
    filter: str


class PutEntry(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Insert a delivery into a box, unless (box, at) is there already; epoch 0 for a mailbox, which no epoch guards."""

    box: int
    epoch: int
    entry: BoxEntry


class SetEntry(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Change the state and packet id of a stored delivery."""

    box: int
    epoch: int
    at: At
    state: int
    packet_id: int


class DropEntry(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``session``: whose epoch guards the drop where the box is a mailbox, 0 where nothing does."""

    box: int
    epoch: int
    at: At
    session: int = 0


class TrimBox(msgspec.Struct, frozen=True, tag=True):
    """Drop the oldest QUEUED entries beyond ``keep``."""

    box: int
    epoch: int
    keep: int


class EndConnection(msgspec.Struct, frozen=True, tag=True):
    """The session's connection ended; it lives until ``expires_at`` (ms of the wall clock, 0 for never)."""

    session: int
    epoch: int
    expiry: int
    expires_at: int


class RemoveSession(msgspec.Struct, frozen=True, tag=True):
    """End a session with all that belongs to it."""

    session: int
    epoch: int


class ReserveBlock(msgspec.Struct, frozen=True, tag=True):
    """A crash starts at ``next_block``."""

    session: int
    epoch: int
    next_block: int


class Resumed(msgspec.Struct, frozen=True, tag=True):
    """The session, which came from another node, has all that it was owed from its ``resume`` on."""

    session: int
    epoch: int


class PutReceived(msgspec.Struct, frozen=True, tag=True, gc=False):
    """An inbound QoS 2 packet id awaits PUBREL. Not guarded by epoch: it is a fold of the log.

    It is the fold of the node that has the session, of epoch ``owner`` (0: of a node alone): another's comes late, and is passed over.
    """

    session: int
    packet_id: int
    owner: int = 0


class DropReceived(msgspec.Struct, frozen=True, tag=True, gc=False):
    session: int
    packet_id: int
    owner: int = 0


class PutRetained(msgspec.Struct, frozen=True, tag=True):
    """Set or (``record`` None) delete a topic's retained message; wins only with a higher (time, id) than what stands there."""

    topic: str
    time: int
    id: bytes
    record: Record | None


class RetainedMessage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    topic: str
    record: Record
