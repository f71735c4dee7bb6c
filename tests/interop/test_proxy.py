"""A gateway behind a proxy that sends PROXY headers: the client's own address is the one that is shown, logged and judged by."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.auth.login import sign
from tests.support.gateway import Gateway

pytestmark = pytest.mark.slow

CONFIG = '[[proxy]]\nlistener = "127.0.0.1:0"\nnetworks = ["127.0.0.0/8"]\n'
HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 1883\r\n"


@contextlib.contextmanager
def connected(gateway: Gateway, header: bytes, client: bytes, user: bytes = b"", password: bytes = b"") -> Iterator[socket.socket]:
    body = b"\x00\x04MQTT\x04" + (b"\xc2" if user else b"\x02") + b"\x00\x3c"
    for text in (client, user, password) if user else (client,):
        body += len(text).to_bytes(2, "big") + text
    with socket.create_connection(gateway.mqtt, 5) as stream:
        stream.sendall(header + b"\x10" + bytes((len(body),)) + body)
        yield stream


def status(gateway: Gateway, client: str, within: float = 10.0) -> dict[str, Any]:
    """Once the client is shown as online, which comes a moment behind its CONNACK; until then it is one that was never seen."""
    shown: dict[str, Any] = {}

    def online() -> bool:
        with contextlib.suppress(AssertionError):
            shown.update(json.loads(gateway.run("status", client, "--json")))
        return bool(shown.get("online"))

    gateway.until(online, within, f"{client} shown as online")
    return shown


def lines(gateway: Gateway, word: str) -> list[str]:
    return [line for line in gateway.err.read_text().splitlines() if word in line]


def test_a_clients_own_address_is_the_one_that_counts(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(anonymous=False, config=CONFIG, arguments=("--allow-plaintext-login",))
    key = gateway.create_key()
    user, password = f"Signature|{key.id}|{key.instance}".encode(), sign(key.secret.encode(), "dv")
    with connected(gateway, HEADER, b"dv", user, password) as stream:
        assert stream.recv(4) == b"\x20\x02\x00\x00"
        assert status(gateway, "dv")["address"] == "192.0.2.7:4711"
    for _ in range(10):  # limits.login_failures_address
        with connected(gateway, HEADER, b"dv", user, b"wrong") as stream:
            assert stream.recv(4)[3] == 4
    assert "address=192.0.2.7:4711" in lines(gateway, "connect-refused")[0]
    with connected(gateway, HEADER, b"dv", user, password) as stream:
        assert stream.recv(4)[3] != 0, "the address has failed too often"
    with connected(gateway, HEADER.replace(b"192.0.2.7", b"192.0.2.8"), b"dv", user, password) as stream:
        assert stream.recv(4)[3] == 0
    with connected(gateway, b"", b"dv", user, password) as stream, contextlib.suppress(ConnectionError):
        assert stream.recv(4) == b""


def test_who_comes_through_a_proxy_is_not_of_this_machine(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(anonymous=True, config=CONFIG)
    for source in (b"127.0.0.1", b"192.0.2.7"):
        with connected(gateway, HEADER.replace(b"192.0.2.7", source), b"dv") as stream:
            assert stream.recv(4)[3] == 5
