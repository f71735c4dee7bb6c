"""What waits for a client that is away: inbox, mailbox, both paces, the legacy pull, limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.protocol.packets import Ack, Disconnect, PacketType, Publish
from gateway.protocol.properties import Properties
from schemas.errors import StoreError
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Flag
from schemas.sessions import BoxEntry
from schemas.settings import P2PSettings
from tests.support.party import Party
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
KEPT = {"clean_start": False, "session_expiry": 86_400}


def leave(bed: Testbed, client: str, *filters: str, qos: int = 2, version: int = 5) -> None:
    party = bed.connect(client, version, **KEPT)
    party.subscribe(*filters, qos=qos)
    party.drop()


def drain(bed: Testbed, party: Party) -> list[bytes]:
    bed.advance(1)
    return party.payloads()


def test_offline_messages_come_in_order_before_live_ones(make_bed: Make) -> None:
    """[MQTT-3.1.2-23] [MQTT-4.5.0-1] [MQTT-4.6.0-5]: QoS 0 is not kept."""
    bed = make_bed(limits=Limits(window=4))
    leave(bed, "s", "a/#")
    publisher = bed.connect("p")
    for number in range(20):
        publisher.exchange("a/x", b"%d" % number, number % 3)
    party = bed.connect("s", **KEPT)
    publisher.exchange("a/x", b"live 1", 1)
    publisher.exchange("a/x", b"live 2", 2)
    bed.advance(5)
    packets = party.deliveries()
    for qos in (1, 2):
        expected = [b"%d" % number for number in range(20) if number % 3 == qos] + [b"live %d" % qos]
        assert [packet.payload for packet in packets if packet.qos == qos] == expected
    assert all(not packet.dup for packet in packets)
    assert bed.node.counters.dropped["offline"] == 7
    bed.advance(1)
    assert bed.stored("s") == []


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_backlog_larger_than_pages_and_windows_comes_whole(make_bed: Make, window: int) -> None:
    bed = make_bed(limits=Limits(receive_maximum=60_000))
    leave(bed, "s", "a")
    publisher = bed.connect("p")
    count = 2_500 if window == 100 else 300
    for number in range(count):
        publisher.publish("a", b"%d" % number, 1)
    bed.settle()
    party = bed.connect("s", clean_start=False, properties=Properties(receive_maximum=window, session_expiry_interval=86_400))
    bed.advance(10)
    assert party.payloads() == [b"%d" % number for number in range(count)]


def test_past_the_limit_the_oldest_go_and_are_counted(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(offline_messages=10))
    leave(bed, "s", "a")
    publisher = bed.connect("p")
    for number in range(25):
        publisher.exchange("a", b"%d" % number)
    bed.advance(1)
    party = bed.connect("s", **KEPT)
    assert drain(bed, party) == [b"%d" % number for number in range(15, 25)]
    assert bed.node.counters.dropped["offline_limit"] == 15


def test_a_session_ends_with_its_expiry_and_its_messages_with_it(bed: Testbed) -> None:
    """[MQTT-3.1.2-11.2]: counted [MQTT-4.1.0-2]."""
    party = bed.connect("s", clean_start=False, session_expiry=5)
    party.subscribe("a")
    party.drop()
    bed.connect("p").exchange("a", b"1")
    bed.advance(7)
    assert bed.session("s") is None
    assert bed.store._state.sessions == {}
    assert bed.node.counters.dropped["session_ended"] == 1


@pytest.mark.parametrize(("asked", "left"), [(0, False), (2, False), (100, True)])
def test_disconnect_changes_the_expiry(bed: Testbed, asked: int, left: bool) -> None:
    bed.connect("s", clean_start=False, session_expiry=50).disconnect(session_expiry_interval=asked)
    bed.advance(70)
    assert (bed.session("s") is not None) is left


def test_disconnect_may_not_make_a_session_last_that_began_without_expiry(bed: Testbed) -> None:
    """[MQTT-3.14.2-2]"""
    party = bed.connect("s")
    party.disconnect(session_expiry_interval=10)
    assert party.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR


def test_a_session_resumed_without_expiry_ends_with_that_connection(bed: Testbed) -> None:
    leave(bed, "s", "a")
    party = bed.connect("s", clean_start=False)
    assert party.connack is not None
    assert party.connack.session_present
    party.drop()
    bed.settle()
    assert bed.session("s") is None
    bed.advance(1)
    assert bed.store._state.sessions == {}


# Pace `batches`


def test_batches_of_thirty_every_five_seconds_beside_live_messages(make_bed: Make) -> None:
    bed = make_bed(pace="batches", limits=Limits(receive_maximum=1_000))
    leave(bed, "s", "a", "live")
    publisher = bed.connect("p")
    for number in range(70):
        publisher.exchange("a", b"%d" % number)
    party = bed.connect("s", **KEPT)
    bed.advance(0.1)
    assert party.payloads() == [b"%d" % number for number in range(30)]
    publisher.exchange("live", b"live")
    bed.advance(4)
    assert party.payloads() == [b"live"]
    bed.advance(1)
    assert party.payloads() == [b"%d" % number for number in range(30, 60)]
    bed.advance(5)
    assert party.payloads() == [b"%d" % number for number in range(60, 70)]


@pytest.mark.parametrize(("version", "copies"), [(4, 16), (5, 1)])
def test_with_batches_3_1_1_is_sent_again_fifteen_times_and_5_never(make_bed: Make, version: int, copies: int) -> None:
    """[MQTT-4.4.0-1] for 5.0; the same packet id, DUP set."""
    bed = make_bed(pace="batches")
    leave(bed, "s", "a", qos=1, version=version)
    bed.connect("p").exchange("a", b"1")
    party = bed.connect("s", version, auto_ack=False, **KEPT)
    bed.advance(200)
    packets = party.deliveries()
    assert len(packets) == copies
    assert len({packet.packet_id for packet in packets}) == 1
    assert [packet.dup for packet in packets] == [False] + [True] * (copies - 1)
    party.ack(PacketType.PUBACK, packets[0].packet_id)
    bed.advance(1)
    assert bed.stored("s") == []


@pytest.mark.parametrize(("order", "expected"), [("DESC", [69, 68, 67]), ("ASC", [30, 31, 32])])
def test_the_legacy_pull(make_bed: Make, order: str, expected: list[int]) -> None:
    bed = make_bed(pace="batches")
    leave(bed, "s", "a", qos=1)
    publisher = bed.connect("p")
    for number in range(70):
        publisher.exchange("a", b"%d" % number)
    party = bed.connect("s", **KEPT)
    bed.advance(0.1)
    party.inbox.clear()
    party.exchange("$SYS/getOfflineMsg", b'{"maxPushNum": 3, "pushOrder": "%s"}' % order.encode(), 1)
    assert party.payloads() == [b"%d" % number for number in expected]
    bed.advance(30)
    rest = party.payloads()
    assert len(rest) == len(set(rest)) == 37  # nothing twice, nothing left out
    assert bed.stored("s") == []


def test_pulls_are_counted_against_a_rate(make_bed: Make) -> None:
    bed = make_bed(pace="batches")
    party = bed.connect("s", **KEPT)
    codes = []
    for _ in range(7):
        party.publish("$SYS/getOfflineMsg", b'{"maxPushNum": 3, "pushOrder": "ASC"}', 1)
        codes.append(party.one(Ack).reason_code)
    assert codes == [ReasonCode.SUCCESS] * 5 + [ReasonCode.QUOTA_EXCEEDED] * 2
    bed.advance(1)
    party.exchange("$SYS/getOfflineMsg", b'{"maxPushNum": 3, "pushOrder": "ASC"}', 1)
    assert bed.node.counters.refused["control"] == 2


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_bad_control_payload_is_told_and_never_logged(bed: Testbed, qos: int) -> None:
    party = bed.connect("s")
    party.publish("$SYS/getOfflineMsg", b"{}", qos)
    bed.settle()
    if qos:
        assert party.one(Ack).reason_code == ReasonCode.PAYLOAD_FORMAT_INVALID
    assert not party.closed
    assert bed.published() == []


def test_enable_order_marks_what_a_kept_session_publishes(bed: Testbed) -> None:
    party = bed.connect("s", **KEPT)
    party.exchange("a", b"1")
    party.exchange("$SYS/enableOrderMsg", b'{"order": "true"}')
    party.exchange("a", b"2")
    assert [bool(record.flags & Flag.ORDERED) for record in bed.published()] == [False, True]


# P2P


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_p2p_goes_to_the_named_client_alone(bed: Testbed, version: int, qos: int) -> None:
    target, watcher = bed.connect("t/x", version), bed.connect("w")
    watcher.subscribe("#", "$share/g/#", "a/p2p/t/x")
    target.subscribe("#")
    bed.connect("p", version).exchange("a/p2p/t/x", b"1", qos, retain=True)
    packet = target.one(Publish)
    assert (packet.topic, packet.qos, packet.retain) == ("a/p2p/t/x", qos, False)
    assert watcher.deliveries() == []
    assert bed.store._state.retained == {}


def test_p2p_can_be_off_or_of_some_parents_only(make_bed: Make) -> None:
    bed = make_bed(p2p=P2PSettings(parents=("a",)))
    watcher = bed.connect("w")
    watcher.subscribe("#")
    publisher = bed.connect("p")
    publisher.exchange("a/p2p/t", b"1")
    publisher.exchange("b/p2p/t", b"2")
    assert watcher.payloads() == [b"2"]


def test_p2p_to_a_kept_session_that_is_offline(bed: Testbed) -> None:
    leave(bed, "t", "x")
    publisher = bed.connect("p")
    for qos in (0, 1, 2):
        publisher.exchange("a/p2p/t", b"%d" % qos, qos)
    assert drain(bed, bed.connect("t", **KEPT)) == [b"1", b"2"]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("later", [{"clean_start": True}, {"clean_start": False, "session_expiry": 600}])
def test_a_mailbox_keeps_for_an_id_never_seen(bed: Testbed, qos: int, later: dict[str, object]) -> None:
    publisher = bed.connect("p", **KEPT)
    for number in range(5):
        publisher.exchange("a/p2p/t", b"%d" % number, qos)
    bed.connect("q").exchange("a/p2p/t", b"clean sender", 1)
    bed.connect("r", **KEPT).exchange("a/p2p/t", b"zero", 0)
    assert bed.node.counters.dropped["p2p_no_target"] == 2
    party = bed.connect("t", **later)
    assert drain(bed, party) == [b"%d" % number for number in range(5)]
    bed.advance(1)
    assert bed.in_mailbox("t") == []
    assert bed.stored("t") == []


def test_a_mailbox_survives_clean_start_and_a_crash_and_has_a_limit(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(mailbox_messages=3))
    bed.connect("t", clean_start=True).drop()
    publisher = bed.connect("p", **KEPT)
    for number in range(5):
        publisher.exchange("a/p2p/t", b"%d" % number)
    bed.crash()
    party = bed.connect("t", clean_start=True)
    assert drain(bed, party) == [b"2", b"3", b"4"]


@pytest.mark.parametrize("expiry", [0, 600])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("wait", [0, 2])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("end", ["drop", "crash"])
def test_p2p_unacknowledged_comes_again_on_the_next_connection(bed: Testbed, expiry: int, qos: int, wait: int, known: bool, end: str) -> None:
    """By the mailbox for a clean session, by its own box for a kept one; whenever the connection ended."""
    fields: dict[str, object] = {"clean_start": expiry == 0, "session_expiry": expiry}
    publisher = bed.connect("p", **KEPT)
    if known:  # the mailbox exists from the beginning
        publisher.exchange("a/p2p/t", b"first", qos)
        first = bed.connect("t", **fields)
        assert drain(bed, first) == [b"first"]
        first.drop()
    away = bed.connect("t", auto_ack=False, **fields)
    publisher.exchange("a/p2p/t", b"live", qos)
    bed.advance(wait)
    assert away.payloads() == [b"live"]
    if end == "drop":
        away.drop()
    else:
        bed.crash()
    for _ in range(2):
        again = bed.connect("t", auto_ack=False, **fields)
        bed.advance(wait)
        assert again.payloads() == [b"live"]
        again.drop()
    last = bed.connect("t", **fields)
    assert drain(bed, last) == [b"live"]
    last.drop()
    assert drain(bed, bed.connect("t", **fields)) == []
    bed.advance(2)
    assert bed.in_mailbox("t") == []


def test_a_mailbox_made_while_its_owner_is_online_is_delivered_at_once(bed: Testbed) -> None:
    party = bed.connect("t")
    bed.connect("p", **KEPT).exchange("a/p2p/t", b"1")
    assert drain(bed, party) == [b"1"]


def test_p2p_order_holds_while_the_mailbox_is_read(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(window=2))
    publisher = bed.connect("p", **KEPT)
    for number in range(20):
        publisher.exchange("a/p2p/t", b"%d" % number)
    party = bed.connect("t", **KEPT)
    for number in range(20, 40):
        publisher.exchange("a/p2p/t", b"%d" % number)
    bed.advance(3)
    assert party.payloads() == [b"%d" % number for number in range(40)]


def test_p2p_messages_of_a_store_that_fails_are_not_passed_by_the_position(bed: Testbed) -> None:
    publisher = bed.connect("p", **KEPT)
    bed.store.failing = True
    publisher.publish("a/p2p/t", b"1", 1)
    bed.advance(3)
    bed.crash()
    assert drain(bed, bed.connect("t")) == [b"1"]


@pytest.mark.parametrize("pace", ["acknowledged", "batches"])
def test_a_store_that_fails_while_a_backlog_is_read_costs_no_connection(make_bed: Make, monkeypatch: pytest.MonkeyPatch, pace: str) -> None:
    bed = make_bed(pace=pace, limits=Limits(window=40))
    leave(bed, "s", "a")
    publisher = bed.connect("p")
    for number in range(60):
        publisher.exchange("a", b"%d" % number)
    entries, failures = bed.store.entries, iter([StoreError("the database restarts")] * 3)

    async def some(*arguments: Any, **options: Any) -> list[BoxEntry]:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await entries(*arguments, **options)

    monkeypatch.setattr(bed.store, "entries", some)
    party = bed.connect("s", **KEPT)
    bed.advance(20)
    assert party.payloads() == [b"%d" % number for number in range(60)]
    assert next(failures, None) is None
    assert not party.closed


@pytest.mark.parametrize("preset", ["standard", "apsaramq"])
def test_apsaramq_keeps_nothing_under_qos_2(make_bed: Make, preset: str) -> None:
    """A persistent session of the model product keeps QoS 1 alone; connected it gets both, each once."""
    bed = make_bed(preset=preset)
    resources = bed.node.registers.resources
    bed.loop.finish(resources.create_group("GID_test", "", 0))
    bed.loop.finish(resources.create_topic("plant", "", "", 0))
    party = bed.connect("GID_test@@@s", auto_ack=False, clean_start=False, session_expiry=60)
    party.subscribe("plant", qos=2)
    publisher = bed.connect("GID_test@@@p")
    publisher.exchange("plant", b"in flight", 2)
    (delivery,) = party.deliveries()
    party.ack(PacketType.PUBREC, delivery.packet_id)
    bed.advance(0.1)
    assert party.acks(PacketType.PUBREL) == [delivery.packet_id]
    party.ack(PacketType.PUBCOMP, delivery.packet_id)
    publisher.exchange("plant", b"unacknowledged", 2)
    party.drop()
    publisher.exchange("plant", b"later", 2)
    publisher.exchange("plant", b"kept", 1)
    bed.advance(1)
    again = bed.connect("GID_test@@@s", clean_start=False, session_expiry=60)
    bed.advance(10)
    standard = preset == "standard"
    assert sorted(again.payloads()) == ([b"kept", b"later", b"unacknowledged"] if standard else [b"kept"])
    dropped = bed.node.counters.dropped
    assert (dropped["session_ended"], dropped["offline"]) == ((0, 0) if standard else (1, 1))
