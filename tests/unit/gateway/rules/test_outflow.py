"""Outflow rules in a whole gateway: what leaves, what does not, and that nothing is lost or stuck when a backend fails or refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.rules import RuleError
from streams.backend import Outgoing
from tests.unit.gateway.rules.conftest import RuleBed

Make = Callable[..., RuleBed]


def publish(bed: RuleBed, first: int, count: int, topic: str = "shop/1") -> None:
    party = bed.connect(f"p{first}")
    for number in range(first, first + count):
        party.publish(topic, b"%d" % number, 1)
    bed.settle()


def bodies(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def test_a_publish_comes_with_its_properties_and_its_id(bed: RuleBed) -> None:
    bed.outflow()
    bed.connect("dev-1").exchange("shop/berlin/7", b"\x00\xff", 1)
    bed.advance(1)
    record = bed.published()[-1]
    assert bed.backend.sent("orders") == [
        Outgoing(
            "orders",
            b"\x00\xff",
            (("mqttSecondTopic", "/berlin/7"), ("clientId", "dev-1"), ("qoslevel", "1"), ("cleansessionflag", "true"), ("topic", "shop/berlin/7")),
            record.id.hex().upper(),
            record.time,
            "dev-1",
        )
    ]
    status = bed.status()
    assert (status["state"], status["lagRecords"], status["counts"]["sent"]) == ("running", 0, 1)


def test_only_the_rules_parent_topic_leaves(bed: RuleBed) -> None:
    bed.outflow()
    party = bed.connect("p")
    for topic in ("shop", "shop/a", "shopping/a", "a/shop", "other"):
        party.exchange(topic, topic.encode())
    bed.advance(1)
    assert bed.bodies() == [b"shop", b"shop/a"]


def test_p2p_leaves_too(bed: RuleBed) -> None:
    bed.outflow()
    bed.connect("p").exchange("shop/p2p/GID_a@@@1", b"x")
    bed.advance(1)
    assert dict(bed.backend.sent("orders")[0].properties)["mqttSecondTopic"] == "/p2p/GID_a@@@1"


def test_a_rule_begins_at_now(bed: RuleBed) -> None:
    publish(bed, 0, 5)
    bed.outflow()
    publish(bed, 10, 3)
    bed.advance(1)
    assert bed.bodies() == bodies(10, 3)


@pytest.mark.parametrize("start", ["earliest", 0])
def test_a_backfill_goes_on_live_without_gap_or_repeat(bed: RuleBed, start: object) -> None:
    publish(bed, 0, 50)
    bed.outflow(start=start)
    publish(bed, 50, 50)
    bed.advance(1)
    publish(bed, 100, 50)
    bed.advance(1)
    assert bed.bodies() == bodies(0, 150)
    assert bed.status()["lagRecords"] == 0


def test_a_backfill_from_a_time_and_from_a_position(bed: RuleBed) -> None:
    publish(bed, 0, 5)
    bed.advance(10)
    publish(bed, 5, 5)
    since = bed.published()[5].time
    bed.outflow(start=since)
    bed.advance(1)
    assert bed.bodies() == bodies(5, 5)
    bed.do(bed.rules.delete("out", by="tester"))
    bed.outflow(position="0:7")
    bed.advance(1)
    assert bed.bodies() == bodies(5, 5) + bodies(7, 3)


def test_a_backend_that_is_down_is_waited_for(bed: RuleBed) -> None:
    bed.backend.faults.down = "no broker answers"
    bed.outflow()
    publish(bed, 0, 40)
    bed.advance(30)
    status = bed.status()
    assert (status["state"], status["reason"], status["lagRecords"], status["lagAge"] > 25) == ("waiting", "no broker answers", 40, True)
    bed.backend.faults.down = ""
    bed.advance(3)
    assert bed.bodies() == bodies(0, 40)
    assert (bed.status()["state"], bed.status()["lastError"]) == ("running", "no broker answers")


def test_running_only_after_the_first_success(bed: RuleBed) -> None:
    bed.outflow()
    bed.advance(5)
    assert bed.status()["state"] == "starting"
    publish(bed, 0, 1)
    bed.advance(1)
    assert bed.status()["state"] == "running"


@pytest.mark.parametrize("place", [0, 1, 15, 30, 31])
def test_poison_in_a_batch_of_32(bed: RuleBed, place: int) -> None:
    """One dead letter, 31 arrive, order kept."""
    bed.backend.faults.refuse = lambda message: "too large" if message.body == b"%d" % place else ""
    bed.outflow(ordered=True)
    publish(bed, 0, 32)
    bed.advance(1)
    assert bed.bodies() == [body for body in bodies(0, 32) if body != b"%d" % place]
    letters = bed.do(bed.rules.letters("out", 0, 10))
    assert [(letter["number"], letter["reason"], letter["topic"]) for letter in letters] == [(1, "too large", "shop/1")]
    status = bed.status()
    assert (status["counts"]["sent"], status["counts"]["deadLetters"], status["lagRecords"]) == (31, 1, 0)


@pytest.mark.parametrize("place", [0, 15, 31])
def test_poison_stops_a_rule_that_says_so(bed: RuleBed, place: int) -> None:
    bed.backend.faults.refuse = lambda message: "too large" if message.body == b"%d" % place else ""
    bed.outflow(ordered=True, onPoison="stop")
    publish(bed, 0, 32)
    bed.advance(1)
    status = bed.status()
    assert status["state"] == "stopped"
    assert "too large" in status["reason"]
    bed.backend.faults.refuse = lambda message: ""
    bed.do(bed.rules.enable("out", enabled=True, by="tester"))
    bed.advance(1)
    arrived = bed.bodies()
    assert arrived[-32:] == bodies(0, 32)
    assert bed.status()["lagRecords"] == 0


def test_a_dead_letter_is_sent_again_after_a_fix(bed: RuleBed) -> None:
    bed.backend.faults.refuse = lambda message: "no"
    bed.outflow()
    publish(bed, 0, 3)
    bed.advance(1)
    assert bed.do(bed.rules.resend("out", None)) == {"sent": 0, "failed": [{"number": n, "reason": "no"} for n in (1, 2, 3)]}
    bed.backend.faults.refuse = lambda message: ""
    assert bed.do(bed.rules.resend("out", 2)) == {"sent": 1, "failed": []}
    assert bed.do(bed.rules.resend("out", None)) == {"sent": 2, "failed": []}
    assert sorted(bed.bodies()) == bodies(0, 3)
    assert bed.do(bed.rules.letters("out", 0, 10)) == []


def test_dead_letters_survive_a_crash(bed: RuleBed) -> None:
    bed.backend.faults.refuse = lambda message: "no"
    bed.outflow()
    publish(bed, 0, 3)
    bed.advance(1)
    bed.crash()
    assert [letter["number"] for letter in bed.do(bed.rules.letters("out", 0, 10))] == [1, 2, 3]
    assert bed.status()["counts"]["deadLetters"] == 3


def test_a_lost_answer_repeats_and_loses_nothing(bed: RuleBed) -> None:
    bed.backend.faults.lose_answers = 2
    bed.outflow()
    publish(bed, 0, 10)
    bed.advance(5)
    assert bed.bodies() == bodies(0, 10) * 3
    assert bed.status()["counts"]["sent"] == 10


def test_a_restart_goes_on_behind_what_was_acknowledged(bed: RuleBed) -> None:
    bed.outflow()
    publish(bed, 0, 10)
    bed.advance(1)
    bed.crash()
    publish(bed, 10, 10)
    bed.advance(1)
    assert bed.bodies() == bodies(0, 20)


def test_what_a_crash_left_unsent_is_sent(bed: RuleBed) -> None:
    bed.backend.faults.down = "away"
    bed.outflow()
    publish(bed, 0, 10)
    bed.advance(1)
    bed.backend.faults.down = ""
    bed.crash()
    bed.advance(3)
    assert bed.bodies() == bodies(0, 10)
    assert bed.status()["lagRecords"] == 0


def test_a_rule_that_falls_behind_reads_for_itself_and_catches_up(bed: RuleBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.outflow.BUFFER_RECORDS", 20)
    bed.backend.faults.down = "away"
    bed.outflow()
    for number in range(0, 300, 30):
        publish(bed, number, 30)
    bed.advance(1)
    assert bed.status()["lagRecords"] == 300
    runner = bed.engine.runners["out"]
    assert runner._buffered < 60  # type: ignore[union-attr]
    bed.backend.faults.down = ""
    bed.advance(5)
    publish(bed, 300, 5)
    bed.advance(1)
    assert bed.bodies() == bodies(0, 305)
    assert runner.is_idle  # type: ignore[union-attr]


def cut(bed: RuleBed, frames: int) -> None:
    """Retention takes the oldest frames."""
    shard = bed.log.shards["publish"][0]
    del shard.frames[:frames], shard.offsets[:frames], shard.times[:frames]


@pytest.mark.parametrize("crash", [False, True])
def test_what_retention_cuts_is_counted_exactly(bed: RuleBed, monkeypatch: pytest.MonkeyPatch, crash: bool) -> None:
    """With records of other topics between: they are not the rule's, and not counted."""
    monkeypatch.setattr("streams.runtime.outflow.BUFFER_RECORDS", 5)
    bed.backend.faults.down = "away"
    bed.outflow()
    party = bed.connect("p")
    for number in range(100):
        party.exchange("shop/1", b"%d" % number)
        party.exchange("other", b"-")
    bed.advance(1)
    if crash:
        bed.crash()
        bed.backend.faults.down = "away"
    cut(bed, 77)
    bed.advance(1)
    bed.backend.faults.down = ""
    bed.advance(5)
    arrived = bed.bodies()
    status = bed.status()
    assert status["counts"]["lostByRetention"] == 100 - len(set(arrived)) > 0
    assert (status["lagRecords"], status["state"]) == (0, "running")
    publish(bed, 500, 2)
    bed.advance(1)
    assert bed.bodies()[-2:] == bodies(500, 2)


