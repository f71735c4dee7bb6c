"""A node that stops sends MQTT 5 clients to others that have said where they are; one that has moved sends all of them away for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packets import Connack, Disconnect
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from streams.log import Pressure
from tests.support.many_bed import ManyBed, One
from tests.support.party import Party, will

Make = Callable[..., ManyBed]
LONG = ".mqtt.plant-7.example.org:1883"
Answer = tuple[ReasonCode, str | None]


def answer(packet: Connack | Disconnect) -> Answer:
    return packet.reason_code, None if packet.properties is None else packet.properties.server_reference


def stop(one: One) -> None:
    del one.bed.living[one.name]
    one.loop.finish(one.app.stop())


def parting(party: Party) -> Answer:
    return answer(party.one(Disconnect))


def test_who_can_be_told_is_sent_to_the_others_in_turn(make_many: Make) -> None:
    bed = make_many()
    one = bed.start("one", advertise="one:1883")
    bed.start("two", advertise=f"two{LONG}")
    bed.start("three", advertise=f"three{LONG}")
    watcher = bed.living["two"].connect("watcher")
    watcher.subscribe("wills")
    parties = [one.connect(f"c{number}", will=will("wills")) for number in range(4)]
    old, silent = one.connect("old", 4), one.connect("small", properties=Properties(maximum_packet_size=40))
    stop(one)
    told = sorted(parting(party) for party in parties)
    assert told == [(ReasonCode.USE_ANOTHER_SERVER, f"three{LONG}")] * 2 + [(ReasonCode.USE_ANOTHER_SERVER, f"two{LONG}")] * 2
    assert old.closed
    assert old.take(Disconnect) == []
    assert parting(silent) == (ReasonCode.SERVER_SHUTTING_DOWN, None), "a reference would not fit [MQTT-3.1.2-24]"
    bed.advance(5)
    assert watcher.payloads() == []


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"advertise": "one:1883"},
        {"advertise": "two:1883", "moved_to": "three:1883"},
        {"advertise": "two:1883", "roles": ("api", "router", "bridge")},
        None,
    ],
    ids=["says nothing", "is behind the same address", "has moved", "takes no clients", "has died"],
)
def test_nobody_is_sent_to_one_that(make_many: Make, other: dict[str, object] | None) -> None:
    bed = make_many()
    one = bed.start("one", advertise="one:1883")
    two = bed.start("two", **({"advertise": "two:1883"} if other is None else other))
    party = one.connect("c")
    if other is None:
        bed.kill(two)
    stop(one)
    assert parting(party) == (ReasonCode.SERVER_SHUTTING_DOWN, None)


def test_nobody_is_sent_to_one_that_stops_itself(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one", advertise="one:1883"), bed.start("two", advertise="two:1883")
    party = one.connect("c")
    bed.loop.finish(two.node.redirecting.leave(two.app._membership))  # type: ignore[arg-type]
    stop(one)
    assert parting(party) == (ReasonCode.SERVER_SHUTTING_DOWN, None)


def test_a_store_that_is_away_keeps_nobody_from_stopping(make_many: Make) -> None:
    bed = make_many()
    one = bed.start("one")
    bed.start("two", advertise="two:1883")
    party = one.connect("c")
    one.link.cut = True
    began = bed.loop.time()
    bed.loop.finish(one.node.redirecting.leave(one.app._membership))  # type: ignore[arg-type]
    one.node.redirecting.part(party.connection)
    assert parting(party) == (ReasonCode.SERVER_SHUTTING_DOWN, None)
    assert bed.loop.time() - began <= 1.0


def test_a_connect_that_comes_while_it_drains_is_told(make_many: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = make_many()
    one = bed.start("one", advertise="one:1883")
    bed.start("two", advertise="two:1883")
    new, old = one.dial(), one.dial(4)
    there = one.connect("there")
    monkeypatch.setattr(bed.log, "pressure", lambda: Pressure(records=1, size=1, stalled_since=0.0))  # something is on its way for a while
    del bed.living["one"]
    stopping = bed.loop.create_task(one.app.stop())
    bed.advance(0.5)
    for party in (new, old):
        party.connect("c")
        assert party.closed
    assert new.connack is not None and old.connack is not None
    assert answer(new.connack) == (ReasonCode.USE_ANOTHER_SERVER, "two:1883")
    assert old.connack.reason_code == ReasonCode.SERVER_UNAVAILABLE
    assert not there.closed
    bed.advance(10)
    assert stopping.done()
    assert parting(there) == (ReasonCode.USE_ANOTHER_SERVER, "two:1883")


def test_a_node_that_has_moved_sends_all_away_that_can_be_told(make_many: Make) -> None:
    bed = make_many()
    one = bed.start("one", moved_to="two:1883")
    bed.start("three", advertise="three:1883")
    new = one.dial()
    new.connect("c")
    assert new.connack is not None
    assert answer(new.connack) == (ReasonCode.SERVER_MOVED, "two:1883")
    assert new.closed
    assert one.node.registry.get("c") is None
    old = one.connect("old", 4)
    assert not old.closed, "3.1.1 has no words for it"
    stop(one)
    assert old.closed
