"""Peers that misbehave: silent, taken over in a storm, slow to read, slow to speak. They end, and hurt nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import psutil
import pytest

from gateway.protocol.packets import Connack, Disconnect, Packet, Publish, Subscribe, SubscriptionRequest, WillMessage
from schemas.reasons import ReasonCode
from tests.support.gateway import Gateway
from tests.support.ledger import stamp
from tests.support.wire import Clients, Wire, connect_packet

MIB = 1024 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
async def test_silent_peer_is_closed_after_one_and_a_half_keep_alives(gateway: Gateway, clients: Clients, version: int) -> None:
    """[MQTT-3.1.2-22] [MQTT-3.1.2-24]; its will comes once."""
    watcher = await clients.connect(gateway.mqtt, "watcher")
    await watcher.subscribe("wills/#", 2)
    clock = asyncio.get_running_loop()
    start = clock.time()
    will = WillMessage(topic="wills/silent", payload=b"gone", qos=2, retain=False)
    silent = await clients.connect(gateway.mqtt, "silent", version, keep_alive=1, will=will)
    await silent.expect_disconnect(ReasonCode.KEEP_ALIVE_TIMEOUT, within=3.5)
    assert 1.4 <= clock.time() - start <= 2.6
    assert [packet.payload for packet in await watcher.publishes(1)] == [b"gone"]
    await watcher.silence()


@pytest.mark.slow
async def test_peer_that_no_longer_reads_or_speaks_is_let_go(gateway: Gateway, clients: Clients) -> None:
    """As after a cable was pulled: its kernel takes nothing more while deliveries for it go on."""
    half_open = await clients.dial(gateway.mqtt, receive_buffer=4096)
    half_open.send(connect_packet("half-open", keep_alive=1, will=WillMessage(topic="wills/half-open", payload=b"", qos=1, retain=False)))
    await half_open.receive()
    await half_open.subscribe("flood", 0)
    half_open.transport.pause_reading()
    watcher = await clients.connect(gateway.mqtt, "watcher")
    await watcher.subscribe("wills/+", 1)
    for number in range(200):
        await watcher.publish("flood", b"x" * 50_000, 1)
        if any(isinstance(packet, Publish) for packet in watcher.inbox):
            break
        await asyncio.sleep(0.01 if number < 20 else 0.05)
    assert [packet.topic for packet in await watcher.publishes(1)] == ["wills/half-open"]
    await watcher.silence()


@pytest.mark.slow
async def test_takeover_storm_leaves_one_connection(gateway: Gateway, clients: Clients) -> None:
    """50 connects a second under one client id; each may subscribe and publish before the next one comes.

    One whose CONNECT is not answered yet when the next one comes may be told that the server is busy, or be closed without a CONNACK: of those
    that wait for their turn only the newest is kept. All others are told.
    """
    chance = random.Random(12)
    process = psutil.Process(gateway.pid)
    first = await clients.connect(gateway.mqtt, "stormy", session_expiry=60)
    await first.subscribe("storm/+", 1)
    sockets = len(process.net_connections("tcp"))
    storm: list[asyncio.Task[Wire]] = []
    for number in range(100):
        storm.append(asyncio.create_task(_one_of_a_storm(gateway, clients, number, chance.random())))
        await asyncio.sleep(0.02)
    wires = [first, *await asyncio.gather(*storm)]
    last = await clients.connect(gateway.mqtt, "stormy", clean_start=False, session_expiry=60)
    for wire in wires:
        await wire.closed(within=2.0)
        said = [packet.reason_code for packet in wire.inbox if isinstance(packet, Disconnect)]
        assert said == ([ReasonCode.SESSION_TAKEN_OVER] if wire.connack is not None else [])
    assert sum(wire.connack is not None for wire in wires) > 50
    last.inbox.clear()
    await last.publish("storm/end", b"once", 1)
    assert [packet.payload for packet in await last.publishes(1)] == [b"once"]
    await last.silence()
    await _until(lambda: len(process.net_connections("tcp")) <= sockets, "sockets of the storm are closed")


async def _one_of_a_storm(gateway: Gateway, clients: Clients, number: int, fate: float) -> Wire:
    wire = await clients.dial(gateway.mqtt)
    wire.send(connect_packet("stormy", clean_start=False, session_expiry=60))
    async with asyncio.timeout(5.0):
        while not wire.inbox and not wire.lost.is_set():
            await asyncio.sleep(0.001)
    if not wire.inbox:
        return wire
    answer = await wire.expect(Connack)
    if answer.reason_code == ReasonCode.SERVER_BUSY:
        return wire
    assert answer.reason_code == ReasonCode.SUCCESS
    wire.connack = answer
    if fate < 0.5:
        wire.send(Subscribe(packet_id=1, requests=(SubscriptionRequest(filter="storm/+", qos=1),)))
    elif fate < 0.8:
        wire.send(Publish(topic=f"storm/{number}", payload=b"", qos=1, retain=False, dup=False, packet_id=1))
    return wire


@pytest.mark.slow
async def test_slow_reader_hurts_nobody_and_keeps_no_more_than_its_queue(start_gateway: Callable[..., Gateway], clients: Clients) -> None:
    """Traffic that it should get and traffic that it shouldn't take turns, so that what the machine does besides meets both."""
    gateway = start_gateway(config="[limits]\nqueue_messages = 500\n")
    process = psutil.Process(gateway.pid)
    publisher = await clients.connect(gateway.mqtt, "publisher")
    quick = [await clients.connect(gateway.mqtt, f"quick{number}") for number in range(3)]
    for wire in quick:
        await wire.subscribe("+", 1)
    slow = await clients.dial(gateway.mqtt, receive_buffer=4096)
    slow.send(connect_packet("slow"))
    await slow.receive()
    await slow.subscribe("traffic", 1)
    slow.transport.pause_reading()
    await _traffic(publisher, quick, "others", start=0, count=200)
    before = process.memory_info().rss
    alone, beside = [], []
    for start in range(200, 5200, 1000):
        alone.append(await _traffic(publisher, quick, "others", start=start, count=200))
        beside.append(await _traffic(publisher, quick, "traffic", start=start + 200, count=800))
    calm, hurt = min(alone), min(beside)
    assert hurt <= max(2 * calm, calm + 0.05), f"p99 {calm * 1000:.1f} ms alone, {hurt * 1000:.1f} ms beside a slow reader"
    assert process.memory_info().rss - before < 48 * MIB
    slow.transport.resume_reading()
    await slow.wait_for(lambda packet: _number(packet) == 5199, 15.0, "the newest message")
    got = [number for packet in slow.inbox if (number := _number(packet)) is not None]
    assert got == sorted(set(got)), "in order, each once"
    assert len(got) < 4000


