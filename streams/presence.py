"""Presence records: the JSON that backends get of them, and what they change in the store.

A channel's row is there from its connect until its tcpclean is known and its will, if one is due, was published or
cancelled. Events may come in any order and more than once. Knows no clock and no connection; the status itself is
folded in status.py, wills are published by gateway/wills.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from schemas.presence import Presence, decode_presence
from schemas.records import Kind, Record
from streams.status import StatusState, encode_status, fold, is_closed, status
from streams.store import Change, DropChannel, OpenChannel, PutChannel, PutStatus

EVENT_TYPES: dict[int, str] = {int(Kind.CONNECT): "connect", int(Kind.DISCONNECT): "disconnect", int(Kind.TCPCLEAN): "tcpclean"}


class _Event(msgspec.Struct, rename="camel", omit_defaults=True):
    """The body of a status event, its keys in the order in which they are documented."""

    client_id: str
    time: int
    event_type: str
    channel_id: str
    client_ip: str
    certificate_chain_sn: str = ""


class Folded(NamedTuple):
    """The client's state behind the event, and what the store is to change of its channels, in order."""

    state: StatusState
    changes: list[Change]


_encoder = msgspec.json.Encoder()
_CONNECT_KIND: Final = int(Kind.CONNECT)
_TCPCLEAN_KIND: Final = int(Kind.TCPCLEAN)


def event_json(record: Record) -> bytes:
    """The JSON of a presence record; its time in ms."""
    event_type = EVENT_TYPES.get(record.kind)
    if event_type is None:
        raise ValueError(f"kind {record.kind} is no presence event: pass a record of the presence topic")
    presence = decode_presence(record.payload)
    return _encoder.encode(_Event(record.client, record.time, event_type, presence.channel, presence.address, presence.certificates))


def tcpclean_id(channel: str) -> bytes:
    """The id of the channel's one tcpclean event: whoever makes it again makes it under the same id."""
    return _derived_id(channel, b"tcpclean")


def will_mark(channel: str) -> bytes:
    """By what the channel's one will message is known in the log, whoever publishes it: the end of its id."""
    return _derived_id(channel, b"will")[6:]


def will_id(channel: str, now: int) -> bytes:
    """The id of the channel's will message, published at ``now``: ids begin with their milliseconds, by which stores tell age."""
    return now.to_bytes(6, "big") + will_mark(channel)


def _derived_id(channel: str, purpose: bytes) -> bytes:
    return hashlib.blake2b(channel.encode(), digest_size=16, person=purpose).digest()


def fold_presence(
    state: StatusState | None,
    record: Record,
    presence: Presence,
    row: OpenChannel | None,
    *,
    others: Sequence[OpenChannel] = (),
    will_settled: bool = False,
) -> Folded:
    """Take in one presence record and its body. ``state`` is its client's, ``row`` its channel's.

    ``others`` are the client's other channels whose wills wait for their time; ``will_settled`` says that this channel's
    will was published or cancelled before its tcpclean came this far.
    """
    after = fold(state, record.kind, presence.channel, presence.address, record.time)
    changes: list[Change] = []
    if record.kind == _CONNECT_KIND:
        changes = _connect(record, presence, row, was_closed=is_closed(state, presence.channel))
        if others:
            changes += _wills_met_by_connect(record, others)
    elif record.kind == _TCPCLEAN_KIND:
        changes = _tcpclean(record, presence, row, was_closed=is_closed(state, presence.channel), will_settled=will_settled)
    return Folded(after, changes)


def put_status(client: str, state: StatusState) -> PutStatus:
    """The client's row, as the state says."""
    return PutStatus(status(client, state), encode_status(state))


def _connect(record: Record, presence: Presence, row: OpenChannel | None, *, was_closed: bool) -> list[Change]:
    opened = OpenChannel(
        channel=presence.channel,
        client=record.client,
        session=record.session,
        principal=record.principal,
        address=presence.address,
        node_epoch=record.epoch,
        connected=record.time,
        session_expiry=presence.session_expiry,
        will=presence.will,
        rights=presence.rights,
    )
    if row is None:
        return [] if was_closed else [PutChannel(opened)]
    if row.connected:
        return []
    # Its tcpclean came first and left a row that lacks what only the connect knows.
    return [PutChannel(replace(opened, will_due=row.will_due))] if presence.will is not None else [DropChannel(presence.channel)]


def _tcpclean(record: Record, presence: Presence, row: OpenChannel | None, *, was_closed: bool, will_settled: bool) -> list[Change]:
    due = 0 if will_settled else presence.will_due
    if row is None:
        if was_closed or not due:
            return []
        row = OpenChannel(presence.channel, record.client, record.session, record.principal, presence.address, record.epoch, 0, 0, None)
    elif row.will_due and not will_settled:
        return []
    elif not due or row.will is None:
        return [DropChannel(presence.channel)]
    return [PutChannel(replace(row, will_due=due))]


def _wills_met_by_connect(record: Record, others: Sequence[OpenChannel]) -> list[Change]:
    """A new connection before the delay has passed: the will isn't sent if the session goes on [MQTT-3.1.3-9], else it is due now."""
    changes: list[Change] = []
    for other in others:
        if other.will_due <= record.time:
            continue
        if record.session and record.session == other.session:
            changes.append(DropChannel(other.channel))
        else:
            changes.append(PutChannel(replace(other, will_due=record.time)))
    return changes
