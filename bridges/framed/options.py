"""What the options of all logs whose messages are frames have in common; each bridge adds its own. Knows nobody."""

from __future__ import annotations

import msgspec

LOOK_BACK_SHARED = 4096
"""``look_back_first`` where other nodes' frames lie between a frame and its repeat: for as long as a node waits for its medium's answer."""
KIB = 1024
MIB = 1024 * KIB


class FramedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and seconds unless the name says otherwise. The first part describes the topics, the rest what this process does."""

    prefix: str = "sluiceway-"
    """In front of `publish` and `presence`."""
    shards: int = 6
    """Of each topic: partitions, or queues of all brokers together. A key's shard follows from this number, so it stays what it is."""
    retention_age: float = 24 * 3600.0
    checked: bool = True
    """Refuse a medium that could lose what it acknowledged; else it is used as it is, and the log says so."""

    group_records: int = 4096
    """Most records of one frame."""
    group_bytes: int = MIB
    """A frame takes no further record past this size; one record may be larger."""
    pending_records: int = 1_000_000
    """Records that wait to be durable; more are refused. The sessions' own limit lies far below it."""
    pending_bytes: int = 256 * MIB
    refuse_after: float = 120.0
    """A shard whose frame is on its way for that long refuses what waits behind it, until it is through."""
    backoff: float = 0.2
    """Between attempts to reach the medium."""
    hang_after: float = 1.0
    """A frame that takes longer counts as a stall."""
    close_within: float = 5.0
    """How long ``close`` tries to make the rest durable."""
    read_ahead_bytes: int = 4 * MIB
    """Frames in memory that a reader was not asked for yet."""
    look_back: int = 32
    """Frames before a reader's start that are looked at, so that their repeats behind it are known."""
    look_back_first: int = 32
    """The same for the first reader of a topic in this process, which finds repeats for all that follow."""
