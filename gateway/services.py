"""The running gateway as the HTTP API sees it (gateway/api/services.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.api.metrics import Gauges, MetricsPage
from gateway.api.services import ClosedConnections, NodeInfo, OnlineGroups, SessionInfo
from gateway.auth.keys import KeyRing
from gateway.protocol.properties import Properties, forwardable
from gateway.rules.engine import Engine
from gateway.rules.info import RuleStatus
from gateway.rules.management import RuleManagement
from gateway.waiting import Waiting
from schemas.errors import StoreError
from schemas.identities import Principal
from schemas.presence import ClientStatus
from schemas.records import PUBLISH_TOPIC, Flag, Kind, Record, Source
from schemas.traces import TracePage, TraceQuery
from streams.expiry import message_deadline

if TYPE_CHECKING:
    from gateway.node import Node


class Services:
    """Answers from the node; ``retained`` and ``offline`` counts are as of the last ``refresh``."""

    def __init__(self, node: Node, keyring: KeyRing, engine: Engine, version: str, loop_lag: Callable[[], float]) -> None:
        self._node = node
        self._loop_lag = loop_lag
        self._version = version
        self._started = node.clock.wall()
        self._stored = (0, 0)
        self.keyring = keyring
        self.authenticator = node.authenticator
        self.failed_logins = node.failed_logins
        self.access = node.access
        self.resources = node.registers.resources
        self.policies = node.registers.policies
        self.certificates = node.registers.certificates
        self.bearers = node.registers.bearers
        self.limits = node.limits
        self.rules = RuleManagement(engine)
        self.has_api = "api" in node.settings.node.roles
        self._engine = engine
        self._here, self._everywhere = node.here, node.everywhere
        self.listeners: Mapping[str, Sequence[str]] = {}
        self.serving = False
        labels = {"version": version, "preset": node.settings.preset}
        self._page = MetricsPage(node.counters, self._gauges, self._rule_gauges, lambda: node.roles.nodes, **labels)

    def node(self) -> NodeInfo:
        settings = self._node.settings
        return NodeInfo(
            node=settings.node.id,
            instance_id=self.keyring.instance_id,
            version=self._version,
            preset=settings.preset,
            durability="fsync" if settings.log.kind == "embedded" else f"{settings.log.kind}, {settings.log.durability}",
            anonymous=settings.anonymous,
            started=self._started,
            listeners=self.listeners,
        )

    def readiness(self) -> Sequence[str]:
        reasons = [] if self.serving else ["the gateway is starting or stopping"]
        return reasons + self._node.pressure.reasons()

    def weaknesses(self) -> Sequence[str]:
        return self._node.weaknesses

    def missing_roles(self) -> Sequence[str]:
        return self._node.roles.missing()

    async def refresh(self) -> None:
        """Count anew what only the store knows; while it doesn't answer the last counts stand."""
        with suppress(StoreError):
            counts = await self._node.store.counts()
            self._stored = (counts.entries, counts.retained)

    def _gauges(self) -> Gauges:
        node = self._node
        pressure = node.log.pressure()
        return Gauges(
            connections=sum(1 for c in node.connections.all() if c.ready),
            sessions=len(node.registry.sessions),
            subscriptions=len(node.routes),
            offline_messages=self._stored[0],
            retained_messages=self._stored[1],
            pending_records=pressure.records,
            pending_bytes=pressure.size,
            stalled_seconds=node.monotonic() - pressure.stalled_since if pressure.stalled_since else 0.0,
            routing_lag=max(0, node.pressure.lag),
            queued_bytes=node.queued_bytes,
            loop_lag_seconds=self._loop_lag(),
            ready=not self.readiness(),
            durability_doubts=len(node.weaknesses),
        )

    def _rule_gauges(self) -> Sequence[tuple[str, str, RuleStatus]]:
        return [(rule.id, rule.kind, self._engine.status(rule)) for rule in self._engine.rules.values()]

    def metrics(self) -> bytes:
        return self._page.page()

    async def statuses(self, clients: Sequence[str]) -> Mapping[str, ClientStatus]:
        return {client: status for client, (status, _) in (await self._node.store.statuses(clients)).items()}

    async def group_statuses(self, prefix: str, after: str, limit: int) -> Sequence[ClientStatus]:
        return await self._node.store.statuses_of(prefix, after, limit)

    # Of many nodes, all are asked

    async def online(self, group: str = "") -> OnlineGroups:
        return OnlineGroups(self._here.online(group)) if self._everywhere is None else await self._everywhere.online(group)

    async def trace(self, query: TraceQuery) -> TracePage:
        return await (self._node.trace.find if self._everywhere is None else self._everywhere.trace)(query)

    async def session(self, client_id: str) -> SessionInfo | None:
        return self._here.session(client_id) if self._everywhere is None else await self._everywhere.session(client_id)

    async def close_connection(self, client_id: str) -> bool:
        return self._here.close(client_id) if self._everywhere is None else await self._everywhere.close(client_id)

    async def close_connections_of(self, principal: str) -> ClosedConnections:
        if self._everywhere is None:
            return ClosedConnections(self._here.close_of(principal))
        return await self._everywhere.close_of(principal)

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties, principal: Principal) -> bytes:
        node = self._node
        now = node.clock.wall()
        flags = Flag.P2P if node.is_p2p(topic) else Flag.RETAIN if retain else Flag(0)
        expiry = properties.message_expiry_interval
        record = Record(
            int(Kind.PUBLISH),
            node.ids.next(now),
            now,
            "",
            topic,
            payload,
            qos=qos,
            flags=int(flags | Flag.PERSISTENT),
            principal=principal.name,
            source=int(Source.API),
            expires_at=message_deadline(expiry, now),
            properties=forwardable(properties),
        )
        waiting = Waiting(node.loop)
        node.counters.published += 1
        node.log.append(PUBLISH_TOPIC, principal.name, record, waiting)
        await waiting.future
        return record.id
