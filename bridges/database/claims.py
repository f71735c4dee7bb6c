"""Takes a session for a connection, and gives numbers to sessions and mailboxes, all inside the caller's transaction.

The port's ``claim`` says what is decided here. Neighbours: ending.py removes what a clean start ends, reads.py reads a session's parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select, text, update

from bridges.database.ending import remove_session
from bridges.database.locks import is_shared, learn_epochs
from bridges.database.membership import NODE_DEAD, Told, holds
from bridges.database.reads import in_flight, received_of, routed, subscriptions_of
from bridges.database.rows import decode_floor, encode
from bridges.database.sql import Prepared, Row, key_is, upsert
from bridges.database.tables import boxes, counters, mailboxes, sessions
from schemas.sessions import SessionState
from streams.cluster import SESSION, NodeFence, Notice, late_before, raised, resume_of
from streams.store import Refused

_SESSION: Final = Prepared(
    select(
        sessions.c.id,
        sessions.c.principal,
        sessions.c.expires_at,
        sessions.c.next_block,
        boxes.c.epoch,
        boxes.c.queued,
        mailboxes.c.id,
        sessions.c.floor,
        sessions.c.resuming,
        sessions.c.node_epoch,
    )
    .select_from(sessions.join(boxes, boxes.c.id == sessions.c.id).outerjoin(mailboxes, mailboxes.c.client == sessions.c.client))
    .where(key_is(sessions, "client"))
)
_MAILBOX: Final = Prepared(select(mailboxes.c.id).where(key_is(mailboxes, "client")))
_COUNTER: Final = Prepared(select(counters.c.value).where(key_is(counters, "name")))
_SPREAD: Final = Prepared(text("SELECT coalesce(sum(value), 0)::bigint FROM counters WHERE name >= :low AND name < :high"))
_LAST_NUMBER: Final = Prepared(text("SELECT coalesce(max(id), 0) FROM boxes"))
_NEXT_NUMBER: Final = Prepared(text("SELECT nextval('box_numbers')"))
_COUNT: Final = Prepared(update(counters).where(key_is(counters, "name")).values(value=counters.c.value + bindparam("by")))
_PUT_SESSION: Final = upsert(sessions)
_PUT_BOX: Final = upsert(boxes)
_PUT_MAILBOX: Final = upsert(mailboxes)
_RESUME: Final = Prepared(
    update(sessions)
    .where(key_is(sessions, "id"))
    .values(
        expiry=bindparam("expiry"),
        expires_at=bindparam("expires_at"),
        node_epoch=bindparam("node_epoch"),
        floor=bindparam("floor"),
        resuming=bindparam("resuming"),
    )
)
_HOLD: Final = Prepared(select(sessions.c.id).where(key_is(sessions, "id")).with_for_update(key_share=True))
_SET_EPOCH: Final = Prepared(update(boxes).where(key_is(boxes, "id")).values(epoch=bindparam("epoch")))


@dataclass
class Connections:
    """Numbers the connections that keep no session: no two get the same, also across starts, as each start takes a node epoch.

    Outlives a rolled back transaction: it only ever skips numbers.
    """

    node_epoch: int = 0
    count: int = 0

    def next(self, connection: Connection) -> int:
        if not self.node_epoch:
            self.node_epoch = counter(connection, "node epoch")
        self.count += 1
        return (self.node_epoch << 32) + self.count


def counter(connection: Connection, name: str) -> int:
    """See ``tables.counters``."""
    if not is_shared(connection) or name == "node epoch":
        return _COUNTER.number(connection, the_name=name)
    if name == "box":
        return _LAST_NUMBER.number(connection)
    return _SPREAD.number(connection, low=name, high=name + "!")  # the character behind the space


def next_number(connection: Connection, name: str) -> int:
    """The counter's value, one higher than at any call before."""
    if name == "box" and is_shared(connection):
        return _NEXT_NUMBER.number(connection)
    _COUNT.run(connection, the_name=name, by=1)
    return counter(connection, name)


