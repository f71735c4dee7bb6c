"""Which node routes which shard, and which slot of the downlink a node has.

Every node computes the same from what the store says, and takes or gives up leases accordingly; a lease decides. Nothing moves that
needn't: a living holder keeps its shards up to an even share, and what is left goes by rendezvous hash of the nodes' names, so that a node
that restarts gets its own again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping


def assign(shards: Iterable[int], held: Mapping[int, int], nodes: Mapping[int, str]) -> dict[int, int]:
    """By shard the epoch of its router; ``held`` says who has it now, ``nodes`` are the living by epoch, with their names. Empty without nodes."""
    if not nodes:
        return {}
    wanted = sorted(shards)
    least, more = divmod(len(wanted), len(nodes))
    counts: Counter[int] = Counter()

    def has_room(epoch: int) -> bool:
        """Up to the even share; as many nodes as there are shards over may have one more."""
        return counts[epoch] < least or (counts[epoch] == least and more > sum(count > least for count in counts.values()))

    found: dict[int, int] = {}
    for shard in wanted:
        holder = held.get(shard, 0)
        if holder in nodes and has_room(holder):
            found[shard] = holder
            counts[holder] += 1
    for shard in wanted:
        if shard not in found:
            _, epoch = max((_weight("shard", shard, nodes[epoch]), epoch) for epoch in nodes if has_room(epoch))
            found[shard] = epoch
            counts[epoch] += 1
    return found


def choose_slot(name: str, slots: int, taken: Container[int]) -> int | None:
    """The slot for a node of that name; None where all are taken."""
    free = [slot for slot in range(slots) if slot not in taken]
    return max(free, key=lambda slot: _weight("slot", slot, name), default=None)


def _weight(kind: str, number: int, name: str) -> bytes:
    return hashlib.blake2b(f"{kind} {number} {name}".encode(), digest_size=8).digest()
