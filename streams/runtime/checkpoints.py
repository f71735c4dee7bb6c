"""Stores where rules stand: all that changed, with the feeds' positions, in one transaction a few times a second.

What a rule says of itself and where its feed stands are taken in one step of the loop, so they fit together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from schemas.errors import StoreError
from schemas.positions import At
from streams.runtime.feed import Feed
from streams.runtime.sending import Letters
from streams.store import Change, Store

EVERY: Final = 0.2
"""Seconds: what a crash sends again at most."""

logger = logging.getLogger(__name__)


class Runner(Protocol):
    letters: Letters

    def changes(self) -> list[Change]: ...

    def failed(self) -> None: ...


class Checkpoints:
    """``feeds`` by the name under which their position is stored; a name has its shard behind a colon, since a commit has one place a name."""

    def __init__(self, store: Store, feeds: Mapping[str, Feed]) -> None:
        self.runners: dict[str, Runner] = {}
        self.failing = False
        self._store = store
        self._feeds = feeds
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Store for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.commit()

    async def commit(self, *more: Change) -> bool:
        """Store what is new, and ``more`` with it. False where the store failed; what is new then stays so."""
        async with self._turn:
            taken: list[tuple[Runner, int]] = []
            changes: list[Change] = []
            for runner in self.runners.values():
                letters = len(runner.letters.pending)
                found = runner.changes()
                if found:
                    taken.append((runner, letters))
                    changes += found
            if not changes and not more:
                return True
            positions = {reader_name(name, shard): at for name, feed in self._feeds.items() for shard, at in feed.positions.items()}
            try:
                await self._store.commit([*changes, *more], positions)
            except StoreError as error:
                if not self.failing:
                    logger.error("rules-not-stored error=%s", error)  # noqa: TRY400 - one line, no traceback
                self.failing = True
                for runner, _ in taken:
                    runner.failed()
                return False
            self.failing = False
            for runner, letters in taken:
                del runner.letters.pending[:letters]
            return True


def reader_name(name: str, shard: int) -> str:
    """The name of a feed's position in the store."""
    return f"rules:{name}:{shard}"


def stored_positions(name: str, stored: Mapping[str, Mapping[int, At]]) -> dict[int, At]:
    """A feed's positions, from what the store has of readers."""
    prefix = f"rules:{name}:"
    return {shard: at for reader, places in stored.items() if reader.startswith(prefix) for shard, at in places.items()}
