"""The start of one node of many: where it reads from, and the parts that only a node of many has. Called by app.py before listeners open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from gateway.cluster.absent import Absent
from gateway.cluster.arrivals import Arrivals
from gateway.cluster.departures import Departures
from gateway.cluster.downlink import OwnRouter, SharedDownlink, tells_here
from gateway.cluster.everywhere import Everywhere
from gateway.cluster.fleet import Fleet
from gateway.cluster.presence import SharedPresence
from gateway.cluster.registers import RegisterWatch
from gateway.cluster.traces import tell_traced
from gateway.recovery import load_counts, principal_of
from schemas.errors import StartError
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC
from streams.cluster import routing_reader

if TYPE_CHECKING:
    from gateway.auth.keys import KeyRing
    from gateway.membership import Membership
    from gateway.node import Node
    from gateway.rules.engine import Engine
    from schemas.positions import At
    from streams.log import Batch, Reader

Run = Callable[[str, Coroutine[None, None, None]], None]


class Unread:
    """The log's reader of a node that has no sessions and never leads: it reads nothing."""

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        raise NotImplementedError

    def lag(self) -> int:
        return 0

    def release(self, upto: At) -> None:
        return

    def close(self) -> None:
        return


async def begin(node: Node, membership: Membership, keyring: KeyRing, engine: Engine, rules: Callable[[], Awaitable[None]], run: Run) -> Reader:
    """Routing from the log's end on, sessions of whoever left or died, and the reader whose lag is this node's.

    Who has no sessions and never leads routes nothing, and has no positions that others would have to read on from.
    """
    assert node.sharing is not None  # noqa: S101 - made for one of many
    await _check_log(node)
    await load_counts(node)
    events = {shard: end for shard, (_, end) in (await node.log.ends(PRESENCE_TOPIC)).items()}
    routes = not {"gateway", "router"}.isdisjoint(node.settings.node.roles)
    if routes:
        node.routed = {shard: end for shard, (_, end) in (await node.log.ends(PUBLISH_TOPIC)).items()}
    for at in node.routed.values():
        node.persistence.position(routing_reader(node.owner), at)
    await node.persistence.barrier()  # who takes over from this node has to know, whenever that is
    absent = Absent(node)
    reader = node.log.open(PUBLISH_TOPIC, dict(node.routed)) if routes else Unread()
    downlink = SharedDownlink(node, absent)
    node.everywhere = Everywhere(node)
    node.trace.tells = partial(tells_here, node, absent)
    router = OwnRouter(reader, downlink, node)
    router.reached = dict(node.routed)
    presence = node.presence
    assert isinstance(presence, SharedPresence)  # noqa: S101 - made for one of many
    node.arrivals = Arrivals(node, downlink, router.reached, router.repeats, lambda name, client: principal_of(keyring, name, client))
    departures = Departures(node, presence.reached)
    node.persistence.stale = departures.stale
    fleet = Fleet(node, membership, keyring, node.arrivals, presence, absent, router.reached, rules, partial(setattr, engine, "elsewhere"), run)
    if routes:
        run("router", router.run())
    run("answers", node.everywhere.asking.run())
    run("traced", tell_traced(node))
    run("registers", RegisterWatch(node).run())
    await node.sharing.fold()
    run("sharing", node.sharing.run())
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
