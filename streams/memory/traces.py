"""The reference of the trace's store: a list."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.traces import WORDS, Row, TraceAction, TraceEvent, TraceGap, TracePage, TraceQuery


class MemoryTraces:
    """``behind`` takes nothing."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.gaps: list[TraceGap] = []
        self.behind = False

    def write(self, rows: Sequence[Row], gap: TraceGap | None) -> bool:
        """See ``streams.tracing.TraceStore``."""
        if self.behind:
            return False
        self.rows += rows
        if gap is not None:
            self.gaps.append(gap)
        return True

    async def find(self, query: TraceQuery) -> TracePage:
        """See ``streams.tracing.TraceStore``."""
        found = [row for row in self.rows if _matches(row, query)]
        found.sort(key=lambda row: row[0])
        if query.newest_first:
            found.reverse()
        start = (query.page - 1) * query.size
        gaps = [gap for gap in self.gaps if gap.end >= query.begin and gap.begin <= query.end]
        return TracePage(len(found), [event_of(*row) for row in found[start : start + query.size]], gaps)

    async def close(self) -> None:
        """Nothing is open."""


def event_of(time: int, action: int, client: str, message: bytes, channel: str, detail: str) -> TraceEvent:
    word = WORDS[TraceAction(action)]
    return TraceEvent(time=time, action=word, client_id=client, message_id=message.hex().upper(), channel_id=channel, detail=detail)


def _matches(row: Row, query: TraceQuery) -> bool:
    time, action, client, message = row[:4]
    return (
        query.begin <= time <= query.end
        and query.client in ("", client)
        and query.message in (b"", message)
        and (not query.actions or action in query.actions)
    )
