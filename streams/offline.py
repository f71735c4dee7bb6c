"""The pace of stored deliveries: how many to load next and when to look again, as values; time is an argument (seconds).

``acknowledged`` lets the window pace, as MQTT has it. ``batches`` is the pace of the model product: thirty every five
seconds, and unacknowledged messages again to 3.1.1 clients. gateway/backlog.py loads and sends.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final, NamedTuple

import msgspec

PAGE: Final = 1000
"""Deliveries loaded at once at most; a read of the store costs less the more it brings, and memory the more it holds."""

BATCH: Final = 30
BATCH_EVERY: Final = 5.0

RETRY_EVERY: Final = 5.0
RETRIES: Final = 15
"""How often an unacknowledged message is sent again on one connection; then it waits for the next one."""


class Pace(StrEnum):
    """The setting ``[offline] pace``."""

    ACKNOWLEDGED = "acknowledged"
    BATCHES = "batches"


class Pacing(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of a connection: with ``batches``, when the next batch may be loaded."""

    next_batch: float = 0.0


class Load(NamedTuple):
    """``messages`` stored deliveries to load now. ``again_at`` is when time alone may allow more; None where only an acknowledgement does."""

    messages: int
    again_at: float | None


class Retry(Enum):
    """What to do about an unacknowledged message."""

    WAIT = 0
    SEND = 1
    STOP = 2


def next_load(pace: Pace, pacing: Pacing, window_free: int, now: float) -> tuple[Pacing, Load]:
    """How many stored deliveries to load next. A batch may not pass the window either [MQTT-3.3.4-9], and what didn't fit is not made up for."""
    if pace is Pace.ACKNOWLEDGED:
        return pacing, Load(max(min(window_free, PAGE), 0), None)
    if now < pacing.next_batch:
        return pacing, Load(0, pacing.next_batch)
    if window_free <= 0:
        return pacing, Load(0, None)
    following = Pacing(now + BATCH_EVERY)
    return following, Load(min(window_free, BATCH), following.next_batch)


def retry(sent_at: float, tries: int, now: float) -> Retry:
    """Whether to send an unacknowledged message again, under the same packet id, to a 3.1.1 client at pace ``batches``.

    ``sent_at`` is when it was sent last, ``tries`` how often again so far. MQTT 5 forbids it on one connection [MQTT-4.4.0-1].
    """
    if tries >= RETRIES:
        return Retry.STOP
    return Retry.SEND if now >= sent_at + RETRY_EVERY else Retry.WAIT
