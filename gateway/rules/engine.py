"""What runs of the rules: feeds while they have a rule to feed, a runner and a task for each enabled rule, checkpoints, and what is measured.

Knows how to start, stop and replace a rule without a record lost between the two; whether that is wanted, management.py decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.rules.info import RuleStatus
from gateway.rules.undelivered import Undelivered
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError, LogError, SluicewayError
from schemas.limits import Limits
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record
from schemas.rules import Rule, RuleState
from schemas.settings import LogSettings
from streams.backend import Backend
from streams.log import Log
from streams.mapping.conditions import Conditions, Verdict
from streams.mapping.inflow import InflowMapper, Stamp
from streams.mapping.outflow import OutflowMapper
from streams.mapping.status import StatusMapper, is_of
from streams.runtime.checkpoints import Checkpoints, stored_positions
from streams.runtime.feed import Feed
from streams.runtime.inflow import InflowRunner
from streams.runtime.outflow import OutflowRunner, Room, begin, resume
from streams.runtime.progress import Progress
from streams.runtime.sending import Judge, Letters, Sender
from streams.store import Store

MEASURE: Final = 1.0
LOOK: Final = 5.0
"""Seconds between questions to sources, and how long one may take."""
AGAIN: Final = 5.0
"""Seconds until a rule that failed by a fault of ours is tried again."""
ALARM: Final = 0.8

logger = logging.getLogger(__name__)

Runner = OutflowRunner | InflowRunner


async def off_loop(work: Callable[[], list[Verdict]]) -> list[Verdict]:
    """Conditions are computed on a thread, so that no expression keeps the loop from others."""
    return await asyncio.to_thread(work)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules need of the gateway. ``stamp`` makes a record's id and time, ``is_open`` says whether inflow may run; times as named."""

    log: Log
    store: Store
    connections: Mapping[str, ConnectionSettings]
    backends: Mapping[str, Backend]
    instance: str
    limits: Limits
    retention: LogSettings
    is_p2p: Callable[[str], bool]
    stamp: Callable[[], Stamp]
    is_open: Callable[[], bool]
    wall: Callable[[], int]
    monotonic: Callable[[], float]
    judge: Judge = off_loop
    sent: Callable[[Rule, Sequence[Record]], None] = lambda rule, records: None
    """Is told what a backend has taken from a rule."""


