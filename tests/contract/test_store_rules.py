"""Rules, where they stand, and their dead letters: what every store keeps of them alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.positions import At
from schemas.rules import Rule, RuleCounts, RuleState
from streams.backend import Incoming
from streams.store import DeadLetter, DropDeadLetters, DropRule, PutDeadLetter, PutRule, PutRuleState, Store
from tests.contract.store_making import KINDS, NOW, made, record

OUT = Rule(id="out", kind="outflow", connection="k", backend_topic="orders", topic="plant", sources=("device", "api"), rate=2.5)
IN = Rule(id="in", kind="inflow", connection="k", backend_topic="commands", topic="plant", start=NOW)
STATE = RuleState({0: At(0, 7, 2), 3: At(3, 1, 0)}, {"a:1": 44}, RuleCounts(sent=5, lost=2), 9, 8, {0: At(0, 1, 0)}, True, 4)


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


def letter(number: int, rule: str = "out") -> DeadLetter:
    return DeadLetter(rule, number, NOW + number, f"reason {number}", record=record(number))


async def test_rules_come_back_by_id_with_where_they_stand(store: Store) -> None:
    await store.commit([PutRule(OUT), PutRule(IN), PutRuleState("out", STATE)])
    assert await store.rules() == [(IN, None), (OUT, STATE)]


async def test_a_rule_that_is_put_again_is_replaced_and_keeps_its_state(store: Store) -> None:
    await store.commit([PutRule(OUT), PutRuleState("out", STATE)])
    changed = Rule(id="out", kind="outflow", connection="k", backend_topic="orders", topic="plant", enabled=False)
    await store.commit([PutRule(changed)])
    assert await store.rules() == [(changed, STATE)]


async def test_a_state_is_stored_with_positions_of_readers_or_not_at_all(store: Store) -> None:
    await store.commit([PutRule(OUT)])
    await store.commit([PutRuleState("out", STATE)], {"rules": At(0, 9, 1)})
    assert (await store.rules())[0][1] == STATE
    assert (await store.positions())["rules"] == {0: At(0, 9, 1)}


async def test_what_comes_late_of_a_deleted_rule_is_left_out(store: Store) -> None:
    await store.commit([PutRule(OUT), PutRuleState("out", STATE), PutDeadLetter(letter(1))])
    await store.commit([DropRule("out")])
    await store.commit([PutRuleState("out", STATE), PutDeadLetter(letter(2))])
    assert await store.rules() == []
    await store.commit([PutRule(OUT)])
    assert await store.rules() == [(OUT, None)]
    assert await store.dead_letters("out", 0, 10) == []


async def test_dead_letters_come_in_pages_by_number(store: Store) -> None:
    await store.commit([PutRule(OUT), PutRule(IN), *(PutDeadLetter(letter(number)) for number in (3, 1, 2))])
    message = Incoming("commands", "a:1", 7, b"x", (("k", "v"),), "ID", NOW, "key", "tag")
    other = DeadLetter("in", 1, NOW, "bad", message=message)
    await store.commit([PutDeadLetter(other)])
    assert await store.dead_letters("out", 0, 2) == [letter(1), letter(2)]
    assert await store.dead_letters("out", 2, 2) == [letter(3)]
    assert await store.dead_letters("in", 0, 2) == [other]


async def test_a_page_of_large_letters_is_shorter(store: Store) -> None:
    large = [DeadLetter("out", number, NOW, "large", record=record(number, payload=bytes(3_000_000))) for number in (1, 2, 3)]
    await store.commit([PutRule(OUT), *map(PutDeadLetter, large)])
    found: list[DeadLetter] = []
    while page := await store.dead_letters("out", found[-1].number if found else 0, 10):
        found += page
    assert found == large


async def test_letters_go_by_number(store: Store) -> None:
    await store.commit([PutRule(OUT), *(PutDeadLetter(letter(number)) for number in (1, 2, 3, 4))])
    await store.commit([DropDeadLetters("out", 2, 3), DropDeadLetters("in", 0, 9)])
    assert [found.number for found in await store.dead_letters("out", 0, 10)] == [1, 4]
