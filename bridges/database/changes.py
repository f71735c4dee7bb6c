"""What each change does, gathered over all commits of a transaction and flushed before anything that reads.

A table by type. Epochs are checked here, against those that transaction.py read of this transaction; entries are gathered in
entries.py, and a session's end is done at once by ending.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, exists, literal_column, select, update

from bridges.database.ending import remove_session
from bridges.database.entries import EntryChanges
from bridges.database.names import stored_name
from bridges.database.routing import RouteChanges
from bridges.database.rows import encode
from bridges.database.rules import drop_dead_letters, drop_rule, put_dead_letter, put_rule, put_rule_state
from bridges.database.sql import Bulk, Prepared, inserting, key_is, upsert
from bridges.database.tables import documents, positions, received, retained, sessions, subscriptions
from schemas.positions import At
from schemas.sessions import (
    DropEntry,
    DropReceived,
    DropSubscription,
    EndConnection,
    PutEntry,
    PutReceived,
    PutRetained,
    PutSubscription,
    RemoveSession,
    ReserveBlock,
    Resumed,
    SetEntry,
    Subscription,
    TrimBox,
)
from streams.cluster import DOCUMENTS, Fence, Notice, PutRoute, Tell, TrimRoutes
from streams.store import (
    Change,
    CommitResult,
    Document,
    DropChannel,
    DropDeadLetters,
    DropDocument,
    DropRule,
    FinishReplayed,
    OpenChannel,
    PutChannel,
    PutDeadLetter,
    PutDocument,
    PutRule,
    PutRuleState,
    PutStatus,
    Stale,
)

PUT_SUBSCRIPTION: Final = upsert(subscriptions, "detail")
DELETE_SUBSCRIPTION: Final = Prepared(delete(subscriptions).where(key_is(subscriptions, "session", "filter")))
END_CONNECTION: Final = Prepared(
    update(sessions).where(key_is(sessions, "id")).values(expiry=bindparam("expiry"), expires_at=bindparam("expires_at"))
)
RESERVE_BLOCK: Final = Prepared(update(sessions).where(key_is(sessions, "id")).values(next_block=bindparam("next_block")))
RESUMED: Final = Prepared(update(sessions).where(key_is(sessions, "id")).values(resuming=literal_column("0")))
_OWNED: Final = and_(sessions.c.id == bindparam("the_session"), sessions.c.node_epoch == bindparam("owner"))
PUT_RECEIVED: Final = Prepared(
    lambda dialect: (
        inserting(dialect, received)
        .from_select(["session", "packet_id"], select(sessions.c.id, bindparam("the_packet_id")).where(_OWNED))
        .on_conflict_do_nothing(index_elements=["session", "packet_id"])
    )
)
DELETE_RECEIVED: Final = Prepared(delete(received).where(key_is(received, "session", "packet_id"), exists(select(sessions.c.id).where(_OWNED))))
PUT_RETAINED: Final = upsert(retained, "time", "id", "expires_at", "record", higher=("time", "id"))
PUT_CHANNELS: Final = Bulk("INSERT INTO channels (channel, detail)", 2, " ON CONFLICT (channel) DO UPDATE SET detail = excluded.detail", once=True)
DELETE_CHANNELS: Final = Bulk("DELETE FROM channels WHERE channel IN (SELECT * FROM (", 1, ") AS v)")
PUT_STATUSES: Final = Bulk(
    "INSERT INTO statuses (client, status, state)",
    3,
    " ON CONFLICT (client) DO UPDATE SET status = excluded.status, state = excluded.state",
    once=True,
)
PUT_DOCUMENT: Final = upsert(documents, "body", "expires_at")
DELETE_DOCUMENT: Final = Prepared(delete(documents).where(key_is(documents, "kind", "name")))
PUT_POSITION: Final = upsert(positions, "offset", "idx")


@dataclass(slots=True)
class Outcome:
    """What becomes a CommitResult once all is flushed."""

    stale: dict[Stale, None] = field(default_factory=dict)
    trimmed: dict[int, int] = field(default_factory=dict)
    lost: tuple[Fence, ...] = ()

    def result(self) -> CommitResult:
        return CommitResult(tuple(self.stale), tuple(sorted(self.trimmed.items())), self.lost)


class Changes:
    """``epochs``: of every session and mailbox that the transaction's commits speak of and that is there, 0 for a mailbox.

    What is gathered is bounded by the calls of one transaction. ``told`` are the notices that it gives rise to.
    """

    def __init__(self, connection: Connection, epochs: dict[int, int], told: dict[Notice, None]) -> None:
        self._connection = connection
        self._epochs = epochs
        self._told = told
        self._routes = RouteChanges(connection, told)
        self._entries = EntryChanges(connection)
        self._subscriptions: dict[tuple[int, str], Subscription | None] = {}
        self._ended: dict[int, EndConnection] = {}
        self._blocks: dict[int, int] = {}
        self._resumed: set[int] = set()
        self._received: dict[tuple[int, int, int], bool] = {}
        """By session, packet id and owner."""
        self._retained: dict[str, PutRetained] = {}
        self._channels: dict[str, OpenChannel | None] = {}
        self._statuses: dict[str, PutStatus] = {}
        self._documents: dict[tuple[str, str], Document | None] = {}
        self._positions: dict[tuple[str, int], At] = {}

    def take(self, changes: Sequence[Change], named: Mapping[str, At], outcome: Outcome) -> None:
        """One commit."""
        for change in changes:
            _TAKE[type(change)](self, change, outcome)
        for reader, at in named.items():
            self._positions[reader, at.shard] = at

    def flush(self) -> None:
        """All that was taken is in the tables."""
        self._entries.flush()
        self._routes.flush()
        connection = self._connection
        if self._subscriptions or self._ended or self._blocks or self._received or self._resumed:
            self._flush_sessions()
        if self._retained:
            rows = [_retained_row(put) for put in self._retained.values()]
            PUT_RETAINED.many(connection, rows)
            self._retained = {}
        if self._channels:
            PUT_CHANNELS.run(connection, [value for name, c in self._channels.items() if c is not None for value in (name, encode(c))])
            DELETE_CHANNELS.run(connection, [name for name, c in self._channels.items() if c is None])
            self._channels = {}
        if self._statuses:
            PUT_STATUSES.run(connection, [value for client, put in self._statuses.items() for value in (client, encode(put.status), put.state)])
            self._statuses = {}
        if self._documents:
            PUT_DOCUMENT.many(connection, [document_row(connection, put) for put in self._documents.values() if put is not None])
            dropped = [key for key, put in self._documents.items() if put is None]
            DELETE_DOCUMENT.many(connection, [{"the_kind": kind, "the_name": stored_name(connection, name)} for kind, name in dropped])
            self._documents = {}
        if self._positions:
            places = [{"reader": r, "shard": shard, "offset": at.offset, "idx": at.index} for (r, shard), at in self._positions.items()]
            PUT_POSITION.many(connection, places)
            self._positions = {}

    def _flush_sessions(self) -> None:
        connection = self._connection
        put = [{"session": s, "filter": f, "detail": encode(detail)} for (s, f), detail in self._subscriptions.items() if detail is not None]
        PUT_SUBSCRIPTION.many(connection, put)
        dropped = [{"the_session": s, "the_filter": f} for (s, f), detail in self._subscriptions.items() if detail is None]
        DELETE_SUBSCRIPTION.many(connection, dropped)
        ended = [{"the_id": s, "expiry": end.expiry, "expires_at": end.expires_at} for s, end in self._ended.items()]
        END_CONNECTION.many(connection, ended)
        RESERVE_BLOCK.many(connection, [{"the_id": s, "next_block": block} for s, block in self._blocks.items()])
        of = [({"the_session": s, "the_packet_id": p, "owner": owner}, there) for (s, p, owner), there in self._received.items()]
        PUT_RECEIVED.many(connection, [row for row, there in of if there])
        DELETE_RECEIVED.many(connection, [row for row, there in of if not there])
        RESUMED.many(connection, [{"the_id": s} for s in sorted(self._resumed)])
        self._subscriptions, self._ended, self._blocks, self._received, self._resumed = {}, {}, {}, {}, set()

    def _box_refuses(self, number: int, epoch: int, outcome: Outcome) -> bool:
        """An epoch of 0 guards nothing, but the box has to be there."""
        current = self._epochs.get(number)
        if current is None or (epoch and epoch != current):
            outcome.stale[Stale(number, epoch)] = None
            return True
        return False

    def _session_refuses(self, number: int, epoch: int, outcome: Outcome) -> bool:
        """The same of a session; a mailbox isn't one."""
        current = self._epochs.get(number, 0)
        if not current or (epoch and epoch != current):
            outcome.stale[Stale(number, epoch)] = None
            return True
        return False

    def put_entry(self, change: PutEntry, outcome: Outcome) -> None:
        if not self._box_refuses(change.box, change.epoch, outcome):
            self._entries.put(change.box, change.entry)

    def set_entry(self, change: SetEntry, outcome: Outcome) -> None:
        if not self._box_refuses(change.box, change.epoch, outcome):
            self._entries.set(change.box, change.at, change.state, change.packet_id)

    def drop_entry(self, change: DropEntry, outcome: Outcome) -> None:
        number, epoch = change.box, change.epoch
        if not (self._session_refuses(change.session, epoch, outcome) if change.session else self._box_refuses(number, epoch, outcome)):
            self._entries.drop(number, change.at)

    def trim_box(self, change: TrimBox, outcome: Outcome) -> None:
        if not self._box_refuses(change.box, change.epoch, outcome):
            self._entries.trim(change.box, change.keep, outcome.trimmed)

    def put_subscription(self, change: PutSubscription, outcome: Outcome) -> None:
        if not self._session_refuses(change.session, change.epoch, outcome):
            self._subscriptions[change.session, change.subscription.filter] = change.subscription

    def drop_subscription(self, change: DropSubscription, outcome: Outcome) -> None:
        if not self._session_refuses(change.session, change.epoch, outcome):
            self._subscriptions[change.session, change.filter] = None

    def end_connection(self, change: EndConnection, outcome: Outcome) -> None:
        if not self._session_refuses(change.session, change.epoch, outcome):
            self._ended[change.session] = change

    def reserve_block(self, change: ReserveBlock, outcome: Outcome) -> None:
        if not self._session_refuses(change.session, change.epoch, outcome):
            self._blocks[change.session] = change.next_block

    def resumed(self, change: Resumed, outcome: Outcome) -> None:
        if not self._session_refuses(change.session, change.epoch, outcome):
            self._resumed.add(change.session)

    def remove_session(self, change: RemoveSession, outcome: Outcome) -> None:
        if not self._session_refuses(change.session, change.epoch, outcome):
            self.flush()
            remove_session(self._connection, self._epochs, change.session)

    def put_received(self, change: PutReceived, _: Outcome) -> None:
        """A replay of the log may speak of sessions that are gone."""
        if self._epochs.get(change.session):
            self._received[change.session, change.packet_id, change.owner] = True

    def drop_received(self, change: DropReceived, _: Outcome) -> None:
        if self._epochs.get(change.session):
            self._received[change.session, change.packet_id, change.owner] = False

    def put_retained(self, change: PutRetained, _: Outcome) -> None:
        taken = self._retained.get(change.topic)
        if taken is None or (change.time, change.id) > (taken.time, taken.id):
            self._retained[change.topic] = change

    def put_channel(self, change: PutChannel, _: Outcome) -> None:
        self._channels[change.channel.channel] = change.channel

    def drop_channel(self, change: DropChannel, _: Outcome) -> None:
        self._channels[change.channel] = None

    def put_status(self, change: PutStatus, _: Outcome) -> None:
        self._statuses[change.status.client] = change

    def put_document(self, change: PutDocument, _: Outcome) -> None:
        self._documents[change.document.kind, change.document.name] = change.document
        self._told[Notice(DOCUMENTS, change.document.kind)] = None

    def drop_document(self, change: DropDocument, _: Outcome) -> None:
        self._documents[change.kind, change.name] = None
        self._told[Notice(DOCUMENTS, change.kind)] = None

    def finish_replayed(self, change: FinishReplayed, _: Outcome) -> None:
        if self._resumed:
            self._flush_sessions()
        self._entries.finish(change.upto, change.owner)

    def put_route(self, change: PutRoute, outcome: Outcome) -> None:
        if self._routes.lives(change.epoch):
            self._routes.put(change)
        else:
            outcome.stale[Stale(0, change.epoch)] = None

    def trim_routes(self, change: TrimRoutes, outcome: Outcome) -> None:
        if self._routes.lives(change.epoch):
            self._routes.trim(change)
        else:
            outcome.stale[Stale(0, change.epoch)] = None

    def tell(self, change: Tell, _: Outcome) -> None:
        self._told[change.notice] = None

    def of_rule(self, change: PutRule | DropRule | PutRuleState | PutDeadLetter | DropDeadLetters, _: Outcome) -> None:
        _OF_RULES[type(change)](self._connection, change)


