"""Inflow rules in a whole gateway: commands of backends to devices, from where the rule stands, whatever fails in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.limits import Limits
from tests.unit.gateway.rules.conftest import RuleBed

Make = Callable[..., RuleBed]


def command(bed: RuleBed, body: bytes, second: str = "", *more: tuple[str, str], queue: int = 0, time: int = 0) -> None:
    bed.backend.put("commands", body, *((("mqttSecondTopic", second),) if second else ()), *more, queue=queue, time=time)


def test_a_command_reaches_those_who_subscribe(bed: RuleBed) -> None:
    device = bed.connect("dev")
    device.subscribe("shop/#")
    bed.inflow()
    bed.advance(1)
    command(bed, b"\x00\xff", "/berlin/7")
    command(bed, b"bare")
    bed.advance(1)
    assert [(packet.topic, packet.payload, packet.qos) for packet in device.deliveries()] == [("shop/berlin/7", b"\x00\xff", 1), ("shop", b"bare", 1)]
    assert bed.status("inf")["state"] == "running"


@pytest.mark.parametrize("second", ["/p2p/dev", "p2p/dev"])
def test_a_command_to_one_device(bed: RuleBed, second: str) -> None:
    device, other = bed.connect("dev"), bed.connect("other")
    other.subscribe("#")
    bed.inflow()
    bed.advance(1)
    command(bed, b"x", second)
    bed.advance(1)
    assert [packet.topic for packet in device.deliveries()] == ["shop/p2p/dev"]
    assert other.deliveries() == []


def test_the_real_topic_is_shown_to_a_device_that_may_read_it(bed: RuleBed) -> None:
    device = bed.connect("dev")
    bed.inflow()
    bed.advance(1)
    command(bed, b"x", "/p2p/dev", ("mqttRealTopic", "alarms/1"))
    bed.advance(1)
    assert [packet.topic for packet in device.deliveries()] == ["shop/alarms/1"]
    bed.node.may_read = lambda principal, topic: "alarms" not in topic  # type: ignore[method-assign]
    command(bed, b"x", "/p2p/dev", ("mqttRealTopic", "alarms/1"))
    bed.advance(1)
    assert [packet.topic for packet in device.deliveries()] == ["shop/p2p/dev"]


def test_a_command_waits_for_a_device_only_if_it_says_so(bed: RuleBed) -> None:
    bed.inflow()
    bed.advance(1)
    command(bed, b"lost", "/p2p/dev")
    command(bed, b"kept", "/p2p/dev", ("cleansessionflag", "false"))
    bed.advance(1)
    device = bed.connect("dev")
    bed.advance(1)
    assert device.payloads() == [b"kept"]


def test_a_new_rule_begins_at_now_and_not_at_a_thousand_old_messages(bed: RuleBed) -> None:
    for number in range(1_000):
        command(bed, b"old", queue=number % 4)
    bed.inflow()
    bed.advance(1)
    command(bed, b"new")
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"new"]


def test_now_is_when_the_rule_was_made_also_after_a_crash(bed: RuleBed) -> None:
    bed.inflow()
    bed.advance(1)
    bed.crash()
    command(bed, b"x")
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"x"]


def test_earliest_and_a_time(bed: RuleBed) -> None:
    for number in range(4):
        command(bed, b"%d" % number, time=1_000 + number)
    bed.inflow(start=1_002)
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"2", b"3"]
    bed.do(bed.rules.delete("inf", by="tester"))
    bed.inflow(start="earliest")
    bed.advance(1)
    assert len(bed.published()) == 6


def test_pause_keeps_the_position_and_reset_moves_it(bed: RuleBed) -> None:
    bed.inflow()
    bed.advance(1)
    command(bed, b"1")
    bed.advance(1)
    bed.do(bed.rules.enable("inf", enabled=False, by="tester"))
    command(bed, b"2")
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"1"]
    bed.do(bed.rules.enable("inf", enabled=True, by="tester"))
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"1", b"2"]
    bed.do(bed.rules.reset("inf", {"position": "0:1"}, by="tester"))
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"1", b"2", b"2"]
    bed.do(bed.rules.reset("inf", {"start": "earliest"}, by="tester"))
    bed.advance(1)
    assert len(bed.published()) == 5


@pytest.mark.parametrize(
    ("second", "word"),
    [("/a/+", "wildcard"), ("/#", "wildcard"), ("/a\x00b", "wildcard"), ("/a/../b", ".."), ("/$SYS/x", "$"), ("/" + "a/" * 200, "levels")],
)
def test_a_bad_topic_is_a_dead_letter(bed: RuleBed, second: str, word: str) -> None:
    bed.inflow()
    bed.advance(1)
    command(bed, b"bad", second)
    command(bed, b"good")
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"good"]
    (letter,) = bed.do(bed.rules.letters("inf", 0, 10))
    assert word in letter["reason"]
    assert (letter["queue"], letter["offset"]) == ("0", 0)


def test_a_body_over_the_packet_limit_is_a_dead_letter(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(packet=10_000))
    bed.inflow()
    bed.advance(1)
    command(bed, bytes(10_001))
    command(bed, bytes(9_000))
    bed.advance(1)
    assert [len(record.payload) for record in bed.published()] == [9_000]
    assert "packet" in bed.do(bed.rules.letters("inf", 0, 10))[0]["reason"]


def test_poison_stops_a_rule_that_says_so_behind_what_was_good(bed: RuleBed) -> None:
    bed.inflow(onPoison="stop")
    bed.advance(1)
    for body, second in ((b"1", ""), (b"2", "/+"), (b"3", "")):
        command(bed, body, second)
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"1"]
    assert bed.status("inf")["state"] == "stopped"
    bed.do(bed.rules.update("inf", {"onPoison": "skip"}, by="tester"))
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b"1", b"3"]


def test_a_source_that_is_down_is_waited_for(bed: RuleBed) -> None:
    bed.backend.faults.down = "no broker answers"
    bed.inflow()
    bed.advance(5)
    assert (bed.status("inf")["state"], bed.status("inf")["reason"]) == ("waiting", "no broker answers")
    bed.backend.faults.down = ""
    bed.advance(3)
    command(bed, b"x")
    bed.advance(3)
    assert [record.payload for record in bed.published()] == [b"x"]


def test_it_waits_while_the_gateway_takes_no_clients(bed: RuleBed) -> None:
    bed.node.admitting = False
    bed.inflow()
    bed.advance(1)
    command(bed, b"x")
    bed.advance(1)
    assert bed.published() == []
    bed.node.admitting = True
    bed.advance(1)
    assert len(bed.published()) == 1


def test_a_log_that_refuses_is_asked_again_and_the_position_waits(bed: RuleBed) -> None:
    bed.inflow()
    bed.advance(1)
    bed.log.refusing = True
    command(bed, b"x")
    bed.advance(3)
    assert bed.status("inf")["position"]["0"] == 0
    bed.log.refusing = False
    bed.advance(3)
    assert [record.payload for record in bed.published()] == [b"x"]
    assert bed.status("inf")["position"]["0"] == 1


def test_a_crash_repeats_what_was_not_checkpointed_and_loses_nothing(bed: RuleBed) -> None:
    bed.inflow()
    bed.advance(1)
    command(bed, b"x")
    bed.settle()
    bed.crash()
    bed.advance(1)
    assert {record.payload for record in bed.published()} == {b"x"}
    assert bed.status("inf")["position"]["0"] == 1


def test_lag_is_asked_of_the_source_and_the_backend_is_told(bed: RuleBed) -> None:
    bed.inflow(rate=1)
    bed.advance(1)
    for _ in range(20):
        command(bed, b"x", time=bed.clock.wall())
    bed.advance(10)
    status = bed.status("inf")
    assert 5 <= status["lagRecords"] <= 16
    assert status["lagAge"] >= 5
    assert bed.backend.committed["inf", "commands"]["0"] > 0
    bed.advance(30)
    assert bed.status("inf")["lagRecords"] == 0


def test_what_the_source_had_no_more_is_counted(bed: RuleBed) -> None:
    for _ in range(5):
        command(bed, b"x")
    bed.backend.topics["commands"]["0"].drop(3)
    bed.inflow(position="0:0")
    bed.advance(1)
    assert bed.status("inf")["counts"]["skipped"] == 3
    assert len(bed.published()) == 2


def test_expiry_counts_from_the_backends_time(bed: RuleBed) -> None:
    device = bed.connect("dev")
    device.subscribe("shop/#")
    bed.inflow(undelivered="events")
    bed.advance(1)
    now = bed.clock.wall()
    command(bed, b"late", "/1", ("mqtt5MsgExpireInterval", "10"), time=now - 11_000)
    command(bed, b"timely", "/1", ("mqtt5MsgExpireInterval", "10"), time=now - 5_000)
    bed.advance(1)
    assert device.payloads() == [b"timely"]
    (told,) = bed.backend.sent("events")
    assert told.body == b"late"
    assert dict(told.properties)["mqttUndelivered"] == "expired before it came here"


def test_a_command_that_nobody_got_is_told(bed: RuleBed) -> None:
    bed.inflow(undelivered="events")
    bed.advance(1)
    command(bed, b"x", "/p2p/nobody", ("mqtt5CorrelationData", "YWI="))
    bed.advance(1)
    (told,) = bed.backend.sent("events")
    properties = dict(told.properties)
    assert (told.body, properties["topic"], properties["mqtt5CorrelationData"]) == (b"x", "shop/p2p/nobody", "YWI=")
    assert properties["mqttUndelivered"] == "the client is not connected"


def test_request_and_reply(bed: RuleBed) -> None:
    """Response topic and correlation data go to the device and come back, and the trace with them."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    bed.outflow()
    bed.inflow()
    bed.advance(1)
    device = bed.connect("dev")
    command(
        bed,
        b"ask",
        "/p2p/dev",
        ("mqtt5ResponseTopic", "shop/replies"),
        ("mqtt5CorrelationData", "AAH/"),
        ("mqtt5UserProperty", '[{"key":"k","value":"v"}]'),
        ("mqtt5ContentType", "text/plain"),
        ("traceparent", trace),
    )
    bed.advance(1)
    (asked,) = device.deliveries()
    assert asked.properties is not None
    assert (asked.properties.response_topic, asked.properties.correlation_data) == ("shop/replies", b"\x00\x01\xff")
    assert asked.properties.content_type == "text/plain"
    assert asked.properties.user_property == (("k", "v"), ("traceparent", trace))
    device.publish("shop/replies", b"answer", 1, correlation_data=b"\x00\x01\xff", user_property=(("traceparent", trace),))
    bed.advance(1)
    (reply,) = bed.backend.sent("orders")
    assert {("mqtt5CorrelationData", "AAH/"), ("traceparent", trace)} <= set(reply.properties)


