"""Commands that nobody got, told to the topic that their inflow rule names. Best effort: what is told lies in memory until the backend has it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from schemas.connections import ConnectionSettings
from schemas.errors import BackendError
from schemas.records import Record
from schemas.rules import SOURCES, Rule
from streams.backend import Backend, Outgoing
from streams.mapping.inflow import PRINCIPAL
from streams.mapping.outflow import OutflowMapper
from streams.runtime.sending import Backoff

MAX_WAITING: Final = 1_000
REASON: Final = "mqttUndelivered"

logger = logging.getLogger(__name__)


class Undelivered:
    """One for all rules. ``dropped`` counts what came while too much was waiting, or was refused."""

    def __init__(self, connections: Mapping[str, ConnectionSettings], backends: Mapping[str, Backend], rules: Mapping[str, Rule]) -> None:
        self.told = self.dropped = 0
        self._connections = connections
        self._backends = backends
        self._rules = rules
        self._waiting: deque[tuple[Rule, Outgoing]] = deque()
        self._news = asyncio.Event()

    def tell(self, record: Record, reason: str) -> None:
        """``record`` came by an inflow rule and won't be delivered."""
        rule = self._rules.get(record.principal.removeprefix(PRINCIPAL))
        if rule is None or not rule.undelivered or rule.connection not in self._backends:
            return
        told = replace(rule, kind="outflow", backend_topic=rule.undelivered, key="none", sources=SOURCES, filter="", projection="", json_schema="")
        messages = OutflowMapper(told, self._connections[rule.connection], rule.id).map_all([record]).messages
        if len(self._waiting) >= MAX_WAITING or not messages:
            self.dropped += 1
            return
        self._waiting.append((rule, replace(messages[0], properties=(*messages[0].properties, (REASON, reason)))))
        self._news.set()

    async def run(self) -> None:
        """Tell for ever."""
        backoff = Backoff()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                rule, message = self._waiting[0]
                target = self._backends[rule.connection].target(rule.id, ordered=False)
                try:
                    rejected = await target.send([message])
                except BackendError as error:
                    logger.warning("undelivered-not-told rule=%s error=%s", rule.id, error)
                    await backoff.wait()
                    continue
                finally:
                    await target.close()
                backoff.reset()
                self._waiting.popleft()
                self.told += not rejected
                self.dropped += len(rejected)
