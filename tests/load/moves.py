"""What a kept session costs that is made, goes on where it was, comes to the other of two nodes, or is left to it by a dead one.

A part of ``python -m tests.load.costs``: us of processor of its node, of the other one and of the database. Each session has one subscription.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from tests.support.gateway import Gateway
from tests.support.wire import Clients

SESSIONS: Final = 3_000
AT_ONCE: Final = 50
DEATH: Final = 25.0
"""Seconds until a dead node's sessions are at another for certain: its lease, and the claims."""
SETTLED: Final = 3.0
"""Seconds for what is written behind."""
KEPT: Final[dict[str, Any]] = {"clean_start": False, "session_expiry": 3600}
Spent = Callable[[], Sequence[float]]
"""Seconds of processor so far: of each node that lives, and of the database."""


async def moves(here: Gateway, there: Gateway, spent: Spent) -> None:
    """Prints a line for each. What the processes spend at rest is taken off."""
    since, before = time.monotonic(), spent()
    await asyncio.sleep(SETTLED * 3)
    rest = [(now - then) / (time.monotonic() - since) for now, then in zip(spent(), before, strict=True)]

    async def cost(words: str, work: Coroutine[None, None, None], places: slice = slice(None)) -> None:
        since, before = time.monotonic(), spent()[places]
        await work
        await asyncio.sleep(SETTLED)
        took = time.monotonic() - since
        costs = [(now - then - idle * took) / SESSIONS * 1e6 for now, then, idle in zip(spent()[places], before, rest[places], strict=True)]
        print(f"{'kafka':9} session {words:26} {', '.join(f'{each:.0f}' for each in costs)} us ({took - SETTLED:.1f} s)", flush=True)

    await cost("made", _connect(here, subscribes=True))
    await cost("goes on where it was", _connect(here))
    await cost("comes to the other node", _connect(there))
    await cost("comes back", _connect(here))
    here.kill()
    await cost("is left by a dead node", asyncio.sleep(DEATH), slice(1, None))


async def _connect(node: Gateway, *, subscribes: bool = False) -> None:
    """All of them, who leave again."""
    clients, turn = Clients(), asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with turn:
            wire = await clients.connect(node.mqtt, f"device-{number}", within=30.0, **KEPT)
            assert wire.connack is not None
            assert wire.connack.session_present is not subscribes
            if subscribes:
                await wire.subscribe(f"devices/{number}", 1)
            await wire.disconnect()

    await asyncio.gather(*(one(number) for number in range(SESSIONS)))
