"""Several gateways in one process over one log and one store in memory, on a loop whose time stands still: App's own wiring for one of many.

``kill`` is kill -9 of one: what it had not made durable is gone, its clients hear nothing, and its lease has run out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from gateway.app import App
from gateway.auth.keys import open_keyring
from gateway.auth.registers import open_registers
from gateway.cluster.roles import say
from gateway.membership import Membership
from gateway.node import Node
from gateway.registry import Connections
from gateway.services import Services
from gateway.token_watch import TokenWatch
from gateway.trace import Trace
from gateway.transports.listeners import ListenerSpec
from schemas.errors import LogError, StoreError
from schemas.limits import Limits
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Kind, Record
from schemas.settings import NodeSettings, OfflineSettings, Settings
from streams.log import Batch, Reader, Sink, Start
from streams.memory.log import MemoryLog
from streams.memory.store import MemoryStore, _Outcome
from streams.memory.traces import MemoryTraces
from tests.support.party import Party
from tests.support.still_loop import StillLoop
from tests.support.testbed import BedClock, _at_once

CONNACKS = 500
"""Times 10 ms that a client waits for its CONNACK."""


class Link:
    """A node's way to what it shares with others. ``late``: what it appends while that is a list reaches the log when it is let through;
    ``behind``: what others say gets here no more."""

    cut = behind = False
    late: list[Callable[[], None]] | None = None

    def let_through(self) -> None:
        late, self.late = self.late or [], None
        for append in late:
            append()


class LinkedSink:
    def __init__(self, link: Link, sink: Sink) -> None:
        self._link, self._sink = link, sink

    def appended(self, records: Sequence[Record], first: At) -> None:
        if not self._link.cut:
            self._sink.appended(records, first)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        if not self._link.cut:
            self._sink.refused(records, error)


class LinkedLog:
    def __init__(self, link: Link, log: MemoryLog) -> None:
        self._link, self._log = link, log

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        if self._link.cut:
            return
        append = partial(self._log.append, topic, key, record, LinkedSink(self._link, sink))
        if self._link.late is None:
            append()
        else:
            self._link.late.append(append)

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        reader = self._log.open(topic, start, shards)
        return cast("Reader", LinkedReader(self._link, reader)) if shards is None else reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class LinkedReader:
    def __init__(self, link: Link, reader: Reader) -> None:
        self._link, self._reader = link, reader

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        batch = await self._reader.next(max_records, max_bytes)
        while self._link.behind:
            await asyncio.sleep(0.01)
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class Linked:
    """A store, or its half for many nodes, that fails when the link is cut."""

    def __init__(self, link: Link, real: Any) -> None:
        self._link, self._real = link, real

    @property
    def cluster(self) -> Any:
        return Linked(self._link, self._real.cluster)

    def __getattr__(self, name: str) -> Any:
        if self._link.cut:
            return lambda *_, **__: _Outcome(StoreError("the link is cut"))
        return getattr(self._real, name)


class One:
    """One of the gateways; a bed for ``Party``."""

    def __init__(self, bed: ManyBed, name: str, own: dict[str, Any]) -> None:
        self.bed, self.name, self.own = bed, name, own
        self.loop = bed.loop
        self.link = Link()
        self.parties: list[Party] = []
        self.traces = MemoryTraces()
        self.app: App
        self.node: Node

    async def start(self) -> None:
        bed = self.bed
        settings = Settings(
            data=bed.folder, anonymous=True, limits=bed.limits, node=NodeSettings(id=self.name, many=True, **self.own), **bed.settings
        )
        app = self.app = App(settings)
        store = Linked(self.link, bed.store)
        app._store, app._log = store, LinkedLog(self.link, bed.log)  # type: ignore[assignment]
        app._judge, app._traces = _at_once, self.traces
        epoch = await store.next_epoch()
        app._keyring = await open_keyring(store, settings.seal_file, "bed")  # type: ignore[arg-type]
        app._registers = await open_registers(store, app._keyring, settings)  # type: ignore[arg-type]
        membership = app._membership = Membership(
            store.cluster, self.name, epoch, f"folder-{self.name}", alone=False, says=say(settings.node), clock=self.loop.time
        )
        await membership.join()
        membership._held_since -= 60.0  # the store has been there for long
        app._many = True
        app._opened = [membership]
        app._run("lease", membership.run())
        app._build(epoch, self.loop)
        node = self.node = app.node
        node.clock = BedClock(self.loop)
        node.monotonic = self.loop.time
        node.tick = self.loop.time()
        node.connections = Connections(node)
        node.token_watch = TokenWatch(node)
        node.trace = Trace(self.traces, node.clock, node.monotonic, settings.limits, settings.trace.sample, node.counters)
        await app._recover()
        node.admitting = True

    def services(self) -> Services:
        """What HTTP would ask."""
        app = self.app
        assert app._keyring is not None
        assert app._engine is not None
        return Services(self.node, app._keyring, app._engine, "0", lambda: 0.0)

    def settle(self) -> None:
        self.bed.settle()

    def dial(self, version: int = 5, *, auto_ack: bool = True) -> Party:
        party = Party(self, version, auto_ack=auto_ack, host="127.0.0.1")  # type: ignore[arg-type]
        self.parties.append(party)
        party.dial(self.node, ListenerSpec("mqtt", "127.0.0.1", 1883))
        return party

    def connect(self, client: str, version: int = 5, *, auto_ack: bool = True, **fields: Any) -> Party:
        """Connected: the CONNACK is in ``connack``. What the fleet needs time for, such as a client's way here, is given that."""
        party = self.dial(version, auto_ack=auto_ack)
        party.connect(client, **fields)
        for _ in range(CONNACKS):
            if party.connack is None:
                self.bed.advance(0.01)
                party.look_for_connack()
        assert party.connack is not None, party.closed
        assert party.connack.reason_code == 0, party.connack
        return party

    @property
    def leads(self) -> bool:
        return self.app._membership is not None and "presence" in self.app._membership._leases


