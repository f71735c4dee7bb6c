"""The actors of fault runs keep the protocol over lost connections, shown with a broker that is not ours; so the checker's word counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.actors import PersistentSubscriber, Publisher
from tests.support.checker import check
from tests.support.ledger import Ledger
from tests.support.mosquitto import Mosquitto
from tests.support.wire import Clients


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_under_way_when_the_connection_broke_is_finished_later(
    tmp_path: Path, servers: None, clients: Clients, version: int, qos: int
) -> None:
    mosquitto = Mosquitto(tmp_path).start()
    ledger = Ledger()
    subscriber = PersistentSubscriber(ledger, clients, "subscriber", ["t"], lambda sent: True, version=version, qos=qos)
    publisher = Publisher(ledger, clients, "publisher", ["t"], version=version)
    for _ in range(4):
        await subscriber.connect(mosquitto.mqtt)  # from the second time on a takeover
        await publisher.connect(mosquitto.mqtt)
        for _ in range(10):
            publisher.publish(qos)
        await asyncio.sleep(0)  # the packets leave, the answers are not read
        assert publisher.wire is not None
        publisher.wire.abort()
        await publisher.wire.lost.wait()
    await publisher.connect(mosquitto.mqtt)
    await publisher.finish(5.0)
    async with asyncio.timeout(5.0):
        while subscriber.lacks(list(ledger.sent.values())):
            await asyncio.sleep(0.01)
    await subscriber.leave()
    verdict = check(ledger)
    assert verdict.ok, str(verdict)
    assert ledger.acked() == 40
    assert subscriber.takeovers == 3
    assert not publisher.problems + subscriber.problems
