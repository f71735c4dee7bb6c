"""A gateway with its state in PostgreSQL: the server goes and comes back, and clients lose nothing that was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.gateway import Gateway
from tests.support.postgresql import PostgreSQL
from tests.support.wire import Clients


@pytest.mark.slow
async def test_state_in_postgresql_outlives_both(mortal_postgresql: PostgreSQL, start_gateway: Callable[..., Gateway], clients: Clients) -> None:
    config = f'[store]\nurl = "{mortal_postgresql.url("postgres")}"\n'
    gateway = await asyncio.to_thread(start_gateway, config=config)
    assert not (gateway.data / "state.db").exists()
    away = await clients.connect(gateway.mqtt, "away", clean_start=False, session_expiry=3600)
    await away.subscribe("plant/#", 1)
    await away.disconnect()
    sender = await clients.connect(gateway.mqtt, "sender")
    await sender.publish("plant/1", b"before", 1)
    await asyncio.to_thread(mortal_postgresql.kill_all)
    meanwhile = asyncio.ensure_future(sender.publish("plant/1", b"while it is gone", 1, within=30))
    await asyncio.to_thread(mortal_postgresql.start)
    await meanwhile  # acknowledgements may wait for the store: publishers are slowed while it fails
    await sender.publish("plant/1", b"after", 1, within=30)
    await asyncio.to_thread(gateway.restart)
    back = await clients.connect(gateway.mqtt, "away", clean_start=False, session_expiry=3600)
    assert [publish.payload for publish in await back.publishes(3)] == [b"before", b"while it is gone", b"after"]
