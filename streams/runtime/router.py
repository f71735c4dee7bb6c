"""The router: reads ``publish`` for the sessions of this node.

Records are routed in the order of the log, each topic's and each client's alike [MQTT-4.6.0-5] [MQTT-4.6.0-6].

What a record leads to is decided by the pure modules; where it goes is told to a Downlink (gateway/downlink.py). Positions
live in the store and are written by the gateway's settle tick, together with the state they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.positions import At
from schemas.records import Flag, Kind, Record, Source
from schemas.sessions import DropReceived, PutReceived
from streams.log import Batch, Reader
from streams.repeats import Repeats
from streams.retained import retained_change
from streams.store import Change

MAX_RECORDS = 1024
MAX_BYTES = 1024 * 1024
PUBLISH = int(Kind.PUBLISH)
RELEASE = int(Kind.RELEASE)
P2P = int(Flag.P2P)
RETAIN = int(Flag.RETAIN)
WILL = int(Source.WILL)


class Downlink(Protocol):
    """The way from a routed record to the sessions that it concerns."""

    def begin(self, records: Sequence[Record]) -> None:
        """A batch is going to be routed."""

    def deliver(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """Consecutive records of one topic and of equal QoS and retain flag, to those who subscribe."""

    def deliver_p2p(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """Consecutive records of one topic and of equal QoS and flags, to the one device that the topic names."""

    def change(self, change: Change) -> None:
        """State of the store that follows from the record, in log order."""

    async def settle(self, end: At) -> None:
        """The batch is routed up to ``end``; wait where what follows from it does not keep up."""


class Router:
    """Routes the records of ``publish``: retained index first, then receivers (design: how data flows).

    ``owner``: the node epoch that has the sessions, 0 where there is one node.
    """

    def __init__(self, reader: Reader, downlink: Downlink, owner: int = 0) -> None:
        self._reader = reader
        self._owner = owner
        self._downlink = downlink
        self.wills_seen: set[bytes] | None = set()
        """While the start replays: the marks (streams/presence.py) of the wills that are in the log."""
        self.newest = 0
        """The newest record time seen, ms."""
        self.repeats = Repeats()
        self.reached: dict[int, At] = {}
        """By shard the position behind what was routed, in the very step in which it was."""

    async def run(self) -> None:
        """Route for ever."""
        while True:
            await self.once()

    async def once(self) -> At:
        """Route one batch; the position behind it."""
        batch = await self._reader.next(MAX_RECORDS, MAX_BYTES)
        self.step(batch)
        end = batch.end
        self.reached[end.shard] = end
        await self._downlink.settle(end)
        return end

    def step(self, batch: Batch) -> None:
        """Route a batch, run by run."""
        records, first = batch.records, batch.first
        shard, offset, base = first.shard, first.offset, first.index
        ats = [At(shard, offset, base + index) for index in range(len(records))]
        count, start = len(records), 0
        if count and records[-1].time > self.newest:
            self.newest = records[-1].time
        self._downlink.begin(records)
        if self.wills_seen is not None:
            self.wills_seen.update(record.id[6:] for record in records if record.source == WILL)
        while start < count:
            record = records[start]
            if record.session and record.qos == 2 and self._is_repeat(record, ats[start]):
                start += 1
                continue
            if record.kind != PUBLISH:
                self.pass_over(record, ats[start])
                start += 1
                continue
            topic, qos, flags = record.topic, record.qos, record.flags
            if flags & RETAIN:
                self._downlink.change(retained_change(record))
                self._downlink.deliver((record,), (ats[start],))
                start += 1
                continue
            stop, passed_over = start + 1, 0
            while stop < count:
                following = records[stop]
                if following.topic != topic or following.qos != qos or following.flags != flags or following.kind != PUBLISH:
                    break
                if qos == 2 and following.session and self._is_repeat(following, ats[stop]):
                    passed_over = 1
                    break
                stop += 1
            deliver = self._downlink.deliver_p2p if flags & P2P else self._downlink.deliver
            if stop - start == count:
                deliver(records, ats)
            else:
                deliver(records[start:stop], ats[start:stop])
            start = stop + passed_over

    def _is_repeat(self, record: Record, at: At) -> bool:
        """Whether a QoS 2 record of a session is to be passed over; what is not is folded."""
        if self.repeats.is_repeat(record, at):
            return True
        self.fold_received(record)
        return False

    def pass_over(self, record: Record, at: At) -> None:
        """What is no publish."""

    def fold_received(self, record: Record) -> None:
        """Inbound QoS 2 ids of sessions that outlive a crash: a fold over publishes and releases (design: QoS 2)."""
        if record.kind == PUBLISH:
            self._downlink.change(PutReceived(session=record.session, packet_id=record.packet_id, owner=self._owner))
        elif record.kind == RELEASE:
            self._downlink.change(DropReceived(session=record.session, packet_id=record.packet_id, owner=self._owner))
