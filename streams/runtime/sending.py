"""Sends a rule's records: conditions, mapping, the topic's existence, batches with retries for ever, and dead letters.

A failure of the backend is waited out and says so in the rule's progress; what the backend refuses as such, or what can't be mapped,
becomes a dead letter, or stops the rule where it says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

from schemas.errors import BackendError
from schemas.records import Record
from schemas.rules import Rule
from streams.backend import Backend, Incoming, Outgoing, Rejected, Target
from streams.mapping.conditions import Conditions, Verdict
from streams.mapping.outflow import Mapped, Poison
from streams.runtime.progress import Progress
from streams.store import Change, DeadLetter, DropDeadLetters, PutDeadLetter

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 2.0
"""Seconds between attempts: a backend that is back is found within the longest."""
PATIENCE: Final = 5.0
"""Seconds for which a dead letter waits for its turn between batches."""
MAX_LETTERS: Final = 1_000
"""Dead letters kept of a rule: the oldest go."""
QUEUES: Final = 8
"""Queues or partitions of a topic that a rule makes."""
SERVED_KINDS: Final = ("", "NORMAL", "FIFO", "UNSPECIFIED", "MIXED")
"""Message types of RocketMQ topics that take what we send."""


class Stopped(Exception):
    """The rule has met poison and does not go on."""


class Mapper(Protocol):
    """OutflowMapper or StatusMapper."""

    always_in_lanes: bool
    sources: frozenset[int]

    @property
    def is_template(self) -> bool: ...

    def map_all(self, records: Sequence[Record], verdicts: Sequence[Verdict] | None = None) -> Mapped: ...

    def forget(self) -> None: ...


class Backoff:
    """How long to wait until the next attempt."""

    def __init__(self) -> None:
        self._wait = FIRST_WAIT

    async def wait(self) -> None:
        await asyncio.sleep(self._wait)
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def reset(self) -> None:
        self._wait = FIRST_WAIT


class Pacer:
    """At most ``rate`` messages a second; 0 for as many as there are."""

    def __init__(self, rate: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._free_at = 0.0
        self.most = max(1, int(rate / 10)) if rate else 1 << 30
        """Messages to take at a time."""

    async def take(self, count: int) -> None:
        """Wait for the turn of so many messages."""
        if not self._rate:
            return
        now = self._monotonic()
        start = max(self._free_at, now)
        self._free_at = start + count / self._rate
        if start > now:
            await asyncio.sleep(start - now)


class Letters:
    """Dead letters on their way to the store; they are committed with the position that has passed them."""

    def __init__(self, rule: str, progress: Progress, wall: Callable[[], int]) -> None:
        self.pending: list[Change] = []
        self._rule = rule
        self._progress = progress
        self._wall = wall

    def add(self, reason: str, *, record: Record | None = None, message: Incoming | None = None) -> None:
        progress, now = self._progress, self._wall()
        number = progress.letters
        progress.letters += 1
        progress.dead += 1
        progress.last_error, progress.last_error_at = f"dead letter {number}: {reason}"[:500], now
        self.pending.append(PutDeadLetter(DeadLetter(self._rule, number, now, reason[:500], record, message)))
        if number > MAX_LETTERS:
            progress.letters_dropped += 1
            self.pending.append(DropDeadLetters(self._rule, 0, number - MAX_LETTERS))


Judge = Callable[[Callable[[], list[Verdict]]], Awaitable[list[Verdict]]]
"""Runs what computes for long, off the event loop."""


class Sender:
    """One a rule; its target is asked one batch at a time."""

    def __init__(
        self,
        rule: Rule,
        backend: Backend,
        mapper: Mapper,
        conditions: Conditions,
        progress: Progress,
        letters: Letters,
        *,
        wall: Callable[[], int],
        monotonic: Callable[[], float],
        judge: Judge,
        sent: Callable[[Rule, Sequence[Record]], None] = lambda rule, records: None,
    ) -> None:
        """``sent`` is told what the backend has taken."""
        self._sent = sent
        self.mapper = mapper
        self._rule = rule
        self._backend = backend
        self._conditions = conditions
        self._progress = progress
        self._letters = letters
        self._wall = wall
        self._judge = judge
        self._pacer = Pacer(rule.rate, monotonic)
        self._target: Target = backend.target(rule.id, ordered=rule.ordered)
        self._known: set[str] = set()
        self._busy = asyncio.Lock()

    async def send(self, records: Sequence[Record]) -> None:
        """All of them are sent, left out, or dead letters when this returns. Raises Stopped."""
        most = self._pacer.most
        for start in range(0, len(records), most):
            part = records[start : start + most]
            await self._pacer.take(len(part))
            async with self._busy:
                await self._send(part)

    async def _send(self, records: Sequence[Record]) -> None:
        verdicts = await self._judge(lambda: self._conditions.judge_records(records)) if self._conditions else None
        if not self.mapper.is_template:
            await self._ensure({self._rule.backend_topic})
        mapped = self.mapper.map_all(records, verdicts)
        if self.mapper.is_template and await self._ensure({message.topic for message in mapped.messages}):
            mapped = self.mapper.map_all(records, verdicts)
        stop = self._rule.on_poison == "stop"
        messages, poison = mapped.messages, mapped.poison
        if poison and stop:
            messages = [message for message, origin in zip(messages, mapped.origins, strict=True) if origin < poison[0].origin]
        rejected = await self._deliver(messages) if messages else ()
        bad = sorted([*(poison[:1] if stop else poison), *(Poison(mapped.origins[each.index], each.reason) for each in rejected)])
        if bad and stop:
            raise Stopped(f"message {records[bad[0].origin].id.hex().upper()} can't be sent: {bad[0].reason}")
        for each in bad:
            self._letters.add(each.reason, record=records[each.origin])
        if messages:
            gone = {each.index for each in rejected}
            self._sent(self._rule, [records[origin] for index, origin in enumerate(mapped.origins[: len(messages)]) if index not in gone])
        progress = self._progress
        progress.sent += len(messages) - len(rejected)
        progress.filtered += mapped.filtered
        progress.looped += mapped.looped
        if messages or not bad:
            progress.succeeded(self._wall())

    async def _deliver(self, messages: Sequence[Outgoing]) -> Sequence[Rejected]:
        """Send until the backend has answered."""
        backoff = Backoff()
        while True:
            try:
                return await self._target.send(messages)
            except BackendError as error:
                self._progress.waits(str(error), self._wall())
            await backoff.wait()

    async def _ensure(self, topics: set[str]) -> bool:
        """The topics are there when this returns. Whether messages have to be mapped anew."""
        missing = topics - self._known
        if not missing:
            return False
        before = self.mapper.always_in_lanes
        for topic in sorted(missing):
            backoff = Backoff()
            while (problem := await self._problem(topic)) != "":
                self._progress.waits(problem, self._wall())
                await backoff.wait()
            self._known.add(topic)
        return self.mapper.always_in_lanes != before

    async def _problem(self, topic: str) -> str:
        """Why the topic can't be sent to now; empty where it can."""
        backend, rule = self._backend, self._rule
        try:
            found = await backend.describe(topic)
            if found is None and rule.create:
                await backend.create_topic(topic, QUEUES, "FIFO" if rule.ordered else "")
                found = await backend.describe(topic)
        except BackendError as error:
            return str(error)
        if found is None:
            return f"{topic} does not exist; make it with: {backend.creation_hint(topic, ordered=rule.ordered)}"
        if found.kind not in SERVED_KINDS:
            return f"{topic} is a topic for {found.kind} messages: name one of type NORMAL or FIFO"
        if found.kind == "FIFO" and not self.mapper.always_in_lanes:
            self.mapper.always_in_lanes = True
            self.mapper.forget()
        return ""

    async def resend(self, letters: Sequence[DeadLetter]) -> list[tuple[int, str]]:
        """Try dead letters again, one by one: those that still can't be sent, with the reason. BackendError where the backend fails."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._busy.acquire()
        except TimeoutError:
            raise BackendError(self._progress.waits_for or "the rule is sending") from None
        try:
            return await self._resend([letter for letter in letters if letter.record is not None])
        finally:
            self._busy.release()

    async def _resend(self, letters: Sequence[DeadLetter]) -> list[tuple[int, str]]:
        failed = []
        for letter in letters:
            assert letter.record is not None  # noqa: S101 - of those alone
            records = [letter.record]
            verdicts = await self._judge(partial(self._conditions.judge_records, records)) if self._conditions else None
            mapped = self.mapper.map_all(records, verdicts)
            rejected = await self._target.send(mapped.messages) if mapped.messages else ()
            reasons = [poison.reason for poison in mapped.poison] + [each.reason for each in rejected]
            if reasons:
                failed.append((letter.number, reasons[0]))
            else:
                self._progress.sent += len(mapped.messages)
        return failed

    async def close(self) -> None:
        await self._target.close()
