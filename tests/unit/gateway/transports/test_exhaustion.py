"""No open files left: the process neither spins nor loses its connections, and serves again by itself. And how its limit follows the system's."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.transports.sockets import FILES_KEPT, connection_limit
from tests.support.certificates import Authority, Pair

ROOT = Path(__file__).resolve().parents[4]
MODULE = "tests.unit.gateway.transports.exhaustion"
MOST_CPU = 0.3
"""Share of one core that may go while clients knock in vain."""
RECOVERS_WITHIN = 5.0


class Server:
    def __init__(self, loop: str, kind: str, pair: Pair) -> None:
        command = [sys.executable, "-W", "error", "-m", MODULE, loop, kind, str(pair.certificate), str(pair.key)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def value(self, word: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(f"{word} "), (line, self.process.stderr.read() if self.process.stderr and not line else "")
        return line.split()[1]

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self) -> str:
        try:
            _, errors = self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
        return errors


@pytest.fixture
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Server]:
    server = Server(*request.param, authority.issue("server"))
    yield server
    server.end()


def echo(sock: socket.socket) -> bytes:
    sock.sendall(b"x")
    return sock.recv(1)


@pytest.mark.slow
@pytest.mark.parametrize("server", [("uvloop", "mqtt"), ("uvloop", "mqtts"), ("asyncio", "mqtt"), ("asyncio", "mqtts")], indirect=True, ids="-".join)
def test_no_open_files_left(server: Server, request: pytest.FixtureRequest, authority: Authority) -> None:
    port = int(server.value("port"))
    context = authority.client_context() if "mqtts" in request.node.name else None

    def dial() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), timeout=1)
        return context.wrap_socket(sock, server_hostname="localhost") if context is not None else sock

    with dial() as known, contextlib.ExitStack() as knocking:
        assert echo(known) == b"x"
        server.tell("exhaust")
        assert int(server.value("exhausted")) > 0
        for _ in range(30):
            knocking.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
        assert echo(known) == b"x"
        assert float(server.value("load")) <= MOST_CPU
        server.value("released")
        knocking.close()
        give_up = time.monotonic() + RECOVERS_WITHIN
        while True:
            try:
                with dial() as sock:
                    assert echo(sock) == b"x"
                break
            except (OSError, ssl.SSLError, AssertionError):
                assert time.monotonic() < give_up, "not served again"
                time.sleep(0.05)
        assert echo(known) == b"x"
    server.tell("")


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "limit", "raised"),
    [
        (100_000, 100_000, 500, 500, None),
        (1024, 1_000_000, 50_000, 50_000, 50_000 + FILES_KEPT),
        (1024, 4096, 50_000, 4096 - FILES_KEPT, 4096),
        (1024, resource.RLIM_INFINITY, 50_000, 50_000, 50_000 + FILES_KEPT),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 50_000, 50_000, None),
        (64, 64, 50_000, 32, None),
    ],
)
def test_limit_of_connections_leaves_files_to_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, hard: int, wanted: int, limit: int, raised: int | None
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert connection_limit(wanted) == limit
    assert set_to == ([] if raised is None else [(raised, hard)])
    assert bool(caplog.messages) == (limit < wanted)
