"""A gateway with its state in PostgreSQL: the server goes and comes back, and clients lose nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from gateway.protocol.packets import Publish
from tests.support.gateway import Gateway
from tests.support.postgresql import PostgreSQL
from tests.support.process import ServerDied
from tests.support.wire import Clients, connect_packet


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


@pytest.mark.slow
async def test_a_second_gateway_on_one_database_is_refused(
    mortal_postgresql: PostgreSQL, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    config = f'[store]\nurl = "{mortal_postgresql.url("postgres")}"\n'
    first = await asyncio.to_thread(start_gateway, config=config + '[node]\nid = "one"\n')
    with pytest.raises(ServerDied, match="ended with 2 ") as died:
        await asyncio.to_thread(start_gateway, "second", config=config + '[node]\nid = "two"\n')
    assert "store.url: the gateway one uses this database already, on " in str(died.value)
    client = await clients.connect(first.mqtt, "undisturbed")
    await client.publish("plant/1", b"", 1)


@pytest.mark.slow
async def test_a_gateway_that_stood_still_while_another_took_its_place_sends_and_writes_nothing_more(
    mortal_postgresql: PostgreSQL, tmp_path: Path, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    config = f'[store]\nurl = "{mortal_postgresql.url("postgres")}"\n[keys]\nseal_file = "{tmp_path}/seal.key"\n'
    first = await asyncio.to_thread(start_gateway, config=config + '[node]\nid = "one"\n')
    receiver = await clients.connect(first.mqtt, "receiver")
    await receiver.subscribe("plant/#", 0)
    keeper = await clients.connect(first.mqtt, "keeper", clean_start=False, session_expiry=3600)
    first.signal(signal.SIGSTOP)
    late = await clients.dial(first.mqtt)
    second = await asyncio.to_thread(start_gateway, "second", config=config + '[node]\nid = "two"\n')
    receiver.send(Publish(topic="plant/1", payload=b"late", qos=1, retain=False, dup=False, packet_id=9))
    late.send(connect_packet("late", clean_start=False, session_expiry=3600))
    first.signal(signal.SIGCONT)
    assert await asyncio.to_thread(first.wait, 10) == 1
    assert "node-lost node=one" in first.tail()
    for silent in (receiver, late, keeper):
        await silent.closed()
        assert list(silent.inbox) == []
    again = await clients.connect(second.mqtt, "keeper", clean_start=False, session_expiry=3600)
    assert again.connack is not None
    assert again.connack.session_present
    with psycopg.connect(mortal_postgresql.url("postgres")) as database:
        assert database.execute("SELECT client FROM sessions").fetchall() == [("keeper",)]
