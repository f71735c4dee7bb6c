"""A TCP proxy that makes a network bad: delay, narrow links, tiny slices, resets, silence, early ends; each direction on its own.

A toxic is a small value; ``start`` gives its state for one direction of one connection, a pure step from one parcel to
those that leave in its place. Times are those of the loop's clock. Toxics may be put in and taken out while connections
live. Knows nothing of MQTT.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self

READ_BYTES = 65_536
QUEUE_BYTES = 262_144
"""Bytes on their way in one direction; past it the proxy stops reading and the sender feels it."""

End = Literal["", "eof", "close", "reset"]
Direction = Literal["up", "down"]
"""up: from the client to the server. down: the answers."""


class Parcel(NamedTuple):
    """``data`` leaves at ``due``, and then, where ``end`` says so: half-close, orderly close of both sides, or RST to both."""

    due: float
    data: bytes
    end: End = ""


Step = Callable[[Parcel], Iterator[Parcel]]


class Toxic(Protocol):
    def start(self) -> Step: ...


@dataclass(frozen=True)
class Latency:
    """Every parcel comes ``seconds`` ± ``jitter`` later, in order."""

    seconds: float
    jitter: float = 0.0
    seed: int = 0

    def start(self) -> Step:
        dice = random.Random(self.seed)
        last = 0.0

        def step(parcel: Parcel) -> Iterator[Parcel]:
            nonlocal last
            last = max(last, parcel.due + self.seconds + dice.uniform(-self.jitter, self.jitter))
            yield parcel._replace(due=last)

        return step


@dataclass(frozen=True)
class Bandwidth:
    """So many bytes a second, in pieces of at most a twentieth of that."""

    bytes_per_second: float

    def start(self) -> Step:
        free_at = 0.0
        piece = max(int(self.bytes_per_second / 20), 1)

        def step(parcel: Parcel) -> Iterator[Parcel]:
            nonlocal free_at
            for data, end in _cut(parcel, piece):
                free_at = max(free_at, parcel.due) + len(data) / self.bytes_per_second
                yield Parcel(free_at, data, end)

        return step


@dataclass(frozen=True)
class Slices:
    """Writes of ``size`` bytes, ``gap`` seconds apart."""

    size: int = 1
    gap: float = 0.0

    def start(self) -> Step:
        free_at = 0.0

        def step(parcel: Parcel) -> Iterator[Parcel]:
            nonlocal free_at
            for data, end in _cut(parcel, self.size):
                free_at = max(free_at + self.gap, parcel.due)
                yield Parcel(free_at, data, end)

        return step


@dataclass(frozen=True)
class ResetAfter:
    """RST to both sides behind ``count`` bytes, in the middle of whatever that is."""

    count: int

    def start(self) -> Step:
        return _ending(self.count, "reset")


@dataclass(frozen=True)
class CloseAfter:
    """An orderly close of both sides behind ``count`` bytes."""

    count: int

    def start(self) -> Step:
        return _ending(self.count, "close")


@dataclass(frozen=True)
class BlackHole:
    """Behind ``count`` bytes nothing arrives, not even an end: what a peer leaves that loses its power or its network."""

    count: int = 0

    def start(self) -> Step:
        left = self.count

        def step(parcel: Parcel) -> Iterator[Parcel]:
            nonlocal left
            data, left = parcel.data[:left], max(left - len(parcel.data), 0)
            if data:
                yield Parcel(parcel.due, data)

        return step


@dataclass(frozen=True)
class CutAnswers:
    """For ``down``: requests arrive and are served, the first answer becomes an RST. The asker doesn't know what was done."""

    def start(self) -> Step:
        return _ending(0, "reset")


def _cut(parcel: Parcel, size: int) -> Iterator[tuple[bytes, End]]:
    """Pieces of the parcel's bytes; the last one has its end."""
    data = parcel.data
    last = max(len(data) - 1, 0) // size * size
    for start in range(0, last + 1, size):
        yield data[start : start + size], parcel.end if start == last else ""


