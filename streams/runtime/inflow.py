"""Runs a rule that receives: a backend's messages into the log first, the source's position after.

It receives only while the gate is open: clients are admitted and the log takes records. What can't be mapped is a dead letter with its
reason, or stops the rule where it says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from schemas.errors import BackendError, LogError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Record
from schemas.rules import Rule, RuleState, parse_position
from streams.backend import Backend, Incoming, Source
from streams.log import Log
from streams.mapping.conditions import Conditions, Verdict
from streams.mapping.inflow import PRINCIPAL, Expired, InflowMapper, Stamp
from streams.runtime.progress import Progress
from streams.runtime.sending import QUEUES, Backoff, Judge, Letters, Pacer, Stopped
from streams.store import Change, DeadLetter, PutRuleState

MAX_MESSAGES: Final = 512
MAX_BYTES: Final = 1024 * 1024
GATE: Final = 0.05
"""Seconds until a closed gate is looked at again."""


class Appending:
    """A batch on its way to the log; ``refused`` are to be appended again."""

    def __init__(self, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused: list[Record] = []
        self.error = ""
        self._left = count

    def appended(self, records: Sequence[Record], first: At) -> None:
        self._told(len(records))

    def refuse(self, records: Sequence[Record], error: LogError) -> None:
        self.refused += records
        self.error = str(error)
        self._told(len(records))

    def _told(self, count: int) -> None:
        self._left -= count
        if not self._left and not self.done.done():
            self.done.set_result(None)


class _Sink:
    """The log's view of an Appending."""

    def __init__(self, appending: Appending) -> None:
        self.appended = appending.appended
        self.refused = appending.refuse