def document_row(connection: Connection, document: Document) -> dict[str, object]:
    return {"kind": document.kind, "name": stored_name(connection, document.name), "body": document.body, "expires_at": document.expires_at}


def _retained_row(put: PutRetained) -> dict[str, object]:
    record = put.record
    return {
        "topic": put.topic,
        "time": put.time,
        "id": put.id,
        "expires_at": record.expires_at if record is not None else 0,
        "record": encode(record) if record is not None else None,
    }


_OF_RULES: Final[dict[type, Callable[[Connection, Any], None]]] = {
    PutRule: put_rule,
    DropRule: drop_rule,
    PutRuleState: put_rule_state,
    PutDeadLetter: put_dead_letter,
    DropDeadLetters: drop_dead_letters,
}

_TAKE: Final[dict[type, Callable[[Changes, Any, Outcome], None]]] = {
    PutEntry: Changes.put_entry,
    SetEntry: Changes.set_entry,
    DropEntry: Changes.drop_entry,
    TrimBox: Changes.trim_box,
    PutSubscription: Changes.put_subscription,
    DropSubscription: Changes.drop_subscription,
    EndConnection: Changes.end_connection,
    ReserveBlock: Changes.reserve_block,
    Resumed: Changes.resumed,
    RemoveSession: Changes.remove_session,
    PutReceived: Changes.put_received,
    DropReceived: Changes.drop_received,
    PutRetained: Changes.put_retained,
    PutChannel: Changes.put_channel,
    DropChannel: Changes.drop_channel,
    PutStatus: Changes.put_status,
    PutDocument: Changes.put_document,
    DropDocument: Changes.drop_document,
    FinishReplayed: Changes.finish_replayed,
    PutRoute: Changes.put_route,
    TrimRoutes: Changes.trim_routes,
    Tell: Changes.tell,
    **dict.fromkeys(_OF_RULES, Changes.of_rule),
}

_NUMBER_OF: Final[dict[type, Callable[[Any], int]]] = dict.fromkeys((PutEntry, SetEntry, DropEntry, TrimBox), attrgetter("box")) | dict.fromkeys(
    (PutSubscription, DropSubscription, EndConnection, ReserveBlock, Resumed, RemoveSession, PutReceived, DropReceived), attrgetter("session")
)
"""The session or box whose epoch has to be known before a change is taken."""


def numbers_of(changes: Sequence[Change]) -> list[int]:
    """Of all sessions and boxes that the changes are about."""
    found = [of(change) for change in changes if (of := _NUMBER_OF.get(type(change))) is not None]
    return found + [change.session for change in changes if isinstance(change, DropEntry) and change.session]
