"""QoS 2 publishes that the log holds twice: a packet id of a session that is published again before its release is a repeat.

A fold over publishes and releases, like the one by which sessions know their received ids. Who begins in the middle of the log takes
a first publish for a first one.
"""

from __future__ import annotations

from typing import Final

from schemas.records import Kind, Record

MAX_SESSIONS: Final = 100_000
"""Sessions with unreleased ids that are remembered; the one that has waited longest goes first."""

_PUBLISH = int(Kind.PUBLISH)


class Repeats:
    """Takes in every QoS 2 record of a session, in log order."""

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = {}

    def is_repeat(self, record: Record) -> bool:
        """Whether the publish was there before. A release is none, and makes room for its id's next use."""
        ids = self._open.get(record.session)
        if record.kind != _PUBLISH:
            if ids is not None:
                ids.discard(record.packet_id)
                if not ids:
                    del self._open[record.session]
            return False
        if ids is None:
            if len(self._open) >= MAX_SESSIONS:
                del self._open[next(iter(self._open))]
            ids = self._open[record.session] = set()
        elif record.packet_id in ids:
            return True
        ids.add(record.packet_id)
        return False