def test_changes_while_traffic_flows_lose_nothing(bed: RuleBed) -> None:
    bed.outflow()
    for round_ in range(8):
        publish(bed, round_ * 100, 50)
        if round_ % 4 == 0:
            bed.do(bed.rules.update("out", {"key": "topic"}, by="tester"))
        elif round_ % 4 == 1:
            bed.do(bed.rules.enable("out", enabled=False, by="tester"))
        elif round_ % 4 == 2:
            bed.do(bed.rules.enable("out", enabled=True, by="tester"))
        publish(bed, round_ * 100 + 50, 50)
    bed.advance(2)
    arrived = bed.bodies()
    assert sorted(set(arrived), key=int) == bodies(0, 800)
    assert list(dict.fromkeys(arrived)) == bodies(0, 800)


def test_a_deleted_rule_sends_nothing_more(bed: RuleBed) -> None:
    bed.outflow()
    publish(bed, 0, 3)
    bed.advance(1)
    bed.do(bed.rules.delete("out", by="tester"))
    publish(bed, 10, 3)
    bed.advance(1)
    assert bed.bodies() == bodies(0, 3)
    assert bed.rules.all() == []
    bed.crash()
    assert bed.rules.all() == []


def test_a_slow_backend_slows_nobody(bed: RuleBed) -> None:
    bed.backend.faults.delay = 0.2
    bed.outflow()
    party = bed.connect("p")
    for number in range(2_000):
        party.publish("shop/1", b"%d" % number, 1)
        if number % 100 == 99:
            bed.settle()
    assert bed.node.counters.acknowledged >= 2_000
    bed.advance(10)
    assert bed.bodies() == bodies(0, 2_000)


