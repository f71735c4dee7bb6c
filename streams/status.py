"""The status of a client: a fold over its connect, disconnect and tcpclean events, whatever their order, repeats and losses.

The newest connect tells the connection that counts, and the client is online until a tcpclean names that connection's
channel. So a lost tcpclean of an older connection keeps nobody online, and one that comes late takes nobody offline. What
was closed is remembered for a while, since its connect may come later or once more. presence.py folds records with this.
"""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.presence import ClientStatus
from schemas.records import Kind

TOMBSTONE_TTL: Final = 3_600_000
"""How long (ms) a closed channel is remembered, counted by the events' own times: a replay of old events folds as it did at first."""

MAX_TOMBSTONES: Final = 16
"""Closed channels remembered of one client; a client that reconnects faster than its events arrive out of order needs no more."""

_CONNECT = int(Kind.CONNECT)
_TCPCLEAN = int(Kind.TCPCLEAN)


class Tombstone(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """A channel that a tcpclean named, and when, in ms."""

    time: int
    channel: str


class StatusState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is known of a client: the newest event's ``time``, the newest connect, and the channels that were closed, by time."""

    time: int = 0
    connected: int = 0
    channel: str = ""
    address: str = ""
    closed: tuple[Tombstone, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StatusState)


def encode_status(state: StatusState) -> bytes:
    """The fold as the store keeps it."""
    return _encoder.encode(state)


def decode_status(data: bytes) -> StatusState:
    """The fold as it was encoded; msgspec.ValidationError where it is not one."""
    return _decoder.decode(data)


def fold(state: StatusState | None, kind: int, channel: str, address: str, time: int) -> StatusState:
    """The state with one more event. Commutative and idempotent among events that arrive at most TOMBSTONE_TTL out of order.

    A disconnect moves ``time`` only: tcpclean decides. An event that changes nothing returns ``state`` itself.
    """
    if state is None and kind == _CONNECT:
        return StatusState(time, time, channel, address)
    before = state if state is not None else StatusState()
    connected, open_channel, open_address = before.connected, before.channel, before.address
    if kind == _CONNECT and (time, channel) > (connected, open_channel):
        connected, open_channel, open_address = time, channel, address
    closed = _with_tombstone(before.closed, Tombstone(time, channel)) if kind == _TCPCLEAN else before.closed
    newest = max(before.time, time)
    after = StatusState(newest, connected, open_channel, open_address, _bounded(closed, open_channel, newest - TOMBSTONE_TTL))
    return before if state is not None and after == before else after


def is_closed(state: StatusState | None, channel: str) -> bool:
    """Whether a tcpclean of the channel is remembered."""
    return state is not None and any(tombstone.channel == channel for tombstone in state.closed)


def status(client: str, state: StatusState) -> ClientStatus:
    """What the fold says of the client. Channel and address are those of its newest connect, empty where none is known."""
    online = bool(state.channel) and not is_closed(state, state.channel)
    return ClientStatus(client, online, state.channel, state.address, state.time)


def _with_tombstone(closed: tuple[Tombstone, ...], added: Tombstone) -> tuple[Tombstone, ...]:
    """One tombstone a channel, of its newest tcpclean, in order."""
    same = [tombstone for tombstone in closed if tombstone.channel == added.channel]
    others = [tombstone for tombstone in closed if tombstone.channel != added.channel]
    return tuple(sorted([*others, max([*same, added])]))


def _bounded(closed: tuple[Tombstone, ...], kept: str, oldest: int) -> tuple[Tombstone, ...]:
    """Without what is too old, and the newest of the rest; the tombstone of the newest connect itself says offline and stays."""
    if not closed:
        return closed
    fresh = [tombstone for tombstone in closed if tombstone.channel != kept and tombstone.time >= oldest][-MAX_TOMBSTONES:]
    own = [tombstone for tombstone in closed if tombstone.channel == kept]
    return tuple(sorted([*own, *fresh])) if own else tuple(fresh)
