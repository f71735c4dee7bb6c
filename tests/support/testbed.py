"""A whole gateway in one object without sockets: App's own wiring over a log and a store in memory, on a loop whose time stands still.

``settle`` does all that is ready, ``advance`` lets time pass, ``crash`` drops everything that is not durable and recovers
as a start does. Clients are in tests/support/party.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.app import App
from gateway.auth.keys import KeyRing, open_keyring
from gateway.auth.registers import open_registers
from gateway.clock import Clock
from gateway.node import Node
from gateway.registry import Connections
from gateway.rules.management import RuleManagement
from gateway.session import Session
from gateway.token_watch import TokenWatch
from gateway.trace import Trace
from gateway.transports.listeners import ListenerSpec
from schemas.limits import Limits
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record
from schemas.settings import OfflineSettings, Settings
from streams.log import Sink
from streams.mapping.conditions import Verdict
from streams.memory.log import Fate, MemoryLog
from streams.memory.store import MemoryStore
from streams.memory.traces import MemoryTraces
from tests.support.noting_backend import NotingBackend
from tests.support.party import Party
from tests.support.still_loop import StillLoop

NOON = 1_700_000_000_000
"""The wall clock, in ms, when the loop's time is 1,000 s."""


class BedClock(Clock):
    """Goes with the loop; ``ahead`` sets it wrong, in ms."""

    def __init__(self, loop: StillLoop) -> None:
        super().__init__()
        self._loop = loop
        self.ahead = 0

    def raw(self) -> int:
        return NOON + self.ahead + int((self._loop.time() - 1_000) * 1_000)

    def wall(self) -> int:
        self.last = max(self.last, self.raw())
        return self.last