def test_a_missing_topic_is_told_with_what_makes_it(bed: RuleBed) -> None:
    bed.outflow()
    del bed.backend.topics["orders"]
    publish(bed, 0, 2)
    bed.advance(1)
    assert "create orders" in bed.status()["reason"]
    bed.backend.make("orders")
    bed.advance(3)
    assert bed.bodies() == bodies(0, 2)


def test_a_rule_makes_its_topic_if_told_to(bed: RuleBed) -> None:
    bed.outflow(backendTopic="fresh", create=True)
    publish(bed, 0, 2)
    bed.advance(1)
    assert bed.bodies("fresh") == bodies(0, 2)


def test_a_template_fills_topics(bed: RuleBed) -> None:
    bed.outflow(backendTopic="orders-{2}", create=True)
    party = bed.connect("p")
    for topic in ("shop/a", "shop/b", "shop", "shop/ü"):
        party.exchange(topic, topic.encode())
    bed.advance(1)
    assert (bed.bodies("orders-a"), bed.bodies("orders-b")) == ([b"shop/a"], [b"shop/b"])
    assert [letter["topic"] for letter in bed.do(bed.rules.letters("out", 0, 10))] == ["shop", "shop/ü"]


def test_a_fifo_topic_gets_lanes_and_a_delay_topic_nothing(bed: RuleBed) -> None:
    bed.backend.kinds["orders"] = "FIFO"
    bed.outflow()
    publish(bed, 0, 1)
    bed.advance(1)
    assert bed.backend.sent("orders")[0].lane == "p0"
    bed.backend.kinds["events"] = "DELAY"
    bed.outflow("late", topic="other", backendTopic="events")
    bed.connect("q").exchange("other", b"x")
    bed.advance(1)
    assert "DELAY" in bed.status("late")["reason"]


