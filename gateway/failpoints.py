"""Named places at which tests let the process die: SLUICEWAY_FAILPOINT=name or name:count (the count-th passage kills).

Off unless the environment asks; the hot path asks only a module constant.
"""

from __future__ import annotations

import os
import signal

NAMES = frozenset(
    (
        "received",
        "before-append",
        "appended-before-ack",
        "ack-queued",
        "delivered-before-ack",
        "pubrec-recorded",
        "pubrel-seen",
        "will-armed",
        "takeover",
        "position-commit",
    )
)

_wanted, _, _count = os.environ.get("SLUICEWAY_FAILPOINT", "").partition(":")
ARMED = _wanted in NAMES
_left = int(_count) if _count.isdigit() else 1


def reach(name: str) -> None:
    """Die by SIGKILL at the wanted passage of the wanted point. Call it only where ARMED is true."""
    global _left
    if name == _wanted:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
