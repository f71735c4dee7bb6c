"""Clients that hold subscriptions of topics that nobody publishes to, while something else is measured."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.protocol.packets import Suback, Subscribe, SubscriptionRequest
from tests.support.gateway import Gateway
from tests.support.wire import Clients

WITHIN = 60.0
DEPTH = 3
"""Levels that the filters share with each other in part, as real ones do."""


@contextmanager
def subscribed(gateway: Gateway, clients: int, filters: int) -> Iterator[None]:
    """``clients`` connections with ``filters`` subscriptions each, held by a thread with a loop of its own."""
    ready, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_hold(gateway, clients, filters, ready, over)))
    thread.start()
    try:
        if not ready.wait(WITHIN):
            raise TimeoutError(f"{clients * filters} subscriptions took more than {WITHIN} s")
        yield
    finally:
        over.set()
        thread.join()


async def _hold(gateway: Gateway, clients: int, filters: int, ready: threading.Event, over: threading.Event) -> None:
    wires = Clients()
    try:
        for number in range(clients):
            wire = await wires.connect(gateway.mqtt, f"bystander{number}")
            requests = tuple(SubscriptionRequest(filter=_filter(number, index), qos=1) for index in range(filters))
            wire.send(Subscribe(packet_id=1, requests=requests))
            await wire.expect(Suback, WITHIN)
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.1)
    finally:
        await wires.close()


def _filter(number: int, index: int) -> str:
    """Every tenth ends in a wildcard."""
    levels = [f"site{number % 10}", f"line{number}", f"machine{index}"][:DEPTH]
    return "/".join([*levels, "+" if index % 10 == 0 else "state"])
