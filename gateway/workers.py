"""The supervisor of `run --workers N`: keeps N processes, each one of many nodes, which share the MQTT ports.

It holds the ports for as long as it lives without listening on them, says that all serve, passes signals on, and starts again who
died. It speaks no MQTT and touches neither log nor store. worker.py is what it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from gateway.folder import WORKER_FOLDER, prepare_folder
from gateway.opening import hold_folder
from gateway.transports.endpoints import ListenerSpec, listener_specs
from gateway.transports.sockets import bind
from gateway.worker import hand_over
from schemas.errors import StartError
from schemas.settings import Address, KeySettings, ProxySettings, Settings

STOP_WITHIN: Final = 10.0
"""Seconds that workers get to drain; who is still there then is killed."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds until a worker that died is started again: twice as long each time, up to this."""
STOPPED: Final = (0, -signal.SIGTERM, 130)
"""Exit codes of a worker that was told to stop: it drained, or had not begun to serve."""
STEADY: Final = 60.0
"""Seconds after which a worker that serves has made good for earlier deaths."""
ROOT: Final = Path(__file__).resolve().parents[1]
MAX_LINE: Final = 64 * 1024
"""Bytes of a line that a worker prints: the ready line names each of its listeners."""

logger = logging.getLogger(__name__)


def worker_settings(settings: Settings, number: int) -> Settings:
    """Of the worker of this number, the first being 1: what is its own. ``settings`` name no MQTT port 0 any more."""
    http = settings.http
    return msgspec.structs.replace(
        settings,
        data=settings.data / f"{WORKER_FOLDER}{number}",
        http=Address(http.host, http.port + number - 1 if http.port else 0),
        keys=KeySettings(seal_file=settings.seal_file),
        node=msgspec.structs.replace(settings.node, id=f"{settings.node.id}-{number}"),
    )


async def hold_ports(settings: Settings) -> tuple[Settings, list[socket.socket]]:
    """The settings with ports in the place of 0, and all the MQTT ports bound: the system gives them to nobody who asks for a free one.

    A bound socket that doesn't listen gets no connection. StartError where somebody listens already.
    """
    held: list[socket.socket] = []
    addresses: dict[str, list[Address]] = {"mqtt": [], "mqtts": [], "ws": [], "wss": []}
    proxies: list[ProxySettings] = []
    try:
        for spec in listener_specs(settings):
            port = await _free(spec)
            held += await bind(msgspec.structs.replace(spec, port=port))
            addresses[spec.kind].append(Address(spec.host, port))
            if spec.proxies:
                proxies.append(ProxySettings(listener=Address(spec.host, port), networks=spec.proxies))
    except BaseException:
        _close(held)
        raise
    return msgspec.structs.replace(settings, proxy=tuple(proxies), **{kind: tuple(found) for kind, found in addresses.items()}), held


async def _free(spec: ListenerSpec) -> int:
    """A listener's port, or a free one, that nobody listens on: bound as if it were not to be shared."""
    sockets = await bind(msgspec.structs.replace(spec, shared=False))
    port: int = sockets[0].getsockname()[1]
    _close(sockets)
    return port


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


