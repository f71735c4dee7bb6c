"""Changes of session state on their way to the store: gathered while a commit is under way, one commit at a time, in order.

A commit that fails is tried again until it succeeds; whoever waits for it waits, and the router and the publishers are held
back meanwhile (gateway/pressure.py), so what gathers here is bounded by ``PENDING_LIMIT`` and what arrives within a tick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.counters import Counters
from schemas.errors import StoreError
from schemas.positions import At
from streams.store import Change, CommitResult, Stale, Store

PENDING_LIMIT = 4_000
"""Changes that may wait before the router stops taking records."""
RETRY_AFTER = 0.2
LINGER = 0.01
"""Seconds for which changes that nobody waits for gather."""
HURRY_AT = 500
"""So many changes are committed at once all the same."""

logger = logging.getLogger(__name__)


def position_name(reader: str, shard: int) -> str:
    """The name under which the store has a reader's position in a shard: a commit takes one position a name."""
    return f"{reader}:{shard}" if shard else reader


class Committed(Protocol):
    """Who waits for a change to be durable."""

    def committed(self, token: int) -> None:
        """The change that was added with ``token`` is durable."""


class Persistence:
    """The one way of session-bound changes to the store."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._store = store
        self._loop = loop
        self._counters = counters
        self._changes: list[Change] = []
        self._waiters: list[tuple[Committed, int]] = []
        self._positions: dict[str, At] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle | None = None
        self._hurried = False
        self._under_way = 0
        self._added = 0
        self._done = 0
        self._barriers: list[tuple[int, asyncio.Future[None]]] = []
        self.failing = False
        self.stale: Callable[[Sequence[Stale]], None] = lambda refused: None
        """Is told of changes that came under an old epoch: somebody else has those sessions."""

    @property
    def pending(self) -> int:
        """Changes asked for and not durable yet."""
        return len(self._changes) + self._under_way

    @property
    def asked(self) -> int:
        """What was asked for so far, counted; all of it has been tried when ``done`` is there."""
        return self._added

    @property
    def done(self) -> int:
        return self._done

    def add(self, change: Change) -> None:
        """Make the change durable some time soon."""
        self._changes.append(change)
        self._added += 1
        if self._task is None and (self._timer is None or len(self._changes) == HURRY_AT):
            self._wake(hurry=len(self._changes) >= HURRY_AT)

    def add_then(self, change: Change, waiter: Committed, token: int) -> None:
        """Make the change durable and tell the waiter then."""
        self._waiters.append((waiter, token))
        self._changes.append(change)
        self._added += 1
        self._wake(hurry=True)

    def position(self, reader: str, at: At) -> None:
        """Store a reader's position in a shard with the changes gathered so far."""
        self._positions[position_name(reader, at.shard)] = at
        self._added += 1
        self._wake(hurry=False)

    async def barrier(self) -> None:
        """Wait until all that was added before is durable."""
        if self._done >= self._added:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._barriers.append((self._added, future))
        self._wake(hurry=True)
        await future

    async def room(self) -> None:
        """Wait until fewer than ``PENDING_LIMIT`` changes are pending."""
        while self.pending >= PENDING_LIMIT:
            await self.barrier()

    def _wake(self, *, hurry: bool) -> None:
        """Commit at once where somebody waits; else let changes gather for ``LINGER``, since each commit is an fsync."""
        if self._task is not None or self._hurried or (self._timer is not None and not hurry):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._hurried = hurry
        self._timer = self._loop.call_soon(self._start) if hurry else self._loop.call_later(LINGER, self._start)

    def _start(self) -> None:
        self._timer = None
        self._hurried = False
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._changes or self._positions:
                changes, self._changes = self._changes, []
                waiters, self._waiters = self._waiters, []
                positions, self._positions = self._positions, {}
                upto = self._added
                self._under_way = len(changes)
                self._took(await self._commit(changes, positions))
                self._under_way = 0
                self._done = upto
                for waiter, token in waiters:
                    waiter.committed(token)
                while self._barriers and self._barriers[0][0] <= upto:
                    future = self._barriers.pop(0)[1]
                    if not future.done():
                        future.set_result(None)
                if not self._is_urgent():
                    break
        finally:
            self._task = None
            if self._changes or self._positions:
                self._wake(hurry=self._is_urgent())

    def _is_urgent(self) -> bool:
        return bool(self._waiters or self._barriers) or len(self._changes) >= HURRY_AT

    async def _commit(self, changes: list[Change], positions: Mapping[str, At]) -> CommitResult:
        while True:
            try:
                result = await self._store.commit(changes, positions)
            except StoreError as error:
                if not self.failing:
                    logger.error("store-failing error=%s", error)  # noqa: TRY400 - one line, no traceback
                self.failing = True
                await asyncio.sleep(RETRY_AFTER)
            else:
                if self.failing:
                    logger.warning("store-recovered")
                self.failing = False
                return result

    def _took(self, result: CommitResult) -> None:
        for stale in result.stale:
            logger.warning("stale-write-refused session=%d epoch=%d", stale.session, stale.epoch)
        if result.stale:
            self.stale(result.stale)
        for _, count in result.trimmed:
            self._counters.dropped["offline_limit"] += count
