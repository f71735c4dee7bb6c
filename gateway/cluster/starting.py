"""The start of one node of many: where it reads from, and the parts that only a node of many has. Called by app.py before listeners open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from gateway.cluster.absent import Absent
from gateway.cluster.arrivals import Arrivals
from gateway.cluster.departures import Departures
from gateway.cluster.downlink import OwnRouter, SharedDownlink
from gateway.cluster.fleet import Fleet
from gateway.cluster.presence import SharedPresence
from gateway.cluster.registers import RegisterWatch
from gateway.recovery import load_counts, principal_of
from schemas.errors import StartError
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC
from streams.cluster import routing_reader

if TYPE_CHECKING:
    from gateway.auth.keys import KeyRing
    from gateway.membership import Membership
    from gateway.node import Node
    from gateway.rules.engine import Engine
    from streams.log import Reader

Run = Callable[[str, Coroutine[None, None, None]], None]


async def begin(node: Node, membership: Membership, keyring: KeyRing, engine: Engine, rules: Callable[[], Awaitable[None]], run: Run) -> Reader:
    """Routing from the log's end on, sessions of whoever left or died, and the reader whose lag is this node's."""
    await _check_log(node)
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
    node.arrivals = Arrivals(node, downlink, router.reached, router.repeats, lambda name, client: principal_of(keyring, name, client))
    departures = Departures(node, presence.reached)
    node.persistence.stale = departures.stale
    fleet = Fleet(node, membership, keyring, node.arrivals, presence, absent, router.reached, rules, partial(setattr, engine, "elsewhere"), run)
    run("router", router.run())
    run("registers", RegisterWatch(node).run())
    run("departures", departures.run(node.log.open(PRESENCE_TOPIC, events)))
    await fleet.adopt_left()
    await fleet.turn()
    run("fleet", fleet.run())
    return reader


async def _check_log(node: Node) -> None:
    """All nodes of a database have one log: sessions and positions mean nothing in another."""
    wanted = node.settings.log
    mine = f"{wanted.kind} with prefix {wanted.prefix} and {wanted.shards} shards"
    known = await node.store.property("log of many", mine)
    if known != mine:
        raise StartError(f"log.prefix: the nodes of this database have a log on {known}, this one is set to {mine}: give all of them one log")
