"""What a broker's SEND_OK is worth, and how large a message may be there: asked once a connection, and again after a while."""

from __future__ import annotations

import asyncio

from bridges.rocketmq import calls
from bridges.rocketmq.brokersettings import BrokerSettings
from bridges.rocketmq.client import Client
from bridges.rocketmq.connection import Connection
from bridges.rocketmq.errors import Refused
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError

ASKED_EVERY = 60.0
ADDRESSES_LIMIT = 4096


class Terms:
    """``of`` is what every batch passes before it is sent."""

    def __init__(self, client: Client, settings: ConnectionSettings) -> None:
        self._client = client
        self._name = settings.name
        self._checked = settings.durability == "checked"
        self._told: dict[str, tuple[Connection, float, BrokerSettings]] = {}

    async def of(self, address: str) -> BrokerSettings:
        """The broker's settings. BackendError where the connection demands more of it than it gives."""
        told = self._told.get(address)
        now = asyncio.get_running_loop().time()
        if told is None or told[0] is not self._client.peers.ready(address) or now - told[1] > ASKED_EVERY:
            connection = await self._client.peers.connection(address)
            if len(self._told) >= ADDRESSES_LIMIT:
                self._told.clear()
            told = self._told[address] = (connection, now, await self._ask(address))
        settings = told[2]
        if self._checked and settings.weakness:
            raise BackendError(
                f"{address} may lose what it acknowledged: {settings.weakness}; set flushDiskType=SYNC_FLUSH at the broker,"
                f' have a replica waited for, or set connections.{self._name}.durability = "as configured"'
            )
        return settings

    async def _ask(self, address: str) -> BrokerSettings:
        try:
            return await calls.broker_settings(self._client, address)
        except Refused as error:
            return BrokerSettings(weakness=f"its settings can't be read ({error})")
