"""The presence fold: reads ``presence`` into open channels and client status, in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.errors import StoreError
from schemas.positions import At
from schemas.presence import ClientStatus, Presence, decode_presence
from schemas.records import Kind, Record
from streams.log import Batch, Reader
from streams.presence import Folded, fold_presence, put_status
from streams.status import StatusState, decode_status
from streams.store import Change, DropChannel, OpenChannel, PutChannel, Store

MAX_RECORDS = 1024
MAX_BYTES = 1024 * 1024
GATHER = 0.2
"""Seconds for which presence events gather before they are folded: a storm of connects is not kept waiting for its bookkeeping."""
MAX_COLLECTED = 1024
"""Batches that wait to be folded."""
RETRY_AFTER = 0.2
"""Seconds until a store that failed is asked again."""
CONNECT = int(Kind.CONNECT)
TCPCLEAN = int(Kind.TCPCLEAN)


class PresenceSink(Protocol):
    """Where the fold of presence puts what follows (gateway/presence.py)."""

    async def presence_changes(self, changes: Sequence[Change], ends: Sequence[At]) -> None:
        """Store them in one transaction with the fold's positions ``ends``, one a shard; durable when this returns."""

    def folded(self, records: Sequence[Record], events: Sequence[Presence]) -> None:
        """These, and their bodies, are folded and stored: no start reads them again."""

    def will_is_settled(self, channel: str) -> bool:
        """Whether the channel's will was published or cancelled before its tcpclean came this far; forgets it."""


class PresenceFold:
    """Folds ``presence`` into open channels and client status, in the store.

    Rows are held in memory for channels with a will only: all that is needed of the others is that they go with their tcpclean.
    """

    def __init__(self, reader: Reader, store: Store, sink: PresenceSink) -> None:
        self._reader = reader
        self._store = store
        self._sink = sink
        self._wills: dict[str, OpenChannel] = {}
        self._collected: list[Batch] = []
        self._arrived = asyncio.Event()
        self._waiting: dict[str, set[str]] = {}
        """By client, the channels whose connection ended and whose will is not published yet: a new connect may cancel it."""

    async def run(self) -> None:
        """Fold for ever, many batches at a time: each turn costs a read and a commit of the store."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._collect())
            group.create_task(self._fold_collected())

    async def _collect(self) -> None:
        while True:
            batch = await self._reader.next(MAX_RECORDS, MAX_BYTES)
            self._collected.append(batch)
            self._arrived.set()
            while len(self._collected) >= MAX_COLLECTED:  # noqa: ASYNC110 - rare, and short
                await asyncio.sleep(GATHER)

    async def _fold_collected(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHER)
            self._arrived.clear()
            batches, self._collected = self._collected, []
            await self._fold_all(batches)

    async def once(self) -> At:
        """Fold one batch; the position behind it. A start replays by this."""
        batch = await self._reader.next(MAX_RECORDS, MAX_BYTES)
        await self._fold_all([batch])
        return batch.end

    async def _fold_all(self, batches: Sequence[Batch]) -> None:
        """The next read must see what these changed, so their commit is waited for."""
        records = [record for batch in batches for record in batch.records]
        known = await self._known(list({record.client for record in records}))
        before = {client: decode_status(encoded) for client, (_, encoded) in known.items()}
        states: dict[str, StatusState] = {}
        changes: list[Change] = []
        events = [decode_presence(record.payload) for record in records]
        for record, event in zip(records, events, strict=True):
            client = record.client
            state, of_channels = self._fold(record, event, states.get(client) or before.get(client))
            states[client] = state
            changes += of_channels
        changes += [put_status(client, state) for client, state in states.items() if state is not before.get(client)]
        ends = list({batch.first.shard: batch.end for batch in batches}.values())
        await self._sink.presence_changes(changes, ends)
        self._sink.folded(records, events)
        for end in ends:
            self._reader.release(end)

    async def _known(self, clients: list[str]) -> Mapping[str, tuple[ClientStatus, bytes]]:
        """What the store has of these clients; a store that fails is asked again, since nothing of the batch may be left out."""
        while True:
            try:
                return await self._store.statuses(clients)
            except StoreError:
                await asyncio.sleep(RETRY_AFTER)

    def _fold(self, record: Record, event: Presence, state: StatusState | None) -> Folded:
        channel = event.channel
        row = self._wills.get(channel)
        settled = False
        if record.kind == TCPCLEAN:
            settled = self._sink.will_is_settled(channel)
            if row is None:
                row = OpenChannel(channel, record.client, record.session, record.principal, "", record.epoch, record.time, 0, None)
        others = [self._wills[name] for name in self._waiting.get(record.client, ()) if name != channel] if record.kind == CONNECT else []
        folded = fold_presence(state, record, event, row, others=others, will_settled=settled)
        for change in folded.changes:
            if isinstance(change, PutChannel) and change.channel.will is not None:
                self._remember(change.channel)
            elif isinstance(change, DropChannel):
                self.forget_will(change.channel)
        return folded

    def _remember(self, row: OpenChannel) -> None:
        self._wills[row.channel] = row
        if row.will_due:
            self._waiting.setdefault(row.client, set()).add(row.channel)

    def tcpclean_is_folded(self, channel: str) -> bool:
        """Whether the row of a channel with a will waits only for the will."""
        row = self._wills.get(channel)
        return row is not None and row.will_due != 0

    def forget_will(self, channel: str) -> None:
        """The will was published or cancelled after its tcpclean was folded."""
        row = self._wills.pop(channel, None)
        waiting = self._waiting.get(row.client) if row is not None else None
        if row is not None and waiting is not None:
            waiting.discard(channel)
            if not waiting:
                del self._waiting[row.client]

    def forget_before(self, time: int) -> None:
        """Other nodes' wills that were due before then are settled, though nobody told this fold."""
        for channel in [row.channel for row in self._wills.values() if 0 < row.will_due < time]:
            self.forget_will(channel)

    def load(self, channels: Sequence[OpenChannel]) -> None:
        """What the store holds at start, before anything is folded."""
        for channel in channels:
            if channel.will is not None:
                self._remember(channel)
