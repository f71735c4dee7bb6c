"""Rules as they are managed: every change is checked, stored and in effect when its call returns; what is refused changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from gateway.rules.dry_run import dry_run
from gateway.rules.engine import Engine, feed_of
from gateway.rules.info import letter_json, rule_json
from schemas.errors import BackendError, StoreError
from schemas.positions import At
from schemas.rules import MAX_RULES, Rule, RuleError, RuleState, changed_rule, parse_position, read_rule
from schemas.targets import check_connection
from streams.log import Log
from streams.mapping.conditions import Conditions
from streams.runtime.outflow import begin
from streams.runtime.sending import QUEUES
from streams.store import Change, DeadLetter, DropDeadLetters, DropRule, PutRule, PutRuleState

ASK: Final = 3.0
"""Seconds for which a new rule's topic is asked for: a backend that doesn't answer keeps no rule from being made."""
RESEND: Final = 30.0
"""Seconds for a page of dead letters."""
PAGE: Final = 100
"""Dead letters that are listed or sent again at a time."""

logger = logging.getLogger(__name__)


class RuleManagement:
    """One change at a time; ``by`` is the name of the principal that makes it, for the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    def _is_here(self) -> None:
        """Of many nodes one runs the rules, and knows how they do."""
        if self._engine.elsewhere:
            raise RuleError("id", f"rules run on the node {self._engine.elsewhere}: ask its API", conflict=True)

    def all(self) -> list[dict[str, Any]]:
        self._is_here()
        return [rule_json(rule, self._engine.status(rule)) for _, rule in sorted(self._engine.rules.items())]

    def show(self, rule_id: str) -> dict[str, Any]:
        rule = self._rule(rule_id)
        return rule_json(rule, self._engine.status(rule))

    async def create(self, given: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        self._is_here()
        rule = read_rule(given)
        async with self._turn:
            if rule.id in self._engine.rules:
                raise RuleError("id", f"there is a rule {rule.id} already: choose another id, or update that one", conflict=True)
            if len(self._engine.rules) >= MAX_RULES:
                raise RuleError("id", f"there are {MAX_RULES} rules, the most there can be: delete one", conflict=True)
            self._check(rule)
            await self._ask_for_topic(rule)
            state = await self._initial(rule)
            await self._store(PutRule(rule), PutRuleState(rule.id, state))
            self._engine.rules[rule.id] = rule
            if rule.enabled:
                await self._engine.start(rule, state)
            else:
                self._engine.states[rule.id] = state
        logger.info("rule-created rule=%s kind=%s by=%s", rule.id, rule.kind, by)
        await self._engine.begun(rule.id)
        return self.show(rule.id)

    async def update(self, rule_id: str, changes: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Other values for some fields; a stopped rule goes on."""
        async with self._turn:
            before = self._rule(rule_id)
            rule = changed_rule(before, changes)
            self._check(rule)
            if (rule.connection, rule.backend_topic) != (before.connection, before.backend_topic):
                await self._ask_for_topic(rule)
            await self._store(PutRule(rule))
            self._engine.rules[rule_id] = rule
            anew = not before.enabled or (rule.resource, rule.sources) != (before.resource, before.sources)
            if rule.enabled:
                await self._engine.replace(rule, anew=anew)
            else:
                self._engine.states[rule_id] = await self._engine.halt(rule_id)
        logger.info("rule-updated rule=%s fields=%s by=%s", rule_id, ",".join(sorted(changes)), by)
        return self.show(rule_id)

    async def enable(self, rule_id: str, *, enabled: bool, by: str) -> dict[str, Any]:
        """Pause keeps the position, and a rule that goes on goes on there."""
        return await self.update(rule_id, {"enabled": enabled}, by=by)

    async def delete(self, rule_id: str, *, by: str) -> None:
        async with self._turn:
            self._rule(rule_id)
            await self._store(DropRule(rule_id))
            del self._engine.rules[rule_id]
            await self._engine.halt(rule_id)
        logger.info("rule-deleted rule=%s by=%s", rule_id, by)

    async def reset(self, rule_id: str, given: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Go on from elsewhere: `start` or `position`, as a new rule has them."""
        for name in given:
            if name not in ("start", "position"):
                raise RuleError(str(name)[:64], "unknown field: a reset takes start or position")
        if len(given) != 1:
            raise RuleError("start", "give start or position, one of them")
        async with self._turn:
            before = self._rule(rule_id)
            moved = changed_rule(before, {"start": "now", "position": ""} | dict(given))
            state = await self._initial(moved, resolve=True)
            stood = await self._engine.halt(rule_id)
            state = replace(state, counts=stood.counts, letters=stood.letters)
            try:
                await self._store(PutRuleState(rule_id, state))
            except StoreError:
                state = stood
                raise
            finally:
                if before.enabled:
                    await self._engine.start(before, state)
                else:
                    self._engine.states[rule_id] = state
        logger.info("rule-reset rule=%s by=%s", rule_id, by)
        return self.show(rule_id)

    async def dry_run(self, rule_id: str, given: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
        """What a stored rule, or one that is only being thought of, would make of the newest records (or messages)."""
        rule = self._rule(rule_id) if given is None else read_rule(given)
        check_connection(rule, self._engine.around.connections)
        return await dry_run(self._engine, rule, count)

    # Dead letters

    async def letters(self, rule_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        self._rule(rule_id)
        return [letter_json(letter) for letter in await self._engine.around.store.dead_letters(rule_id, after, min(limit, PAGE))]

    async def drop_letters(self, rule_id: str, number: int | None) -> None:
        """One of them, or all."""
        self._rule(rule_id)
        if number is not None:
            await self._letter(rule_id, number)
        await self._store(DropDeadLetters(rule_id, number or 0, number or 2**62))

    async def resend(self, rule_id: str, number: int | None) -> dict[str, Any]:
        """Try one again, or all; those that go through are dead letters no more."""
        self._rule(rule_id)
        runner = self._engine.runners.get(rule_id)
        if runner is None:
            raise RuleError("id", "the rule is disabled: enable it first", conflict=True)
        await self._engine.checkpoints.commit()
        letters = [await self._letter(rule_id, number)] if number is not None else await self._all_letters(rule_id)
        sent = 0
        failed: list[tuple[int, str]] = []
        for start in range(0, len(letters), PAGE):
            page = letters[start : start + PAGE]
            try:
                async with asyncio.timeout(RESEND):
                    bad = await runner.resend(page)
            except (BackendError, TimeoutError) as error:
                raise RuleError("", f"the rule can't send just now, try again: {error or 'no answer'}", conflict=True) from None
            failed += bad
            still = {number for number, _ in bad}
            gone = [letter.number for letter in page if letter.number not in still]
            sent += len(gone)
            await self._store(*(DropDeadLetters(rule_id, each, each) for each in gone))
        return {"sent": sent, "failed": [{"number": number, "reason": reason} for number, reason in failed]}

    async def _letter(self, rule_id: str, number: int) -> DeadLetter:
        found = await self._engine.around.store.dead_letters(rule_id, number - 1, 1)
        if not found or found[0].number != number:
            raise RuleError("number", f"the rule has no dead letter {number}", missing=True)
        return found[0]

    async def _all_letters(self, rule_id: str) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        while page := await self._engine.around.store.dead_letters(rule_id, letters[-1].number if letters else 0, PAGE):
            letters += page
        return letters

    # Checks

    def _rule(self, rule_id: str) -> Rule:
        self._is_here()
        rule = self._engine.rules.get(rule_id)
        if rule is None:
            raise RuleError("id", "there is no rule of this id", missing=True)
        return rule

    def _check(self, rule: Rule) -> None:
        check_connection(rule, self._engine.around.connections)
        Conditions(rule)
        for other in self._engine.rules.values():
            if other.id != rule.id and other.resource == rule.resource:
                field = "group" if rule.kind == "status" else "topic"
                raise RuleError(field, f"rule {other.id} is the {rule.kind} rule of {rule.topic or rule.group} already", conflict=True)

    async def _ask_for_topic(self, rule: Rule) -> None:
        """A topic that isn't there is made or said at once, with what makes it; a backend that can't be asked is found by the rule itself."""
        if "{" in rule.backend_topic:
            return
        backend = self._engine.around.backends[rule.connection]
        try:
            async with asyncio.timeout(ASK):
                found = await backend.describe(rule.backend_topic)
                if found is None and rule.create:
                    await backend.create_topic(rule.backend_topic, QUEUES, "FIFO" if rule.ordered else "")
        except (BackendError, TimeoutError):
            return
        if found is None and not rule.create:
            hint = backend.creation_hint(rule.backend_topic, ordered=rule.ordered)
            raise RuleError("backendTopic", f"{rule.backend_topic} does not exist; make it with: {hint} (or set create)")

    async def _initial(self, rule: Rule, *, resolve: bool = False) -> RuleState:
        """Where a new rule begins. An inflow rule finds that out itself, unless it is asked for now."""
        name = feed_of(rule)
        if name:
            feed = await self._engine.feed(name, None)
            start = await log_position(self._engine.around.log, name, rule, feed.positions)
            return begin(None, feed.positions, start)
        if not resolve:
            return RuleState()
        try:
            backend = self._engine.around.backends[rule.connection]
            return RuleState(offsets=dict(await backend.resolve(rule.backend_topic, parse_position(rule.position) if rule.position else rule.start)))
        except BackendError as error:
            raise RuleError("start", f"the backend can't say where that is, try again: {error}", conflict=True) from None

    async def _store(self, *changes: Change) -> None:
        """With where feeds and rules stand at this moment: a crash right behind it must not move where a new rule begins."""
        if not await self._engine.checkpoints.commit(*changes):
            raise StoreError("the rule could not be stored")


async def log_position(log: Log, topic: str, rule: Rule, now: Mapping[int, At]) -> dict[int, At]:
    """The place in the log at which a rule's start lies; RuleError where a position is behind the log's end."""
    ends = await log.ends(topic)
    if rule.position:
        wanted = parse_position(rule.position)
        for shard, offset in wanted.items():
            if not shard.isdigit() or int(shard) not in ends or offset > ends[int(shard)][1].offset + ends[int(shard)][1].index:
                known = ", ".join(f"{number}:{last.offset + last.index}" for number, (_, last) in ends.items())
                raise RuleError("position", f"{shard}:{offset} is not in the log, which ends at {known}")
        return {shard: At(shard, wanted.get(str(shard), first.offset + first.index), 0) for shard, (first, _) in ends.items()}
    if rule.start == "earliest":
        return {shard: first for shard, (first, _) in ends.items()}
    if rule.start == "now":
        return dict(now)
    return {shard: await _at_time(log, topic, shard, rule.start, now[shard]) for shard in ends}


async def _at_time(log: Log, topic: str, shard: int, time: int, otherwise: At) -> At:
    """The first record that is not older; where none comes at once there is none yet."""
    reader = log.open(topic, time, [shard])
    try:
        async with asyncio.timeout(ASK):
            batch = await reader.next(1, 1)
    except TimeoutError:
        return otherwise
    finally:
        reader.close()
    return min(batch.first, otherwise, key=lambda at: at.offset + at.index)