def _found(connection: Connection, epochs: dict[int, int], client: str) -> Row | None:
    """The client's session. Where others write as well, nobody else changes it from here on, and what was read is of after that."""
    found = _SESSION.first(connection, the_client=client)
    if is_shared(connection):
        while found is not None and found[0] not in epochs:
            learn_epochs(connection, epochs, [found[0]])
            found = _SESSION.first(connection, the_client=client)
    return found


def claim(
    connection: Connection,
    epochs: dict[int, int],
    connections: Connections,
    client: str,
    principal: str,
    *,
    clean_start: bool,
    expiry: int,
    now: int,
    limit: int,
    owner: int,
    told: Told,
) -> SessionState | Refused:
    """See ``streams.store.Store.claim``; ``epochs`` of the transaction are kept right."""
    if owner and not holds(connection, NodeFence(owner)):
        return Refused(NODE_DEAD)
    found, before = _found(connection, epochs, client), 0
    if found is not None:
        number, belongs_to, expires_at, before = found[0], found[1], found[2], found[-1]
        if not 0 < expires_at <= now:
            if belongs_to != principal:
                return Refused("client id of another principal", belongs_to)
            if not clean_start:
                return _resumed(connection, epochs, client, expiry, found, owner, told)
        if before not in (0, owner):
            told[Notice(SESSION, f"{before} {number} 0")] = None
        remove_session(connection, epochs, number)
    elif expiry and counter(connection, "sessions") >= limit:
        return Refused("session limit")
    mailbox = _MAILBOX.number(connection, the_client=client)
    if not expiry:
        return SessionState(0, connections.next(connection), client, principal, False, 0, mailbox=mailbox, owner=before)
    number = next_number(connection, "box")
    new = {"client": client, "principal": principal, "expiry": expiry, "node_epoch": owner}
    _PUT_SESSION.run(connection, id=number, expires_at=0, next_block=1, floor=None, resuming=0, **new)
    _PUT_BOX.run(connection, id=number, epoch=1, queued=0)
    epochs[number] = 1
    return SessionState(number, 1, client, principal, False, expiry, mailbox=mailbox, owner=before)


def _resumed(connection: Connection, epochs: dict[int, int], client: str, expiry: int, found: Row, owner: int, told: Told) -> SessionState:
    """Goes on under its next epoch, on the node that asks."""
    number, principal, _, next_block, epoch, queued, mailbox, stored, resuming, before = found
    floor = decode_floor(stored)
    if before not in (0, owner):
        told[Notice(SESSION, f"{before} {number} {epoch + 1}")] = None
    if owner not in (0, before):
        # Read behind the session's lock: what passed it is stored, and finished deliveries are there as far back
        _HOLD.run(connection, the_id=number)
        floor, resuming = raised(floor, resuming, routed(connection, before), epoch + 1), 1
        stored = encode(floor)
    _RESUME.run(connection, the_id=number, expiry=expiry, expires_at=0, node_epoch=owner, floor=stored, resuming=resuming)
    _SET_EPOCH.run(connection, the_id=number, epoch=epoch + 1)
    epochs[number] = epoch + 1
    return SessionState(
        number,
        epoch + 1,
        client,
        principal,
        True,
        expiry,
        subscriptions=subscriptions_of(connection, number),
        next_block=next_block,
        in_flight=in_flight(connection, number),
        queued=queued,
        mailbox=mailbox or 0,
        received=received_of(connection, number),
        owner=before,
        resume=resume_of(floor) if resuming else None,
        late_before=late_before(floor),
    )


def open_mailbox(connection: Connection, epochs: dict[int, int], client: str) -> int:
    """The client id's mailbox; no epoch guards it."""
    number = _MAILBOX.number(connection, the_client=client)
    if not number:
        number = next_number(connection, "box")
        if not _PUT_MAILBOX.run(connection, client=client, id=number):
            return _MAILBOX.number(connection, the_client=client)  # another node made it in the meantime
        _PUT_BOX.run(connection, id=number, epoch=0, queued=0)
        epochs[number] = 0
    return number