def test_inflow_filters(bed: RuleBed) -> None:
    bed.inflow(filter="body.go", projection="body.what")
    bed.advance(1)
    command(bed, b'{"go":true,"what":"on"}')
    command(bed, b'{"go":false}')
    bed.advance(1)
    assert [record.payload for record in bed.published()] == [b'"on"']


def test_dead_letters_are_published_after_a_fix(bed: RuleBed) -> None:
    bed.inflow(jsonSchema={"type": "number"})
    bed.advance(1)
    command(bed, b'"x"')
    bed.advance(1)
    assert bed.do(bed.rules.resend("inf", None))["sent"] == 0
    bed.do(bed.rules.update("inf", {"jsonSchema": ""}, by="tester"))
    assert bed.do(bed.rules.resend("inf", None)) == {"sent": 1, "failed": []}
    assert [record.payload for record in bed.published()] == [b'"x"']


def test_what_is_sent_behind_the_answer_of_a_creation_is_received(bed: RuleBed) -> None:
    """`now` is known when the creation is answered: nobody has to wait before the first command."""
    device = bed.connect("d")
    device.subscribe("shop/#", "shop")
    bed.backend.put("commands", b"before")
    shown = bed.inflow()
    assert shown["status"]["position"]
    bed.backend.put("commands", b"behind")
    bed.advance(2)
    assert device.payloads() == [b"behind"]