class BedLog(MemoryLog):
    """The log, with a hand on it: ``held`` nothing becomes durable, ``refusing`` groups are refused, ``cut`` the process is dead."""

    held = refusing = cut = False

    def __init__(self, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(loop, adversary=self, **options)
        self._parked: list[tuple[str, int]] = []
        self.appended: list[str] = []
        """Keys of presence events, in the order in which they came."""

    def fate(self, topic: str, shard: int, waiting: int) -> Fate:
        return Fate(refused=self.refusing)

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        if topic == PRESENCE_TOPIC:
            self.appended.append(key)
        if not self.cut:
            super().append(topic, key, record, sink)

    def _work(self, topic: str, number: int) -> None:
        if self.held and not self.cut:
            self._parked.append((topic, number))
        elif not self.cut:
            super()._work(topic, number)

    def _tell(self, sink: Sink, records: list[Record], shard: int, offset: int, index: int) -> None:
        if not self.cut:
            super()._tell(sink, records, shard, offset, index)

    def release_held(self) -> None:
        self.held = False
        parked, self._parked = self._parked, []
        for topic, number in parked:
            super()._work(topic, number)

    def die(self) -> None:
        """What was not durable is gone."""
        self.cut = True
        for shards in self.shards.values():
            for shard in shards:
                shard.waiting.clear()
                shard.busy = False


async def _at_once(work: Callable[[], list[Verdict]]) -> list[Verdict]:
    """No thread: this loop's time stands still."""
    return work()


class Testbed:
    __test__ = False

    def __init__(self, tmp_path: Path, *, limits: Limits | None = None, pace: str = "acknowledged", shards: int = 1, **settings: Any) -> None:
        self.loop = StillLoop()
        self.settings = Settings(
            data=tmp_path,
            anonymous=True,
            limits=limits or Limits(),
            offline=OfflineSettings(pace=pace),  # type: ignore[arg-type]
            **settings,
        )
        self.store = MemoryStore()
        self.traces = MemoryTraces()
        self.log = BedLog(self.loop, shards=shards)
        self.backends = {connection.name: NotingBackend() for connection in self.settings.connections}
        self.parties: list[Party] = []
        self.app: App
        self.node: Node
        self.keyring: KeyRing
        self.loop.finish(self._start())

    async def _start(self) -> None:
        app = self.app = App(self.settings)
        app._store, app._log = self.store, self.log  # type: ignore[assignment]
        app._traces = self.traces if self.settings.trace.enabled else None
        app._connect = lambda connection: self.backends[connection.name]  # type: ignore[assignment, return-value]
        app._judge = _at_once
        epoch = await self.store.next_epoch()
        self.keyring = app._keyring = await open_keyring(self.store, self.settings.seal_file, "bed")
        app._registers = await open_registers(self.store, self.keyring, self.settings)
        app._build(epoch, self.loop)
        node = self.node = app.node
        node.clock = BedClock(self.loop)
        node.monotonic = self.loop.time
        node.tick = self.loop.time()
        node.connections = Connections(node)
        node.token_watch = TokenWatch(node)
        node.trace = Trace(app._traces, node.clock, node.monotonic, self.settings.limits, self.settings.trace.sample, node.counters)
        await app._recover()
        node.admitting = True
        assert app._engine is not None
        self.engine = app._engine
        self.rules = RuleManagement(app._engine)

    @property
    def clock(self) -> BedClock:
        assert isinstance(self.node.clock, BedClock)
        return self.node.clock

    def settle(self) -> None:
        """All that is ready happens; no time passes."""
        self.loop.advance()
        assert not self.app._failed.done(), "a part of the gateway failed"

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)
        assert not self.app._failed.done(), "a part of the gateway failed"

    def dial(self, version: int = 5, *, auto_ack: bool = True, host: str = "127.0.0.1", certificate: bytes | None = None) -> Party:
        """A connection on which nothing was said yet; with a client certificate it is over TLS."""
        party = Party(self, version, auto_ack=auto_ack, host=host, certificate=certificate)
        self.parties.append(party)
        party.dial(self.node, ListenerSpec("mqtts" if certificate else "mqtt", "127.0.0.1", 1883))
        return party

    def connect(self, client: str, version: int = 5, *, auto_ack: bool = True, certificate: bytes | None = None, **fields: Any) -> Party:
        """Connected: the CONNACK is in ``connack``."""
        party = self.dial(version, auto_ack=auto_ack, certificate=certificate)
        party.connect(client, **fields)
        assert party.connack is not None, party.closed
        assert party.connack.reason_code == 0, party.connack
        return party

    def session(self, client: str) -> Session | None:
        return self.node.registry.get(client)

    def _end(self) -> None:
        self.log.die()
        state = self.store._state
        self.store.failing = True
        for party in self.parties:
            party.vanish()
        self.parties.clear()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.advance()
        self.store = MemoryStore()
        self.store._state = state

    def crash(self, *, downtime: float = 0.0) -> None:
        """kill -9, and a start over what was durable."""
        self._end()
        self.loop.advance(downtime)
        self.log = BedLog(self.loop, shards=self.log.shards, epoch=self.log._epoch + 1)
        self.loop.finish(self._start())

    def close(self) -> None:
        self._end()
        self.loop.close()

    # What is stored

    def published(self) -> list[Record]:
        """All records of ``publish``, durable ones alone, shard by shard."""
        return [record for shard in self.log.shards[PUBLISH_TOPIC] for frame in shard.frames for record in frame.records]

    def events(self) -> list[Record]:
        return [record for shard in self.log.shards[PRESENCE_TOPIC] for frame in shard.frames for record in frame.records]

    def stored(self, client: str) -> list[bytes]:
        """Payloads that lie in the session's box, in order."""
        session = self.store._state.session_of(client)
        return [] if session is None else [entry.record.payload for _, entry in sorted(self.store._state.boxes[session.id].entries.items())]

    def in_mailbox(self, client: str) -> list[bytes]:
        number = self.store._state.mailboxes.get(client, 0)
        box = self.store._state.boxes.get(number)
        return [] if box is None else [entry.record.payload for _, entry in sorted(box.entries.items())]