class Engine:
    """``rules`` are all that there are, ``runners`` those that are enabled."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.rules: dict[str, Rule] = {}
        self.runners: dict[str, Runner] = {}
        self.states: dict[str, RuleState] = {}
        """Where disabled rules stand."""
        self.feeds = {PUBLISH_TOPIC: Feed(around.log, PUBLISH_TOPIC), PRESENCE_TOPIC: Feed(around.log, PRESENCE_TOPIC)}
        self.checkpoints = Checkpoints(around.store, self.feeds)
        self.undelivered = Undelivered(around.connections, around.backends, self.rules)
        self.elsewhere = ""
        """The node that runs the rules, where it isn't this one."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._feeding: dict[str, asyncio.Task[None]] = {}
        self._room = Room()
        self._alarmed: set[str] = set()

    # The whole

    async def load(self) -> None:
        """All rules of the store; the enabled ones start where they stood."""
        stored = await self.around.store.positions()
        found = await self.around.store.rules()
        enabled = [rule for rule, _ in found if rule.enabled]
        for name in {feed_of(rule) for rule in enabled} - {""}:
            await self.feed(name, stored_positions(name, stored))
        for rule, state in found:
            self.rules[rule.id] = rule
            if rule.enabled:
                feed = feed_of(rule)
                going_on = state
                if feed and state is not None and state.positions:
                    # Where nothing says up to where the feed had counted, its counts say nothing either.
                    places = self.feeds[feed].positions
                    going_on = resume(state, places, self.around.log.place) if stored_positions(feed, stored) else begin(state, places, places)
                await self.start(rule, going_on or RuleState())
            else:
                self.states[rule.id] = state or RuleState()

    async def run(self) -> None:
        """For as long as the gateway runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.checkpoints.run())
            group.create_task(self.undelivered.run())
            group.create_task(self._measure())
            group.create_task(self._look())

    async def stop(self) -> None:
        """All rules stand still, where they stand is stored, and backends are let go."""
        for task in [*self._tasks.values(), *self._feeding.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._feeding.values(), return_exceptions=True)
        await self.checkpoints.commit()
        for runner in self.runners.values():
            await _let_go(runner)
        for feed in self.feeds.values():
            feed.close()
        for name, backend in self.around.backends.items():
            try:
                async with asyncio.timeout(LOOK):
                    await backend.close()
            except (BackendError, TimeoutError) as error:
                logger.warning("connection-not-closed connection=%s error=%s", name, error)

    # One rule

    async def start(self, rule: Rule, state: RuleState) -> None:
        """Run the rule from ``state`` on."""
        name = feed_of(rule)
        if name:
            feed = await self.feed(name, None)
            if not state.positions:
                state = begin(state, feed.positions, feed.positions)
        self._put(rule, state)

    async def begun(self, rule_id: str) -> None:
        """An inflow rule has found out where `now` is, or can't: what its backend is sent from here on is the rule's."""
        runner = self.runners.get(rule_id)
        if isinstance(runner, InflowRunner):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await runner.begun.wait()

    def _put(self, rule: Rule, state: RuleState) -> None:
        """In one step: from here on the feed hands it all that comes."""
        if rule.connection not in self.around.backends:
            self.states[rule.id] = state
            return
        runner = self.runners[rule.id] = self._make(rule, state)
        self.states.pop(rule.id, None)
        self.checkpoints.runners[rule.id] = runner
        if isinstance(runner, OutflowRunner):
            self.feeds[feed_of(rule)].attach(runner)
        self._tasks[rule.id] = asyncio.get_running_loop().create_task(self._run(rule, runner), name=f"rule {rule.id}")

    async def halt(self, rule_id: str) -> RuleState:
        """Stop the rule; where it stands. What was under way may have been sent."""
        runner = self.runners.get(rule_id)
        if runner is None:
            return self.states.pop(rule_id, RuleState())
        task = self._tasks.pop(rule_id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.checkpoints.commit()
        state = runner.state()
        self._take_out(rule_id, runner)
        await _let_go(runner)
        return state

    def _take_out(self, rule_id: str, runner: Runner) -> None:
        del self.runners[rule_id]
        self.checkpoints.runners.pop(rule_id, None)
        if isinstance(runner, OutflowRunner):
            self.feeds[feed_of(runner.rule)].detach(runner)
            runner.release_room()

    async def replace(self, rule: Rule, *, anew: bool) -> None:
        """Run a changed rule where the old one stopped; ``anew`` where other records are its own now."""
        state = await self.halt(rule.id)
        name = feed_of(rule)
        if name and anew:
            state = begin(state, (await self.feed(name, None)).positions, self.feeds[name].positions)
        await self.start(rule, state)

    def _make(self, rule: Rule, state: RuleState) -> Runner:
        around, progress = self.around, Progress(state)
        letters = Letters(rule.id, progress, around.wall)
        backend, connection = around.backends[rule.connection], around.connections[rule.connection]
        conditions = Conditions(rule)
        if rule.kind == "inflow":
            return InflowRunner(
                rule,
                state,
                around.log,
                backend,
                InflowMapper(rule, around.limits, around.is_p2p),
                conditions,
                progress,
                letters,
                stamp=around.stamp,
                is_open=around.is_open,
                wall=around.wall,
                monotonic=around.monotonic,
                judge=around.judge,
                stored=self._stored,
                undelivered=self.undelivered.tell,
            )
        mapper = StatusMapper(rule, connection) if rule.kind == "status" else OutflowMapper(rule, connection, f"{around.instance}:{rule.id}")
        sender = Sender(
            rule,
            backend,
            mapper,
            conditions,
            progress,
            letters,
            wall=around.wall,
            monotonic=around.monotonic,
            judge=around.judge,
            sent=around.sent,
        )
        topic = feed_of(rule)
        return OutflowRunner(
            rule, state, around.log, topic, self.feeds[topic], sender, progress, letters, self._room, is_mine=owner_of(rule), wall=around.wall
        )

    async def _stored(self) -> None:
        """What is known now is durable; a store that fails is waited for."""
        while not await self.checkpoints.commit():  # noqa: ASYNC110 - the store tells nobody when it is back
            await asyncio.sleep(MEASURE)

    async def _run(self, rule: Rule, runner: Runner) -> None:
        """A fault of ours stops a rule for a while and never another one, or the gateway. It goes on from where it stood."""
        try:
            await runner.run()
        except Exception as error:
            logger.exception("rule-failed rule=%s", rule.id)
            runner.progress.stops(f"{type(error).__name__}: {error}", self.around.wall(), "failed")
            await asyncio.sleep(AGAIN)
            again = asyncio.get_running_loop().create_task(self._again(rule, runner))
            again.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _again(self, rule: Rule, runner: Runner) -> None:
        if self.runners.get(rule.id) is runner:
            last = runner.progress.last_error, runner.progress.last_error_at
            await self.replace(rule, anew=False)
            progress = self.runners[rule.id].progress
            progress.last_error, progress.last_error_at = last

    # Feeds

    async def feed(self, name: str, stored: Mapping[int, At] | None) -> Feed:
        """The feed of a topic of the log, running."""
        feed = self.feeds[name]
        if name not in self._feeding:
            await feed.open(stored or None)
            self._feeding[name] = asyncio.get_running_loop().create_task(self._run_feed(name, feed), name=f"feed {name}")
        return feed

    async def _run_feed(self, name: str, feed: Feed) -> None:
        while True:
            try:
                await feed.run()
            except (LogError, SluicewayError) as error:
                logger.warning("feed-failed topic=%s error=%s", name, error)
            await asyncio.sleep(MEASURE)
            await feed.open(feed.positions)

    # What is measured

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(MEASURE)
            now = self.around.monotonic()
            for name, runner in self.runners.items():
                runner.progress.measure(now)
                if self._is_alarming(runner) != (name in self._alarmed):
                    self._alarmed ^= {name}
                    words = "will soon be cut by retention" if name in self._alarmed else "is out of retention's reach"
                    logger.warning("rule-backlog rule=%s lag=%d: it %s", name, runner.lag(), words)

    def _is_alarming(self, runner: Runner) -> bool:
        if not isinstance(runner, OutflowRunner) or runner.is_idle:
            return False
        retention, feed = self.around.retention, self.feeds[feed_of(runner.rule)]
        mean = feed.size / feed.records if feed.records else 0
        age = (self.around.wall() - runner.oldest) / 1000 if runner.oldest else 0
        return age >= ALARM * retention.retention_age or runner.backlog() * mean >= ALARM * retention.retention_bytes

    async def _look(self) -> None:
        """How far behind inflow rules are, asked of their sources."""
        while True:
            await asyncio.sleep(LOOK)
            looks = [self._bounded(runner.look()) for runner in self.runners.values() if isinstance(runner, InflowRunner)]
            await asyncio.gather(*looks)

    async def _bounded(self, look: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(LOOK):
                await look
        except TimeoutError:
            return

    def status(self, rule: Rule) -> RuleStatus:
        """What a rule says of itself now."""
        runner = self.runners.get(rule.id)
        if runner is None:
            state = self.states.get(rule.id, RuleState())
            if rule.enabled:
                reason = f"there is no [connections.{rule.connection}] in the settings"
                return RuleStatus(state="waiting", reason=reason, counts=state.counts, position=_position(state))
            return RuleStatus(state="disabled", counts=state.counts, position=_position(state))
        progress, lag = runner.progress, runner.lag()
        return RuleStatus(
            state=progress.state,
            reason=progress.waits_for,
            lag_records=lag,
            lag_age=max(0.0, (self.around.wall() - runner.oldest) / 1000) if lag and runner.oldest else 0.0,
            rate=round(progress.rate, 2),
            last_error=progress.last_error,
            last_error_at=progress.last_error_at,
            last_sent_at=progress.last_sent,
            alarm=rule.id in self._alarmed,
            counts=progress.counts(),
            position=_position(runner.state()),
        )


def feed_of(rule: Rule) -> str:
    """The topic of the log that feeds a rule; none feeds an inflow rule."""
    return {"outflow": PUBLISH_TOPIC, "status": PRESENCE_TOPIC}.get(rule.kind, "")


def owner_of(rule: Rule) -> Callable[[str], bool]:
    if rule.kind == "status":
        return lambda client: is_of(rule, client)
    parent, prefix = rule.topic, rule.topic + "/"
    return lambda topic: topic == parent or topic.startswith(prefix)


def _position(state: RuleState) -> dict[str, int]:
    return {str(shard): at.offset + at.index for shard, at in state.positions.items()} | state.offsets


async def _let_go(runner: Runner) -> None:
    if isinstance(runner, OutflowRunner):
        try:
            async with asyncio.timeout(LOOK):
                await runner.sender.close()
        except (BackendError, TimeoutError):
            return
