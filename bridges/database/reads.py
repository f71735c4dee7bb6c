"""What is read from the tables. Pages are bounded by their limit, and entries by bytes as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Select, bindparam, cast, func, literal_column, select, text, tuple_

from bridges.database.locks import is_shared
from bridges.database.names import may_be_there, read_name, stored_name
from bridges.database.rows import box_entry, decode_channel, decode_floor, decode_key, decode_record, decode_status, decode_subscription
from bridges.database.sql import Prepared, Row, indexed, key_is
from bridges.database.tables import (
    access_keys,
    bodies,
    boxes,
    channels,
    counters,
    documents,
    entries,
    mailboxes,
    positions,
    properties,
    received,
    sessions,
)
from bridges.database.tables import retained as retained_topics
from bridges.database.tables import statuses as client_statuses
from bridges.database.tables import subscriptions as session_subscriptions
from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.sessions import BoxEntry, RetainedMessage, SessionState, Subscription
from schemas.topics import matches
from streams.cluster import late_before, resume_of, routing_reader
from streams.store import Counts, Document, OpenChannel

PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page of entries ends, before its limit, with the record that takes it past this."""
AT_ONCE: Final = 64
"""Entries, of a megabyte at most each, in the first answer of a server; what they weigh says how many to ask for next."""
SCAN: Final = 500
"""Topics and keys that are looked at in one step."""

_LOWEST: Final = At(-1, -1, -1)
_HIGHEST: Final = At(2**31 - 1, 2**63 - 1, 2**31 - 1)

_ENTRY = (
    entries.c.shard,
    entries.c.offset,
    entries.c.idx,
    entries.c.qos,
    entries.c.retain,
    entries.c.identifiers,
    entries.c.state,
    entries.c.packet_id,
    bodies.c.record,
)
_AT = (entries.c.shard, entries.c.offset, entries.c.idx)


def _entries(*, newest_first: bool) -> Prepared:
    place, cursor = tuple_(*_AT), tuple_(bindparam("shard"), bindparam("offset"), bindparam("index"))
    query = select(*_ENTRY).select_from(entries.join(bodies, bodies.c.id == entries.c.body)).where(key_is(entries, "box"), text("state = 0"))
    condition, order = (place < cursor, [column.desc() for column in _AT]) if newest_first else (place > cursor, list(_AT))
    return Prepared(query.where(condition).order_by(*order).limit(bindparam("count")))