class InflowRunner:
    def __init__(
        self,
        rule: Rule,
        state: RuleState,
        log: Log,
        backend: Backend,
        mapper: InflowMapper,
        conditions: Conditions,
        progress: Progress,
        letters: Letters,
        *,
        stamp: Callable[[], Stamp],
        is_open: Callable[[], bool],
        wall: Callable[[], int],
        monotonic: Callable[[], float],
        judge: Judge,
        stored: Callable[[], Awaitable[None]],
        undelivered: Callable[[Record, str], None],
    ) -> None:
        self.rule = rule
        self.progress = progress
        self.letters = letters
        self.oldest = 0
        self.behind = 0
        """Messages that the source holds behind the rule's position, as last asked."""
        self.begun = asyncio.Event()
        """Set once the rule knows where it begins, or why it doesn't know yet."""
        self._log = log
        self._backend = backend
        self._mapper = mapper
        self._conditions = conditions
        self._stamp = stamp
        self._is_open = is_open
        self._wall = wall
        self._judge = judge
        self._stored = stored
        self._undelivered = undelivered
        self._pacer = Pacer(rule.rate, monotonic)
        self._offsets = dict(state.offsets)
        self._source: Source | None = None
        self._skipped_before = 0
        self._dirty = False
        self._told: dict[str, int] = {}

    async def run(self) -> None:
        """Until poison stops the rule."""
        try:
            await self._begin()
            assert self._source is not None  # noqa: S101 - begun
            while True:
                await self._gate()
                messages = await self._receive(self._source)
                if messages:
                    await self._carry(messages)
                await asyncio.sleep(0)
        except Stopped as stopped:
            self.progress.stops(str(stopped), self._wall())
        finally:
            if self._source is not None:
                await self._source.close()

    async def _begin(self) -> None:
        """Where to start is stored before anything is received: so a crash can't move what `now` meant."""
        rule, backoff = self.rule, Backoff()
        while True:
            try:
                problem = await self._problem(rule.backend_topic)
                if not problem and not self._offsets:
                    start = parse_position(rule.position) if rule.position else rule.start
                    self._offsets = dict(await self._backend.resolve(rule.backend_topic, start))
                    self._dirty = True
                    await self._stored()
            except BackendError as error:
                problem = str(error)
            self.begun.set()
            if not problem:
                break
            self.progress.waits(problem, self._wall())
            await backoff.wait()
        self._source = self._backend.source(rule.id, rule.backend_topic, self._offsets, tags=rule.tags, sql=rule.sql)

    async def _problem(self, topic: str) -> str:
        """Why the topic can't be received; empty where it can."""
        if await self._backend.describe(topic) is None:
            if not self.rule.create:
                return f"{topic} does not exist; make it with: {self._backend.creation_hint(topic)}"
            await self._backend.create_topic(topic, QUEUES)
        return ""

    async def _gate(self) -> None:
        while not self._is_open():
            self.progress.waits("the gateway takes no messages now: it is starting, stopping, or its log lags", self._wall())
            await asyncio.sleep(GATE)

    async def _receive(self, source: Source) -> Sequence[Incoming]:
        backoff = Backoff()
        while True:
            if not self.behind and self.progress.state != "waiting":
                self.oldest = 0
            try:
                messages = await source.next(min(MAX_MESSAGES, self._pacer.most), MAX_BYTES)
            except BackendError as error:
                self.progress.waits(str(error), self._wall())
                await backoff.wait()
                continue
            skipped = source.skipped
            if skipped != self._skipped_before:
                self.progress.skipped += skipped - self._skipped_before
                self._skipped_before, self._dirty = skipped, True
            return messages

    async def _carry(self, messages: Sequence[Incoming]) -> None:
        """A batch into the log, then its position."""
        await self._pacer.take(len(messages))
        self.oldest = messages[0].time
        verdicts = await self._judge(lambda: self._conditions.judge_incoming(messages)) if self._conditions else None
        records: list[Record] = []
        upto = len(messages)
        stopped = ""
        for index, message in enumerate(messages):
            mapped = self._map(message, None if verdicts is None else verdicts[index])
            if isinstance(mapped, Record):
                records.append(mapped)
            elif mapped is not None:
                if self.rule.on_poison == "stop":
                    stopped, upto = f"message {message.queue}:{message.offset} can't be taken: {mapped}", index
                    break
                self.letters.add(mapped, message=message)
        await self._append(records)
        for message in messages[:upto]:
            self._offsets[message.queue] = message.offset + 1
        self._dirty = True
        self.progress.sent += len(records)
        if stopped:
            raise Stopped(stopped)
        self.progress.succeeded(self._wall())

    def _map(self, message: Incoming, verdict: Verdict | None) -> Record | str | None:
        """The record, the reason why it is poison, or None where it is left out."""
        if verdict is not None:
            if verdict.reason:
                return verdict.reason
            if verdict.body is None:
                self.progress.filtered += 1
                return None
        mapped = self._mapper.map(message, self._stamp(), None if verdict is None else verdict.body)
        if isinstance(mapped, Expired):
            self.progress.filtered += 1
            self._undelivered(mapped.record, "expired before it came here")
            return None
        return mapped

    async def _append(self, records: Sequence[Record]) -> None:
        """Durable when this returns; what the log refuses is appended again."""
        backoff, key = Backoff(), PRINCIPAL + self.rule.id
        while records:
            appending = Appending(len(records))
            sink = _Sink(appending)
            for record in records:
                self._log.append(PUBLISH_TOPIC, key, record, sink)
            await appending.done
            records = appending.refused
            if records:
                self.progress.waits(appending.error, self._wall())
                await backoff.wait()

    # What is told and stored

    def lag(self) -> int:
        return self.behind

    def changes(self) -> list[Change]:
        """What the next checkpoint stores of this rule."""
        if not self._dirty and not self.letters.pending:
            return []
        self._dirty = False
        return [*self.letters.pending, PutRuleState(self.rule.id, self.state())]

    def failed(self) -> None:
        self._dirty = True

    def state(self) -> RuleState:
        return RuleState({}, dict(self._offsets), self.progress.counts(), letters=self.progress.letters)

    async def look(self) -> None:
        """Ask the source how far behind the rule is, and tell the backend where it stands; a failure shows elsewhere."""
        source = self._source
        if source is None:
            return
        try:
            self.behind = lag_of(self._offsets, await source.ends())
            if self._told != self._offsets:
                told = dict(self._offsets)
                await source.commit(told)
                self._told = told
        except BackendError as error:
            self.progress.last_error, self.progress.last_error_at = str(error)[:500], self._wall()

    async def resend(self, letters: Sequence[DeadLetter]) -> list[tuple[int, str]]:
        """Try dead letters again; those that still can't be taken, with the reason."""
        failed = []
        records = []
        for letter in letters:
            if letter.message is None:
                continue
            message = letter.message
            verdict = (await self._judge(partial(self._conditions.judge_incoming, [message])))[0] if self._conditions else None
            mapped = self._map(message, verdict)
            if isinstance(mapped, Record):
                records.append(mapped)
            elif mapped is not None:
                failed.append((letter.number, mapped))
        await self._append(records)
        self.progress.sent += len(records)
        return failed


def lag_of(offsets: Mapping[str, int], ends: Mapping[str, tuple[int, int]]) -> int:
    """Messages between a rule's offsets and the ends of its queues."""
    return sum(max(0, last - max(offsets.get(queue, 0), first)) for queue, (first, last) in ends.items())
