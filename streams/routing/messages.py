"""What goes down to a node: a slot of the downlink has these, in order.

``Routed`` is a true statement whoever makes it and however late it comes: of a part of a shard it has all that is for the node by certain
routes. So plain subscriptions need no fence, and what is lost is seen as a hole and read from ``publish``. The choice of a node for a shared
subscription is no such statement but a command, which stands for as long as the router's lease (``token``) and has to arrive.
"""

from __future__ import annotations

import msgspec

from schemas.positions import At
from schemas.records import Record


class Sent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record for a node. ``plain``: sessions there subscribe to it for themselves. ``groups``: shared subscriptions, as subscribed, of which a
    member there is to have it."""

    at: At
    record: Record
    plain: bool = True
    groups: tuple[str, ...] = ()


class Routed(msgspec.Struct, frozen=True, array_like=True):
    """From ``start`` on, up to ``upto``, a shard is routed with routes of the node of ``version`` or newer, and so it will be from there on.

    ``began`` is where the router with this ``token`` took the shard over: what an older one commanded from there on is void.
    """

    epoch: int
    shard: int
    token: int
    began: At
    start: At
    upto: At
    version: int
    sent: tuple[Sent, ...] = ()


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """A record of a shared subscription from a node that can't place it. ``tried``: the nodes that had it before."""

    epoch: int
    at: At
    record: Record
    group: str
    tried: tuple[int, ...] = ()


Message = Routed | Handed
