"""Builds the parts of a gateway, starts them in order, and stops them in order. The one module that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import zlib
from collections.abc import Callable, Coroutine
from importlib.metadata import version as distribution_version

import uvloop

from bridges.local.recovery import lock_folder
from bridges.trace.store import TraceFolder
from gateway.api.routes import create_api
from gateway.api.server import HttpServer, probe, serve
from gateway.auth.credentials import first_start_lines, make_first_key, prepare_administrator
from gateway.auth.keys import open_keyring
from gateway.auth.registers import open_registers
from gateway.auth.resealing import rotate_seal
from gateway.auth.seal import read_keys
from gateway.backlog import Backlog
from gateway.broker_topics import BrokerTopics
from gateway.clock import Clock, RecordIds
from gateway.cluster.presence import SharedPresence
from gateway.cluster.roles import say
from gateway.cluster.sharing import Sharing, SharingLog
from gateway.cluster.starting import begin
from gateway.commands.endpoint import Rendezvous, remove_rendezvous, write_rendezvous
from gateway.connecting import Connecting
from gateway.connection import Connection
from gateway.downlink import LocalDownlink
from gateway.ending import Ending
from gateway.folder import folder_identity, prepare_folder
from gateway.logs import warn_of
from gateway.membership import Membership
from gateway.node import Node
from gateway.openapi.endpoint import open_api_routes
from gateway.opening import connect_backend, open_configured_log, open_store
from gateway.presence import PRESENCE_READER, PresenceEvents
from gateway.pressure import PressureValve
from gateway.recovery import ROUTER_READER, clean_channels, load_sessions, refuse_newer_log, replay, starting_positions
from gateway.rights import Rights
from gateway.rules.engine import Engine, Surroundings, off_loop
from gateway.services import Services
from gateway.subscribing import Subscribing
from gateway.ticks import Ticks
from gateway.token_watch import TokenWatch
from gateway.trace import Trace
from gateway.transports.endpoints import first_address, listener_specs
from gateway.transports.listeners import Listeners, start_listeners
from gateway.transports.sockets import bind
from schemas.connections import ConnectionSettings
from schemas.errors import StartError
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC
from schemas.settings import ROLES, Settings
from streams.backend import Backend
from streams.log import Log
from streams.mapping.inflow import Stamp
from streams.runtime import PresenceFold, Router
from streams.runtime.sending import Judge
from streams.store import Store
from streams.tracing import TraceStore

GC_THRESHOLDS = (50_000, 50, 1_000)
"""Collections are rare and the third generation's all but never: the hot path makes no cycles (design: choices)."""
DRAIN = 4.0
"""Seconds that a stop waits for what is on its way to the log."""
SWITCH_INTERVAL = 0.0002
"""Seconds after which a busy thread lets another have the interpreter: the writer's two turns a commit wait no longer than that."""

logger = logging.getLogger(__name__)


