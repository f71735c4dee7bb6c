"""What nodes of many say of themselves to each other: their roles, and where clients reach them. And which role no living node has.

It travels in ``NodeState.detail``, between the host's name and the last word. A node that says nothing of roles has them all.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.settings import ROLES, NodeSettings, Role

MISSING_AFTER: Final = 10.0
"""Seconds for which no node may have a role before a line says so: nodes that start one after another, or again, are no news."""

WITHOUT: Final[dict[Role, str]] = {
    "gateway": "clients can't connect and dead nodes' sessions wait",
    "bridge": "rules stand still",
    "api": "nobody answers the API",
    "router": "statuses stand still and nobody cleans up after dead nodes",
}

logger = logging.getLogger(__name__)


class Said(NamedTuple):
    """``address`` is empty where clients are not to be sent there."""

    roles: frozenset[Role]
    address: str


def say(settings: NodeSettings, *, leaving: bool = False) -> str:
    """In words without spaces of their own. Who is ``leaving``, or moved, wants no clients."""
    wants = "gateway" in settings.roles and not leaving and not settings.moved_to
    return " ".join([f"roles={','.join(settings.roles)}", *([f"at={settings.advertise}"] if settings.advertise and wants else [])])


def said(detail: str) -> Said:
    """What a node has said in its detail."""
    words = dict(word.split("=", 1) for word in detail.split(" ")[2:] if "=" in word)
    named = words.get("roles", ",".join(ROLES)).split(",")
    return Said(frozenset(role for role in ROLES if role in named), words.get("at", ""))


class LivingRoles:
    """By role, how many living nodes have it. A node alone has all."""

    def __init__(self) -> None:
        self.nodes: dict[Role, int] = dict.fromkeys(ROLES, 1)
        self._missing_since: dict[Role, float] = {}
        self._warned: set[Role] = set()

    def look(self, details: Iterable[str], now: float) -> None:
        """``details`` are of the living, ``now`` in monotonic seconds."""
        counted = Counter(role for detail in details for role in said(detail).roles)
        self.nodes = {role: counted[role] for role in ROLES}
        for role, count in self.nodes.items():
            if count:
                self._missing_since.pop(role, None)
                if role in self._warned:
                    self._warned.discard(role)
                    logger.info("role-back role=%s", role)
            elif now - self._missing_since.setdefault(role, now) >= MISSING_AFTER and role not in self._warned:
                self._warned.add(role)
                logger.warning("role-missing role=%s: no living node has it: %s", role, WITHOUT[role])

    def missing(self) -> list[str]:
        """What is missing, in words."""
        return [f"no living node has the role {role}: {WITHOUT[role]}" for role, count in self.nodes.items() if not count]
