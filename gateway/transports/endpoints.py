"""The words of this package: what a listener is asked for and what a connection must offer.

Knows addresses, no MQTT. Neighbours: listeners.py makes connections, gateway/connection.py is one, peer.py says who is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Literal, Protocol

import msgspec

from schemas.settings import Address, Settings

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


def listener_specs(settings: Settings) -> list[ListenerSpec]:
    """The MQTT listeners that are asked for."""
    specs = [ListenerSpec("mqtt", address.host, address.port) for address in settings.mqtt]
    specs += [ListenerSpec("mqtts", address.host, address.port) for address in settings.mqtts]
    specs += [ListenerSpec("ws", address.host, address.port) for address in settings.ws]
    specs += [ListenerSpec("wss", address.host, address.port) for address in settings.wss]
    return specs


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
