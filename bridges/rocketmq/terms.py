"""What a broker's SEND_OK is worth, and how large a message may be there: asked once a connection, and again after a while."""

from __future__ import annotations

import asyncio

from bridges.rocketmq import calls
from bridges.rocketmq.brokersettings import BrokerSettings
from bridges.rocketmq.client import Client
from bridges.rocketmq.connection import Connection
from bridges.rocketmq.errors import Refused
from schemas.errors import BackendError

ASKED_EVERY = 60.0
ADDRESSES_LIMIT = 4096


class Terms:
    """``of`` is what every batch passes before it is sent. ``option`` is the setting by which a weak broker is ``checked`` or not."""

    def __init__(self, client: Client, option: str, *, checked: bool) -> None:
        self._client = client
        self._option = option
        self._checked = checked
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
            raise BackendError(f'{weakness_at(address, settings)}; or set {self._option} = "as configured"')
        return settings

    async def _ask(self, address: str) -> BrokerSettings:
        try:
            return await calls.broker_settings(self._client, address)
        except Refused as error:
            return BrokerSettings(weakness=f"its settings can't be read ({error})")


def weakness_at(address: str, settings: BrokerSettings) -> str:
    """Why the broker's SEND_OK is not enough, and what to do; empty where it is."""
    if not settings.weakness:
        return ""
    if settings.flush or settings.role:
        cure = "set flushDiskType=SYNC_FLUSH at the broker and start it again, or have a replica waited for"
    else:
        cure = "allow this principal to read them"
    return f"{address} may lose what it acknowledged: {settings.weakness}; {cure}"