class Worker:
    """One process after another under one number."""

    def __init__(self, settings: Settings, number: int) -> None:
        self.number = number
        self._settings = worker_settings(settings, number)
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline: IO[bytes] | None = None
        self._stopping = False
        self.ready: dict[str, str] = {}
        """Of the last ready line: what listens where, and the like."""

    async def start(self) -> int | None:
        """Start a process; the exit code where it ends before it serves."""
        read, write = os.pipe()
        lifeline = self._lifeline = os.fdopen(write, "wb")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            # -P: no module of the current folder is taken for one of ours
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gateway.worker"),
                stdin=read,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                limit=MAX_LINE,
            )
        finally:
            os.close(read)
        if self._stopping:
            self.signal(signal.SIGTERM)
        with contextlib.suppress(BrokenPipeError):
            hand_over(self._settings, lifeline)
        out = self._process.stdout
        assert out is not None  # noqa: S101 - it is a pipe
        while line := await out.readline():
            words = line.decode(errors="replace").split()
            if words[:1] == ["ready"]:
                self.ready = dict(word.split("=", 1) for word in words[1:])
                self._keep_http_port()
                return None
        return await self.ended()

    def _keep_http_port(self) -> None:
        """What port 0 became stays, whichever process has it."""
        http = self._settings.http
        port = int((self.ready.get("http") or self.ready["https"]).rpartition(":")[2])
        self._settings = msgspec.structs.replace(self._settings, http=Address(http.host, port))

    async def ended(self) -> int:
        """Wait for the process; its exit code, 0 where none was started."""
        code = 0 if self._process is None else await self._process.wait()
        if self._lifeline is not None:
            with contextlib.suppress(BrokenPipeError):
                self._lifeline.close()
            self._lifeline = None
        return code

    def stop(self) -> None:
        """Drain, now or as soon as it can."""
        self._stopping = True
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._workers = [Worker(settings, number) for number in range(1, settings.node.workers + 1)]
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Drain all."""
        self._stop.set()
        for worker in self._workers:
            worker.stop()

    async def run(self) -> int:
        """Until ``stop``; the exit code: that of a worker that can't start, 1 where one didn't drain, else 0."""
        starting, stopped = asyncio.ensure_future(self._start()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return await self._drained(self._ended_after(starting))
        failed = [code for code in starting.result() if code is not None]
        if failed:
            self.stop()
            await stopped
            await self._drained(self._ended_after(starting))
            return failed[0] if failed[0] > 0 else 1
        print(ready_line([worker.ready for worker in self._workers]), flush=True)  # noqa: T201 - what starts us waits for this line
        keeping = asyncio.gather(*(self._keep(worker) for worker in self._workers))
        await stopped
        return await self._drained(keeping)

    async def _start(self) -> list[int | None]:
        """Exit codes of those that don't serve. The first starts alone: it makes what all share, such as keys, tables and topics."""
        first, *rest = self._workers
        code = await first.start()
        if code is not None or self._stop.is_set():
            return [code]
        return [code, *await asyncio.gather(*(worker.start() for worker in rest))]

    async def _ended_after(self, starting: Awaitable[object]) -> Sequence[int]:
        await starting
        return await asyncio.gather(*(worker.ended() for worker in self._workers))

    async def _keep(self, worker: Worker) -> int:
        """Start it again whenever it dies; the exit code of its last process."""
        loop, pause, code = asyncio.get_running_loop(), FIRST_PAUSE, None
        while True:
            if code is None:
                since = loop.time()
                code = await worker.ended()
                pause = FIRST_PAUSE if loop.time() - since >= STEADY else pause
            if not self._stop.is_set():
                logger.error("worker-died worker=%d code=%d again_in=%.1fs", worker.number, code, pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stop.wait()
            if self._stop.is_set():
                return code
            pause = min(2 * pause, LONGEST_PAUSE)
            code = await worker.start()
            if code is None:
                logger.warning("worker-serves-again worker=%d", worker.number)

    async def _drained(self, endings: Awaitable[Sequence[int]]) -> int:
        """Wait for all that were told to stop, and kill those who take too long; 1 where one of them did, or failed."""
        ending = asyncio.ensure_future(endings)
        _, late = await asyncio.wait({ending}, timeout=STOP_WITHIN)
        if late:
            logger.error("workers-killed: they did not drain within %g s", STOP_WITHIN)
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
        return int(any(code not in STOPPED for code in await ending))


def ready_line(said: Sequence[Mapping[str, str]]) -> str:
    """Of all workers: what they share once, what each has for itself in their order."""
    words = ["ready"]
    for name in said[0]:
        values = [each.get(name, "") for each in said]
        words.append(f"{name}={values[0] if len(set(values)) == 1 else ','.join(values)}")
    return " ".join([*words, f"workers={len(said)}"])


async def _main(settings: Settings) -> int:
    settings, held = await hold_ports(settings)
    try:
        supervisor = Supervisor(settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        return await supervisor.run()
    finally:
        _close(held)


def supervise(settings: Settings) -> int:
    """Run the workers of a gateway until it is told to stop; the exit code."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartError("node.workers: on this system processes can't share a port; set workers = 1 and start several nodes")
    prepare_folder(settings.data)
    lock = hold_folder(settings.data)
    try:
        return asyncio.run(_main(settings))
    finally:
        os.close(lock)
