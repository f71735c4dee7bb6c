"""Notices to this process: those of its own transactions where nobody else writes, PostgreSQL's where others do.

A notice may be lost, and nothing depends on one; with others about, POLL comes every second and after each break of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from sqlalchemy import Connection, text

from bridges.database.locks import is_shared
from bridges.database.sql import Prepared
from streams.cluster import DOCUMENTS, KEYS, POLL, POLL_SECONDS, Notice

CHANNEL: Final = "sluiceway"
_NOTIFY: Final = Prepared(text(f"SELECT count(pg_notify('{CHANNEL}', :payload))"))

logger = logging.getLogger(__name__)


def notify(connection: Connection, told: Iterable[Notice]) -> None:
    """Delivered when the transaction commits."""
    if is_shared(connection):
        for notice in told:
            _NOTIFY.number(connection, payload=f"{notice.topic} {notice.detail}")


class Listening:
    """``connect`` opens a connection for notices alone, None where there are no others: then ``tell`` is called with our own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect: Callable[[], Awaitable[Any]] | None, lost: type[Exception]) -> None:
        self._loop = loop
        self._connect = connect
        self._lost = lost
        self._heard: list[Callable[[Notice], None]] = []
        self._task: asyncio.Task[None] | None = None

    def listen(self, heard: Callable[[Notice], None]) -> Callable[[], None]:
        self._heard.append(heard)
        if self._connect is not None and self._task is None:
            self._task = self._loop.create_task(self._run(self._connect), name="store-notices")
        return lambda: self._heard.remove(heard)

    def tell(self, notices: Iterable[Notice]) -> None:
        """On the loop's thread."""
        for notice in notices:
            for heard in list(self._heard):
                heard(notice)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, connect: Callable[[], Awaitable[Any]]) -> None:
        missed: tuple[Notice, ...] = ()
        while True:
            try:
                async with await connect() as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self.tell(missed)
                    while True:
                        self.tell([POLL])  # at first for what was told before we listened
                        async for each in connection.notifies(timeout=POLL_SECONDS):
                            topic, _, detail = each.payload.partition(" ")
                            self.tell([Notice(topic, detail)])
            except self._lost as error:
                logger.warning("store-notices-lost error=%s", " ".join(str(error).split()))
                missed = (Notice(KEYS), Notice(DOCUMENTS))  # too dear to be read at every poll
            self.tell([POLL])
            await asyncio.sleep(POLL_SECONDS)
