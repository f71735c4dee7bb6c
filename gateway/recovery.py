"""From a stopped (or killed) process to a serving one, before listeners open: sessions back, records replayed, channels cleaned.

Order matters: the sessions are loaded, the router replays from its stored position to the end of the log (inserts are
idempotent), the presence fold likewise, and only then are open channels of older epochs ended and their wills settled,
because only then it is known which wills are in the log already.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from gateway.session import Session
from gateway.wills import Due
from schemas.errors import LogDamaged
from schemas.identities import ANONYMOUS, AccessRule, Principal
from schemas.positions import START, At
from schemas.presence import Presence
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Kind
from schemas.sessions import NEVER_EXPIRES, EndConnection, SessionState
from schemas.topics import parse_subscription
from streams.expiry import session_deadline, will_due
from streams.presence import will_mark
from streams.runtime import PresenceFold, Router
from streams.store import DropChannel

if TYPE_CHECKING:
    from gateway.auth.keys import KeyRing
    from gateway.node import Node

PAGE = 1000
KEEP_ALL = (AccessRule("*", "read", "#"), AccessRule("*", "read", "$SYS/#"))
"""What is kept for a session whose JWT, and with it its rules, is known no more: all it has subscribed to. Delivery asks the next one's."""
ROUTER_READER = "router"

logger = logging.getLogger(__name__)


def principal_of(keyring: KeyRing, name: str, client: str) -> Principal:
    """The principal that a session belongs to; one whose key is gone may do nothing."""
    if name == ANONYMOUS:
        return Principal(name, "anonymous", client)
    kind, colon, rest = name.partition(":")
    return Principal(name, keyring.role(name) or "device", client, rest if colon and kind == "user" else "")


async def load_sessions(node: Node, keyring: KeyRing) -> None:
    """Stored sessions into the registry and the routes."""
    after, now = 0, node.clock.wall()
    while page := await node.store.sessions(after, PAGE):
        for state in page:
            _load_session(node, state, principal_of(keyring, state.principal, state.client), now)
        after = page[-1].id
    node.mailboxes.update(await node.store.mailboxes())
    node.retained_present = (await node.store.counts()).retained > 0


def _load_session(node: Node, state: SessionState, principal: Principal, now: int) -> None:
    if principal.name.startswith("jwt:"):
        principal = msgspec.structs.replace(principal, claims=KEEP_ALL)
    session = Session(node, state.client, principal)
    session.adopt(state)
    session.received = dict.fromkeys(state.received, True)
    session.expires_at = state.expires_at
    if not state.expires_at and state.expiry != NEVER_EXPIRES:
        # It was connected when the process ended: its time runs from now
        session.expires_at = max(1, session_deadline(state.expiry, now))
        end = EndConnection(session=state.id, epoch=state.epoch, expiry=state.expiry, expires_at=session.expires_at)
        node.persistence.add(end)
    node.registry.sessions[state.client] = session
    for subscription in state.subscriptions:
        session.subscriptions[subscription.filter] = subscription
        parsed = parse_subscription(subscription.filter)
        if parsed is not None:
            node.routes_add(parsed, session, subscription)


async def starting_position(node: Node, reader: str, topic: str) -> At:
    """Where a reader goes on; LogDamaged where the log ends before that."""
    stored = (await node.store.positions()).get(reader, {})
    position = stored.get(0)
    first, end = (await node.log.ends(topic))[0]
    if position is None:
        return first
    if position > end:
        raise LogDamaged(
            f"the log ends at {end.offset} but the database has handled it up to {position.offset}: "
            "the log's files are older than the database; restore both from the same moment"
        )
    return max(position, first, START)


async def replay(node: Node, router: Router, fold: PresenceFold, start: At, presence_start: At) -> None:
    """Route and fold all that the log holds behind the stored positions."""
    for topic, position, once in ((PUBLISH_TOPIC, start, router.once), (PRESENCE_TOPIC, presence_start, fold.once)):
        end = (await node.log.ends(topic))[0][1]
        while _before(position, end):
            position = await once()
    node.clock.observe(router.newest)
    await node.persistence.barrier()


def _before(position: At, end: At) -> bool:
    """Whether there is a record between the two. A position behind a frame's last record equals the next frame's start."""
    return position.offset + position.index < end.offset + end.index


async def clean_channels(node: Node, keyring: KeyRing, wills_seen: set[bytes]) -> None:
    """One tcpclean for each channel that a dead process left open, and its will, unless the log has it already."""
    now = node.clock.wall()
    for row in await node.store.channels():
        seen = will_mark(row.channel) in wills_seen
        due, passed = row.will_due, node.clock.due()
        if not due:
            passed = now
            due = 0 if row.will is None else will_due(now, row.will.delay, row.session_expiry)
            presence = Presence(row.channel, row.address, reason="gateway restarted", will_due=0 if seen else due)
            node.presence.append(Kind.TCPCLEAN, presence, row.client, row.session, row.principal, now)
        if row.will is None:
            if row.will_due:
                node.persistence.add(DropChannel(channel=row.channel))  # its tcpclean is known and its connect never was
            continue
        if seen:
            node.ending.wills.settle_seen(row.channel)
        else:
            principal = principal_of(keyring, row.principal, row.client)
            node.ending.wills.add(Due(row.channel, row.client, principal, row.session_expiry > 0, row.will, due), passed)
    logger.info("recovered sessions=%d", len(node.registry.sessions))
