"""Failed logins of a node, over MQTT, the REST API and the OpenAPI alike: they use up the same budgets (budgets.py), by address and by key.

Asked before a login is looked at. That a budget is used up is one line of the log; what is refused while it is, a count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from gateway.auth.budgets import WINDOW, Budgets
from schemas.limits import Limits

RETRY_AFTER: Final = int(WINDOW)
"""Seconds after which it may be tried again, whatever was tried meanwhile."""
MAX_KEY: Final = 64
"""Characters of a key that it is counted by."""
COUNTED_AS: Final = "login_failures"
"""Among what is refused."""

_log = logging.getLogger(__name__)


class FailedLogins:
    """``monotonic`` in seconds; ``refused`` counts by reason."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float], refused: Counter[str]) -> None:
        self._budgets = Budgets(limits.login_failures_address, limits.login_failures_key)
        self._monotonic = monotonic
        self._refused = refused

    def refuse(self, host: str, key: str) -> bool:
        """Whether a login from the address with the key is refused unseen; it is counted then."""
        if not self._budgets or not self._budgets.is_spent(host, key[:MAX_KEY], self._monotonic()):
            return False
        self._refused[COUNTED_AS] += 1
        return True

    def add(self, host: str, key: str, *, is_loopback: bool) -> None:
        """A login from the address with the key has failed. An empty key counts for the address alone."""
        key = key[:MAX_KEY]
        for kind in self._budgets.failed(host, key, self._monotonic(), is_loopback=is_loopback):
            _log.warning("login-failures-spent %s=%r seconds=%d", kind, host if kind == "address" else key, RETRY_AFTER)
