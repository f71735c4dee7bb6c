"""The trace of messages and devices, as the gateway's parts tell of them: small tuples in a list, handed over a few times a second.

Which messages are traced is decided once a batch of the router (streams/tracing.py); their deliveries carry a mark from then on. What comes while the
list is full, or while the store is behind, is counted and told as a gap. Off, ``chosen`` stays empty and nothing is ever marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from schemas.presence import Presence
from schemas.reasons import ReasonCode
from schemas.records import Kind, Record, Source
from schemas.rules import Rule
from schemas.traces import Row, TraceAction, TraceGap, TracePage, TraceQuery
from streams.tracing import Sampler, TraceOff, TraceStore

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.counters import Counters
    from schemas.limits import Limits
    from streams.fanout import Delivery

EVERY: Final = 0.2
"""Seconds between two ticks (gateway/ticks.py)."""
GATHER: Final = 1.0
"""Seconds for which rows gather, unless somebody asks: one transaction of 5,000 rows costs half of what ten of 500 do."""
MAX_REFUSALS: Final = 20
"""Refused connects told of between two flushes: nobody without a login may fill the trace."""
DENIED: Final = (ReasonCode.NOT_AUTHORIZED, ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.BANNED, ReasonCode.BAD_AUTHENTICATION_METHOD)
ACKNOWLEDGE: Final = int(TraceAction.ACKNOWLEDGE)
RULE: Final = int(TraceAction.RULE)
CLOSE: Final = int(TraceAction.CLOSE)
OFFLINE: Final = int(TraceAction.PUSH_OFFLINE)
CONNECT: Final = int(TraceAction.CONNECT)
BY_KIND: Final[dict[int, int]] = {Kind.CONNECT: CONNECT, Kind.DISCONNECT: int(TraceAction.DISCONNECT), Kind.TCPCLEAN: CLOSE}
BY_SOURCE: Final = {Source.INFLOW: int(TraceAction.PUBLISH_BACKEND), Source.API: int(TraceAction.PUBLISH_API)}
NOTHING: Final[frozenset[bytes]] = frozenset()


class Trace:
    """``store`` None: off. ``chosen``: ids of the router's batch whose deliveries are marked."""

    def __init__(
        self, store: TraceStore | None, clock: Clock, monotonic: Callable[[], float], limits: Limits, sample: int, counters: Counters
    ) -> None:
        self.on = store is not None
        self.chosen: frozenset[bytes] | set[bytes] = NOTHING
        self.tells: Callable[[Record], bool] | None = None
        """Of many nodes, which all route all publishes: of which this one tells."""
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._counters = counters
        self._most = limits.trace_buffer
        self._sampler = Sampler(sample, limits.trace_rate)
        self._usual = self._burst = max(1, int(limits.trace_rate * EVERY))
        """Rows that are usual between two ticks at most, and at how many rows the next step up is due."""
        self._rows: list[Row] = []
        self._lost = 0
        self._devices = 0
        self._refusals = 0
        self._mark = 0
        """Rows at the last tick."""
        self._counted = 0
        """Rows between the last tick and a hand-over since."""
        self._ticked = self._handed = monotonic()
        self._since = clock.wall()

    # Messages

    def routed(self, records: Sequence[Record]) -> None:
        """The router has a batch: pick from it, and tell of the publishes that were picked."""
        if not self.on:
            return
        if len(self._rows) >= self._most:
            self.chosen = NOTHING
            self._lost += len(records)
            return
        if len(self._rows) >= self._burst:
            self._burst += self._usual
            self._sampler.raise_at_once()
        picked = self._sampler.choose(records)
        self.chosen = {record.id for record in picked}
        for record in picked if self.tells is None else filter(self.tells, picked):
            detail = f"{record.topic} from {record.principal}" if record.source else record.topic
            self._rows.append((record.time, BY_SOURCE.get(record.source, 10), record.client, record.id, "", detail))  # type: ignore[call-overload]

    def offline_mark(self, record: Record) -> int:
        """The mark of a delivery that comes from the store."""
        return OFFLINE if self.on and self._sampler.picks(record.id) else 0

    def mark(self, record: Record) -> int:
        """The mark of a delivery that no batch of the router brought."""
        return int(TraceAction.PUSH) if self.on and self._sampler.picks(record.id) else 0

    def pushed(self, client: str, deliveries: Sequence[Delivery]) -> None:
        """Marked deliveries are on their way to a client."""
        if len(self._rows) >= self._most:
            self._lost += len(deliveries)
            return
        now = self._clock.last
        self._rows += [(now, delivery.traced, client, delivery.record.id, "", "") for delivery in deliveries]

    def acknowledged(self, client: str, delivery: Delivery) -> None:
        """A client has acknowledged a marked delivery."""
        if len(self._rows) >= self._most:
            self._lost += 1
            return
        self._rows.append((self._clock.last, ACKNOWLEDGE, client, delivery.record.id, "", ""))

    def sent(self, rule: Rule, records: Iterable[Record]) -> None:
        """A backend has taken these records from a rule."""
        if not self.on:
            return
        now, picks, detail = self._clock.wall(), self._sampler.picks, f"{rule.id} sent it to {rule.backend_topic}"
        found: list[Row] = [(now, RULE, record.client, record.id, "", detail) for record in records if not record.kind and picks(record.id)]
        if len(self._rows) + len(found) > self._most:
            self._lost += len(found)
        else:
            self._rows += found

    # Devices

    def presence(self, records: Sequence[Record], events: Sequence[Presence]) -> None:
        """Presence events that are folded, and their bodies."""
        if not self.on:
            return
        room = max(0, self._most - len(self._rows))
        self._lost += max(0, len(records) - room)
        taken = records[:room]
        self._devices += len(taken)
        for record, event in zip(taken, events, strict=False):
            action = BY_KIND[record.kind]
            detail = f"accepted from {event.address}" if action == CONNECT else event.reason
            self._rows.append((record.time, action, record.client, b"", event.channel, detail))

    def refused(self, client: str, address: str, code: ReasonCode, words: str) -> None:
        """A CONNECT was refused; what it calls itself may be anything."""
        if not self.on:
            return
        self._refusals += 1
        if self._refusals > MAX_REFUSALS or len(self._rows) >= self._most:
            self._lost += 1
            return
        self._devices += 1
        reason = "not authorized" if code in DENIED else "invalid param"
        self._rows.append((self._clock.wall(), CLOSE, client[:256], b"", "", f"{reason}: {words}, from {address}"))

    # By the clock, and what is asked

    def tick(self) -> None:
        """A few times a second: pick more or fewer messages, and hand over what has come together."""
        if not self.on:
            return
        now = self._monotonic()
        self._sampler.adapt(self._counted + len(self._rows) - self._mark - self._devices, now - self._ticked)
        self._counted = self._devices = self._refusals = 0
        self._ticked, self._mark, self._burst = now, len(self._rows), len(self._rows) + self._usual
        if now - self._handed >= GATHER or len(self._rows) * 4 >= self._most:
            self._hand_over()

    def finish(self) -> None:
        """The gateway stops."""
        if self.on:
            self._hand_over()

    def _hand_over(self) -> None:
        assert self._store is not None  # noqa: S101 - on
        rows, self._rows = self._rows, []
        wall, sampler = self._clock.wall(), self._sampler
        self._handed = self._monotonic()
        self._counted += len(rows) - self._mark
        self._mark, self._burst = 0, self._usual
        gap = None
        if self._lost or sampler.left_out > 0:
            gap = TraceGap(begin=self._since, end=wall, messages=max(0, sampler.left_out), events=self._lost)
        if (rows or gap is not None) and not self._store.write(rows, gap):
            self._lost += len(rows)  # the gap goes on
            return
        if gap is not None:
            self._counters.trace_left_out += gap.messages
            self._counters.trace_lost += gap.events
        self._lost = sampler.left_out = 0
        self._since = wall

    async def find(self, query: TraceQuery) -> TracePage:
        """What happened up to now. TraceOff where nothing is traced."""
        if self._store is None:
            raise TraceOff("nothing is traced: set trace.enabled")
        self._hand_over()
        return await self._store.find(query)
