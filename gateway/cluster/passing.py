"""Records of shared subscriptions that the chosen node can't give to a member: they are appended once more, for another node.

The chosen node does so itself where it has no member any more; where it is dead, the node that leads does. Until that is stored, and as long
as nobody has a member, the node's position waits before the record: whoever takes over from this node finds it again. A session that is on
its way from one node to another is in no route for a moment, so a record waits WAIT_MS for a member, and is dropped and counted then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from schemas.errors import LogError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Kind, Record
from streams.fanout import Delivery
from streams.resuming import LAST
from streams.routing.node_routes import NodeRoutes

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.session import Session

WAIT_MS: Final = 60_000
MAX_HOPS: Final = 32
"""Members that may not read it make a record go from node to node."""
MAX_WAITING: Final = 100_000
SHARED: Final = int(Kind.SHARED)


class Waiting(msgspec.Struct):
    """``epochs``: those that were chosen before. ``sent``: it is on its way to the log."""

    record: Record
    at: At
    group: str
    epochs: tuple[int, ...]
    since: int
    sent: bool = False


class Passing:
    """``give``: to a member here, where there is one. ``listed``: the nodes that the store lists, as last looked at. ``lost``: the dead among them,
    whose records were read again."""

    def __init__(self, node: Node, routes: NodeRoutes, give: Callable[[Record, At, str], bool]) -> None:
        self.leads = False
        self.listed: set[int] = set()
        self.lost: set[int] = set()
        self._node = node
        self._routes = routes
        self._give = give
        self._waiting: dict[tuple[At, str], Waiting] = {}
        self._sent: dict[tuple[bytes, str], list[Waiting]] = {}
        """By id and subscription, what is on its way to the log: the same record from several places, in order."""
        self._storing: deque[tuple[int, Session, Delivery]] = deque()
        """What was given to the store under a session that may be another node's already, with what else was to be stored before."""
        self._places: dict[int, At] = {}

    def is_for_nobody(self, epoch: int) -> bool:
        """Whether this node has to see to a record that is for that node."""
        return self.leads and (epoch in self.lost or epoch not in self.listed)

    def put(self, record: Record, at: At, group: str, epochs: tuple[int, ...]) -> None:
        """Pass on a record at that place. ``epochs``: who has had it."""
        if len(self._waiting) >= MAX_WAITING:
            self._node.counters.dropped["shared_limit"] += 1
            return
        if (at, group) in self._waiting:
            return
        waiting = self._waiting[at, group] = Waiting(record, at, group, epochs, self._node.clock.wall())
        # What is for a node that isn't known may be for one that has just come: that shows when nodes were looked at again
        if epochs[-1] in self.listed or not epochs[-1]:
            self._choose(waiting, epochs)
        self._hold(at)

    def turn(self) -> None:
        """Nodes and routes were looked at: find members for what waits."""
        now = self._node.clock.wall()
        for key, waiting in list(self._waiting.items()):
            chosen = waiting.epochs[-1]
            if waiting.sent:
                continue
            if chosen in self.listed and chosen not in self.lost and chosen != self._node.owner:
                del self._waiting[key]  # its node has come
            elif self._give(waiting.record, waiting.at, waiting.group):
                del self._waiting[key]
            elif now - waiting.since >= WAIT_MS or len(waiting.epochs) >= MAX_HOPS:
                del self._waiting[key]
                self._node.counters.dropped["shared_no_member"] += 1
            else:
                self._choose(waiting, waiting.epochs[-1:])  # who had no member a moment ago may have one now
        done = self._node.persistence.done
        while self._storing and self._storing[0][0] <= done:
            self._storing.popleft()
        self._hold()

    def _choose(self, waiting: Waiting, tried: tuple[int, ...]) -> None:
        record = waiting.record
        epoch = self._routes.choose_other(record.client, record.topic, waiting.group, tried)
        if not epoch or len(waiting.epochs) >= MAX_HOPS:
            return
        shares = ((waiting.group, (*waiting.epochs, epoch)),)
        again = msgspec.structs.replace(record, kind=SHARED, shares=shares, session=0, packet_id=0)
        waiting.sent = True
        self._sent.setdefault((record.id, waiting.group), []).append(waiting)
        self._node.log.append(PUBLISH_TOPIC, record.client, again, self)

    # What becomes of it in the log

    def appended(self, records: Sequence[Record], first: At) -> None:
        """See ``streams.log.Sink``."""
        for record in records:
            waiting = self._told(record)
            self._waiting.pop((waiting.at, waiting.group), None)
        self._hold()

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        """See ``streams.log.Sink``. It is tried again with the next turn."""
        for record in records:
            self._told(record).sent = False

    def _told(self, record: Record) -> Waiting:
        key = (record.id, record.shares[0][0])
        waiting = self._sent[key].pop(0)
        if not self._sent[key]:
            del self._sent[key]
        return waiting

    # What the store may refuse

    def storing(self, session: Session, delivery: Delivery) -> None:
        """A delivery was given to the store for a session; until it is there, it may turn out that another node has that session."""
        self._storing.append((self._node.persistence.asked, session, delivery))
        self._hold(delivery.at)

    def unstored(self, session: Session) -> list[Delivery]:
        return [delivery for _, of, delivery in self._storing if of is session]

    def _hold(self, *also: At) -> None:
        """The node's position stays before what is neither stored nor passed on: before these places ``also``, or all anew."""
        if not also:
            self._places = {shard: At(shard, LAST, 0) for shard in self._node.routed}
            also = (*(waiting.at for waiting in self._waiting.values()), *(delivery.at for _, _, delivery in self._storing))
        for at in also:
            self._places[at.shard] = min(at, self._places.get(at.shard, at))
        if also:
            self._node.registry.resuming[self] = tuple(self._places.values())
        else:
            self._node.registry.resuming.pop(self, None)
