"""Stand-ins for tests of transports: a transport that records, a connection that records, and listeners that make such connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from gateway.transports.listeners import Listeners, ListenerSpec, start_listeners
from gateway.transports.peer import PeerInfo, describe
from schemas.limits import Limits
from schemas.settings import TlsSettings

WITHIN = 5.0


class FakeTransport(asyncio.Transport):
    """Records what a protocol does to it. ``ended`` is set by close and abort; the test tells the protocol of its loss itself."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.writes: list[bytes] = []
        self.closed = False
        self.aborted = False
        self.reading = True
        self.limits: tuple[int | None, int | None] = (None, None)
        self.ended = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after close"
        self.writes.append(bytes(data))
        self.sent += data

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def abort(self) -> None:
        self.closed = self.aborted = True
        self.ended.set()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return 321

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.7", 4321)}.get(name, default)


class Recorder:
    """A connection that keeps what it is told. ``on_data`` may act like a real one."""

    def __init__(self, spec: ListenerSpec | None = None) -> None:
        self.spec = spec
        self.transport: asyncio.Transport | None = None
        self.peer: PeerInfo | None = None
        self.received: list[bytes] = []
        self.calls: list[str] = []
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()
        self.on_data: Callable[[bytes], None] = lambda data: None

    @property
    def stream(self) -> bytes:
        return b"".join(self.received)

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        if self.spec is not None:
            self.peer = describe(transport, self.spec)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data, "an empty read"
        self.received.append(data)
        self.changed.set()
        self.on_data(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.calls.append("pause_writing")

    def resume_writing(self) -> None:
        self.calls.append("resume_writing")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)
        self.changed.set()

    async def has_received(self, stream: bytes) -> None:
        async with asyncio.timeout(WITHIN):
            while self.stream != stream:
                self.changed.clear()
                await self.changed.wait()

    async def is_lost(self) -> None:
        async with asyncio.timeout(WITHIN):
            while not self.lost:
                self.changed.clear()
                await self.changed.wait()


class Harbour:
    """Listeners whose connections are echoing Recorders, in the order of their accepts."""

    def __init__(self) -> None:
        self.connections: list[Recorder] = []
        self.refused: Counter[str] = Counter()
        self._arrived = asyncio.Condition()
        self._opened: list[Listeners] = []

    async def open(
        self, *specs: ListenerSpec, tls: TlsSettings | None = None, limits: Limits | None = None, trusted: Callable[[], str] = str
    ) -> Listeners:
        occupied = lambda: len(self.live)  # noqa: E731
        listeners = await start_listeners(specs, self._make, tls, limits or Limits(), occupied=occupied, refused=self._count, trusted=trusted)
        self._opened.append(listeners)
        return listeners

    @property
    def live(self) -> list[Recorder]:
        return [connection for connection in self.connections if connection.transport is not None and not connection.lost]

    def _make(self, spec: ListenerSpec) -> Recorder:
        connection = Recorder(spec)
        connection.on_data = lambda data: connection.transport.write(data) if connection.transport is not None else None
        self.connections.append(connection)
        return connection

    def _count(self, reason: str) -> None:
        self.refused[reason] += 1

    async def has_refused(self, reason: str, times: int = 1) -> None:
        await until(lambda: self.refused[reason] >= times)

    async def close(self) -> None:
        for listeners in self._opened:
            await listeners.close()
        for connection in self.live:
            assert connection.transport is not None
            connection.transport.abort()
        await until(lambda: not self.live)


async def until(condition: Callable[[], bool]) -> None:
    """For what happens at the other end of a socket, with nothing here to wait on."""
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.001)
