"""What the trace is told by a whole gateway: each event once, of the messages that are picked, and the rest as a gap."""

from __future__ import annotations

from collections.abc import Callable

from schemas.connections import ConnectionSettings
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.settings import TraceSettings
from schemas.traces import WORDS, TraceAction
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]


def told(bed: Testbed, *, client: str | None = None, devices: bool = False) -> list[tuple[str, str]]:
    """Words and clients of what was handed over: events of messages, or of devices."""
    bed.advance(2)
    found = [row for row in bed.traces.rows if (row[1] < 10) == devices and client in (None, row[2])]
    return [(WORDS[TraceAction(row[1])], row[2]) for row in found]


def details(bed: Testbed, client: str) -> list[str]:
    bed.advance(2)
    return [row[5] for row in bed.traces.rows if row[2] == client and row[1] < 10]


def test_publish_push_and_acknowledgement_of_one_message(bed: Testbed) -> None:
    reader = bed.connect("reader")
    reader.subscribe("a/#")
    other = bed.connect("other", 4)
    other.subscribe("a/b", qos=0)
    bed.connect("writer").exchange("a/b", b"x")
    assert sorted(told(bed)) == [("ack", "reader"), ("pub_mqtt", "writer"), ("sub", "other"), ("sub", "reader")]
    record = bed.published()[0]
    rows = [row for row in bed.traces.rows if row[1] >= 10]
    assert {row[3] for row in rows} == {record.id}
    assert rows[0] == (record.time, 10, "writer", record.id, "", "a/b")


def test_exactly_once_is_acknowledged_once(bed: Testbed) -> None:
    reader = bed.connect("reader", session_expiry=600)
    reader.subscribe("a", qos=2)
    bed.connect("writer").exchange("a", b"x", 2)
    assert told(bed) == [("pub_mqtt", "writer"), ("sub", "reader"), ("ack", "reader")]


def test_what_comes_from_the_store_is_pushed_offline(bed: Testbed) -> None:
    bed.connect("reader", session_expiry=600).subscribe("a")
    bed.session("reader").connection.close(ReasonCode.UNSPECIFIED_ERROR, "x")  # type: ignore[union-attr]
    bed.connect("writer").exchange("a", b"x")
    assert told(bed) == [("pub_mqtt", "writer")]
    bed.connect("reader", clean_start=False, session_expiry=600)
    assert told(bed)[1:] == [("push_offline", "reader"), ("ack", "reader")]


def test_a_retained_message_is_pushed_when_it_is_subscribed_to(bed: Testbed) -> None:
    bed.connect("writer").exchange("a", b"x", retain=True)
    bed.connect("reader").subscribe("a")
    assert told(bed) == [("pub_mqtt", "writer"), ("sub", "reader"), ("ack", "reader")]


def test_one_device_and_a_shared_subscription(bed: Testbed) -> None:
    bed.connect("one").subscribe("$share/g/a")
    bed.connect("two")
    writer = bed.connect("writer")
    writer.exchange("a", b"x")
    writer.exchange("top/p2p/two", b"y")
    assert told(bed) == [("pub_mqtt", "writer"), ("sub", "one"), ("ack", "one"), ("pub_mqtt", "writer"), ("sub", "two"), ("ack", "two")]


def test_connect_close_and_its_reason(bed: Testbed) -> None:
    bed.connect("dev").disconnect()
    bed.connect("dev")
    bed.connect("dev").drop()
    assert told(bed, devices=True) == [(word, "dev") for word in ("connect", "disconnect", "close", "connect", "close", "connect", "close")]
    accepted = "accepted from 127.0.0.1:40000"
    assert details(bed, "dev") == [
        *(accepted, "disconnected by client", "closed by client"),
        *(accepted, "clientId conflict"),
        *(accepted, "Socket IOException"),
    ]
    channels = [row[4] for row in bed.traces.rows]
    assert channels[0] == channels[1] == channels[2] != channels[3]


def test_a_crash_leaves_out_what_was_told_in_the_last_second_and_tells_nothing_twice(bed: Testbed) -> None:
    """What was not folded yet is: the next start folds it."""
    bed.connect("dev")
    bed.advance(2)
    bed.connect("late")
    bed.crash()
    assert sorted(told(bed, devices=True)) == [("close", "dev"), ("close", "late"), ("connect", "dev"), ("connect", "late")]
    assert "gateway restarted" in details(bed, "dev")


