"""What the log of three gateways is on, in fault tests: their settings, the log read from outside, and what a rule wrote to its target."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.opening import connect_backend
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError
from schemas.positions import At
from schemas.records import Record
from streams.backend import Incoming
from streams.log import Log
from tests.contract.log_drivers import Driver, KafkaDriver, RocketmqDriver
from tests.support import rules
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.chaos_proxy import ChaosProxy
from tests.support.gateway import Gateway, on_kafka, on_rocketmq
from tests.support.ledger import read_stamp
from tests.support.many_world import ManyWorld
from tests.support.postgresql import fresh
from tests.support.wire import Clients

NAMES = ("one", "two", "three")
QUEUES = 4


class Shared:
    """What all gateways of a test have in common."""

    def __init__(self, broker: Kafka | RocketMQ, folder: Path, database: str = "", replication: int = 1) -> None:
        self.prefix = f"{unique('many')}-"
        self._address = broker.address
        if isinstance(broker, Kafka):
            self._log = functools.partial(on_kafka, replication=replication)
            self.reads: Driver = KafkaDriver(broker.address, self.prefix, replication=replication)
        else:
            self._log = on_rocketmq
            self.reads = RocketmqDriver(broker.address, self.prefix, shared=True)
        self.database = database or fresh()
        self.seal = folder / "seal.key"

    def config(self, node: str, address: str = "") -> str:
        """``address``: by which this node reaches the broker, where others have another way."""
        log = self._log(address or self._address, self.prefix)
        return f'{log}[store]\nurl = "{self.database}"\n[keys]\nseal_file = "{self.seal}"\n[node]\nid = "{node}"\nmany = true\n'


async def start_three(start_gateway: Callable[..., Gateway], config: Callable[[str], str], **options: Any) -> list[Gateway]:
    """By their names: the first one makes what the others find. ``options`` are those of ``start_gateway``."""
    first = await asyncio.to_thread(start_gateway, NAMES[0], config=config(NAMES[0]), **options)
    rest = [asyncio.to_thread(start_gateway, name, config=config(name), **options) for name in NAMES[1:]]
    return [first, *await asyncio.gather(*rest)]


class Backbone:
    """What the log is on, for the first gateway by way of a proxy if there is one; and what a rule writes to."""

    def __init__(self, broker: Kafka | RocketMQ, folder: Path, proxy: ChaosProxy | None = None, *, database: str = "", replication: int = 1) -> None:
        self.broker, self.proxy = broker, proxy
        self.shared = Shared(broker, folder, database, replication)
        self.kind = "kafka" if isinstance(broker, Kafka) else "rocketmq"
        self._address = broker.address
        self._proxied = f"127.0.0.1:{broker.node.ports.proxied}" if isinstance(broker, Kafka) and proxy is not None else ""

    def config(self, node: str) -> str:
        return self.shared.config(node, self._proxied if node == NAMES[0] else "") + rules.connection(self.broker)

    def create_topic(self, name: str) -> None:
        """For an ordered rule."""
        if isinstance(self.broker, Kafka):
            self.broker.create_topic(name, QUEUES)
        else:
            self.broker.create_topic(name, QUEUES, "FIFO")

    @asynccontextmanager
    async def log(self) -> AsyncIterator[Log]:
        log = await self.shared.reads.start()
        try:
            yield log
        finally:
            await log.close()

    async def taken(self, topic: str, wanted: set[tuple[str, int]], within: float) -> list[Incoming]:
        """What lies at a rule's target, once all of ``wanted`` does."""
        backend = connect_backend(ConnectionSettings(name="world", kind=self.kind, address=tuple(self._address.split(","))))  # type: ignore[arg-type]
        source = backend.source("reader", topic, await backend.resolve(topic, "earliest"))
        taken: list[Incoming] = []
        end = time.monotonic() + within
        try:
            while wanted and time.monotonic() < end:
                with contextlib.suppress(TimeoutError, BackendError):
                    async with asyncio.timeout(1.0):
                        found = await source.next(1_000, 1 << 20)
                        taken += found
                        wanted -= {read_stamp(message.body) or ("", -1) for message in found}
        finally:
            await source.close()
            await backend.close()
        return taken


async def read_all(log: Log, topic: str, start: dict[int, At] | None = None) -> list[Record]:
    """From the start, or from where it ended at a time, to where it ends now."""
    ends = await log.ends(topic)
    left = {shard: end for shard, (first, end) in ends.items() if end > max(first, (start or {}).get(shard, first))}
    if not left:
        return []
    reader = log.open(topic, start or "earliest", list(left))
    found: list[Record] = []
    while left:
        batch = await reader.next(1000, 1 << 20)
        found += batch.records
        if batch.end >= left.get(batch.end.shard, batch.end):
            left.pop(batch.end.shard, None)
    reader.close()
    return found


async def begin(backbone: Backbone, start_gateway: Callable[..., Gateway], clients: Clients, seed: int, size: int) -> tuple[ManyWorld, str]:
    """Three gateways, everybody connected, and a rule that sends all of ``load`` to a topic, in order; that topic's name."""
    gateways = await start_three(start_gateway, backbone.config)
    world = ManyWorld(dict(zip(NAMES, gateways, strict=True)), clients, seed, NAMES[0], backbone.proxy, size=size)
    target = unique("target")
    await asyncio.to_thread(backbone.create_topic, target)
    await asyncio.to_thread(rules.create, gateways[0], "outflow", "out", "--topic", "load", "--to", f"main/{target}", "--ordered")
    await world.begin()
    return world, target
