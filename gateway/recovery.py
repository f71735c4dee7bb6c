"""From a stopped (or killed) process to a serving one, before listeners open: sessions back, records replayed, channels cleaned.

Order matters: the sessions are loaded, the router replays from its stored position to the end of the log (inserts are
idempotent), the presence fold likewise, and only then are open channels of older epochs ended and their wills settled,
because only then it is known which wills are in the log already.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway.auth import will_rights
from gateway.persistence import position_name
from gateway.session import Session
from gateway.wills import Due
from schemas.errors import LogDamaged, StartError
from schemas.identities import ANONYMOUS, AccessRule, Principal
from schemas.positions import At
from schemas.presence import Presence
from schemas.records import Kind
from schemas.sessions import NEVER_EXPIRES, EndConnection, SessionState
from schemas.topics import parse_subscription
from streams.cluster import routing_reader
from streams.expiry import session_deadline, will_due
from streams.log import Reader
from streams.presence import will_mark
from streams.runtime import PresenceFold, Router
from streams.store import DropChannel, OpenChannel

if TYPE_CHECKING:
    from gateway.auth.keys import KeyRing
    from gateway.node import Node
    from schemas.settings import Settings
    from streams.store import Store

PAGE = 1000
KEEP_ALL = (AccessRule("*", "read", "#"), AccessRule("*", "read", "$SYS/#"))
"""What is kept for a session whose JWT, and with it its rules, is known no more: all it has subscribed to. Delivery asks the next one's."""
ROUTER_READER = routing_reader(0)

logger = logging.getLogger(__name__)


def principal_of(keyring: KeyRing, name: str, client: str) -> Principal:
    """The principal that a session belongs to; one whose key is gone may do nothing."""
    if name == ANONYMOUS:
        return Principal(name, "anonymous", client)
    kind, _, rest = name.partition(":")
    user = rest if kind == "user" else rest.partition("/")[2] if kind == "cert" else ""
    return Principal(name, keyring.role(name) or "device", client, user)


async def load_sessions(node: Node, keyring: KeyRing) -> None:
    """Stored sessions into the registry and the routes."""
    after, now = 0, node.clock.wall()
    while page := await node.store.sessions(after, PAGE):
        for state in page:
            load_session(node, state, principal_of(keyring, state.principal, state.client), now)
        after = page[-1].id
    await load_counts(node)


async def load_counts(node: Node) -> None:
    """What is known of mailboxes and of retained messages."""
    node.mailboxes.update(await node.store.mailboxes())
    node.retained_present = (await node.store.counts()).retained > 0


def load_session(node: Node, state: SessionState, principal: Principal, now: int) -> Session:
    """A session that nobody is connected to, into the registry and the routes."""
    session = install_session(node, state, principal)
    session.expires_at = state.expires_at
    if not state.expires_at and state.expiry != NEVER_EXPIRES:
        # It was connected when the process ended: its time runs from now
        session.expires_at = max(1, session_deadline(state.expiry, now))
        end = EndConnection(session=state.id, epoch=state.epoch, expiry=state.expiry, expires_at=session.expires_at)
        node.persistence.add(end)
    return session


def install_session(node: Node, state: SessionState, principal: Principal) -> Session:
    """The same without a word on its time."""
    if principal.name.startswith("jwt:"):
        principal = msgspec.structs.replace(principal, claims=KEEP_ALL)
    session = Session(node, state.client, principal)
    session.adopt(state)
    session.received = dict.fromkeys(state.received, True) or None
    node.registry.sessions[state.client] = session
    for subscription in state.subscriptions:
        session.subscriptions[subscription.filter] = subscription
        parsed = parse_subscription(subscription.filter)
        if parsed is not None:
            node.routes_add(parsed, session, subscription)
    return session


async def refuse_newer_log(store: Store, settings: Settings, epoch: int, newest: int) -> None:
    """StartError where the log has what no start that the database knows of has written: it would number anew what is numbered there, and readers
    would take that for repeats. Said at each start from then on, though each takes an epoch and the database so catches up.

    ``newest``: the highest epoch in the log, before this start wrote anything.
    """
    name = f"log ahead {settings.log.kind} {settings.log.prefix}"
    found = await store.property(name)
    # Of many nodes others may have started since, and written
    if found is None and newest >= epoch and (newest == epoch or not settings.node.many or newest >= await store.next_epoch()):
        found = str(newest)
        await store.put_property(name, found)
    if found is not None:
        raise StartError(
            f"log.prefix: the log {settings.log.prefix} has messages of start {found}, which this database has not seen: it is older than the log, "
            "or another one; restore both from the same moment, or give this database a log of its own (log.prefix)"
        )


async def starting_positions(node: Node, reader: str, topic: str) -> dict[int, At]:
    """By shard where a reader goes on; LogDamaged where the log ends before that."""
    stored = await node.store.positions()
    return {shard: _start(shard, stored.get(position_name(reader, shard), {}), ends) for shard, ends in (await node.log.ends(topic)).items()}


def _start(shard: int, stored: Mapping[int, At], ends: tuple[At, At]) -> At:
    position = stored.get(shard)
    first, end = ends
    if position is None:
        return first
    if position > end:
        raise LogDamaged(
            f"the log ends at {end.offset} of shard {shard} but the database has handled it up to {position.offset}: "
            "the log is older than the database, or another one; restore both from the same moment"
        )
    return max(position, first)


async def replay(node: Node, router: Router, fold: PresenceFold, readers: tuple[Reader, Reader]) -> None:
    """Route and fold all that the log holds behind the stored positions."""
    for reader, once in zip(readers, (router.once, fold.once), strict=True):
        while reader.lag():
            await once()
    node.clock.observe(router.newest)
    await node.persistence.barrier()


async def clean_channels(node: Node, keyring: KeyRing, wills_seen: set[bytes], rows: Iterable[OpenChannel]) -> None:
    """One tcpclean for each channel that a dead process left open, and its will, unless the log has it already."""
    now = node.clock.wall()
    for row in rows:
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
            principal = will_rights.restore(principal_of(keyring, row.principal, row.client), row.rights)
            node.ending.wills.add(Due(row.channel, row.client, principal, row.session_expiry > 0, row.will, due, row.session), passed)
    logger.info("recovered sessions=%d", len(node.registry.sessions))