ENTRIES: Final = _entries(newest_first=False)
ENTRIES_BACKWARDS: Final = _entries(newest_first=True)
IN_FLIGHT: Final = Prepared(
    lambda dialect: (
        select(*(literal_column(f'{column.table.name}."{column.name}"') for column in _ENTRY))
        .select_from(text(f"{indexed('entries', 'entries_started', dialect)} JOIN bodies ON bodies.id = entries.body"))
        .where(text("box = :box AND state <> 0 AND state IN (1, 2)"))
    )
)
_SUBSCRIPTIONS: Final = Prepared(
    select(session_subscriptions.c.detail).where(key_is(session_subscriptions, "session")).order_by(session_subscriptions.c.filter)
)
_RECEIVED: Final = Prepared(select(received.c.packet_id).where(key_is(received, "session")).order_by(received.c.packet_id))
_SESSION: Final = select(
    sessions.c.id,
    boxes.c.epoch,
    sessions.c.client,
    sessions.c.principal,
    sessions.c.expiry,
    sessions.c.next_block,
    boxes.c.queued,
    mailboxes.c.id,
    sessions.c.expires_at,
    sessions.c.floor,
    sessions.c.resuming,
    sessions.c.node_epoch,
).select_from(sessions.join(boxes, boxes.c.id == sessions.c.id).outerjoin(mailboxes, mailboxes.c.client == sessions.c.client))
_SESSIONS: Final = Prepared(_SESSION.where(sessions.c.id > bindparam("after")).order_by(sessions.c.id).limit(bindparam("count")))
_SESSION_NUMBERED: Final = Prepared(_SESSION.where(key_is(sessions, "id")))
TOPICS: Final = Prepared(
    select(retained_topics.c.topic)
    .where(retained_topics.c.topic > bindparam("after"), retained_topics.c.topic >= bindparam("low"), retained_topics.c.topic < bindparam("high"))
    .order_by(retained_topics.c.topic)
    .limit(bindparam("count"))
)
TOPICS_TO_THE_END: Final = Prepared(
    select(retained_topics.c.topic).where(retained_topics.c.topic > bindparam("after")).order_by(retained_topics.c.topic).limit(bindparam("count"))
)
_POSITIONS: Final = Prepared(select(positions.c.reader, positions.c.shard, positions.c.offset, positions.c.idx))
_ROUTED: Final = Prepared(
    select(positions.c.shard, positions.c.offset, positions.c.idx)
    .where((positions.c.reader == bindparam("name")) | ((positions.c.reader >= bindparam("low")) & (positions.c.reader < bindparam("high"))))
    .order_by(positions.c.shard)
)
_CHANNELS: Final = Prepared(select(channels.c.detail).order_by(channels.c.channel))
_MAILBOXES: Final = Prepared(select(mailboxes.c.client, mailboxes.c.id))
_KEYS: Final = Prepared(select(access_keys.c.detail).order_by(access_keys.c.id))
_STATUS: Final = Prepared(select(client_statuses.c.status, client_statuses.c.state).where(key_is(client_statuses, "client")))
_STATUSES: Final = Prepared(
    select(client_statuses.c.status)
    .where(client_statuses.c.client > bindparam("after"), client_statuses.c.client >= bindparam("low"), client_statuses.c.client < bindparam("high"))
    .order_by(client_statuses.c.client)
    .limit(bindparam("count"))
)
_DOCUMENTS: Final = Prepared(
    select(documents.c.kind, documents.c.name, documents.c.body, documents.c.expires_at)
    .where(key_is(documents, "kind"), documents.c.name > bindparam("after"))
    .order_by(documents.c.name)
    .limit(bindparam("count"))
)
_BOX_EPOCH: Final = Prepared(select(boxes.c.epoch).where(key_is(boxes, "id")))
_PROPERTY: Final = Prepared(select(properties.c.value).where(key_is(properties, "name")))


def _spread(name: str) -> Any:
    """A counter that may lie in several rows: see ``tables.counters``."""
    found = select(cast(func.sum(counters.c.value), BigInteger)).where(counters.c.name >= literal_column(f"'{name}'"))
    return found.where(counters.c.name < literal_column(f"'{name}!'")).scalar_subquery()  # the character behind the space


_COUNTS: Final = Prepared(
    select(
        _spread("sessions"),
        _spread("queued"),
        select(func.count()).select_from(retained_topics).scalar_subquery(),
        select(func.count(literal_column("1"))).select_from(retained_topics).where(text("record IS NULL")).scalar_subquery(),
        select(func.count()).select_from(channels).scalar_subquery(),
    )
)


def in_flight(connection: Connection, box: int) -> tuple[BoxEntry, ...]:
    """Begun deliveries in log order. Sorted here: the index that finds them fast among many queued ones orders by state first."""
    return tuple(sorted((box_entry(*row) for row in IN_FLIGHT.all(connection, box=box)), key=lambda entry: entry.at))


def subscriptions_of(connection: Connection, session: int) -> tuple[Subscription, ...]:
    return tuple([decode_subscription(row[0]) for row in _SUBSCRIPTIONS.all(connection, the_session=session)])


def received_of(connection: Connection, session: int) -> tuple[int, ...]:
    return tuple([row[0] for row in _RECEIVED.all(connection, the_session=session)])


