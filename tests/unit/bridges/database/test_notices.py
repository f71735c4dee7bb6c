"""What a node hears of others' changes when its connection for notices breaks: that it has to read again what changes rarely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridges.database import notices
from bridges.database.notices import Listening
from streams.cluster import DOCUMENTS, KEYS, POLL, Notice


class Lost(Exception):
    pass


class Line:
    """A connection to the server that breaks after its first wait, and is there for good the second time."""

    def __init__(self) -> None:
        self.opened = 0
        self.said: list[str] = []

    async def connect(self) -> Line:
        self.opened += 1
        return self

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute(self, words: str) -> None:
        self.said.append(words)

    async def notifies(self, timeout: float) -> AsyncIterator[object]:
        if self.opened == 1:
            raise Lost
        await asyncio.Event().wait()
        yield


async def test_after_a_break_what_changes_rarely_is_told_of_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "POLL_SECONDS", 0.0)
    line, heard, polled = Line(), list[Notice](), asyncio.Event()

    def hear(notice: Notice) -> None:
        heard.append(notice)
        if line.opened == 2:
            polled.set()

    listening = Listening(asyncio.get_running_loop(), line.connect, Lost)
    listening.listen(hear)
    await polled.wait()
    await asyncio.sleep(0)
    await listening.close()
    assert line.said == ["LISTEN sluiceway"] * 2
    assert heard == [POLL, POLL, Notice(KEYS), Notice(DOCUMENTS), POLL]
