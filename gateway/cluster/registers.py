"""What is registered about who may do what, as other nodes change it: read again when the store says so, and now and then since that may be lost."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from gateway.cluster.traces import TRACED
from schemas.errors import StoreError
from streams.cluster import DOCUMENTS, KEYS, Notice

if TYPE_CHECKING:
    from gateway.node import Node

AT_MOST: Final = 0.5
"""Seconds between two readings: many changes at once cost one."""
PAUSE: Final = 5.0
"""As many times as long as a reading took is waited after it, where that is more, so that large registers don't take the node's time."""
AT_MOST_LATE: Final = 4.0
"""Seconds between two readings where there was a change, however long they take."""
AT_LEAST: Final = 30.0
OF_NO_REGISTER: Final = ("nonce", TRACED)
"""Documents that no register holds: a nonce comes with each call of the OpenAPI, on whichever node."""

logger = logging.getLogger(__name__)


def pause(took: float) -> float:
    """Seconds to wait after a reading that took so long."""
    return min(max(AT_MOST, PAUSE * took), AT_MOST_LATE)


class RegisterWatch:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._news = asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        stop = self._node.store.cluster.listen(self._heard)
        try:
            while True:
                try:
                    async with asyncio.timeout(AT_LEAST):
                        await self._news.wait()
                except TimeoutError:
                    pass
                self._news.clear()
                began = self._node.loop.time()
                try:
                    await self._node.registers.load()
                except StoreError as error:
                    logger.warning("registers-not-read error=%s", error)
                await asyncio.sleep(pause(self._node.loop.time() - began))
        finally:
            stop()

    def _heard(self, notice: Notice) -> None:
        if notice.topic == KEYS or (notice.topic == DOCUMENTS and notice.detail not in OF_NO_REGISTER):
            self._news.set()
