"""An event loop whose time stands still until a test moves it: nothing sleeps, nothing is left to chance, no socket is used."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
MOST_ROUNDS = 2_000_000
"""Rounds of the loop in one ``advance``; more mean that something spins."""


class _Still(selectors.BaseSelector):
    """Reports nothing. Where a real one would wait, time goes on at once, up to the loop's ``until``."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.until = 1_000.0
        self.loop: StillLoop
        self._rounds = 0

    def begin(self, until: float) -> None:
        self.until, self._rounds = until, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._rounds += 1
        assert self._rounds < MOST_ROUNDS, "the loop never comes to rest"
        if timeout is not None and timeout <= 0:
            return []
        if timeout is None or self.now + timeout > self.until:
            self.now = self.until
            self.loop.stop()
        else:
            self.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class StillLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._still = _Still()
        super().__init__(self._still)
        self._still.loop = self

    def time(self) -> float:
        return self._still.now

    def advance(self, seconds: float = 0.0) -> None:
        """Do all that is ready, and what falls due within that time."""
        self._still.begin(self._still.now + seconds)
        self.run_forever()

    def finish(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """Run until the work is done."""
        task = self.create_task(work)
        task.add_done_callback(lambda _: self.stop())
        self._still.begin(self._still.now + within)
        self.run_forever()
        assert task.done(), "not done in time"
        return task.result()
