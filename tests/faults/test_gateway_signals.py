"""SIGTERM drains and SIGSTOP only pauses: nothing acknowledged is lost, nothing comes twice, nobody is connected twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from gateway.protocol.packets import Disconnect, Packet
from schemas.reasons import ReasonCode
from tests.support.actors import PersistentSubscriber, Publisher
from tests.support.checker import check
from tests.support.gateway import STOP_WITHIN, Gateway
from tests.support.ledger import Ledger
from tests.support.wire import Clients

RATE = 400.0
SETTLE_WITHIN = 10.0


class Load:
    """Two publishers of QoS 1 and 2, and a persistent subscriber of each."""

    def __init__(self, gateway: Gateway, clients: Clients) -> None:
        self.gateway = gateway
        self.ledger = Ledger()
        self.publishers = [Publisher(self.ledger, clients, f"publisher{qos}", ["load"], window=50) for qos in (1, 2)]
        self.subscribers = [
            PersistentSubscriber(self.ledger, clients, f"subscriber{qos}", ["load"], lambda sent: True, version=3 + qos, qos=qos) for qos in (1, 2)
        ]

    async def connect(self) -> None:
        for actor in (*self.subscribers, *self.publishers):
            await actor.connect(self.gateway.mqtt)

    async def run(self) -> None:
        await asyncio.gather(*(publisher.run(qos, RATE) for qos, publisher in enumerate(self.publishers, 1)))

    async def run_for(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.run(), seconds)

    async def settle(self) -> None:
        """Publishers finish; everything acknowledged arrives; the checker agrees and no actor complains."""
        for publisher in self.publishers:
            await publisher.finish(SETTLE_WITHIN)
        entries = [entry for entry in self.ledger.sent.values() if entry.acked_at is not None]
        async with asyncio.timeout(SETTLE_WITHIN):
            while any(subscriber.lacks(entries) for subscriber in self.subscribers):
                await asyncio.sleep(0.02)
        for subscriber in self.subscribers:
            assert subscriber.wire is not None
            await subscriber.wire.disconnect()
        verdict = check(self.ledger)
        assert verdict.ok, str(verdict)
        assert not [problem for actor in (*self.subscribers, *self.publishers) for problem in actor.problems]


@pytest.mark.slow
async def test_sigterm_under_load_loses_nothing_acknowledged(tmp_path: Path, servers: None, clients: Clients) -> None:
    gateway = Gateway(tmp_path / "gateway").start()
    load = Load(gateway, clients)
    await load.connect()
    said: list[Packet] = []
    listener = await clients.connect(gateway.mqtt, "listener")
    listener.on_packet = said.append
    running = asyncio.create_task(load.run())
    await asyncio.sleep(1.0)
    gateway.signal(signal.SIGTERM)
    code = await asyncio.to_thread(gateway.wait, STOP_WITHIN)
    await running  # ends with its connections
    assert code == 0, gateway.tail()
    await listener.closed()
    assert [packet.reason_code for packet in said if isinstance(packet, Disconnect)] == [ReasonCode.SERVER_SHUTTING_DOWN]
    for actor in (*load.subscribers, *load.publishers):
        assert actor.wire is not None
        await actor.wire.closed()
    load.ledger.disrupt(asyncio.get_running_loop().time())
    assert load.ledger.acked() > 100
    await asyncio.to_thread(gateway.start)
    await load.connect()
    await load.settle()


@pytest.mark.slow
async def test_stopped_for_five_seconds_goes_on_where_it_was(tmp_path: Path, servers: None, clients: Clients) -> None:
    gateway = Gateway(tmp_path / "gateway").start()
    load = Load(gateway, clients)
    await load.connect()
    await load.run_for(0.5)
    impatient = await clients.connect(gateway.mqtt, "impatient", session_expiry=60)
    await impatient.subscribe("direct", 1)
    gateway.signal(signal.SIGSTOP)
    try:
        waiting = asyncio.create_task(load.run_for(5.0))
        impatient.abort()  # gives up, and comes again while nobody listens
        again = asyncio.create_task(clients.connect(gateway.mqtt, "impatient", clean_start=False, session_expiry=60, within=10.0))
        await waiting
    finally:
        gateway.signal(signal.SIGCONT)
    back = await again
    assert back.connack is not None
    assert back.connack.session_present
    for number in range(10):
        await load.publishers[0].wire.publish("direct", b"%d" % number, 0)  # type: ignore[union-attr]
    assert [packet.payload for packet in await back.publishes(10)] == [b"%d" % number for number in range(10)]
    await back.silence()
    await load.settle()
