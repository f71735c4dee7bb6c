"""Presence: the events connect, disconnect and tcpclean, and the status that they fold into (domain: client status events)."""

from __future__ import annotations

import msgspec


class Will(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A will as accepted at CONNECT. ``delay`` is seconds; ``properties`` as in Record; ``expiry`` seconds, -1 for none."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay: int = 0
    properties: bytes = b""
    expiry: int = -1


class Presence(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The body of a presence record; its kind is the record's kind, its client and time the record's.

    ``channel`` is 32 hex characters, unique to a connection. On connect: ``will`` and ``session_expiry`` (seconds).
    On tcpclean: ``reason`` in words, and ``will_due`` (milliseconds of the wall clock), 0 where no will is to be published.
    ``rights``: what may be decided of the will by, beside its principal's name (gateway/auth/will_rights.py).
    ``certificates``: serial numbers of the client's certificate and of its authority, separated by a comma; empty where it has shown none.
    """

    channel: str
    address: str
    reason: str = ""
    session_expiry: int = 0
    will: Will | None = None
    will_due: int = 0
    certificates: str = ""
    rights: bytes = b""


class ClientStatus(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The fold of a client's events. ``online`` where an open channel is known; ``time`` is the newest event's, in ms."""

    client: str
    online: bool
    channel: str
    address: str
    time: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Presence)


def encode_presence(presence: Presence) -> bytes:
    """The payload of a presence record."""
    return _encoder.encode(presence)


def decode_presence(payload: bytes) -> Presence:
    """The presence in a record's payload; msgspec.ValidationError where it is not one."""
    return _decoder.decode(payload)
