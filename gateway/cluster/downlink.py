"""The downlink of one node of many: sessions of this node get what is theirs, and of the rest other nodes take care.

Each node reads all of `publish` and routes it for its own sessions. What no node's session is there for, a message to one device that is
to be kept, is seen to by the node that leads (absent.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.clock import epoch_of, epoch_within
from gateway.cluster.absent import Absent
from gateway.downlink import PERSISTENT, LocalDownlink
from schemas.positions import At
from schemas.records import Kind, Record
from schemas.topics import parse_p2p
from streams.log import Reader
from streams.runtime import Router
from streams.runtime.router import WILL

if TYPE_CHECKING:
    from gateway.node import Node

SHARED = int(Kind.SHARED)


def tells_here(node: Node, absent: Absent, record: Record) -> bool:
    """Whether this node's trace has a publish that all nodes route: its own, and on the node that leads wills, which it may have for dead nodes."""
    return absent.leads if record.source == WILL else epoch_of(record.id) == epoch_within(node.epoch)


class SharedDownlink(LocalDownlink):
    _shares = False

    def __init__(self, node: Node, absent: Absent) -> None:
        super().__init__(node)
        self.replaying = False
        self._absent = absent

    def deliver(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """See ``streams.runtime.router.Downlink``."""
        super().deliver(records, ats)
        if self._node.sharing is not None:
            self._node.sharing.deliver(records, ats)

    def deliver_p2p(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        """See ``streams.runtime.router.Downlink``."""
        first = records[0]
        parsed = parse_p2p(first.topic)
        if parsed is not None and self._node.registry.get(parsed.client) is None:
            if first.flags & PERSISTENT and first.qos:
                self._absent.put(parsed.client, records, ats)
            return
        super().deliver_p2p(records, ats)


class OwnRouter(Router):
    """Folds the inbound QoS 2 ids of this node's sessions; each other node does so for its own."""

    def __init__(self, reader: Reader, downlink: SharedDownlink, node: Node) -> None:
        super().__init__(reader, downlink, node.owner)
        self._node = node
        self.wills_seen = None

    def pass_over(self, record: Record, at: At) -> None:
        if record.kind == SHARED and self._node.sharing is not None:
            self._node.sharing.passed_on(record, at)

    def fold_received(self, record: Record) -> None:
        session = self._node.registry.get(record.client)
        if session is None or session.id != record.session or self._node.arrivals.routed(session, record):
            return
        if record.epoch >= session.taken:
            super().fold_received(record)
