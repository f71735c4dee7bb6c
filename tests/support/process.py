"""A server under test as a child process: its output goes to files, it is ended by signal, and its end is bounded in time.

Knows nothing of MQTT. gateway.py and mosquitto.py say what to start and when it serves; conftest.py shows the tail of the
output when a test fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TAIL_BYTES = 8_000
POLL = 0.01

started: list[Process] = []
"""Processes of the running test, for the report of a failure. forget() empties it."""


class ServerDied(Exception):
    """The process ended, or never served. The message holds the tail of its standard error."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    lasting = False
    """Outlives the test that started it: forget() leaves it alone, and the terminal's Ctrl-C does too."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        self._child: subprocess.Popen[bytes] | None = None

    def spawn(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Output is appended: a restarted server keeps its story in one file."""
        if self.alive:
            raise AssertionError(f"{self.name} runs already")
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self._child = subprocess.Popen(
                command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=self.lasting
            )
        if not self.lasting:
            started.append(self)

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def until(self, ready: Callable[[], bool], within: float, what: str) -> None:
        """Blocks until ``ready`` answers true; raises ServerDied with the reason when it doesn't."""
        deadline = time.monotonic() + within
        while not ready():
            if not self.alive:
                raise ServerDied(f"{self.name} ended with {self.exit_code} before {what}\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerDied(f"{self.name}: no {what} within {within} s\n{self.tail()}")
            time.sleep(POLL)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, within: float) -> int:
        """The exit code. A process that does not end in time is killed, and that is an error."""
        assert self._child is not None
        try:
            return self._child.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerDied(f"{self.name} did not end within {within} s\n{self.tail()}") from None

    def terminate(self, within: float = 10.0) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        if self.alive:
            self.signal(signal.SIGKILL)
            assert self._child is not None
            self._child.wait(10)

    def tail(self) -> str:
        return "\n".join(f"--- {path.name}\n{_tail(path)}" for path in (self.out, self.err) if path.exists())


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")


def forget() -> None:
    """Kills what a test left running and empties the list."""
    for process in started:
        process.kill()
    started.clear()