class ManyBed:
    def __init__(self, folder: Path, *, shards: int = 3, pace: str = "acknowledged", limits: Limits | None = None, **settings: Any) -> None:
        self.folder = folder
        self.loop = StillLoop()
        self.limits = limits or Limits()
        self.settings = {"offline": OfflineSettings(pace=pace), **settings}  # type: ignore[arg-type]
        self.store = MemoryStore(lambda: int(self.loop.time() * 1000))  # leases run by the bed's time, however long it takes to run
        self.log = MemoryLog(self.loop, shards=shards)
        self.living: dict[str, One] = {}

    def start(self, name: str, **own: Any) -> One:
        """``own``: fields of NodeSettings."""
        one = One(self, name, own)
        self.loop.finish(one.start())
        self.living[name] = one
        return one

    def settle(self) -> None:
        self.advance(0.0)

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)
        for one in self.living.values():
            assert not one.app._failed.done(), f"a part of gateway {one.name} failed"

    def sever(self, one: One) -> None:
        """The process is gone; nobody has noticed."""
        one.link.cut = True
        del self.living[one.name]
        for party in one.parties:
            party.vanish()
        for task in one.app._tasks:
            task.cancel()
        one.node.flusher.may_send = lambda: False

    def cut_off(self, one: One) -> None:
        """It hears nothing and says nothing, and its lease has long to run."""
        one.link.cut = True
        self.store._state.cluster.nodes[one.node.epoch].until = 1 << 60

    def kill(self, one: One) -> None:
        """Gone, and its lease has run out."""
        self.sever(one)
        self.store._state.cluster.nodes[one.node.epoch].until = 0

    def close(self) -> None:
        for one in list(self.living.values()):
            self.sever(one)
        self.store.failing = True
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.advance()
        self.loop.close()

    # What is stored

    def published(self) -> list[Record]:
        return [record for shard in self.log.shards[PUBLISH_TOPIC] for frame in shard.frames for record in frame.records]

    def _events(self) -> list[Record]:
        return [record for shard in self.log.shards[PRESENCE_TOPIC] for frame in shard.frames for record in frame.records]

    def events(self, client: str) -> list[Kind]:
        """Of a client, in the order of the log."""
        return [Kind(record.kind) for record in self._events() if record.client == client]

    def all_events(self) -> Counter[tuple[str, Kind]]:
        """How many, by client and kind."""
        return Counter((record.client, Kind(record.kind)) for record in self._events())
