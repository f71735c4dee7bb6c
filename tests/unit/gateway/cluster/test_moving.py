"""A session that comes to another node: it has what it is owed, once, and its old connection is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.protocol.packets import Connack, Disconnect, PacketType
from schemas.errors import StoreBusy
from schemas.reasons import ReasonCode
from schemas.records import Kind
from streams.log import Batch
from streams.memory.store import _Outcome
from tests.support.many_bed import ManyBed

Make = Callable[..., ManyBed]
KEPT = {"clean_start": False, "session_expiry": 86_400}


def test_a_session_moves_with_what_it_is_owed_and_its_old_connection_is_closed(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here = one.connect("s", auto_ack=False, **KEPT)
    here.subscribe("t", qos=1)
    publisher = two.connect("p")
    for number in range(5):
        publisher.exchange("t", b"%d" % number)
    sent = here.deliveries()
    assert [packet.payload for packet in sent] == [b"0", b"1", b"2", b"3", b"4"]
    here.ack(PacketType.PUBACK, sent[0].packet_id)
    bed.settle()
    there = two.connect("s", auto_ack=False, **KEPT)
    assert there.connack is not None
    assert there.connack.session_present
    bed.settle()
    assert [packet.reason_code for packet in here.take(Disconnect)] == [ReasonCode.SESSION_TAKEN_OVER]
    assert here.closed
    publisher.exchange("t", b"5")
    bed.advance(1)
    assert [packet.payload for packet in there.deliveries()][-5:] == [b"1", b"2", b"3", b"4", b"5"]
    assert one.node.registry.get("s") is None
    assert len(one.node.routes) == 0
    assert sorted(bed.events("s")) == [Kind.CONNECT, Kind.CONNECT, Kind.TCPCLEAN]


def test_what_was_in_flight_for_longer_moves_under_its_packet_id(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here = one.connect("s", auto_ack=False, **KEPT)
    here.subscribe("t", qos=1)
    two.connect("p").exchange("t", b"unsettled")
    bed.advance(2)
    (sent,) = here.deliveries()
    there = two.connect("s", auto_ack=False, **KEPT)
    (again,) = there.deliveries()
    assert (again.payload, again.packet_id, again.dup) == (b"unsettled", sent.packet_id, True)
    there.ack(PacketType.PUBACK, again.packet_id)
    bed.advance(2)
    assert one.connect("s", **KEPT).payloads() == []


def test_nothing_of_qos_2_comes_twice_wherever_the_session_goes(make_many: Make) -> None:
    bed = make_many()
    nodes = [bed.start(name) for name in ("one", "two", "three")]
    publisher = nodes[2].connect("p")
    got: list[bytes] = []
    party = nodes[0].connect("s", **KEPT)
    party.subscribe("t", qos=2)
    for number in range(40):
        publisher.publish("t", b"%d" % number, 2)
        publisher.publish("t", b"%d+" % number, 2)
        bed.advance(0.05 * (number % 4))
        got += party.payloads()
        party = nodes[number % 3].connect("s", **KEPT)
        bed.settle()
        got += party.payloads()
    bed.advance(3)
    got += party.payloads()
    assert got == [b"%d%s" % (number, end) for number in range(40) for end in (b"", b"+")]


def test_a_clean_session_is_closed_where_it_was_too(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here = one.connect("c")
    here.subscribe("t")
    there = two.connect("c")
    bed.settle()
    assert here.one(Disconnect).reason_code == ReasonCode.SESSION_TAKEN_OVER
    two.connect("p").exchange("t", b"x")
    assert there.payloads() == []
    assert bed.events("c").count(Kind.TCPCLEAN) == 1
    assert not there.closed


def test_a_clean_start_elsewhere_ends_a_kept_session(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    one.connect("s", **KEPT).subscribe("t", qos=1)
    fresh = two.connect("s", clean_start=True)
    assert fresh.connack is not None
    assert not fresh.connack.session_present
    bed.settle()
    assert one.node.registry.get("s") is None
    two.connect("p").exchange("t", b"x")
    assert fresh.payloads() == []
    back = one.connect("s", **KEPT)
    assert back.connack is not None
    assert not back.connack.session_present


def test_a_qos_2_publish_goes_on_where_its_session_goes(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    receiver = two.connect("r")
    receiver.subscribe("t", qos=2)
    here = one.connect("s", **KEPT)
    number = here.publish("t", b"once", 2)
    bed.settle()
    assert here.acks(PacketType.PUBREC) == [number]
    there = two.connect("s", **KEPT)
    there.publish("t", b"once", 2, dup=True, packet_id=number)
    bed.settle()
    assert there.acks(PacketType.PUBREC) == [number]
    there.ack(PacketType.PUBREL, number)
    bed.settle()
    assert there.acks(PacketType.PUBCOMP) == [number]
    assert receiver.payloads() == [b"once"]


def test_an_id_that_was_released_on_the_old_node_is_a_new_publish_on_the_new_one(make_many: Make) -> None:
    """The new one has not routed the release yet when the client comes."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    receiver = two.connect("r")
    receiver.subscribe("t", qos=2)
    here = one.connect("s", **KEPT)
    number = here.publish("t", b"first", 2)
    bed.settle()
    bed.advance(1)
    reader = two.app._ticks._reader  # type: ignore[union-attr]
    hold = HeldReader(reader.next)
    reader.next = hold.next
    one.connect("p").exchange("other")  # what the reader waits for already
    here.ack(PacketType.PUBREL, number)
    bed.settle()
    assert here.acks(PacketType.PUBCOMP) == [number]
    there = two.dial()
    there.connect("s", **KEPT)
    assert there.connack is None, "not before it is known what the client was told"
    hold.go.set()
    bed.advance(0.1)
    assert there.one(Connack).session_present
    there.publish("t", b"second", 2, packet_id=number)
    bed.advance(0.1)
    assert receiver.payloads() == [b"first", b"second"]


