"""A client of one RocketMQ cluster: asks name servers for routes, brokers for everything else, and beats so that they know its groups.

peers.py has the connections, calls.py what can be asked. Topics and groups here carry their namespace already (``named``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping

from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.connection import Connection
from bridges.rocketmq.errors import Refused, Unreachable
from bridges.rocketmq.frames import Command
from bridges.rocketmq.heartbeats import Consumer, Subscription, encode_heartbeat
from bridges.rocketmq.peers import Peers
from bridges.rocketmq.routes import Route, parse_route
from bridges.rocketmq.signing import sign
from bridges.rocketmq.tls import client_context
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError

log = logging.getLogger(__name__)

REQUEST_TIMEOUT = 3.0
REFRESH_EVERY = 10.0
"""Seconds between two looks at the routes in use."""
HEARTBEAT_EVERY = 30.0
MISSING_BELIEVED = 60.0
"""Seconds for which name servers must have said that a topic is gone whose route we have: a new one learns of its brokers within 30 s."""
MISSING_TRUSTED = 1.0
"""Seconds for which a topic that is missing is taken as missing."""
NEVER, FOREVER = float("-inf"), float("inf")
ROUTE_UNUSED = 300.0
ROUTES_LIMIT = 10_000


class _Kept:
    """A route, None for a topic that is missing, when it was told, when it was used last, and since when name servers say that it is gone."""

    __slots__ = ("gone", "route", "told", "used")

    def __init__(self, route: Route | None, now: float) -> None:
        self.route = route
        self.told = now
        self.used = now
        self.gone: float | None = None


class Client:
    """Made in a running event loop."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._servers = settings.address
        self._server = 0
        self._servers_trouble = ""
        signer = None
        if settings.user:

            def signer(fields: Mapping[str, str], body: bytes) -> dict[str, str]:
                return sign(fields, body, settings.user, settings.password)

        context = client_context(settings)
        self._name_servers = Peers(context, signer, lambda _: None)
        self.peers = Peers(context, signer, self._greet)
        self.id = f"sluiceway@{settings.name}@{secrets.token_hex(6)}"
        self._routes: dict[str, _Kept] = {}
        self._producers: dict[str, int] = {}
        self._consumers: dict[str, Consumer] = {}
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep())

    def named(self, name: str) -> str:
        """A topic's or group's name with the connection's namespace."""
        space = self._settings.namespace
        return f"{space}%{name}" if space and not name.startswith(f"{space}%") else name

    async def close(self) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        await self._name_servers.close()
        await self.peers.close()

    @property
    def trouble(self) -> str:
        """Why the cluster, or a part of it, can't be used just now."""
        if self._servers_trouble:
            return self._servers_trouble
        return next((words for address in sorted(self._masters()) if (words := self.peers.trouble(address))), "")

    # Asking

    async def ask(self, address: str, code: int, fields: Mapping[str, str], body: bytes = b"", *, within: float = 0.0) -> Command:
        """The answer, whatever its code. ``within`` 0: the usual time."""
        return await _ask(self.peers, address, code, fields, body, within or REQUEST_TIMEOUT)

    async def call(self, address: str, code: int, fields: Mapping[str, str], body: bytes = b"") -> Command:
        """The answer to a request that succeeded; Refused otherwise."""
        answer = await self.ask(address, code, fields, body)
        if answer.code != ResponseCode.SUCCESS:
            raise Refused(address, answer.code, answer.remark)
        return answer

    async def ask_name_server(self, code: int, fields: Mapping[str, str]) -> Command:
        """The answer of the first name server that answers, beginning with the one that did last."""
        last: BackendError = Unreachable("no name server is configured")
        for step in range(len(self._servers)):
            index = (self._server + step) % len(self._servers)
            try:
                answer = await _ask(self._name_servers, self._servers[index], code, fields, b"", REQUEST_TIMEOUT)
            except BackendError as error:
                last = error
                continue
            if answer.code in (ResponseCode.SYSTEM_BUSY, ResponseCode.SYSTEM_ERROR):
                last = Refused(self._servers[index], answer.code, answer.remark)
                continue
            self._server, self._servers_trouble = index, ""
            return answer
        self._servers_trouble = f"no name server answers: {last}"
        raise Unreachable(self._servers_trouble)

    # Routes

    async def route(self, topic: str, *, fresh: bool = False) -> Route | None:
        """Where the topic's queues are; None where the name servers say that there is no such topic.

        A route that is in use is refreshed in the background and waits for nobody: brokers serve on while name servers are away.
        """
        now = self._loop.time()
        kept = self._routes.get(topic)
        if kept is not None:
            kept.used = now
            if not fresh and now - kept.told < (MISSING_TRUSTED if kept.route is None else FOREVER):
                return kept.route
        return await self._fetch(topic)

    def doubt(self, topic: str) -> None:
        """A broker refused what the route promised: it is asked for again before it is used."""
        if topic in self._routes:
            self._routes[topic].told = NEVER

    async def _fetch(self, topic: str) -> Route | None:
        answer = await self.ask_name_server(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": topic, "acceptStandardJsonOnly": "true"})
        now = self._loop.time()
        if answer.code == ResponseCode.TOPIC_NOT_EXIST:
            kept = self._routes.get(topic)
            if kept is not None and kept.route is not None and kept.told != NEVER:
                # A name server that has just started knows no topic yet.
                kept.gone = now if kept.gone is None else kept.gone
                if now - kept.gone < MISSING_BELIEVED:
                    return kept.route
            self._keep_route(topic, None, now)
            return None
        if answer.code != ResponseCode.SUCCESS:
            raise Refused(self._servers[self._server], answer.code, answer.remark)
        route = parse_route(answer.body)
        self._keep_route(topic, route, now)
        return route

    def _keep_route(self, topic: str, route: Route | None, now: float) -> None:
        kept = self._routes.get(topic)
        if kept is not None:
            kept.route, kept.told, kept.gone = route, now, None
            return
        if len(self._routes) >= ROUTES_LIMIT:
            del self._routes[next(iter(self._routes))]
        self._routes[topic] = _Kept(route, now)

    def _masters(self) -> set[str]:
        return {address for kept in self._routes.values() if kept.route is not None for address in kept.route.masters.values()}

    # Groups

    def join_producers(self, group: str) -> None:
        self._producers[group] = self._producers.get(group, 0) + 1
        self._greet_all()

    def leave_producers(self, group: str) -> None:
        self._producers[group] -= 1
        if not self._producers[group]:
            del self._producers[group]
            self._tell_all({"clientID": self.id, "producerGroup": group})

    def join_consumers(self, group: str, subscription: Subscription) -> Consumer:
        consumer = self._consumers[group] = Consumer(group, subscription, int(time.time() * 1000))
        self._greet_all()
        return consumer

    def leave_consumers(self, consumer: Consumer) -> None:
        if self._consumers.get(consumer.group) is consumer:
            del self._consumers[consumer.group]
            self._tell_all({"clientID": self.id, "consumerGroup": consumer.group})

    def _tell_all(self, fields: dict[str, str]) -> None:
        for connection in self.peers.live():
            connection.tell(RequestCode.UNREGISTER_CLIENT, fields)

    def _greet_all(self) -> None:
        for connection in self.peers.live():
            self._greet(connection)

    def _greet(self, connection: Connection) -> None:
        """A heartbeat. Nobody waits for its answer: a connection that gives none fails at what it is there for."""
        if not (self._producers or self._consumers):
            return
        body = encode_heartbeat(self.id, self._producers, self._consumers.values())
        future = connection.request(RequestCode.HEART_BEAT, {}, body, within=REQUEST_TIMEOUT)
        future.add_done_callback(_greeted)

    # In the background

    async def _keep(self) -> None:
        """Looks at the routes in use and at connections that should be there; beats."""
        beaten = self._loop.time()
        while True:
            await asyncio.sleep(REFRESH_EVERY)
            now = self._loop.time()
            for topic, kept in list(self._routes.items()):
                if now - kept.used > ROUTE_UNUSED:
                    self._routes.pop(topic, None)
                else:
                    await self._refresh(topic)
            masters = self._masters()
            self.peers.retain(masters)
            if now - beaten >= HEARTBEAT_EVERY:
                beaten = now
                for address in masters:
                    await self._probe(address)
                self._greet_all()

    async def _refresh(self, topic: str) -> None:
        try:
            await self._fetch(topic)
        except BackendError as error:
            log.info("rocketmq_route_unknown topic=%s error=%s", topic, error)

    async def _probe(self, address: str) -> None:
        try:
            await self.peers.connection(address)
        except BackendError:
            # Told by ``trouble`` for as long as it lasts.
            return


async def _ask(peers: Peers, address: str, code: int, fields: Mapping[str, str], body: bytes, within: float) -> Command:
    connection = await peers.connection(address)
    try:
        return await connection.request(code, fields, body, within=within)
    except Unreachable as error:
        peers.suspect(connection, str(error))
        raise


def _greeted(future: asyncio.Future[Command]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.debug("rocketmq_heartbeat_failed error=%s", error)