def test_a_refused_connect_is_a_close_and_there_are_not_many(make_bed: Make) -> None:
    bed = make_bed(instance_id="bed")
    for _ in range(50):
        bed.dial().connect("dev", user_name="Signature|nobody|bed", password=b"x")
    found = details(bed, "dev")
    assert 20 <= len(found) <= 40
    assert found[0].startswith("not authorized: ")
    assert sum(gap.events for gap in bed.traces.gaps) == 50 - len(found)


def test_an_api_publish_is_told_as_one(bed: Testbed) -> None:
    from gateway.protocol.properties import NONE
    from gateway.services import Services
    from schemas.identities import Principal

    services = Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0)
    bed.loop.finish(services.publish("a", b"x", 1, False, NONE, Principal("key", "device")))
    assert told(bed) == [("pub_api", "")]
    assert bed.traces.rows[-1][5] == "a from key"


def test_off_nothing_is_told_or_marked(make_bed: Make) -> None:
    bed = make_bed(trace=TraceSettings(enabled=False))
    reader = bed.connect("reader", auto_ack=False)
    reader.subscribe("a")
    bed.connect("writer").exchange("a", b"x")
    assert told(bed) == told(bed, devices=True) == []
    assert [delivery.traced for delivery in bed.session("reader").in_flight.values()] == [0]  # type: ignore[union-attr]


def test_a_message_is_traced_whole_or_not_at_all_and_gaps_count_the_rest(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(trace_rate=20))
    bed.connect("reader").subscribe("a")
    writer = bed.connect("writer")
    for _ in range(40):
        for _ in range(10):
            writer.exchange("a", b"x")
        bed.advance(0.2)
    bed.advance(1)
    by_message: dict[bytes, list[int]] = {}
    for row in bed.traces.rows:
        by_message.setdefault(row[3], []).append(row[1])
    by_message.pop(b"")
    assert all(actions == [10, 14, 16] for actions in by_message.values())
    assert 20 < len(by_message) < 200
    assert sum(gap.messages for gap in bed.traces.gaps) == 400 - len(by_message)


def test_a_burst_is_thinned_out_before_the_next_tick(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(trace_rate=50, receive_maximum=1000))
    writer = bed.connect("writer")
    bed.advance(0.2)
    for _ in range(200):
        writer.exchange("a", b"x")
    bed.advance(2)
    messages = [row for row in bed.traces.rows if row[1] >= 10]
    assert 10 < len(messages) < 60
    assert sum(gap.messages for gap in bed.traces.gaps) == 200 - len(messages)


def test_a_list_that_is_full_and_a_store_that_is_behind_are_gaps(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(trace_buffer=5))
    bed.connect("reader").subscribe("a")
    writer = bed.connect("writer")
    for _ in range(4):
        writer.exchange("a", b"x")
    bed.advance(1)
    messages = [row for row in bed.traces.rows if row[1] >= 10]
    assert len(messages) == 5
    assert sum(gap.events for gap in bed.traces.gaps) > 0
    lost = sum(gap.events for gap in bed.traces.gaps)
    bed.traces.behind = True
    writer.exchange("a", b"x")
    bed.advance(1)
    bed.traces.behind = False
    bed.advance(1)
    assert sum(gap.events for gap in bed.traces.gaps) - lost == 3
    assert bed.node.counters.trace_lost == sum(gap.events for gap in bed.traces.gaps)


def test_rules_are_told_of_when_the_backend_has_taken_a_message_and_where_one_came_from(make_bed: Make) -> None:
    connection = ConnectionSettings(name="main", kind="rocketmq", address=("127.0.0.1:1",), allow_outflow=("*",), allow_inflow=("*",))
    bed = make_bed(connections=(connection,))
    backend = bed.backends["main"]
    for topic in ("orders", "commands"):
        backend.make(topic)
    out = {"id": "out", "kind": "outflow", "connection": "main", "backendTopic": "orders", "topic": "shop"}
    back = {"id": "inf", "kind": "inflow", "connection": "main", "backendTopic": "commands", "topic": "shop"}
    bed.loop.finish(bed.rules.create(out, by="tester"))
    bed.loop.finish(bed.rules.create(back, by="tester"))
    bed.advance(2)
    bed.connect("writer").exchange("shop/1", b"x")
    assert told(bed, client="writer") == [("pub_mqtt", "writer"), ("rule", "writer")]
    assert [row[5] for row in bed.traces.rows if row[1] == TraceAction.RULE] == ["out sent it to orders"]
    backend.put("commands", b"y", ("mqttSecondTopic", "/2"))
    assert told(bed, client="") == [("pub_mq", "")]
    assert [row[5] for row in bed.traces.rows if row[1] == TraceAction.PUBLISH_BACKEND] == ["shop/2 from rule:inf"]
