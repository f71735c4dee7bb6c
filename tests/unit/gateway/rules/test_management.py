"""Rules as they are managed: what is refused and changes nothing, what is shown, dry runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from schemas.errors import StoreError
from schemas.rules import RuleError
from schemas.settings import LogSettings
from tests.unit.gateway.rules.conftest import RuleBed

OUT = {"id": "out", "kind": "outflow", "connection": "main", "backendTopic": "orders", "topic": "shop"}


def refused(bed: RuleBed, work: Any) -> RuleError:
    with pytest.raises(RuleError) as caught:
        bed.do(work)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"connection": "other"}, "connection", "known: main"),
        ({"backendTopic": "missing"}, "backendTopic", "create missing"),
        ({"backendTopic": "__internal"}, "backendTopic", "internal"),
        ({"backendTopic": "RMQ_SYS_TRACE_TOPIC"}, "backendTopic", "internal"),
        ({"backendTopic": "a.b"}, "backendTopic", "no RocketMQ topic"),
        ({"filter": "a["}, "filter", "JMESPath"),
        ({"filter": "[" * 100}, "filter", "nested"),
        ({"projection": "foo("}, "projection", "JMESPath"),
        ({"jsonSchema": {"type": 3}}, "jsonSchema", "JSON Schema"),
    ],
)
def test_what_is_refused_changes_nothing(bed: RuleBed, changes: dict[str, Any], field: str, words: str) -> None:
    error = refused(bed, bed.rules.create(OUT | changes, by="tester"))
    assert error.field == field
    assert words in error.message
    assert bed.rules.all() == []
    assert bed.do(bed.store.rules()) == []


def test_a_topic_to_be_made_is_there_when_the_rule_is(bed: RuleBed) -> None:
    bed.do(bed.rules.create(OUT | {"backendTopic": "missing", "create": True}, by="tester"))
    assert bed.do(bed.backend.describe("missing")) is not None


def test_one_rule_of_a_kind_a_resource(bed: RuleBed) -> None:
    bed.outflow()
    assert refused(bed, bed.rules.create(OUT, by="tester")).field == "id"
    error = refused(bed, bed.rules.create(OUT | {"id": "another"}, by="tester"))
    assert (error.field, error.conflict) == ("topic", True)
    bed.inflow()


def test_a_hundred_rules_are_the_most(bed: RuleBed) -> None:
    for number in range(100):
        bed.outflow(f"rule-{number}", topic=f"topic-{number}")
    assert "100" in refused(bed, bed.rules.create(OUT, by="tester")).message
    bed.connect("p").exchange("topic-55/x", b"x")
    bed.advance(1)
    assert bed.bodies() == [b"x"]


def test_a_store_that_fails_leaves_no_rule_behind(bed: RuleBed) -> None:
    bed.store.failing = True
    with pytest.raises(StoreError):
        bed.outflow()
    bed.store.failing = False
    assert bed.rules.all() == []


def test_an_update_keeps_what_it_does_not_name(bed: RuleBed) -> None:
    bed.outflow(ordered=True, description="before")
    shown = bed.do(bed.rules.update("out", {"description": "after"}, by="tester"))
    assert (shown["ordered"], shown["description"]) == (True, "after")
    assert refused(bed, bed.rules.update("out", {"kind": "inflow"}, by="tester")).field == "kind"
    assert refused(bed, bed.rules.update("out", {"orderd": True}, by="tester")).message.endswith("did you mean ordered?")
    assert refused(bed, bed.rules.update("none", {}, by="tester")).missing


def test_another_target_takes_over_where_the_first_was(bed: RuleBed) -> None:
    bed.outflow()
    party = bed.connect("p")
    party.exchange("shop/1", b"1")
    bed.advance(1)
    bed.do(bed.rules.update("out", {"backendTopic": "events"}, by="tester"))
    party.exchange("shop/1", b"2")
    bed.advance(1)
    assert (bed.bodies("orders"), bed.bodies("events")) == ([b"1"], [b"2"])


def test_a_disabled_rule_goes_on_where_it_stood_also_after_a_crash(bed: RuleBed) -> None:
    bed.outflow(enabled=False)
    party = bed.connect("p")
    party.exchange("shop/1", b"1")
    bed.advance(1)
    assert bed.status()["state"] == "disabled"
    bed.crash()
    bed.do(bed.rules.enable("out", enabled=True, by="tester"))
    bed.connect("q").exchange("shop/1", b"2")
    bed.advance(1)
    assert bed.bodies() == [b"1", b"2"]


def test_a_reset_sends_again(bed: RuleBed) -> None:
    bed.outflow()
    party = bed.connect("p")
    for number in range(5):
        party.exchange("shop/1", b"%d" % number)
    bed.advance(1)
    bed.do(bed.rules.reset("out", {"position": "0:3"}, by="tester"))
    bed.advance(1)
    assert bed.bodies() == [b"0", b"1", b"2", b"3", b"4", b"3", b"4"]
    assert refused(bed, bed.rules.reset("out", {"position": "0:99"}, by="tester")).field == "position"
    assert refused(bed, bed.rules.reset("out", {}, by="tester")).field == "start"
    assert refused(bed, bed.rules.reset("out", {"key": "topic"}, by="tester")).field == "key"


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(bed: RuleBed) -> None:
    party = bed.connect("p")
    for number in range(20):
        party.exchange("shop/1", b'{"n":%d}' % number)
        party.exchange("other", b"-")
    thought_of = OUT | {"filter": "body.n >= `15`"}
    shown = bed.do(bed.rules.dry_run("", thought_of, 20))
    assert (shown["records"], shown["matching"], shown["sent"], shown["filtered"]) == (20, 10, 5, 5)
    assert shown["messages"][0]["bytes"] == 8
    assert bed.bodies() == []
    assert refused(bed, bed.rules.dry_run("", thought_of, 0)).field == "records"


def test_a_dry_run_of_an_inflow_rule(bed: RuleBed) -> None:
    for number in range(10):
        bed.backend.put("commands", b"%d" % number, ("mqttSecondTopic", "/a" if number % 2 else "/+"))
    bed.inflow()
    shown = bed.do(bed.rules.dry_run("inf", None, 16))
    assert (shown["sent"], len(shown["deadLetters"])) == (2, 2)
    assert bed.published() == []


def test_dead_letters_are_dropped_by_number_or_all(bed: RuleBed) -> None:
    bed.backend.faults.refuse = lambda message: "no"
    bed.outflow()
    party = bed.connect("p")
    for number in range(4):
        party.exchange("shop/1", b"%d" % number)
    bed.advance(1)
    bed.do(bed.rules.drop_letters("out", 2))
    assert [letter["number"] for letter in bed.do(bed.rules.letters("out", 0, 10))] == [1, 3, 4]
    assert refused(bed, bed.rules.drop_letters("out", 2)).missing
    bed.do(bed.rules.drop_letters("out", None))
    assert bed.do(bed.rules.letters("out", 0, 10)) == []


def test_no_more_dead_letters_than_the_limit(bed: RuleBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.sending.MAX_LETTERS", 3)
    bed.backend.faults.refuse = lambda message: "no"
    bed.outflow()
    party = bed.connect("p")
    for number in range(5):
        party.exchange("shop/1", b"%d" % number)
    bed.advance(1)
    assert [letter["number"] for letter in bed.do(bed.rules.letters("out", 0, 10))] == [3, 4, 5]
    assert bed.status()["counts"]["deadLettersDropped"] == 2


def test_a_rule_whose_connection_is_gone_says_so(bed: RuleBed) -> None:
    bed.outflow()
    bed.settings = bed.settings.__class__(data=bed.settings.data, anonymous=True)
    bed.crash()
    assert "no [connections.main]" in bed.status()["reason"]


def test_an_alarm_before_retention_cuts(make_bed: Callable[..., RuleBed]) -> None:
    bed = make_bed(log=LogSettings(retention_age=60))
    bed.backend.faults.down = "away"
    bed.outflow()
    bed.connect("p").exchange("shop/1", b"x")
    bed.advance(10)
    assert bed.status()["alarm"] is False
    bed.advance(40)
    assert bed.status()["alarm"] is True
