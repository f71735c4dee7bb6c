"""What was refused for want of a right, in the log: a few lines a second of each event, and how many more there were.

Whoever may do nothing can be refused as often as it likes, so it must not be able to fill the log. What is left out is told by the next line
of the same event; the counters (``refused``) have all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from schemas.identities import Principal

LINES_A_SECOND: Final = 10
"""Of one event on one node: enough to see who and what, and under a million a day."""
MAX_SHOWN: Final = 256
"""Characters of a name that a peer chose."""

logger = logging.getLogger(__name__)


class _Event:
    """A second of an event's lines."""

    __slots__ = ("began", "left_out", "said")

    def __init__(self, began: float) -> None:
        self.began = began
        self.said = 0
        self.left_out = 0


class Refusals:
    """One for a node. ``events`` are names in the code, never what a peer chose: there are a handful."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._events: dict[str, _Event] = {}

    def denied(self, event: str, client: str, principal: Principal, topic: str) -> None:
        """A publish, subscription or will that no rule allows."""
        self.say(event, "client=%r principal=%r topic=%r", client[:MAX_SHOWN], principal.name[:MAX_SHOWN], topic[:MAX_SHOWN])

    def say(self, event: str, form: str, *values: object) -> None:
        """A line of ``event``, unless there were too many of it in this second."""
        now = self._monotonic()
        seen = self._events.get(event)
        if seen is None:
            seen = self._events[event] = _Event(now)
        if now - seen.began >= 1:
            seen.began, seen.said = now, 0
        if seen.said >= LINES_A_SECOND:
            seen.left_out += 1
            return
        seen.said += 1
        more = f" left_out={seen.left_out}" if seen.left_out else ""
        seen.left_out = 0
        logger.warning("%s %s%s", event, form % values, more)
