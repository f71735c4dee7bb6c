"""The ends of a rule as the bench plays them: subscribers that count and acknowledge, a backend that sends at a rate, and times from end to end."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

from gateway.protocol.packets import Publish
from streams.backend import Backend, Outgoing, Target
from tests.support.gateway import Endpoint
from tests.support.wire import Clients, Wire

PARENT = "commands"
CLIENTS = 4
TICK = 0.01
WARM_UP = 2.0
LANES = 64


class Counter(asyncio.Protocol):
    """Acknowledges every QoS 1 PUBLISH of a stream of small packets, as quickly as Python can, and counts them."""

    def __init__(self, wire: Wire) -> None:
        self.count = 0
        self._buffer = b""
        assert wire._transport is not None
        self._transport = wire._transport
        self._transport.set_protocol(self)
        self.connection_lost = wire.connection_lost  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        at, end, acks = 0, len(data), []
        while end - at > 2:
            size, start = data[at + 1], at + 2
            if size > 127:
                size, start = size - 128 + (data[at + 2] << 7), at + 3
            stop = start + size
            if stop > end:
                break
            if data[at] >> 4 == 3:
                behind = start + 2 + (data[start] << 8 | data[start + 1])
                acks.append(b"\x40\x02" + data[behind : behind + 2])
            at = stop
        self._buffer = data[at:]
        self.count += len(acks)
        if acks:
            self._transport.write(b"".join(acks))


def message(topic: str, number: int, body: bytes, client: str = "") -> Outgoing:
    """A command: by second topic, or to one device."""
    second = f"/p2p/{client}" if client else f"/c{number % CLIENTS}/x"
    return Outgoing(topic, body, (("mqttSecondTopic", second), ("qoslevel", "1")), f"{number:032X}", int(time.time() * 1000), key=str(number % LANES))


async def feed(target: Target, topic: str, rate: float, seconds: float) -> int:
    """Send at a rate; how many were sent."""
    start, sent, body = time.monotonic(), 0, bytes(128)
    while (passed := time.monotonic() - start) < seconds:
        due = int(passed * rate)
        if due > sent:
            await target.send([message(topic, number, body) for number in range(sent, due)])
            sent = due
        await asyncio.sleep(TICK)
    return sent


async def inflow_rate(backend: Backend, topic: str, mqtt: Endpoint, rate: float, seconds: float) -> tuple[float, int]:
    """Messages a second that CLIENTS subscribers received and acknowledged while the backend sent at a rate, and how many lacked at the end."""
    clients, target = Clients(), backend.target("bench", ordered=False)
    counters = []
    try:
        for number in range(CLIENTS):
            wire = await clients.connect(mqtt, f"receiver{number}", 4)
            await wire.subscribe(f"{PARENT}/c{number}/#", 1)
            counters.append(Counter(wire))
        warmed = await feed(target, topic, rate, WARM_UP)
        await asyncio.sleep(1.0)
        before, start = sum(counter.count for counter in counters), time.monotonic()
        sent = warmed + await feed(target, topic, rate, seconds)
        reached = (sum(counter.count for counter in counters) - before) / (time.monotonic() - start)
        await asyncio.sleep(1.0)
        return reached, sent - sum(counter.count for counter in counters)
    finally:
        await target.close()
        await backend.close()
        await clients.close()


async def outflow_latency(backend: Backend, topic: str, mqtt: Endpoint, rate: float, seconds: float) -> list[float]:
    """Seconds from a device's PUBLISH to the receipt at the backend, a message each, at a rate."""
    clients, taken = Clients(), []
    positions = await backend.resolve(topic, "now")
    source = backend.source("bench", topic, positions)

    async def receive() -> None:
        while True:
            for found in await source.next(100, 1_000_000):
                taken.append(time.monotonic() - float(found.body))

    async def publish(_: int) -> None:
        now = repr(time.monotonic()).encode()
        wire.send(Publish(topic=f"{PARENT}/up", payload=now, qos=1, retain=False, dup=False, packet_id=wire.next_id()))

    receiving = asyncio.create_task(receive())
    try:
        wire = await clients.connect(mqtt, "latency", 4)
        await _at_rate(rate, seconds, publish)
        await asyncio.sleep(0.5)
        return taken
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        await source.close()
        await backend.close()
        await clients.close()


async def inflow_latency(backend: Backend, topic: str, mqtt: Endpoint, rate: float, seconds: float) -> list[float]:
    """Seconds from the backend's send to the receipt at the device that the command names."""
    clients, taken, target = Clients(), [], backend.target("bench", ordered=False)

    async def send(number: int) -> None:
        await target.send([message(topic, number, repr(time.monotonic()).encode(), "device")])

    try:
        wire = await clients.connect(mqtt, "device", 4)
        await target.send([message(topic, 0, b"0", "device")])
        await wire.publishes(1, within=10.0)
        wire.on_packet = lambda packet: taken.append(time.monotonic() - float(packet.payload)) if isinstance(packet, Publish) else None
        await _at_rate(rate, seconds, send)
        await asyncio.sleep(0.5)
        return taken
    finally:
        await target.close()
        await backend.close()
        await clients.close()


async def _at_rate(rate: float, seconds: float, act: Callable[[int], Awaitable[None]]) -> None:
    start, done = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        if passed * rate >= done:
            await act(done)
            done += 1
        else:
            await asyncio.sleep(0.001)


def median_ms(taken: Sequence[float]) -> float:
    return statistics.median(taken) * 1000
