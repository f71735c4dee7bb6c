"""What of `[node]` doesn't go together, with itself or with the rest. load.py asks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from schemas.settings import ROLES, Address, Settings

MAX_ID: Final = 61
"""Characters of `node.id` that leave room for a worker's number."""
LAST_PORT: Final = 65_535


def node_problems(settings: Settings, listeners: Sequence[tuple[str, Address]]) -> Iterator[str]:
    """``listeners``: those of MQTT, each with the name of its setting."""
    node = settings.node
    if node.many and (settings.log.kind == "embedded" or not settings.store.url):
        yield 'node.many: many nodes share a log and a store: set log.kind = "kafka" or "rocketmq", and store.url'
    if not node.roles:
        yield f"node.roles: it is empty; name at least one of {', '.join(ROLES)}, or leave it out for all"
    elif not node.many and frozenset(node.roles) != frozenset(ROLES):
        yield "node.roles: a node alone has all roles; leave node.roles out, or set node.many = true and have the others on other nodes"
    if node.advertise and not node.many:
        yield "node.advertise: a node alone has no others that could send clients to it; leave it out, or set node.many = true"
    if node.moved_to and node.moved_to == node.advertise:
        yield f"node.moved_to: {node.moved_to} is this node itself (node.advertise); name the one to go to, or leave it out"
    if node.workers > 1:
        yield from _worker_problems(settings, listeners)


def _worker_problems(settings: Settings, listeners: Sequence[tuple[str, Address]]) -> Iterator[str]:
    node, http = settings.node, settings.http
    if not node.many:
        yield f"node.workers: {node.workers} processes are as many nodes; set node.many = true with all that it needs, or workers = 1"
    if len(node.id) > MAX_ID:
        yield f"node.id: workers add their number to it; give at most {MAX_ID} characters"
    if not http.port:
        return
    last = http.port + node.workers - 1
    if last > LAST_PORT:
        yield f"http: {node.workers} workers listen on the ports {http.port} to {last}; give a port of at most {LAST_PORT + 1 - node.workers}, or 0"
    for name, address in listeners:
        if address.host == http.host and http.port < address.port <= last:
            yield f"http: {node.workers} workers listen on the ports {http.port} to {last}, and {name} has {address}; give other ports"