class HeldReader:
    def __init__(self, following: Callable[[int, int], Awaitable[Batch]]) -> None:
        self.go = asyncio.Event()
        self._following = following

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        await self.go.wait()
        return await self._following(max_records, max_bytes)


def test_of_two_connects_at_once_the_later_claim_wins_and_the_other_is_told(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    go, connected = asyncio.Event(), one.node.presence.connected

    async def late(*arguments: Any) -> None:
        await go.wait()
        await connected(*arguments)

    one.node.presence.connected = late  # type: ignore[method-assign]
    slow = one.dial()
    slow.connect("s", **KEPT)
    quick = two.connect("s", **KEPT)
    quick.subscribe("t", qos=1)
    bed.advance(0.1)
    go.set()
    bed.advance(0.1)
    assert slow.one(Connack).reason_code == ReasonCode.SERVER_BUSY
    assert slow.closed
    two.connect("p").exchange("t", b"x")
    assert quick.payloads() == [b"x"]
    assert bed.events("s").count(Kind.TCPCLEAN) == 1


def test_a_session_whose_rows_another_node_holds_is_waited_for(make_many: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    one.connect("s", **KEPT)
    claim, left = bed.store.claim, [2]

    def held(*arguments: Any, **options: Any) -> Awaitable[Any]:
        if left[0]:
            left[0] -= 1
            return _Outcome(StoreBusy("held"))
        return claim(*arguments, **options)

    monkeypatch.setattr(bed.store, "claim", held)
    there = two.connect("s", **KEPT)
    assert there.connack is not None and there.connack.session_present
    left[0] = 100
    refused = one.dial()
    refused.connect("s", **KEPT)
    assert refused.connack is not None and refused.connack.reason_code == ReasonCode.SERVER_UNAVAILABLE
    assert left[0] == 97


def test_an_old_connection_is_closed_though_its_node_hears_nothing_of_the_log(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    here = one.connect("s", **KEPT)
    one.link.behind = True
    two.connect("s", **KEPT)
    bed.advance(0.3)
    assert [packet.reason_code for packet in here.take(Disconnect)] == [ReasonCode.SESSION_TAKEN_OVER]
    assert one.node.registry.get("s") is None
    one.link.behind = False
    bed.advance(1)
    assert sorted(bed.events("s")) == [Kind.CONNECT, Kind.CONNECT, Kind.TCPCLEAN]
