"""QoS 2 publishes that the log holds twice: whose acknowledgement was lost, and that came again by way of another node or start.

A fold over publishes and releases, in the order of the log (a client's records are in one shard). A second publish of one (session, packet
id) before its release is a repeat if it is sent as one (DUP [MQTT-3.3.1-1]) and says the same; else it is taken for a new use, whose release
before it the reader lacks. A record of a session's older epoch, behind one of a newer epoch about the same id, is late: its client was
told nothing of it, has moved and has had the id settled there. No late record counts, not even as a release.

The first copy passes every reader, whatever it knows: who begins in the middle of the log, or has forgotten, lets a second one through and
holds no first one back. That is why nothing is read out of the store at a start: the ids that are stored there are those of where a node has
read up to, and its sessions read again from before that; an id from ahead would be held against its own first copy.
"""

from __future__ import annotations

from typing import Final

from schemas.positions import At
from schemas.records import Flag, Kind, Record

MAX_USES: Final = 50_000
"""Packet ids whose newest use is remembered; the one that has rested longest goes first."""
MAX_PLACES: Final = 10_000
"""Places of repeats that are remembered for other readers."""

_PUBLISH = int(Kind.PUBLISH)
_DUP = int(Flag.DUP)


class Repeats:
    """Takes in every QoS 2 record of a session. ``ahead``: of a reader that has been here before: what it has passed over is passed over."""

    def __init__(self, ahead: Repeats | None = None) -> None:
        self._ahead = ahead
        self._uses: dict[int, tuple[int, int | None]] = {}
        """By session and packet id: the newest epoch, and what the publish says while it is not released."""
        self.places: dict[At, None] = {}
        """Of what was passed over."""

    def is_repeat(self, record: Record, at: At) -> bool:
        """Whether the record at that place changes nothing, since what it says was there before or it is late."""
        if self._ahead is not None and at in self._ahead.places:
            return True
        key = record.session << 16 | record.packet_id
        says = hash((record.topic, record.payload)) if record.kind == _PUBLISH else None
        known = self._uses.pop(key, None)
        if known is not None and (known[0] > record.epoch or (says is not None and says == known[1] and record.flags & _DUP)):
            self._uses[key] = known
            if len(self.places) >= MAX_PLACES:
                del self.places[next(iter(self.places))]
            self.places[at] = None
            return True
        if len(self._uses) >= MAX_USES:
            del self._uses[next(iter(self._uses))]
        self._uses[key] = (record.epoch, says)
        return False
