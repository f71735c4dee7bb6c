"""Status events as a status rule writes them, at their worst: many clients with many connections each, shuffled, and some of them twice.

What should come of them is known from how they were made, not from reading them.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
GROUPS = ("GID_meters", "GID_doors", "GID_lamps")
MINUTE_MS = 60_000


@dataclass
class Story:
    """``rows``: (client, channel, opened, closed). ``connections``: channels opened, by group and start of the minute in seconds."""

    events: list[Event] = field(default_factory=list)
    rows: set[tuple[str, str, int, int | None]] = field(default_factory=set)
    online: set[str] = field(default_factory=set)
    connections: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))


def tell(seed: int, start: int, *, clients: int = 30, connections: int = 4) -> Story:
    """``start``: ms of the first connection. Every client connects so many times, each a while after the one before; every second one stays."""
    chance = random.Random(seed)
    story = Story()
    for number in range(clients):
        group = GROUPS[number % len(GROUPS)]
        client, time = f"{group}@@@{seed}-{number}", start
        for round_ in range(connections):
            channel = f"{chance.getrandbits(128):032x}"
            opened = time = time + chance.randrange(1, MINUTE_MS // 2)
            stays = round_ == connections - 1 and number % 2 == 0
            closed = None if stays else (time := time + chance.randrange(1, MINUTE_MS // 2))
            kinds = [("connect", opened)] + ([] if closed is None else [("tcpclean", closed)])
            kinds += [] if closed is None or chance.random() < 0.5 else [("disconnect", closed)]
            for kind, when in kinds:
                event = {"clientId": client, "time": when, "eventType": kind, "channelId": channel, "clientIp": f"127.0.0.1:{4000 + number}"}
                story.events += [event] * (2 if chance.random() < 0.25 else 1)
            story.rows.add((client, channel, opened, closed))
            story.connections[group, opened // MINUTE_MS * 60] += 1
            if stays:
                story.online.add(client)
    chance.shuffle(story.events)
    return story


def body(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()
