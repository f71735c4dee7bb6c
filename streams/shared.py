"""Which member of a shared subscription gets a record: rendezvous hashing of (publisher, topic) over the best placed members.

The same publisher and topic go to the same member while that one can take them, which keeps order within the group, and a
member that comes or goes moves only what it takes over or had. Every process chooses alike: nothing here depends on
Python's own hash. Knows neither sessions nor routes; fanout.py asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

MEMBERS: Final = 65_536
"""Clients whose digest is kept."""

KEYS: Final = 8_192
"""(publisher, topic) whose digest is kept; fewer, since a publisher may make up long topics without end."""

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


class Member(NamedTuple):
    """``availability``: 2 online with a free window, 1 online, 0 offline and persistent; higher is preferred."""

    client: str
    availability: int


def choose(publisher: str, topic: str, members: Sequence[Member]) -> Member:
    """The member that gets what ``publisher`` publishes to ``topic``; of equal availability the one with the highest weight.

    ``members`` is not empty and lists those only that may be given the record at all.
    """
    best = max(member.availability for member in members)
    preferred = [member for member in members if member.availability == best]
    if len(preferred) == 1:
        return preferred[0]
    # A key is an odd number: multiplying by it, modulo 2^64, is one to one, so that two members never weigh the same.
    key = _key_digest(publisher, topic) | 1
    heaviest, weight = preferred[0], -1
    for member in preferred:
        product = key * _member_digest(member.client) & _MASK
        if product > weight:
            heaviest, weight = member, product
    return heaviest


@lru_cache(maxsize=KEYS)
def _key_digest(publisher: str, topic: str) -> int:
    """The publisher's length goes in front, so that ("a", "bc") and ("ab", "c") are different keys."""
    name = publisher.encode()
    return _digest(len(name).to_bytes(4, "big") + name + topic.encode(), b"shared key")


@lru_cache(maxsize=MEMBERS)
def _member_digest(client: str) -> int:
    return _digest(client.encode(), b"shared member")


def _digest(data: bytes, purpose: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=purpose).digest(), "big")
