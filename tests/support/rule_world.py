"""Both ways of rules under load, with everybody who talks: devices that publish, devices that are commanded, a backend that sends, a reader.

What is acknowledged on either side is in a ledger; ``verdict`` says what of it is not where it belongs, and what is out of order.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from gateway.opening import connect_backend
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError
from streams.backend import Incoming, Outgoing
from tests.support.actors import PersistentSubscriber, Publisher
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Gateway
from tests.support.ledger import Ledger, Sent, stamp
from tests.support.wire import Clients

QUEUES = 8
PUBLISHERS = 8
DEVICES = 4
RATE = 50.0
"""Publishes a second of each publisher, and commands a second in all."""


class RuleWorld:
    """One gateway with an ordered outflow rule of parent `up` and an inflow rule to parent `down`."""

    def __init__(self, gateway: Gateway, broker: Kafka | RocketMQ, clients: Clients) -> None:
        self.gateway, self.broker, self.clients = gateway, broker, clients
        self.ledger = Ledger()
        self.up, self.down = unique("up"), unique("down")
        self.publishers = [
            Publisher(self.ledger, clients, f"GID_w@@@p{number}", [f"up/{number}/a", f"up/{number}/b", "up/p2p/nobody"], version=4 + number % 2)
            for number in range(PUBLISHERS)
        ]
        self.devices = [
            PersistentSubscriber(self.ledger, clients, f"dev{number}", [f"down/d{number}/#"], self._wants(number), version=4 + number % 2, qos=1)
            for number in range(DEVICES)
        ]
        self._commanded = 0
        self._commanding: asyncio.Task[None] | None = None
        self._loads: list[asyncio.Task[None]] = []
        kind = "kafka" if isinstance(broker, Kafka) else "rocketmq"
        self.backend = connect_backend(ConnectionSettings(name="world", kind=kind, address=(broker.address,)))  # type: ignore[arg-type]

    @staticmethod
    def config(broker: Kafka | RocketMQ) -> str:
        kind = "kafka" if isinstance(broker, Kafka) else "rocketmq"
        return f'[connections.main]\nkind = "{kind}"\naddress = "{broker.address}"\nallow_outflow = ["*"]\nallow_inflow = ["*"]\n'

    @staticmethod
    def _wants(number: int) -> Any:
        topics = (f"down/d{number}/x", f"down/p2p/dev{number}")
        return lambda sent: sent.topic in topics

    def rule(self, *arguments: str) -> Any:
        return json.loads(self.gateway.run("rule", *arguments, "--json", within=60.0))

    def sent(self, rule: str) -> int:
        return int(self.rule("show", rule)["status"]["counts"]["sent"])

    async def begin(self) -> None:
        """Topics, rules, sessions, and the backend's commands."""
        for topic in (self.up, self.down):
            await asyncio.to_thread(self.broker.create_topic, topic, QUEUES)
        await asyncio.to_thread(self.rule, "create", "outflow", "out", "--topic", "up", "--to", f"main/{self.up}", "--ordered")
        await asyncio.to_thread(self.rule, "create", "inflow", "back", "--from", f"main/{self.down}", "--topic", "down")
        for device in self.devices:
            await device.connect(self.gateway.mqtt)
        async with asyncio.timeout(30):
            while not (await asyncio.to_thread(self.rule, "show", "back"))["status"]["position"]:
                await asyncio.sleep(0.1)
        self._commanding = asyncio.create_task(self._command())

    async def load(self) -> None:
        """Publishers run until the gateway is gone or ``stop_load``."""
        for actor in [*self.publishers, *(device for device in self.devices if not device.online)]:
            await actor.connect(self.gateway.mqtt)
        self._loads = [asyncio.create_task(publisher.run(1, RATE)) for publisher in self.publishers]

    async def stop_load(self) -> None:
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)

    async def gateway_died(self) -> None:
        await self.stop_load()
        for actor in [*self.publishers, *self.devices]:
            if actor.wire is not None:
                await actor.wire.lost.wait()
        self.ledger.disrupt(time.monotonic())
        await self.clients.close()

    async def _command(self) -> None:
        """At least once: a batch whose fate is unknown goes again, so the backend's own repeats are allowed."""
        target = self.backend.target("world", ordered=False)
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                batch = [self._next_command() for _ in range(int(RATE / 10))]
                while True:
                    try:
                        assert not await target.send([message for _, message in batch])
                        break
                    except BackendError:
                        await asyncio.sleep(0.2)
                for seq, _ in batch:
                    self.ledger.ack("backend", seq, self._now())
                await asyncio.sleep(0.1)
        await target.close()

    def _next_command(self) -> tuple[int, Outgoing]:
        seq, self._commanded = self._commanded, self._commanded + 1
        device = seq % DEVICES
        to_one = seq % 3 == 0
        second = f"/p2p/dev{device}" if to_one else f"d{device}/x"
        body = stamp("backend", seq, 128)
        self.ledger.send("backend", seq, f"down/p2p/dev{device}" if to_one else f"down/d{device}/x", 1, body, self._now())
        self.ledger.resend("backend", seq)
        properties = (("mqttSecondTopic", second), ("qoslevel", "1"), ("cleansessionflag", "false"))
        return seq, Outgoing(self.down, body, properties, f"{seq + 1:032X}", int(time.time() * 1000), lane=f"lane{device}")

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def resumes(self, within: float) -> float:
        """Seconds until both rules carry again."""
        start = time.monotonic()
        before = [0, 0]
        for index, rule in enumerate(("out", "back")):
            before[index] = await asyncio.to_thread(self.sent, rule)
        for index, rule in enumerate(("out", "back")):
            while await asyncio.to_thread(self.sent, rule) <= before[index]:
                shown = await asyncio.to_thread(self.rule, "show", rule) if time.monotonic() - start > within else None
                assert shown is None, f"rule {rule} did not go on within {within} s: {shown}"
                await asyncio.sleep(0.2)
        return time.monotonic() - start

    async def finish(self, within: float) -> list[Incoming]:
        """Everything is acknowledged and has arrived; what lies at the target."""
        for publisher in self.publishers:
            await publisher.finish(30.0)
        if self._commanding is not None:
            self._commanding.cancel()
            await self._commanding
            self._commanding = None
        taken: list[Incoming] = []
        wanted = {entry.digest for entry in self.ledger.sent.values() if entry.client != "backend"}
        end = time.monotonic() + within
        source = self.backend.source("reader", self.up, await self._earliest(end))
        while wanted and time.monotonic() < end:
            with contextlib.suppress(TimeoutError, BackendError):
                async with asyncio.timeout(1.0):
                    found = await source.next(1_000, 1 << 20)
                    taken += found
                    wanted -= {hashlib.sha256(message.body).digest() for message in found}
        await source.close()
        acked = [entry for entry in self.ledger.sent.values() if entry.client == "backend" and entry.acked_at is not None]
        while any(device.lacks(acked) for device in self.devices) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return taken

    async def _earliest(self, end: float) -> Mapping[str, int]:
        """A name server that was just started knows no topic until its brokers have told it."""
        while True:
            try:
                return await self.backend.resolve(self.up, "earliest")
            except BackendError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Whatever is left of it."""
        if self._commanding is not None:
            self._commanding.cancel()
            await self._commanding
        await self.backend.close()

    def verdict(self, taken: list[Incoming]) -> list[str]:
        """What is wrong: lost either way, foreign, with other properties than it should have, in more than one queue, out of order."""
        by_digest = {entry.digest: entry for entry in self.ledger.sent.values()}
        problems = [problem for actor in [*self.publishers, *self.devices] for problem in actor.problems]
        first: dict[bytes, Incoming] = {}
        queues: dict[str, set[str]] = defaultdict(set)
        newest: dict[str, int] = defaultdict(lambda: -1)
        for message in taken:
            digest = hashlib.sha256(message.body).digest()
            entry = by_digest.get(digest)
            if entry is None:
                problems.append(f"foreign message in {message.queue} at {message.offset}")
                continue
            problems += _differences(entry, message)
            queues[entry.client].add(message.queue)
            if digest not in first:
                first[digest] = message
                if entry.seq < newest[entry.client]:
                    problems.append(f"{entry.client}/{entry.seq} comes behind {newest[entry.client]}")
                newest[entry.client] = max(newest[entry.client], entry.seq)
        problems += [f"{client} is in queues {sorted(found)}" for client, found in queues.items() if len(found) > 1]
        acked = [entry for entry in self.ledger.sent.values() if entry.acked_at is not None]
        lost = [entry for entry in acked if entry.client != "backend" and entry.digest not in first]
        problems += [f"lost on the way out: {entry.client}/{entry.seq}" for entry in lost]
        commands = [entry for entry in acked if entry.client == "backend"]
        problems += [f"lost on the way to {device.name}: command {entry.seq}" for device in self.devices for entry in device.lacks(commands)]
        return problems

    def report(self, taken: list[Incoming]) -> str:
        received = sum(len(device.record.receipts) for device in self.devices)
        return f"published {sum(p.seq for p in self.publishers)}, at the target {len(taken)}; commands {self._commanded}, received {received}"


def _differences(entry: Sent, message: Incoming) -> list[str]:
    properties = dict(message.properties)
    wanted = {"clientId": entry.client, "topic": entry.topic, "mqttSecondTopic": "/" + entry.topic.partition("/")[2], "qoslevel": "1"}
    wrong = {name: properties.get(name) for name, value in wanted.items() if properties.get(name) != value}
    return [f"{entry.client}/{entry.seq} has {wrong}"] if wrong or len(message.id) != 32 else []
