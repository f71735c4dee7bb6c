"""The words of this package: what a listener is asked for and what a connection must offer.

Knows addresses, no MQTT. Neighbours: listeners.py makes connections, gateway/connection.py is one, peer.py says who is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, Protocol

import msgspec

from schemas.settings import Address, Settings

Kind = Literal["mqtt", "mqtts", "ws", "wss"]
SECURE_KINDS: Final = frozenset({"mqtts", "wss"})
Network = IPv4Network | IPv6Network
WEBSOCKET_KINDS: Final = frozenset({"ws", "wss"})


def join_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ListenerSpec(msgspec.Struct, frozen=True):
    """Where to listen for what. Port 0 picks a free one; an empty host means all addresses of the machine.

    ``proxies``: networks of proxies, from which a PROXY header is demanded. ``source``: of one connection, whose it is by that header.
    ``shared``: other processes of this user may listen there as well, and the system gives each its part of the connections.
    """

    kind: Kind
    host: str
    port: int
    proxies: tuple[Network, ...] = ()
    source: tuple[str, int] | None = None
    shared: bool = False

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.kind} listener {self.address}"


def listener_specs(settings: Settings) -> list[ListenerSpec]:
    """The MQTT listeners that are asked for: none where other nodes take the clients."""
    if "gateway" not in settings.node.roles:
        return []
    proxies = {proxy.listener: proxy.networks for proxy in settings.proxy}
    kinds: tuple[Kind, ...] = ("mqtt", "mqtts", "ws", "wss")
    shared = settings.node.workers > 1
    return [
        ListenerSpec(kind, address.host, address.port, proxies.get(address, ()), shared=shared)
        for kind in kinds
        for address in getattr(settings, kind)
    ]


def first_address(specs: Iterable[ListenerSpec]) -> Address | None:
    """Where plain MQTT is spoken, if it is."""
    return next((Address(spec.host, spec.port) for spec in specs if spec.kind == "mqtt"), None)


class ByteProtocol(Protocol):
    """What a listener carries bytes for: an asyncio protocol in shape, not by inheritance."""

    def connection_made(self, transport: asyncio.Transport, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, error: Exception | None, /) -> None: ...
