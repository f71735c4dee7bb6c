"""Connections with wills for fault runs: each will is a publish of the ledger that is acknowledged when its connection is lost.

Those whose CONNACK came and that never said DISCONNECT must be heard once; those that may be either way are indeterminate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.protocol.packets import WillMessage
from gateway.protocol.properties import Properties
from tests.support.gateway import Endpoint
from tests.support.ledger import Ledger, stamp
from tests.support.wire import Clients, connect_packet

AT_ONCE = 20
"""Connections opened side by side."""
DELAYED_EVERY = 10
DELAY = 1
"""Every tenth will has a delay of a second, which a session expiry of ten lets run."""


class Doomed:
    """The clients of one round. ``prefix`` makes names and topics of the round."""

    def __init__(self, ledger: Ledger, clients: Clients, prefix: str) -> None:
        self._ledger = ledger
        self._clients = clients
        self._prefix = prefix
        self._connecting: set[str] = set()
        self._connected: set[str] = set()

    @property
    def connected(self) -> int:
        return len(self._connected)

    async def connect(self, endpoint: Endpoint, count: int) -> None:
        names = [f"{self._prefix}{number}" for number in range(count)]
        queue = iter(enumerate(names))
        await asyncio.gather(*(self._connect_each(endpoint, queue) for _ in range(AT_ONCE)))

    async def _connect_each(self, endpoint: Endpoint, queue: Iterator[tuple[int, str]]) -> None:
        for number, name in queue:
            version = 4 + number % 2
            delayed = version == 5 and number % DELAYED_EVERY == DELAYED_EVERY - 1
            payload, topic = stamp(name, 0), f"wills/{name}"
            self._ledger.send(name, 0, topic, 2, payload, asyncio.get_running_loop().time())
            properties = Properties(will_delay_interval=DELAY) if delayed else None
            will = WillMessage(topic=topic, payload=payload, qos=2, retain=False, properties=properties)
            self._connecting.add(name)
            wire = await self._clients.dial(endpoint, version)
            wire.send(connect_packet(name, version, will=will, session_expiry=10 if delayed else None))
            await wire.receive(10.0)
            self._connecting.discard(name)
            self._connected.add(name)

    def lost(self, now: float) -> None:
        """The process is gone: the wills of all that had their CONNACK are due."""
        for name in self._connected:
            self._ledger.ack(name, 0, now)
