"""How many logins may fail: so many a minute from an address and with a key, then none for a while, right or wrong.

Loopback has no budget of its own: behind a proxy on this machine all clients share it. Nothing is kept of logins that succeed, and what is
kept of failures is bounded. Pure; time is an argument (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 60.0
"""Seconds over which failures count, and for which a spent budget refuses."""
MAX_KEPT: Final = 20_000
"""Addresses and keys whose failures are remembered; when there are more the oldest are forgotten."""


class Budgets:
    """``per_address`` and ``per_key`` failures in a window; 0 for no limit."""

    def __init__(self, per_address: int, per_key: int) -> None:
        self._limits = {"address": per_address, "key": per_key}
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}
        """Count and the time of the first of the window, the oldest first."""
        self._spent: dict[tuple[str, str], float] = {}
        """Until when."""

    def __bool__(self) -> bool:
        """Whether anything is spent: false nearly always, and then nothing more has to be asked."""
        return bool(self._spent)

    def is_spent(self, address: str, key: str, now: float) -> bool:
        """Whether a login from the address with the key is refused unseen."""
        for budget in (("address", address), ("key", key)):
            until = self._spent.get(budget)
            if until is not None:
                if now < until:
                    return True
                del self._spent[budget]
        return False

    def failed(self, address: str, key: str, now: float, *, is_loopback: bool = False) -> list[str]:
        """A login failed; which budgets (``address``, ``key``) it has used up."""
        budgets = (("address", "" if is_loopback else address), ("key", key))
        return [kind for kind, name in budgets if name and self._limits[kind] and self._fail(kind, name, now)]

    def _fail(self, kind: str, name: str, now: float) -> bool:
        budget = (kind, name)
        count, since = self._failures.pop(budget, (0, now))
        if now - since >= WINDOW:
            count, since = 0, now
        if count + 1 >= self._limits[kind]:
            if len(self._spent) >= MAX_KEPT:
                del self._spent[next(iter(self._spent))]
            self._spent[budget] = now + WINDOW
            return True
        if len(self._failures) >= MAX_KEPT:
            del self._failures[next(iter(self._failures))]
        self._failures[budget] = (count + 1, since)
        return False
