"""What the living do for the dead: the slot is read to its end by one of them, sessions are taken in chunks, and then the node is buried."""

from __future__ import annotations

from schemas.positions import At
from streams.routing.handing import Handing
from streams.routing.messages import Routed
from streams.routing.watermarks import Watermarks
from tests.support.fleet.clients import Client
from tests.support.fleet.gateway import Gateway

CHUNK = 50
"""Sessions of a dead node that are taken at once."""
BURY_MS = 40_000
"""More than shared routes linger: who took the last session has told its own by then."""


def lead(gateway: Gateway, now: int) -> None:
    """What one node does for the others."""
    store, taking = gateway.store, gateway.taking
    for epoch, since in list(store.dead.items()):
        if epoch not in taking and epoch not in store.slots_done:
            take_slot(gateway, epoch, now)
        if epoch in taking and not taking[epoch]:
            del taking[epoch]
            store.slots_done.add(epoch)
        if epoch in store.slots_done and not store.owned[epoch] and now - since > BURY_MS:
            store.bury(epoch)


def take_slot(gateway: Gateway, epoch: int, now: int) -> None:
    """Up to where the slot ends now: the node is dead already."""
    handing = gateway.taking[epoch] = Handing(gateway.routes, gateway.epoch)
    marks = Watermarks({shard: At(shard, 0, 0) for shard in gateway.marks.reached})
    for index, message in enumerate(gateway.slots.had[epoch]):
        commands = marks.take(message).commands if isinstance(message, Routed) else ()
        if index < gateway.store.slot_read[epoch]:
            continue
        place = At(0, index, 0)
        if not isinstance(message, Routed):
            gateway.tell(now, handing.hand(place, message.at, message.record, message.group, (epoch,), now))
        for sent in commands:
            for group in sent.groups:
                gateway.tell(now, handing.hand(place, sent.at, sent.record, group, (epoch,), now))


def adopt(gateway: Gateway, clients: dict[str, Client]) -> None:
    for epoch in gateway.store.dead:
        names = list(gateway.store.owned[epoch])[:CHUNK]
        if names:
            gateway.arrive([clients[name] for name in names])
            return