class App:
    """One gateway process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = distribution_version("sluiceway")
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners: Listeners | None = None
        self._http: HttpServer | None = None
        self._connect: Callable[[ConnectionSettings], Backend] = connect_backend
        self._judge: Judge = off_loop
        self._engine: Engine | None = None
        self._services: Services | None = None
        self._lock: int | None = None
        self._traces: TraceStore | None = None
        self._membership: Membership | None = None
        """Where the store is one that others can reach."""
        self._many = False
        """Whether this may be one node of many."""
        self._opened: list[Log | Store | TraceStore | Membership] = []
        """What is to be closed, in order: the log's sinks are told of what is still on its way, and the store takes what they say."""
        self._ticks: Ticks | None = None
        """There once the start has recovered: from then on a stop drains."""
        self._weaknesses: tuple[str, ...] = ()
        self.node: Node

    async def start(self) -> None:
        """Everything up to the ready line. StartError where something can't be had."""
        settings, loop = self._settings, asyncio.get_running_loop()
        prepare_folder(settings.data)
        specs = self._specs = listener_specs(settings)
        for spec in specs:
            for sock in await bind(spec):
                sock.close()
        probe(settings.http)
        self._lock = lock_folder(settings.data)
        self._store = open_store(settings, loop)
        self._opened.append(self._store)
        epoch = await self._store.next_epoch()
        if settings.store.url:
            await self._join(epoch)
        may_write = self._membership.holds if self._membership is not None else lambda: True
        self._log, self._weaknesses, newest = await open_configured_log(settings, epoch, may_write)
        self._opened.insert(0, self._log)
        await refuse_newer_log(self._store, settings, epoch, newest)
        self._traces = TraceFolder(settings.data / "trace", settings.trace) if settings.trace.enabled else None
        self._opened += [self._traces] if self._traces is not None else []
        self._keyring = await open_keyring(self._store, settings.seal_file, settings.instance_id)
        self._registers = await open_registers(self._store, self._keyring, settings)
        self._build(epoch, loop)
        await self._recover()
        await self._listen()

    async def _join(self, epoch: int) -> None:
        """Others can reach the database: have a place there from before the first record is read."""
        settings, self._many = self._settings, self._settings.node.many
        membership = self._membership = Membership(
            self._store.cluster,
            settings.node.id,
            epoch,
            folder_identity(settings.data),
            alone=not self._many,
            says=say(settings.node) if self._many else "",
            stand_on=self._store.stand_on,
        )
        await membership.join()
        self._opened.insert(0, membership)
        self._run("lease", membership.run())

    def _build(self, epoch: int, loop: asyncio.AbstractEventLoop) -> None:
        settings = self._settings
        ids = RecordIds(zlib.crc32(settings.node.id.encode()), epoch)
        node = self.node = Node(settings, loop, self._log, self._store, self._registers, Clock(), ids, epoch)
        node.weaknesses = self._weaknesses
        if self._membership is not None:
            node.flusher.may_send = self._membership.holds
        node.pressure = PressureValve(node)
        node.backlog = Backlog(node)
        node.owner = epoch if self._many else 0
        if self._many:
            node.sharing = Sharing(node)
            node.log = SharingLog(self._log, node.sharing)
        node.presence = SharedPresence(node) if self._many else PresenceEvents(node)
        node.ending = Ending(node)
        node.connecting = Connecting(node)
        node.subscribing = Subscribing(node)
        node.broker_topics = BrokerTopics(node, self._version)
        node.rights = Rights(node)
        node.token_watch = TokenWatch(node)
        node.trace = Trace(self._traces, node.clock, node.monotonic, settings.limits, settings.trace.sample, node.counters)

    async def _recover(self) -> None:
        node = self.node
        if self._many:
            assert self._membership is not None  # noqa: S101 - joined
            engine = self._make_rules()
            reader = await begin(node, self._membership, self._keyring, engine, self._start_rules, self._run)
            self._ticks = Ticks(node, reader)
            self._run("ticks", self._ticks.run())
            return
        await load_sessions(node, self._keyring)
        node.routed = await starting_positions(node, ROUTER_READER, PUBLISH_TOPIC)
        presence_starts = await starting_positions(node, PRESENCE_READER, PRESENCE_TOPIC)
        downlink = LocalDownlink(node)
        reader, presence_reader = self._log.open(PUBLISH_TOPIC, dict(node.routed)), self._log.open(PRESENCE_TOPIC, presence_starts)
        self._router = router = Router(reader, downlink)
        fold = node.presence.fold = PresenceFold(presence_reader, self._store, node.presence)
        fold.load(await self._store.channels())
        await replay(node, router, fold, (reader, presence_reader))
        downlink.replaying = False
        seen, router.wills_seen = router.wills_seen or set(), None
        self._ticks = Ticks(node, reader)
        for name, flow in (("router", router.run()), ("presence", fold.run()), ("ticks", self._ticks.run())):
            self._run(name, flow)
        await clean_channels(node, self._keyring, seen, await self._store.channels())
        self._make_rules()
        await self._start_rules()

    def _make_rules(self) -> Engine:
        node, settings = self.node, self._settings

        def stamp() -> Stamp:
            now = node.clock.wall()
            return Stamp(node.ids.next(now), now)

        engine = self._engine = Engine(
            Surroundings(
                log=node.log,
                store=self._store,
                connections={connection.name: connection for connection in settings.connections},
                backends={connection.name: self._connect(connection) for connection in settings.connections},
                instance=self._keyring.instance_id,
                limits=settings.limits,
                retention=settings.log,
                is_p2p=node.is_p2p,
                stamp=stamp,
                is_open=lambda: node.admitting and not node.draining and not node.pressure.withhold,
                wall=node.clock.wall,
                monotonic=node.monotonic,
                judge=self._judge,
                sent=node.trace.sent,
            )
        )
        node.undelivered = engine.undelivered.tell
        return engine

    async def _start_rules(self) -> None:
        assert self._engine is not None  # noqa: S101 - made before
        await self._engine.load()
        self._run("rules", self._engine.run())

    def _run(self, name: str, flow: Coroutine[None, None, None]) -> None:
        """Run a part for as long as the process lives; if it fails the process ends, since nothing may go on without it."""
        task = asyncio.get_running_loop().create_task(flow, name=name)
        task.add_done_callback(self._part_ended)
        self._tasks.append(task)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed.done():
            return
        error = task.exception() or RuntimeError("ended by itself")
        logger.critical("part-failed part=%s", task.get_name(), exc_info=error)
        self._failed.set_result(None)

    async def _listen(self) -> None:
        settings, node = self._settings, self.node
        if self._failed.done():
            raise StartError("a part of the gateway failed while it started: the line part-failed above says which")
        self._listeners = await start_listeners(
            self._specs,
            lambda spec: Connection(node, spec),
            settings.tls,
            settings.limits,
            occupied=lambda: len(node.connections),
            refused=lambda reason: node.counters.refused.update((reason,)),
            trusted=lambda: self._registers.certificates.trusted,
        )
        ticks, engine = self._ticks, self._engine
        assert ticks is not None and engine is not None  # noqa: S101 - listeners open after the recovery
        services = self._services = Services(node, self._keyring, engine, self._version, lambda: ticks.loop_lag)
        api = create_api(services, open_api_routes(node, services))
        self._http = serve(api, settings.http, settings.tls if settings.tls.http else None)
        http, scheme = await self._http.start(), "https" if settings.tls.http else "http"
        listening: dict[str, list[str]] = {"mqtt": [], "mqtts": [], "ws": [], "wss": [], scheme: [str(http)]}
        for spec in self._listeners.addresses:
            listening[spec.kind].append(spec.address)
        services.listeners = listening
        services.serving = node.admitting = True
        self._run("counts", self._count(services))
        now = node.clock.wall()
        await prepare_administrator(self._keyring, settings.data, now, alone=not self._many)
        write_rendezvous(
            settings.data,
            Rendezvous(
                os.getpid(),
                f"{scheme}://{http}",
                **{kind: tuple(listening[kind]) for kind in ("mqtt", "mqtts", "ws", "wss")},
                certificate=str(settings.tls.certificate.absolute()) if settings.tls.http and settings.tls.certificate else "",
            ),
        )
        first = await make_first_key(self._keyring, now)
        if first is not None:
            for line in first_start_lines(first, first_address(self._listeners.addresses), settings.data):
                print(line, file=sys.stderr)  # noqa: T201 - the one place where a key is shown
        warn_of(settings, node.weaknesses)
        words = [f"{kind}={','.join(addresses)}" for kind, addresses in listening.items() if addresses]
        words.sort(key=lambda word: ("mqtt=", "http=").index(word[:5]) if word[:5] in ("mqtt=", "http=") else 2)
        words += [f"roles={','.join(settings.node.roles)}"] * (set(settings.node.roles) != set(ROLES))
        words += ["durability=as-configured"] * bool(node.weaknesses)
        print("ready " + " ".join(words), flush=True)  # noqa: T201 - what starts us waits for this line

    async def _count(self, services: Services) -> None:
        while True:
            await services.refresh()
            self.node.broker_topics.publish()
            await asyncio.sleep(10)

    async def serve(self, stop: asyncio.Event) -> int:
        """Until ``stop`` is set or a part fails."""
        self._failed.add_done_callback(lambda _: stop.set())
        await stop.wait()
        return 1 if self._failed.done() else 0

    async def stop(self) -> None:
        """Drain: no new clients, a reason for those who can read one, everything accepted durable and acknowledged."""
        if self._ticks is not None and not (self._membership is not None and self._membership.lost):
            await self._drain(self._ticks)
        if self._engine is not None:
            await self._engine.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.stop()
        for part in self._opened:
            await part.close()
        remove_rendezvous(self._settings.data)
        if self._lock is not None:
            os.close(self._lock)

    async def _drain(self, ticks: Ticks) -> None:
        node = self.node
        if self._services is not None:
            self._services.serving = False
        if self._listeners is not None:
            self._listeners.stop_accepting()
        if self._many and self._membership is not None:
            await node.redirecting.leave(self._membership)
        node.draining = True
        deadline = node.monotonic() + DRAIN
        for connection in node.connections.all():
            if connection.session is not None:  # a CONNECT that comes now is answered
                connection.pause()
        while node.log.pressure().records and node.monotonic() < deadline:  # noqa: ASYNC110 - the log tells sinks, not us
            await asyncio.sleep(0.01)
        for connection in node.connections.all():
            connection.release_withheld()
            node.redirecting.part(connection)
        await asyncio.sleep(0.05)
        ticks.finish()
        self.node.trace.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.5, deadline - node.monotonic())):
                await node.persistence.barrier()
        if self._listeners is not None:
            await self._listeners.close()


async def _main(settings: Settings, lifeline: int | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def parent_ended() -> None:
        assert lifeline is not None  # noqa: S101 - it is what has become readable
        loop.remove_reader(lifeline)
        stop.set()

    if lifeline is not None:
        loop.add_reader(lifeline, parent_ended)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(settings)
    try:
        await app.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_INTERVAL)
        return await app.serve(stop)
    finally:
        await app.stop()


async def _rotate(settings: Settings) -> int:
    read_keys(settings.seal_file)  # a folder that is none of a gateway's stays as it is
    lock = lock_folder(settings.data)
    store = open_store(settings, asyncio.get_running_loop())
    try:
        return await rotate_seal(store, settings.seal_file)
    finally:
        await store.close()
        os.close(lock)


def rotate(settings: Settings) -> int:
    """Change the key that seals secrets, of a gateway that doesn't run; how many there are."""
    return asyncio.run(_rotate(settings))


def run(settings: Settings, lifeline: int | None = None) -> int:
    """Run a gateway until it is told to stop, or until the other end of the pipe ``lifeline`` is closed; its exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(settings, lifeline))
