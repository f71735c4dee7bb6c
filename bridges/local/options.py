"""The limits and times of the embedded log in one table; tests make them small. Knows nobody."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and seconds unless the name says otherwise."""

    group_records: int = 4096
    """Most records of one commit."""
    group_bytes: int = MIB
    """A commit takes no further record past this size; one record may be larger."""
    pending_records: int = 1_000_000
    """Records that wait to be durable; more are refused. The sessions' own limit lies far below it."""
    pending_bytes: int = 256 * MIB
    segment_bytes: int = 256 * MIB
    segment_age: float = 3600.0
    retention_bytes: int = 8 * 1024 * MIB
    """Segments that every reader of their topics has released go, oldest first, while all together are larger than this..."""
    retention_age: float = 24 * 3600.0
    """...or when their newest record is older than this."""
    tail_frames: int = 4096
    """Groups kept in memory for live readers, each topic."""
    tail_bytes: int = 16 * MIB
    read_ahead_bytes: int = 2 * MIB
    """What a reader that catches up takes from disk at once."""
    checkpoint_bytes: int = 4 * MIB
    """Write-ahead log after which a checkpoint is asked for."""
    wal_bytes: int = 16 * MIB
    """Size that the write-ahead log is given beforehand, as overwriting syncs in half the time of growing. Near it the writer helps to check in."""
    backoff_first: float = 0.05
    backoff_longest: float = 1.0
    hang_after: float = 1.0
    """A commit that takes longer counts as a stall."""
    close_within: float = 5.0
    """How long ``close`` tries to make the rest durable."""
    housekeeping: float = 10.0
    """Between looks at retention and at segments that could not be sealed."""
    vfs: str = ""
    """SQLite's file layer; tests name one that fails."""
