"""Crowds at three gateways: one client id that connects everywhere many times a second, and all devices at once after all were restarted.

TEST_STORM_SECONDS says how long the storm goes on.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.protocol.packets import Connack, Disconnect
from schemas.reasons import ReasonCode
from tests.support.brokers.kafka import Kafka
from tests.support.certificates import Authority
from tests.support.gateway import Gateway
from tests.support.many_backbone import Shared, start_three
from tests.support.wire import Clients, Wire, connect_packet

pytestmark = [pytest.mark.slow, pytest.mark.long]

STORM = float(os.environ.get("TEST_STORM_SECONDS", "60"))
RATE = 50
QUIET = 1.0
"""Seconds after which one connection is left (I12)."""
HERD = 2_000
AT_ONCE = 200
"""Handshakes of the herd that are under way: what one process of clients can do."""
BACK_WITHIN = 30.0
KEPT: dict[str, Any] = {"clean_start": False, "session_expiry": 3600}


def sockets(gateways: list[Gateway]) -> list[int]:
    """Of clients."""
    return [sum(each.laddr.port == gateway.mqtt.port for each in psutil.Process(gateway.pid).net_connections("tcp")) for gateway in gateways]


@pytest.mark.timeout(STORM + 180)
async def test_a_takeover_storm_over_three_gateways_leaves_one_connection(
    kafka: Kafka, tmp_path: Path, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    gateways = await start_three(start_gateway, Shared(kafka, tmp_path).config)
    before = sockets(gateways)
    first = await clients.connect(gateways[0].mqtt, "stormy", **KEPT)
    await first.subscribe("storm/#", 1)
    storm: list[asyncio.Task[Wire]] = []
    for number in range(int(STORM * RATE)):
        storm.append(asyncio.create_task(_one_of_a_storm(gateways[number % 3], clients)))
        await asyncio.sleep(1 / RATE)
    wires = [first, *await asyncio.gather(*storm)]
    await asyncio.sleep(QUIET)
    left = [wire for wire in wires if not wire.lost.is_set()]
    assert len(left) <= 1, f"{len(left)} connections of one client id"
    connected = sum(wire.connack is not None for wire in wires)
    print(f"{len(wires)} connects in {STORM:g} s, {connected} answered with success")
    assert connected > len(wires) / 4
    for wire in wires:
        said = [packet.reason_code for packet in wire.inbox if isinstance(packet, Disconnect)]
        assert said in ([], [ReasonCode.SESSION_TAKEN_OVER])
    last = await clients.connect(gateways[1].mqtt, "stormy", within=10.0, **KEPT)
    assert last.connack is not None
    assert last.connack.session_present
    other = await clients.connect(gateways[2].mqtt, "other")
    await other.publish("storm/end", b"once", 1)
    assert [packet.payload for packet in await last.publishes(1)] == [b"once"]
    await last.silence()
    await clients.close()
    deadline = time.monotonic() + 10
    while sockets(gateways) != before and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert sockets(gateways) == before


async def _one_of_a_storm(gateway: Gateway, clients: Clients) -> Wire:
    """Its CONNACK, if it gets one: of those that wait for their turn on a gateway the newest alone is kept."""
    wire = await clients.dial(gateway.mqtt)
    wire.send(connect_packet("stormy", **KEPT))
    async with asyncio.timeout(20.0):
        while not wire.inbox and not wire.lost.is_set():
            await asyncio.sleep(0.005)
    if wire.inbox:
        answer = await wire.expect(Connack)
        assert answer.reason_code in (ReasonCode.SUCCESS, ReasonCode.SERVER_BUSY), answer
        if answer.reason_code == ReasonCode.SUCCESS:
            wire.connack = answer
    return wire


@pytest.mark.timeout(300)
async def test_a_herd_over_tls_is_back_after_all_gateways_were_restarted(
    kafka: Kafka, tmp_path: Path, start_gateway: Callable[..., Gateway], clients: Clients
) -> None:
    """Each with the session that it had, and with what was published meanwhile."""
    authority = Authority(tmp_path)
    pair = authority.issue("gateway")
    tls = f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    shared = Shared(kafka, tmp_path)
    gateways = await start_three(start_gateway, lambda name: shared.config(name) + tls, listen=("mqtts",))
    context = ssl.create_default_context(cafile=str(authority.path))
    turn = asyncio.Semaphore(AT_ONCE)

    async def connect(number: int) -> Wire:
        async with turn:
            wire = await clients.dial(gateways[number % 3].endpoints["mqtts"], tls=context)
            wire.send(connect_packet(f"device-{number}", **KEPT))
            wire.connack = await wire.expect(Connack, BACK_WITHIN)
        assert wire.connack.reason_code == ReasonCode.SUCCESS, wire.connack
        return wire

    for wire in await asyncio.gather(*(connect(number) for number in range(HERD))):
        await wire.subscribe("all", 1)
    for gateway in gateways:
        gateway.kill()
    await clients.close()
    await asyncio.gather(*(asyncio.to_thread(gateway.start, within=60.0) for gateway in gateways))
    publisher = await clients.connect(gateways[0].mqtt, "publisher")
    await publisher.publish("all", b"news", 1)
    since = time.monotonic()
    back = await asyncio.gather(*(connect(number) for number in range(HERD)))
    took = time.monotonic() - since
    assert all(wire.connack is not None and wire.connack.session_present for wire in back)
    print(f"{HERD} clients over TLS were back within {took:.1f} s of the restart of three gateways")
    assert took < BACK_WITHIN
    for wire in back:
        assert [packet.payload for packet in await wire.publishes(1, within=BACK_WITHIN)] == [b"news"]