def entries_page(connection: Connection, box: int, after: At | None, limit: int, *, newest_first: bool, epoch: int) -> list[BoxEntry]:
    """QUEUED entries. The epoch is looked at behind them: what another node has put there came later than its epoch."""
    found = _entries_page(connection, box, after, limit, newest_first=newest_first)
    return found if not epoch or _BOX_EPOCH.number(connection, the_id=box) == epoch else []


def _entries_page(connection: Connection, box: int, after: At | None, limit: int, *, newest_first: bool) -> list[BoxEntry]:
    at = after or (_HIGHEST if newest_first else _LOWEST)
    query = ENTRIES_BACKWARDS if newest_first else ENTRIES
    found: list[BoxEntry] = []
    size = 0
    step = AT_ONCE if is_shared(connection) else limit  # a driver that takes all rows of an answer is asked for a few at a time
    while len(found) < limit:
        count = min(step, limit - len(found))
        before = len(found)
        with closing(query.each(connection, the_box=box, shard=at.shard, offset=at.offset, index=at.index, count=count)) as rows:
            for row in rows:
                found.append(box_entry(*row))
                size += len(row[-1])
                if size > PAGE_BYTES:
                    return found
        if len(found) < before + count:
            break
        at, step = found[-1].at, max(1, min(limit, (PAGE_BYTES - size) * len(found) // max(1, size)))
    return found


def sessions_page(connection: Connection, after: int, limit: int) -> list[SessionState]:
    """Without entries."""
    return [_session(connection, row) for row in _SESSIONS.all(connection, after=after, count=limit)]


def session_numbered(connection: Connection, number: int, *, owner: int) -> SessionState | None:
    """The same of one, said to have had an owner."""
    row = _SESSION_NUMBERED.first(connection, the_id=number)
    return _session(connection, (*row[:-1], owner)) if row is not None else None


def _session(connection: Connection, row: Row) -> SessionState:
    number, epoch, client, principal, expiry, next_block, queued, mailbox, expires_at, floor, resuming, owner = row
    return SessionState(
        number,
        epoch,
        client,
        principal,
        True,
        expiry,
        subscriptions=subscriptions_of(connection, number),
        next_block=next_block,
        queued=queued,
        mailbox=mailbox or 0,
        received=received_of(connection, number),
        expires_at=expires_at,
        owner=owner,
        resume=resume_of(decode_floor(floor)) if resuming else None,
        late_before=late_before(decode_floor(floor)),
    )


def routed(connection: Connection, epoch: int) -> tuple[At, ...]:
    """How far a node has routed."""
    reader = routing_reader(epoch)
    rows = _ROUTED.all(connection, name=reader, low=reader + ":", high=reader + ";")  # the character behind the colon
    return tuple(At(*row) for row in rows)


def retained_page(connection: Connection, topic_filter: str, after: str, limit: int) -> list[RetainedMessage]:
    """Retained messages under a filter, by topic; topics of the filter's literal part only are looked at, ``SCAN`` at a time."""
    found: list[RetainedMessage] = []
    for low, high in topic_ranges(topic_filter):
        cursor = after
        while len(found) < limit:
            topics = _topics(connection, cursor, low, high)
            matching = [topic for topic in topics if matches(topic_filter, topic)]
            found += list(_messages(connection, matching))[: limit - len(found)]
            if len(topics) < SCAN:
                break
            cursor = topics[-1]
    return found


def _topics(connection: Connection, after: str, low: str, high: str | None) -> list[str]:
    if high is None:
        return [row[0] for row in TOPICS_TO_THE_END.all(connection, after=after, count=SCAN)]
    return [row[0] for row in TOPICS.all(connection, after=after, low=low, high=high, count=SCAN)]


def _messages(connection: Connection, topics: Sequence[str]) -> Iterator[RetainedMessage]:
    """Of those that are no tombstones, in the order of topics."""
    if topics:
        columns = (retained_topics.c.topic, retained_topics.c.record)
        for topic, record in _in(connection, select(*columns).order_by(retained_topics.c.topic), topics):
            if record is not None:
                yield RetainedMessage(topic, decode_record(record))


def _in(connection: Connection, query: Select[str, bytes | None], values: Sequence[str]) -> Sequence[Row]:
    column = query.selected_columns[0]
    return connection.execute(query.where(column.in_(bindparam("values", expanding=True))), {"values": list(values)}).all()


def topic_ranges(topic_filter: str) -> list[tuple[str, str | None]]:
    """The ranges of topics (inclusive, exclusive; None for no end) in which a filter's matches lie, in order. U+0000 is in no topic.

    `a/#` matches `a` as well [MQTT-4.7.1-2]; between the two lie siblings such as `a!`, so those are two ranges.
    """
    levels = topic_filter.split("/")
    literal = 0
    while literal < len(levels) and levels[literal] not in ("+", "#"):
        literal += 1
    prefix = "/".join(levels[:literal])
    if literal == len(levels):
        return [(prefix, prefix + "\x01")]
    if not literal:
        return [("", None)]
    below = (prefix + "/", prefix + "0")  # the character behind the slash
    return [(prefix, prefix + "\x01"), below] if levels[literal] == "#" else [below]


def stored_positions(connection: Connection) -> dict[str, dict[int, At]]:
    found: dict[str, dict[int, At]] = {}
    for reader, shard, offset, index in _POSITIONS.all(connection):
        found.setdefault(reader, {})[shard] = At(shard, offset, index)
    return found


def open_channels(connection: Connection) -> list[OpenChannel]:
    return [decode_channel(row[0]) for row in _CHANNELS.all(connection)]


def statuses(connection: Connection, clients: Sequence[str]) -> Mapping[str, tuple[ClientStatus, bytes]]:
    columns = (client_statuses.c.client, client_statuses.c.status, client_statuses.c.state)
    found: dict[str, tuple[ClientStatus, bytes]] = {}
    clients = [client for client in clients if may_be_there(connection, client)]
    if len(clients) == 1:  # what the API asks for: without the cost of a statement that is made for its values
        row = _STATUS.first(connection, the_client=clients[0])
        return {} if row is None else {clients[0]: (decode_status(row[0]), row[1])}
    for start in range(0, len(clients), SCAN):
        some = clients[start : start + SCAN]
        for client, status, state in connection.execute(select(*columns).where(columns[0].in_(bindparam("some", expanding=True))), {"some": some}):
            found[client] = (decode_status(status), state)
    return found


def statuses_page(connection: Connection, prefix: str, after: str, limit: int) -> list[ClientStatus]:
    """A range of the key: what begins with the prefix ends before the same prefix with its last character one higher."""
    if not may_be_there(connection, prefix + after):
        return []
    high = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return [decode_status(row[0]) for row in _STATUSES.all(connection, after=after, low=prefix, high=high, count=limit)]


def mailboxes_all(connection: Connection) -> dict[str, int]:
    return {row[0]: row[1] for row in _MAILBOXES.all(connection)}


def access_keys_all(connection: Connection) -> list[AccessKey]:
    return [decode_key(row[0]) for row in _KEYS.all(connection)]


def documents_page(connection: Connection, kind: str, after: str, limit: int) -> list[Document]:
    rows = _DOCUMENTS.all(connection, the_kind=kind, after=stored_name(connection, after), count=limit)
    return [Document(of_kind, read_name(connection, name), body, expires_at) for of_kind, name, body, expires_at in rows]


def property_value(connection: Connection, name: str) -> str | None:
    row = _PROPERTY.first(connection, the_name=name)
    return None if row is None else str(row[0])


def counts(connection: Connection) -> Counts:
    ((session_count, queued, topics, tombstones, channel_count),) = _COUNTS.all(connection)
    return Counts(sessions=session_count, entries=queued, retained=topics - tombstones, open_channels=channel_count)
