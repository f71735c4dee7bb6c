"""From an address to bound sockets, or one clear line about why not; and how many connections the open-file limit has room for.

Nothing listens yet when a socket leaves here. Neighbours: listeners.py.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Sequence
from typing import Final

from gateway.transports.endpoints import ListenerSpec
from schemas.errors import StartError

_log = logging.getLogger(__name__)

BACKLOG: Final = 4096
"""Connects that may wait to be accepted: most of a second at 5,000 a second. The system cuts it to net.core.somaxconn."""
FILES_KEPT: Final = 128
"""Open files that connections leave to the rest of the process: log segments, the store, HTTP."""
PORT_TRIES: Final = 8
"""How often a free port is picked until it is free on every address of a name."""

_CAUSES: Final = {
    errno.EADDRINUSE: "another program uses it; stop that program or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one that it has, 0.0.0.0 or [::] for all",
    errno.EAFNOSUPPORT: "this machine has no such kind of address; choose an IPv4 one",
    errno.EACCES: "the system reserves this port; choose one above 1023 or grant CAP_NET_BIND_SERVICE",
    errno.EMFILE: "no open files are left; raise the limit (ulimit -n)",
}
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def start_error(spec: ListenerSpec, error: OSError) -> StartError:
    """The one line to the user about a socket that can't listen."""
    cause = _CAUSES.get(error.errno or 0) or f"{error.strerror or error}; choose another address"
    return StartError(f"{spec}: {cause} (--{spec.kind} HOST:PORT)")


async def bind(spec: ListenerSpec) -> list[socket.socket]:
    """Sockets on every address that the host stands for, all on one port."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(spec.host or None, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise StartError(f"{spec}: the host {spec.host} is unknown; give an address of this machine (--{spec.kind} HOST:PORT)") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for attempt in range(PORT_TRIES):
        try:
            return _bind_all(spec.port, addresses, shared=spec.shared)
        except OSError as error:
            taken_by_chance = spec.port == 0 and error.errno == errno.EADDRINUSE
            if not taken_by_chance or attempt == PORT_TRIES - 1:
                raise start_error(spec, error) from None
    raise AssertionError("unreachable")


def _bind_all(port: int, addresses: Sequence[tuple[socket.AddressFamily, SocketAddress]], *, shared: bool) -> list[socket.socket]:
    """One socket an address. Addresses of a name that the machine lacks are passed over while another one is there."""
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            try:
                bound.append(_bind_one(family, (address[0], port, *address[2:]), shared=shared))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
                continue
            port = port or bound[0].getsockname()[1]
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    if absent is not None and not bound:
        raise absent
    return bound


def _bind_one(family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def connection_limit(wanted: int) -> int:
    """``wanted``, or as many connections as the open-file limit has room for; raises the soft limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + FILES_KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if raised > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    room = max(soft - FILES_KEPT, soft // 2)
    _log.warning("connections limited connections=%d wanted=%d open_files=%d; raise the limit (ulimit -n)", room, wanted, soft)
    return room
