"""The limits and times of the log on RocketMQ in one table; tests make them small. Knows nobody."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class RocketmqLogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and seconds unless the name says otherwise. The first part describes the topics, the rest what this process does."""

    prefix: str = "sluiceway-"
    """In front of `publish` and `presence`."""
    shards: int = 6
    """Queues of each topic, those of all brokers together. A key's shard follows from this number, so it stays what it is."""
    retention_age: float = 24 * 3600.0
    """What is counted on: brokers keep all topics for one time, which is theirs to set."""
    packet: int = MIB
    """The largest record that is to fit; brokers that take less are refused."""
    checked: bool = True
    """Refuse brokers that could lose what they acknowledged; else they are used as they are, and the log says so."""

    group_records: int = 4096
    """Most records of one frame."""
    group_bytes: int = MIB
    """A frame takes no further record past this size; one record may be larger."""
    pending_records: int = 1_000_000
    """Records that wait to be durable; more are refused. The sessions' own limit lies far below it."""
    pending_bytes: int = 256 * MIB
    deliver_within: float = 8.0
    """A frame that is not answered by then is sent again by a new connection. A broker itself gives up on a disk or a replica after 5."""
    refuse_after: float = 120.0
    """A shard whose frame is on its way for that long refuses what waits behind it, until it is through."""
    backoff: float = 0.2
    """Between attempts at a broker; it doubles."""
    longest_backoff: float = 3.0
    """A broker whose disk or replica is away has stored what it doesn't acknowledge: each attempt is one more copy."""
    hang_after: float = 1.0
    """A frame that takes longer counts as a stall."""
    close_within: float = 5.0
    """How long ``close`` tries to make the rest durable."""
    answer_within: float = 15.0
    """For whatever is asked at start."""
    read_ahead_bytes: int = 4 * MIB
    """Frames in memory that a reader was not asked for yet."""
    look_back: int = 32
    """Frames before a reader's start that are looked at, so that their repeats behind it are known."""
    poll_for: float = 10.0
    """How long a broker may hold a request for records that are not there yet."""
    clocks_apart: float = 600.0
    """Brokers find by the time at which they stored a frame: a reader that starts by time looks so far back for records of a clock that is ahead."""