@pytest.mark.parametrize("expiry", [0, 60])
def test_enable_order_puts_a_client_into_a_lane(bed: RuleBed, expiry: int) -> None:
    bed.outflow()
    party = bed.connect("dev", session_expiry=expiry)
    party.exchange("shop/1", b"before")
    party.exchange("$SYS/enableOrderMsg", b'{"order":"true"}')
    party.exchange("shop/1", b"after")
    bed.advance(1)
    assert [message.lane for message in bed.backend.sent("orders")] == [None, "dev"]


def test_what_an_inflow_rule_brought_does_not_leave(bed: RuleBed) -> None:
    bed.outflow()
    bed.inflow()
    bed.advance(1)
    bed.backend.put("commands", b"x")
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"x"]
    assert bed.bodies() == []


def test_a_ring_of_rules_is_broken(bed: RuleBed) -> None:
    """An outflow rule that takes inflow records sends each at most once."""
    bed.outflow(sources=["device", "inflow"])
    bed.inflow(backendTopic="orders")
    bed.advance(1)
    bed.connect("p").exchange("shop/1", b"x")
    bed.advance(60)
    assert bed.bodies() == [b"x"]
    assert bed.status()["counts"]["looped"] == 1


def test_filter_projection_and_schema(bed: RuleBed) -> None:
    schema = {"type": "object", "required": ["t"], "properties": {"t": {"type": "number"}}}
    bed.outflow(filter="levels[1] == 'hot' && properties.unit == 'c'", projection="{temperature: body.t, from: clientId}", jsonSchema=schema)
    party = bed.connect("p")
    for topic, body in (("shop/hot", b'{"t":1}'), ("shop/cold", b'{"t":2}'), ("shop/hot", b'{"t":"x"}'), ("shop/hot", b"\xff")):
        party.publish(topic, body, 1, user_property=(("unit", "c"),))
    bed.connect("q").exchange("shop/hot", b'{"t":1}')
    bed.advance(1)
    assert bed.bodies() == [b'{"temperature":1,"from":"p"}']
    status = bed.status()["counts"]
    assert (status["filtered"], status["deadLetters"]) == (2, 2)


def test_a_rate_is_kept(bed: RuleBed) -> None:
    bed.outflow(rate=10)
    publish(bed, 0, 100)
    bed.advance(5)
    assert 40 <= len(bed.bodies()) <= 61
    bed.advance(10)
    assert bed.bodies() == bodies(0, 100)


def test_status_events_of_the_group_leave(bed: RuleBed) -> None:
    given = {"id": "sta", "kind": "status", "connection": "main", "backendTopic": "events", "group": "GID_a"}
    bed.do(bed.rules.create(given, by="tester"))
    for client in ("GID_a@@@1", "GID_b@@@1", "x"):
        bed.connect(client).disconnect()
    bed.advance(2)
    sent = bed.backend.sent("events")
    assert [message.tag for message in sent] == ["connect", "disconnect", "tcpclean"]
    assert all(b'"clientId":"GID_a@@@1"' in message.body for message in sent)


def test_a_fault_of_ours_in_one_rule_stops_that_rule_for_a_while(bed: RuleBed) -> None:
    bed.outflow()
    bed.outflow("other", topic="other", backendTopic="events")
    runner = bed.engine.runners["out"]
    real = runner.sender.mapper.map_all  # type: ignore[union-attr]
    runner.sender.mapper.map_all = None  # type: ignore[union-attr, assignment, method-assign]
    publish(bed, 0, 3)
    bed.connect("q").exchange("other", b"x")
    bed.advance(1)
    assert bed.status()["state"] == "failed"
    assert bed.bodies("events") == [b"x"]
    assert real is not None
    bed.advance(10)
    assert bed.bodies() == bodies(0, 3)


def test_a_crash_right_after_a_rule_was_made_loses_nothing(bed: RuleBed) -> None:
    bed.backend.faults.down = "away"
    bed.outflow()
    publish(bed, 0, 5)
    bed.crash()
    bed.backend.faults.down = ""
    bed.advance(3)
    assert bed.bodies() == bodies(0, 5)


def test_dead_letters_wait_no_longer_than_a_while_for_a_rule_that_waits(bed: RuleBed) -> None:
    bed.backend.faults.refuse = lambda message: "no"
    bed.outflow()
    publish(bed, 0, 1)
    bed.advance(1)
    bed.backend.faults.down = "away"
    publish(bed, 1, 1)
    bed.advance(1)
    with pytest.raises(RuleError, match="away"):
        bed.do(bed.rules.resend("out", None))
