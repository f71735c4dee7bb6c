"""What the blobs in rows hold: msgpack of the shared words. Fields are only ever appended to those, so old rows decode."""

from __future__ import annotations

import msgspec

from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.records import Record
from schemas.rules import Rule, RuleState
from schemas.sessions import BoxEntry, Subscription
from streams.store import DeadLetter, OpenChannel

encode = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(Record).decode
decode_subscription = msgspec.msgpack.Decoder(Subscription).decode
decode_channel = msgspec.msgpack.Decoder(OpenChannel).decode
decode_status = msgspec.msgpack.Decoder(ClientStatus).decode
decode_rule = msgspec.msgpack.Decoder(Rule).decode
decode_rule_state = msgspec.msgpack.Decoder(RuleState).decode
decode_letter = msgspec.msgpack.Decoder(DeadLetter).decode
decode_key = msgspec.msgpack.Decoder(AccessKey).decode
_decode_places = msgspec.msgpack.Decoder(tuple[At, ...]).decode
_decode_identifiers = msgspec.msgpack.Decoder(tuple[int, ...]).decode


def decode_floor(stored: bytes | None) -> tuple[At, ...]:
    """NULL for a session that was at one node only."""
    return () if stored is None else _decode_places(stored)


def encode_identifiers(identifiers: tuple[int, ...]) -> bytes | None:
    """NULL for none, which is what nearly all deliveries have."""
    return encode(identifiers) if identifiers else None


def box_entry(
    shard: int, offset: int, index: int, qos: int, retain: int, identifiers: bytes | None, state: int, packet_id: int, record: bytes
) -> BoxEntry:
    """The columns that ``reads`` selects of an entry and its body."""
    found = _decode_identifiers(identifiers) if identifiers is not None else ()
    return BoxEntry(At(shard, offset, index), decode_record(record), qos, bool(retain), found, state, packet_id)
