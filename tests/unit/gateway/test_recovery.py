"""kill -9 and what a start makes of it: nothing acknowledged is lost, QoS 2 has no extra, presence and sessions are whole; and clocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packets import Disconnect, PacketType, Publish
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Kind
from tests.support.party import will
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
KEPT = {"clean_start": False, "session_expiry": 86_400}


@pytest.mark.parametrize("wait", [0.0, 0.3, 0.7, 3.0])
@pytest.mark.parametrize("online", [True, False])
def test_what_was_acknowledged_is_delivered_after_a_crash(bed: Testbed, online: bool, wait: float) -> None:
    """[MQTT-4.5.0-1]"""
    party = bed.connect("s", auto_ack=False, **KEPT)
    party.subscribe("a", qos=2)
    if not online:
        party.drop()
    publisher = bed.connect("p")
    for number in range(20):
        publisher.exchange("a", b"%d" % number, 1 + number % 2)
    bed.advance(wait)
    bed.crash()
    again = bed.connect("s", **KEPT)
    bed.advance(1)
    packets = again.deliveries()
    for qos in (1, 2):
        payloads = [packet.payload for packet in packets if packet.qos == qos]
        assert payloads == [b"%d" % number for number in range(qos - 1, 20, 2)]


def test_what_a_prompt_client_had_acknowledged_may_come_again_once_in_order_and_qos_2_never(bed: Testbed) -> None:
    """Promise 2 of the design; a second start repeats nothing, though nothing was published in between."""
    party = bed.connect("s", **KEPT)
    party.subscribe("a", qos=2)
    publisher = bed.connect("p")
    for number in range(10):
        publisher.exchange("a", b"%d" % number, 1 + number % 2)
    assert len(party.payloads()) == 10
    bed.crash()
    again = bed.connect("s", **KEPT)
    bed.advance(2)
    repeats = again.deliveries()
    assert all(packet.qos == 1 for packet in repeats)
    assert [packet.payload for packet in repeats] == [b"0", b"2", b"4", b"6", b"8"]
    bed.crash()
    last = bed.connect("s", **KEPT)
    bed.advance(2)
    assert last.deliveries() == []


@pytest.mark.parametrize("crashes", [1, 2])
def test_what_comes_again_comes_in_order_also_where_some_of_it_was_stored_in_flight(bed: Testbed, crashes: int) -> None:
    """The end of a connection stores what is unacknowledged; a crash right after it brings back what was acknowledged before that."""
    party = bed.connect("s", auto_ack=False, **KEPT)
    party.subscribe("a", qos=1)
    publisher = bed.connect("p")
    for number in range(10):
        publisher.exchange("a", b"%d" % number, 1)
    for delivery in party.deliveries()[:6]:
        party.ack(PacketType.PUBACK, delivery.packet_id)
    party.drop()
    bed.advance(0.05)
    assert bed.stored("s") == [b"6", b"7", b"8", b"9"]
    for _ in range(crashes):
        bed.crash()
        bed.advance(2 if crashes > 1 else 0)  # by then the position has passed them
    again = bed.connect("s", **KEPT)
    bed.advance(1)
    assert again.payloads() == [b"%d" % number for number in range(10)]
    assert bed.stored("s") == []


def test_after_the_settle_time_nothing_comes_again(bed: Testbed) -> None:
    party = bed.connect("s", **KEPT)
    party.subscribe("a", qos=2)
    publisher = bed.connect("p")
    for number in range(10):
        publisher.exchange("a", b"%d" % number, 1 + number % 2)
    bed.advance(2)
    assert len(party.payloads()) == 10
    bed.crash()
    again = bed.connect("s", **KEPT)
    bed.advance(2)
    assert again.deliveries() == []
    bed.advance(2)
    assert bed.stored("s") == []  # rows of finished QoS 2 deliveries went with the position


def test_a_publish_that_was_not_acknowledged_may_be_gone(bed: Testbed) -> None:
    bed.connect("s", **KEPT).subscribe("a")
    publisher = bed.connect("p")
    bed.log.held = True
    publisher.publish("a", b"1", 1)
    bed.settle()
    assert publisher.acks(PacketType.PUBACK) == []
    bed.crash()
    again = bed.connect("s", **KEPT)
    bed.advance(1)
    assert again.deliveries() == []


def test_subscriptions_retained_messages_and_mailboxes_are_back(bed: Testbed) -> None:
    party = bed.connect("s", **KEPT)
    party.subscribe("a/+", qos=1, identifier=7, no_local=True)
    party.subscribe("$share/g/b")
    bed.connect("p").exchange("a/r", b"kept", retain=True)
    bed.advance(2)
    bed.crash()
    session = bed.session("s")
    assert session is not None
    assert sorted(session.subscriptions) == ["$share/g/b", "a/+"]
    again = bed.connect("s", **KEPT)
    again.inbox.clear()
    again.exchange("a/x", b"mine")
    other = bed.connect("p")
    other.exchange("a/x", b"theirs")
    other.exchange("b", b"shared")
    got = [(p.payload, p.properties.subscription_identifier if p.properties else ()) for p in again.deliveries()]
    assert got == [(b"theirs", (7,)), (b"shared", ())]
    late = bed.connect("l")
    late.subscribe("a/#")
    assert late.payloads() == [b"kept"]


def test_the_time_of_a_session_that_was_connected_runs_from_the_start(bed: Testbed) -> None:
    bed.connect("s", clean_start=False, session_expiry=10)
    bed.connect("clean")
    bed.crash(downtime=60)
    assert bed.session("s") is not None
    assert bed.session("clean") is None
    bed.advance(12)
    assert bed.session("s") is None


def test_the_time_of_a_session_that_was_away_goes_on(bed: Testbed) -> None:
    bed.connect("s", clean_start=False, session_expiry=30).drop()
    bed.advance(1)
    bed.crash(downtime=20)
    bed.advance(5)
    assert bed.session("s") is not None
    bed.advance(10)
    assert bed.session("s") is None


def test_each_channel_gets_one_connect_and_one_tcpclean(bed: Testbed) -> None:
    """After takeover, loss, refusal to read, crash."""
    bed.connect("a", **KEPT)
    bed.connect("a", **KEPT).drop()
    bed.connect("b").disconnect()
    bed.connect("c")
    bed.advance(2)
    for _ in range(3):
        bed.crash()
        bed.advance(2)
    connects = [record.payload for record in bed.events() if record.kind == Kind.CONNECT]
    cleans = [record.id for record in bed.events() if record.kind == Kind.TCPCLEAN]
    assert (len(connects), len(cleans), len(set(cleans))) == (4, 4, 4)
    assert bed.store._state.channels == {}
    assert not any(status.online for status, _ in bed.store._state.statuses.values())


def test_a_crash_in_the_middle_of_everything_loses_nothing(make_bed: Make) -> None:
    """Crash after crash, each a little later in the flow than the last."""
    bed = make_bed(limits=Limits(window=5))
    bed.connect("s", **KEPT).subscribe("a", qos=2)
    acknowledged: list[bytes] = []
    got: list[tuple[int, bytes]] = []
    for round_ in range(25):
        party = bed.connect("s", **KEPT)
        publisher = bed.connect("p")
        for number in range(4):
            payload = b"%d.%d" % (round_, number)
            publisher.exchange("a", payload, 1 + number % 2)
            acknowledged.append(payload)
        bed.advance(round_ * 0.05)
        got += [(packet.qos, packet.payload) for packet in party.deliveries() if not (packet.qos == 2 and packet.dup)]
        bed.crash()
    party = bed.connect("s", **KEPT)
    bed.advance(3)
    got += [(packet.qos, packet.payload) for packet in party.deliveries() if not (packet.qos == 2 and packet.dup)]
    assert {payload for _, payload in got} == set(acknowledged)
    twos = [payload for qos, payload in got if qos == 2]
    assert len(twos) == len(set(twos))


# Clocks and timers


def test_keep_alive_ends_a_silent_connection_after_one_and_a_half_times(bed: Testbed) -> None:
    """[MQTT-3.1.2-22]"""
    silent, talks = bed.connect("a", keep_alive=10), bed.connect("b", keep_alive=10)
    never = bed.connect("c", 4, keep_alive=0)
    for _ in range(3):
        bed.advance(7)
        talks.write_bytes(b"\xc0\x00")
    assert silent.closed
    assert silent.one(Disconnect).reason_code == ReasonCode.KEEP_ALIVE_TIMEOUT
    assert not talks.closed
    bed.advance(3_000)
    assert talks.closed
    assert not never.closed


def test_pingreq_is_answered(bed: Testbed) -> None:
    """[MQTT-3.12.4-1]"""
    party = bed.connect("c")
    party.write_bytes(b"\xc0\x00\xc0\x00")
    bed.settle()
    assert len(party.inbox) == 2


@pytest.mark.parametrize("jump", [2 * 3_600_000, 40 * 86_400_000])
def test_a_clock_that_jumps_ahead_ends_nothing_for_a_minute(bed: Testbed, jump: int) -> None:
    """Time for somebody, or for NTP, to set it right."""
    bed.connect("s", clean_start=False, session_expiry=600).drop()
    bed.connect("w", will=will("w", delay=300), **KEPT).drop()
    bed.advance(2)
    bed.clock.ahead = jump
    bed.advance(30)
    assert bed.session("s") is not None
    bed.connect("s", clean_start=False, session_expiry=600).drop()  # nor does a claim
    assert bed.published() == []
    bed.advance(40)
    assert [record.topic for record in bed.published()] == ["w"]


def test_a_clock_that_is_set_right_in_time_ends_nothing(bed: Testbed) -> None:
    bed.connect("s", clean_start=False, session_expiry=7_300).drop()
    bed.advance(2)
    bed.clock.ahead = 3 * 3_600_000
    bed.advance(30)
    bed.clock.ahead = 0
    bed.advance(100)
    assert bed.session("s") is not None


def test_a_clock_behind_the_log_at_start_ends_nothing_until_it_has_caught_up(bed: Testbed) -> None:
    bed.connect("s", clean_start=False, session_expiry=10).drop()
    bed.connect("p").exchange("a", b"")
    bed.advance(2)
    bed.crash()
    bed.clock.ahead = -3_600_000
    bed.advance(30)
    assert bed.session("s") is not None
    bed.clock.ahead = 0
    bed.advance(30)
    assert bed.session("s") is None


def test_publishers_of_a_full_store_are_held_back_and_nothing_is_lost(bed: Testbed) -> None:
    party = bed.connect("s", **KEPT)
    party.subscribe("a", qos=2)
    publisher = bed.connect("p")
    bed.store.failing = True
    publisher.publish("a", b"1", 2)
    bed.advance(5)
    assert party.deliveries() == []
    bed.store.failing = False
    bed.advance(2)
    assert [packet.payload for packet in party.take(Publish)] == [b"1"]
