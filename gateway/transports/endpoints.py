"""The words of this package: what a listener is asked for, what a connection must offer, and who the peer is.

Knows addresses and certificates, no MQTT. Neighbours: listeners.py makes connections, gateway/connection.py is one.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Literal, Protocol

import msgspec

Kind = Literal["mqtt", "mqtts", "ws", "wss"]
SECURE_KINDS: Final = frozenset({"mqtts", "wss"})
WEBSOCKET_KINDS: Final = frozenset({"ws", "wss"})


def join_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ListenerSpec(msgspec.Struct, frozen=True):
    """Where to listen for what. Port 0 picks a free one; an empty host means all addresses of the machine."""

    kind: Kind
    host: str
    port: int

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.kind} listener {self.address}"


class ByteProtocol(Protocol):
    """What a listener carries bytes for: an asyncio protocol in shape, not by inheritance."""

    def connection_made(self, transport: asyncio.Transport, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, error: Exception | None, /) -> None: ...


class PeerInfo(msgspec.Struct, frozen=True, gc=False):
    """The other end of a connection. ``is_secure``: TLS ends in this process; ``certificate``: the client's, as DER, where one was asked for."""

    host: str
    port: int
    listener: Kind
    is_loopback: bool
    is_secure: bool
    certificate: bytes | None = None

    @property
    def address(self) -> str:
        """``ip:port``, the IPv6 form in brackets."""
        return join_address(self.host, self.port)


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def describe(transport: asyncio.BaseTransport, spec: ListenerSpec) -> PeerInfo:
    """Who is at the other end of a transport that a listener of ``spec`` made. A peer already gone has no address and is not loopback."""
    name = transport.get_extra_info("peername")
    host, port = (str(name[0]), int(name[1])) if name else ("", 0)
    # A socket of both families would show IPv4 peers in their mapped form.
    host = host.removeprefix("::ffff:") if "." in host else host
    secure = spec.kind in SECURE_KINDS
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if secure else None
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return PeerInfo(host, port, spec.kind, _is_loopback(host), secure, certificate)


def local_address(transport: asyncio.BaseTransport) -> str:
    """Our own end, as ``ip:port``; empty where the connection is already gone."""
    name = transport.get_extra_info("sockname")
    return join_address(str(name[0]), int(name[1])) if name else ""
