"""Which node a shared subscription's record goes to: rendezvous hashing of (publisher, topic), weighted by the members online.

The same publisher and topic go to the same node while it has members; a node that comes, goes or changes its weight moves only what it
takes over or had. Where nobody is online the weight is the members that keep messages. Which member of the node, shared.py says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

_SPAN: Final = 2.0**64


class Share(NamedTuple):
    """What a node has of a shared subscription."""

    epoch: int
    sessions: int
    online: int


def choose_node(publisher: str, topic: str, shares: Sequence[Share]) -> int:
    """The node epoch; ``shares`` is not empty, and each has a session."""
    some_online = any(share.online for share in shares)
    candidates = [(share.epoch, share.online if some_online else share.sessions) for share in shares if share.online or not some_online]
    if len(candidates) == 1:
        return candidates[0][0]
    name = publisher.encode()
    key = len(name).to_bytes(4, "big") + name + topic.encode()
    return max(candidates, key=lambda candidate: (_score(key, *candidate), candidate[0]))[0]


def _score(key: bytes, epoch: int, weight: int) -> float:
    """The highest of -w / ln(u), u evenly between 0 and 1, falls to each by its weight, and no score depends on another's."""
    digest = hashlib.blake2b(key, digest_size=8, key=epoch.to_bytes(8, "big"), person=b"shared node").digest()
    return -weight / math.log((int.from_bytes(digest, "big") + 0.5) / _SPAN)
