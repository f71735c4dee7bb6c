"""The start of one node of many: where it reads from, and the parts that only a node of many has. Called by app.py before listeners open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

from gateway.cluster.absent import Absent
from gateway.cluster.arrivals import Arrivals
from gateway.cluster.departures import Departures
from gateway.cluster.downlink import OwnRouter, SharedDownlink
from gateway.cluster.fleet import Fleet
from gateway.cluster.presence import SharedPresence
from gateway.recovery import load_counts, principal_of
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC
from streams.cluster import routing_reader

if TYPE_CHECKING:
    from gateway.auth.keys import KeyRing
    from gateway.membership import Membership
    from gateway.node import Node
    from streams.log import Reader

Run = Callable[[str, Coroutine[None, None, None]], None]


async def begin(node: Node, membership: Membership, keyring: KeyRing, rules: Callable[[], Awaitable[None]], run: Run) -> Reader:
    """Routing from the log's end on, sessions of whoever left or died, and the reader whose lag is this node's."""
    await load_counts(node)
    events = {shard: end for shard, (_, end) in (await node.log.ends(PRESENCE_TOPIC)).items()}
    node.routed = {shard: end for shard, (_, end) in (await node.log.ends(PUBLISH_TOPIC)).items()}
    for at in node.routed.values():
        node.persistence.position(routing_reader(node.owner), at)
    await node.persistence.barrier()  # who takes over from this node has to know, whenever that is
    absent = Absent(node)
    reader = node.log.open(PUBLISH_TOPIC, dict(node.routed))
    downlink = SharedDownlink(node, absent)
    router = OwnRouter(reader, downlink, node)
    router.reached = dict(node.routed)
    presence = node.presence
    assert isinstance(presence, SharedPresence)  # noqa: S101 - made for one of many
    node.arrivals = Arrivals(node, downlink, router.reached, lambda name, client: principal_of(keyring, name, client))
    departures = Departures(node, presence.reached)
    node.persistence.stale = departures.stale
    fleet = Fleet(node, membership, keyring, node.arrivals, presence, absent, router.reached, rules, run)
    run("router", router.run())
    run("departures", departures.run(node.log.open(PRESENCE_TOPIC, events)))
    await fleet.adopt_left()
    await fleet.turn()
    run("fleet", fleet.run())
    return reader