def _ending(count: int, end: End) -> Step:
    left = count

    def step(parcel: Parcel) -> Iterator[Parcel]:
        nonlocal left
        if not parcel.data or len(parcel.data) < left or left < 0:
            left -= len(parcel.data) if left >= 0 else 0
            if left >= 0:
                yield parcel
            return
        data, left = parcel.data[:left], -1
        yield Parcel(parcel.due, data, end)

    return step


class ChaosProxy:
    """``async with ChaosProxy(host, port) as proxy``; clients go to ``proxy.host`` (``on``), ``proxy.port``: any free one, or ``at``."""

    def __init__(self, host: str, port: int, *, at: int = 0, on: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._at = at
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.toxics: dict[Direction, tuple[Toxic, ...]] = {"up": (), "down": ()}
        self.host = on
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self._at)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._links)

    def add(self, toxic: Toxic, direction: Direction) -> None:
        """From the next bytes on, for connections that are there and those to come."""
        self.toxics[direction] += (toxic,)

    def remove(self, toxic: Toxic, direction: Direction) -> None:
        self.toxics[direction] = tuple(other for other in self.toxics[direction] if other is not toxic)

    def cut_all(self) -> None:
        """RST to both sides of every connection."""
        for link in tuple(self._links):
            link.end("reset")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, far_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pipes:
                pipes.create_task(_Pipe(self, "up", link, reader, far_writer).run())
                pipes.create_task(_Pipe(self, "down", link, far_reader, writer).run())
        finally:
            link.end("close")
            self._links.discard(link)


class _Link:
    """Both sides of one proxied connection."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._sides = (near, far)
        self.ended = asyncio.Event()

    def end(self, how: End) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        for side in self._sides:
            if how == "reset":
                _reset(side)
            else:
                side.close()


class _Pipe:
    """One direction: a task that reads and applies the toxics, and one that writes what is due."""

    def __init__(self, proxy: ChaosProxy, direction: Direction, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._direction: Direction = direction
        self._link = link
        self._reader = reader
        self._writer = writer
        self._steps: list[tuple[Toxic, Step]] = []
        self._queue: deque[Parcel] = deque()
        self._queued = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until this direction has ended or the link is cut."""
        both = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]
        cut = asyncio.ensure_future(self._link.ended.wait())
        try:
            await asyncio.wait([both[1], cut], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*both, cut):
                task.cancel()
            await asyncio.gather(*both, cut, return_exceptions=True)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
            except ConnectionError:
                self._take(Parcel(loop.time(), b"", "reset"))
                return
            self._take(Parcel(loop.time(), data, "" if data else "eof"))
            if not data:
                return
            while self._queued > QUEUE_BYTES:
                self._changed.clear()
                await self._changed.wait()

    def _take(self, parcel: Parcel) -> None:
        parcels = [parcel]
        for step in self._current_steps():
            parcels = [after for before in parcels for after in step(before)]
        self._queue.extend(parcels)
        self._queued += sum(len(parcel.data) for parcel in parcels)
        self._changed.set()

    def _current_steps(self) -> list[Step]:
        """Toxics that stay keep their state."""
        known = {id(toxic): step for toxic, step in self._steps}
        self._steps = [(toxic, known.get(id(toxic)) or toxic.start()) for toxic in self._proxy.toxics[self._direction]]
        return [step for _, step in self._steps]

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._queue:
                self._changed.clear()
                await self._changed.wait()
            parcel = self._queue.popleft()
            if (wait := parcel.due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if parcel.data:
                self._writer.write(parcel.data)
                try:
                    await self._writer.drain()
                except ConnectionError:
                    self._link.end("reset")
                    return
            self._queued -= len(parcel.data)
            self._changed.set()
            if parcel.end == "eof" and not self._writer.is_closing():
                self._writer.write_eof()
                return
            if parcel.end:
                self._link.end(parcel.end)
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what is under way in the kernel is dropped on both ends."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
