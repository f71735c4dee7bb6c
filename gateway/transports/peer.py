"""Who is at the other end of a connection, as far as its transport can tell. Neighbours: gateway/connection.py, gateway/auth."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from gateway.transports.endpoints import SECURE_KINDS, Kind, ListenerSpec, Network, join_address


class PeerInfo(msgspec.Struct, frozen=True, gc=False):
    """The other end of a connection, or who is behind it by the word of a proxy: such a one is never loopback, for the proxy may be elsewhere.

    ``is_secure``: TLS ends in this process; ``certificate``: the client's, as DER, where one was asked for.
    """

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


def is_loopback(host: str) -> bool:
    """Whether an IP address is this machine's own."""
    return host.startswith("127.") or host == "::1"


def is_within(host: str, networks: Iterable[Network]) -> bool:
    """Whether an IP address lies in one of the networks, an IPv4 one in its mapped form too."""
    address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def describe(transport: asyncio.BaseTransport, spec: ListenerSpec) -> PeerInfo:
    """Who is at the other end of a transport that a listener of ``spec`` made. A peer already gone has no address and is not loopback."""
    name = spec.source or transport.get_extra_info("peername")
    host, port = (str(name[0]), int(name[1])) if name else ("", 0)
    # A socket of both families would show IPv4 peers in their mapped form.
    host = sys.intern(host.removeprefix("::ffff:") if "." in host else host)  # one text for all behind a balancer
    secure = spec.kind in SECURE_KINDS
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if secure else None
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return PeerInfo(host, port, spec.kind, spec.source is None and is_loopback(host), secure, certificate)


def local_address(transport: asyncio.BaseTransport) -> str:
    """Our own end, as ``ip:port``; empty where the connection is already gone."""
    name = transport.get_extra_info("sockname")
    return join_address(str(name[0]), int(name[1])) if name else ""
