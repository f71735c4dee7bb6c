"""Presence where one node folds the events of all: what that means for wills, whose channels have rows that the fold makes.

A will that is settled here takes its channel's row away. The fold, on another node, may still be on its way to the events by which it
would make that row again; so the row is taken away once more when the fold has passed all that could.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.persistence import position_name
from gateway.presence import PRESENCE_READER, PresenceEvents
from schemas.errors import LogError
from schemas.positions import At
from schemas.presence import Presence, decode_presence
from schemas.records import Kind, Record

if TYPE_CHECKING:
    from gateway.node import Node

TCPCLEAN: Final = int(Kind.TCPCLEAN)


class SharedPresence(PresenceEvents):
    """``reached``: by shard, how far this node has read the events of all."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.reached: dict[int, At] = {}
        self._tcpcleans: dict[str, At | None] = {}
        """Of channels with a will: where the event lies, None while it is on its way."""
        self._needed: dict[str, dict[int, At]] = {}

    def append(self, kind: Kind, presence: Presence, client: str, session: int, principal: str, now: int) -> None:
        if kind == Kind.TCPCLEAN and presence.will_due:
            self._tcpcleans[presence.channel] = None
        super().append(kind, presence, client, session, principal, now)

    def appended(self, records: Sequence[Record], first: At) -> None:
        for index, record in enumerate(records):
            channel = decode_presence(record.payload).channel if record.kind == TCPCLEAN and self._tcpcleans else ""
            if channel in self._tcpcleans:
                self._tcpcleans[channel] = At(first.shard, first.offset, first.index + index)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        super().refused(records, error)
        for record in records:
            self._tcpcleans.pop(decode_presence(record.payload).channel, None)

    def will_is_settled(self, channel: str) -> bool:
        """The fold is told nothing: ``settle`` comes after it."""
        return False

    def tcpclean_is_folded(self, channel: str) -> bool:
        return False

    async def settle(self) -> None:
        """Take away the rows of settled wills that the fold has passed; asked about once a second."""
        wills = self._node.ending.wills
        early = wills.early
        self._needed = {channel: self._needed.get(channel) or dict(self.reached) for channel in early}
        if not early:
            return
        stored = await self._node.store.positions()
        folded = {shard: stored.get(position_name(PRESENCE_READER, shard), {}).get(shard, At(shard, 0, 0)) for shard in self.reached}
        for channel in early:
            last = self._tcpcleans.get(channel, At(-1, 0, 0))
            if last is None or any(folded[shard] < at for shard, at in self._needed[channel].items()):
                continue
            if last.shard < 0 or folded[last.shard] > last:
                wills.folded(channel)
                self._tcpcleans.pop(channel, None)
                del self._needed[channel]
