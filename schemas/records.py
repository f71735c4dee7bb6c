"""What the log holds, and the frame in which a commit group is written.

A record is an accepted PUBLISH, the release of a QoS 2 packet id, or a presence event. Fields are only ever
appended, each with a default, so that an older frame decodes; a newer frame version stops the reader with one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Final

import msgspec

from schemas.errors import SluicewayError

PUBLISH_TOPIC: Final = "publish"
PRESENCE_TOPIC: Final = "presence"

FRAME_VERSION: Final = 1


class Kind(IntEnum):
    """What a record says."""

    PUBLISH = 0
    RELEASE = 1
    CONNECT = 2
    DISCONNECT = 3
    TCPCLEAN = 4
    SHARED = 5
    """An earlier PUBLISH once more, for a shared subscription whose chosen node couldn't give it to a member. Nobody else has to do with it."""


class Source(IntEnum):
    """Who made a record; outflow rules take DEVICE and WILL only, unless told otherwise."""

    DEVICE = 0
    WILL = 1
    API = 2
    INFLOW = 3
    SYSTEM = 4


class Flag(IntFlag):
    """Bits of ``Record.flags``."""

    RETAIN = 1
    PERSISTENT = 2
    """The sender's session outlives its connection."""
    P2P = 4
    ORDERED = 8
    DUP = 16
    """Under QoS 2: the sender says that it may have sent it before."""


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry of the log.

    ``id`` is 16 bytes: 48-bit milliseconds, node, node epoch, counter; it sorts by time and is the message id
    everywhere. ``time`` and ``expires_at`` are milliseconds of the wall clock, 0 for never. ``properties`` is the
    MQTT 5 property block to forward, encoded, without its length. For presence kinds ``payload`` holds an encoded
    ``schemas.presence.Presence``. ``shares``: where there are many nodes, the shared subscriptions that match, as subscribed, each with the node
    epochs that were chosen to give it to a member; the last one counts, 0 for none that lives.
    """

    kind: int
    id: bytes
    time: int
    client: str
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    flags: int = 0
    packet_id: int = 0
    session: int = 0
    epoch: int = 0
    principal: str = ""
    source: int = 0
    expires_at: int = 0
    properties: bytes = b""
    real_topic: str = ""
    shares: tuple[tuple[str, tuple[int, ...]], ...] = ()


class Frame(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The records of one commit group of one shard, with the writer's identity and running number.

    A reader that has had (node, epoch, sequence) drops the frame, which makes a repeated write harmless.
    """

    version: int
    node: str
    epoch: int
    sequence: int
    records: list[Record]


class FrameError(SluicewayError):
    """A frame that can't be read: damaged, or written by a newer version."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode_frame(node: str, epoch: int, sequence: int, records: Sequence[Record]) -> bytes:
    """The bytes of a frame, msgpack."""
    return _encoder.encode((FRAME_VERSION, node, epoch, sequence, records))


def decode_frame(data: bytes) -> Frame:
    """The frame in ``data``; FrameError where it is damaged or newer than this program."""
    try:
        version = _version(data)
        if version > FRAME_VERSION:
            raise FrameError(f"the log has a frame of version {version}, this program reads up to {FRAME_VERSION}: run a newer program")
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise FrameError(f"a frame of the log can't be read: {error}") from error


def _version(data: bytes) -> int:
    """The first element of the frame's array, read without decoding what a newer version may have changed."""
    if len(data) < 2 or data[0] & 0xF0 != 0x90 or data[1] > 0x7F:
        raise FrameError("a frame of the log can't be read: not a frame")
    return data[1]
