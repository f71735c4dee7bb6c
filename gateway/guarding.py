"""How much a client may ask for: connections a second and at a time, messages and bytes a second. All limits are off (0) until they are set.

A connect past its limit gets a CONNACK with the reason. A publisher past its rate is not read for a while: nothing is dropped, its own
window and TCP make it wait. Rates are looked at once a read, however many packets it brought. Addresses are those that the connection
has (behind a proxy without the PROXY protocol all clients share one).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from schemas.limits import Limits
from schemas.reasons import ReasonCode

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.node import Node

BURST: Final = 1.0
"""Seconds of a rate that may come at once."""
MAX_ADDRESSES: Final = 20_000
"""Addresses whose connects are remembered; when there are more those that were quiet for longest are forgotten."""
LONGEST_PAUSE: Final = 60.0
"""Seconds after which a throttled connection is read again whatever it owes."""


class Bucket:
    """A rate with its burst. ``take`` may overdraw: what is over is owed, and waited for."""

    __slots__ = ("_at", "_level", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._level = max(1.0, rate * BURST)
        self._at = now

    def _fill(self, now: float) -> None:
        self._level = min(max(1.0, self.rate * BURST), self._level + (now - self._at) * self.rate)
        self._at = now

    def take(self, amount: int, now: float) -> float:
        """Seconds until what was taken is paid for."""
        self._fill(now)
        self._level -= amount
        return -self._level / self.rate if self._level < 0 else 0.0

    def has_one(self, now: float) -> bool:
        """Take one where there is one."""
        self._fill(now)
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True


class Guarding:
    """``is_rating``: whether reads are to be charged."""

    def __init__(self, node: Node) -> None:
        self._node = node
        limits: Limits = node.limits
        self._connection_rates = (("message_rate", limits.message_rate), ("byte_rate", limits.byte_rate))
        self._principal_rates = (("message_rate_principal", limits.message_rate_principal), ("byte_rate_principal", limits.byte_rate_principal))
        self.is_rating = any(rate for _, rate in (*self._connection_rates, *self._principal_rates))
        self._counts = bool(self.is_rating or limits.connections_per_address or limits.connections_per_principal)
        self._listeners: dict[str, Bucket] = {}
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()
        self._admitted: dict[Connection, tuple[str, str]] = {}
        """Address and principal; bounded by the limit of connections, like the two counts that follow from it."""
        self._by_address: dict[str, int] = {}
        self._by_principal: dict[str, int] = {}
        self._buckets: dict[Connection | str, tuple[tuple[str, Bucket | None], ...]] = {}
        """Of connections, and of principals that have one."""

    # Connects

    def arrived(self, connection: Connection) -> ReasonCode | None:
        """Why a CONNECT is refused before anything of it is looked at. It costs its address a try in either case."""
        limits, now = self._node.limits, self._node.monotonic()
        if limits.connect_rate_address and not self._of_address(connection.peer.host, now).has_one(now):
            return self._refuse("connect_rate_address", ReasonCode.CONNECTION_RATE_EXCEEDED)
        if limits.connect_rate:
            bucket = self._listeners.setdefault(connection.listener, Bucket(limits.connect_rate, now))
            if not bucket.has_one(now):
                return self._refuse("connect_rate", ReasonCode.CONNECTION_RATE_EXCEEDED)
        return None

    def _of_address(self, host: str, now: float) -> Bucket:
        bucket = self._addresses.get(host)
        if bucket is None:
            if len(self._addresses) >= MAX_ADDRESSES:
                self._addresses.popitem(last=False)
            bucket = self._addresses[host] = Bucket(self._node.limits.connect_rate_address, now)
        self._addresses.move_to_end(host)
        return bucket

    def admit(self, connection: Connection, principal: str, replaced: Connection | None) -> ReasonCode | None:
        """Count a connection whose login is right, or say why it is one too many. ``replaced`` is the one that it takes over from."""
        if not self._counts or connection.is_closed():
            return None  # nobody asks for the counts, or nobody would take it out again
        limits, host = self._node.limits, connection.peer.host
        gone = self._admitted.get(replaced, ("", "")) if replaced is not None else ("", "")
        most = limits.connections_per_address
        if most and self._by_address.get(host, 0) - (gone[0] == host) >= most:
            return self._refuse("connections_per_address", ReasonCode.QUOTA_EXCEEDED)
        most = limits.connections_per_principal
        if most and self._by_principal.get(principal, 0) - (gone[1] == principal) >= most:
            return self._refuse("connections_per_principal", ReasonCode.QUOTA_EXCEEDED)
        self._admitted[connection] = (host, principal)
        self._by_address[host] = self._by_address.get(host, 0) + 1
        self._by_principal[principal] = self._by_principal.get(principal, 0) + 1
        return None

    def _refuse(self, limit: str, code: ReasonCode) -> ReasonCode:
        self._node.counters.refused[limit] += 1
        return code

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._buckets.pop(connection, None)
        host, principal = self._admitted.pop(connection, ("", ""))
        for counts, name in ((self._by_address, host), (self._by_principal, principal)):
            if counts.get(name, 0) > 1:
                counts[name] -= 1
            elif counts.pop(name, 0) and counts is self._by_principal:
                self._buckets.pop(name, None)

    # Rates

    def charge(self, connection: Connection, messages: int, size: int) -> None:
        """What a read brought; the connection is not read again before that is paid for."""
        now, pause, limit = self._node.monotonic(), 0.0, ""
        for owner, rates in ((connection, self._connection_rates), (connection.principal.name, self._principal_rates)):
            for (name, bucket), amount in zip(self._of(owner, rates, now), (messages, size), strict=True):
                wait = bucket.take(amount, now) if bucket is not None and amount else 0.0
                if wait > pause:
                    pause, limit = wait, name
        if pause:
            self._node.counters.throttled[limit] += 1
            connection.throttle(min(pause, LONGEST_PAUSE))

    def _of(self, owner: Connection | str, rates: tuple[tuple[str, float], ...], now: float) -> tuple[tuple[str, Bucket | None], ...]:
        found = self._buckets.get(owner)
        if found is None:
            found = self._buckets[owner] = tuple((name, Bucket(rate, now) if rate else None) for name, rate in rates)
        return found
