"""RocketMQ as a named connection: the port's Backend. ``RocketmqBackend`` is the way into this package.

client.py keeps in touch with the cluster, target.py sends, source.py receives; here is what is asked about topics.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping

from bridges.rocketmq import calls
from bridges.rocketmq.client import Client
from bridges.rocketmq.errors import Refused
from bridges.rocketmq.outgoing import topic_fault
from bridges.rocketmq.routes import Queue, Route
from bridges.rocketmq.source import RocketmqSource, ends, subscription_of
from bridges.rocketmq.target import RocketmqTarget
from bridges.rocketmq.terms import Terms
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError, SettingsError
from streams.backend import SourceStart, TopicDescription

log = logging.getLogger(__name__)

QUEUES = 8
"""Queues a broker of a topic that the creation hint makes."""

_KINDS = frozenset({"", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"})


class RocketmqBackend:
    """Made in a running event loop; connects on first use."""

    def __init__(self, settings: ConnectionSettings) -> None:
        if settings.compression != "none":
            raise SettingsError(f'connections.{settings.name}.compression: messages to RocketMQ are not compressed; set it to "none"')
        self._settings = settings
        self._client = Client(settings)
        self._terms = Terms(self._client, f"connections.{settings.name}.durability", checked=settings.durability == "checked")
        self._cluster = "DefaultCluster"
        self._typed = True
        self._sources: set[RocketmqSource] = set()

    @property
    def trouble(self) -> str:
        return self._client.trouble

    async def close(self) -> None:
        for source in list(self._sources):
            await source.close()
        await self._client.close()

    async def describe(self, topic: str) -> TopicDescription | None:
        name = self._client.named(topic)
        route = await self._client.route(name, fresh=True)
        if route is None:
            await self._learn(name)
            return None
        kind, largest = "", 0
        for address in route.masters.values():
            kind = kind or await calls.message_type(self._client, address, name) or ""
            largest = await self._largest(address, largest)
        return TopicDescription(len(route.writable), kind, largest)

    async def _learn(self, name: str) -> None:
        """What the creation hint needs to know. A hint that is not exact is better than an error where the topic is all that was asked for."""
        try:
            cluster = await calls.cluster(self._client)
            self._cluster = cluster.name or self._cluster
            for address in cluster.masters.values():
                self._typed = await calls.message_type(self._client, address, name) is not None
        except BackendError as error:
            log.info("rocketmq_cluster_unknown connection=%s error=%s", self._settings.name, error)

    async def _largest(self, address: str, others: int) -> int:
        """The least of what brokers take; brokers that don't tell are left out."""
        try:
            largest = (await calls.broker_settings(self._client, address)).largest
        except Refused:
            return others
        return min(largest, others) if others and largest else largest or others

    async def create_topic(self, topic: str, queues: int, kind: str = "") -> None:
        """``queues`` in all, spread over the brokers, each of which has one at least."""
        name = self._client.named(topic)
        fault = topic_fault(name)
        if fault:
            raise BackendError(fault, retryable=False)
        if queues < 1:
            raise BackendError(f"queues: a topic has at least one, not {queues}", retryable=False)
        if kind not in _KINDS:
            raise BackendError(f"kind: `{kind}` is no message type of RocketMQ; use one of {', '.join(sorted(_KINDS - {''}))}", retryable=False)
        if await self._client.route(name, fresh=True) is not None:
            # To RocketMQ, making a topic that is there is changing it.
            raise BackendError(f"topic `{topic}` exists already", retryable=False)
        masters = (await calls.cluster(self._client)).masters
        if not masters:
            raise BackendError(f"connections.{self._settings.name}: the name servers know no broker that could have topic `{topic}`")
        addresses = [address for _, address in sorted(masters.items())][:queues]
        for index, address in enumerate(addresses):
            share = queues // len(addresses) + (1 if index < queues % len(addresses) else 0)
            await calls.create_topic(self._client, address, name, share, kind)
        self._client.doubt(name)

    def creation_hint(self, topic: str, *, ordered: bool = False) -> str:
        servers = shlex.quote(";".join(self._settings.address))
        name = shlex.quote(self._client.named(topic))
        kind = f" -a +message.type={'FIFO' if ordered else 'NORMAL'}" if self._typed else ""
        return f"mqadmin updateTopic -n {servers} -c {shlex.quote(self._cluster)} -t {name} -r {QUEUES} -w {QUEUES}{kind}"

    async def resolve(self, topic: str, start: SourceStart) -> Mapping[str, int]:
        name = self._client.named(topic)
        if start == "now":
            return {queue: following for queue, (_, following) in (await ends(self._client, name, topic)).items()}
        if isinstance(start, int):
            return await self._at(topic, name, start)
        first = {queue: first for queue, (first, _) in (await ends(self._client, name, topic)).items()}
        return {**first, **start} if isinstance(start, Mapping) else first

    async def _at(self, topic: str, name: str, time: int) -> dict[str, int]:
        route = await self._client.route(name)
        if route is None:
            raise BackendError(f"topic `{topic}` does not exist")
        offsets = await asyncio.gather(*(self._offset_at(route, name, queue, time) for queue in route.readable))
        return {queue.name: offset for queue, offset in zip(route.readable, offsets, strict=True)}

    async def _offset_at(self, route: Route, name: str, queue: Queue, time: int) -> int:
        """Brokers of 4.9 answer with the last message before the time: it is looked at, once."""
        address = route.masters[queue.broker]
        offset = await calls.offset_at(self._client, address, name, queue, time)
        message = await calls.peek(self._client, address, self._group("resolve"), name, queue, offset)
        return offset + 1 if message is not None and message.offset == offset and message.stored < time else offset

    def target(self, rule: str, *, ordered: bool) -> RocketmqTarget:
        """``ordered`` changes nothing: it is the messages' lanes that keep order."""
        return RocketmqTarget(self._client, self._terms, self._group(rule))

    def source(self, rule: str, topic: str, positions: Mapping[str, int], *, tags: str = "", sql: str = "") -> RocketmqSource:
        subscription = subscription_of(self._client.named(topic), tags, sql)
        source = RocketmqSource(self._client, self._group(rule), topic, positions, subscription, self._sources.discard)
        self._sources.add(source)
        return source

    def _group(self, rule: str) -> str:
        return self._client.named(f"sluiceway_{rule}")