async def _traffic(publisher: Wire, readers: list[Wire], topic: str, *, start: int, count: int) -> float:
    """8 KiB messages at about 10 MB a second; the readers' p99 latency in seconds."""
    clock = asyncio.get_running_loop()
    sent: dict[int, float] = {}
    seen: list[list[float]] = [[] for _ in readers]

    def reading(times: list[float]) -> Callable[[Packet], None]:
        return lambda packet: times.append(clock.time() - sent[number]) if (number := _number(packet)) is not None else None

    for wire, times in zip(readers, seen, strict=True):
        wire.on_packet = reading(times)
    acknowledged = 0

    def count_ack(_: Packet) -> None:
        nonlocal acknowledged
        acknowledged += 1

    publisher.on_packet = count_ack
    begin = clock.time()
    for number in range(start, start + count):
        while number - start - acknowledged >= 64 or clock.time() < begin + (number - start) * 0.0008:
            await asyncio.sleep(0.0005)
        sent[number] = clock.time()
        publisher.send(Publish(topic=topic, payload=stamp("t", number, 8192), qos=1, retain=False, dup=False, packet_id=publisher.next_id()))
    await _until(lambda: acknowledged == count and all(len(times) == count for times in seen), "every quick reader has it all", 20.0)
    publisher.on_packet = None
    return sorted(time for times in seen for time in times)[int(count * len(readers) * 0.99)]


def _number(packet: Packet) -> int | None:
    return int(packet.payload.split(b":")[1]) if isinstance(packet, Publish) else None


@pytest.mark.slow
async def test_slow_speakers_lose_their_places_and_others_are_served(start_gateway: Callable[..., Gateway], clients: Clients) -> None:
    """200 sockets that send their CONNECT byte by byte, too slowly for the time it has."""
    gateway = start_gateway(config="[limits]\nconnect_timeout = 2.0\n")
    process = psutil.Process(gateway.pid)
    bystander = await clients.connect(gateway.mqtt, "bystander")
    await bystander.publish("warm", b"", 1)
    sockets = len(process.net_connections("tcp"))
    packet = b"\x10\x1a\x00\x04MQTT\x04\x02\x00\x3c\x00\x0eslow-speaker-x"
    slow = [await clients.dial(gateway.mqtt, 4) for _ in range(200)]
    start = asyncio.get_running_loop().time()
    waits = []
    for byte in packet[:-1]:
        for wire in slow:
            wire.write(bytes([byte]))
        asked = asyncio.get_running_loop().time()
        await bystander.ping()
        waits.append(asyncio.get_running_loop().time() - asked)
        await asyncio.sleep(0.1)
        if all(wire.lost.is_set() for wire in slow):
            break
    for wire in slow:
        await wire.closed(within=3.0)
    assert asyncio.get_running_loop().time() - start < 5.0
    assert max(waits) < 0.25
    await _until(lambda: len(process.net_connections("tcp")) <= sockets, "their sockets are closed")


async def _until(true: Callable[[], bool], what: str, within: float = 5.0) -> None:
    try:
        async with asyncio.timeout(within):
            while not true():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None
