"""Three gateways that are one: what is published on any comes to those who subscribed on any, whoever lives, and each session lives once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packets import Publish
from gateway.rules.management import RuleManagement
from schemas.errors import StoreError
from schemas.records import Kind
from schemas.rules import RuleError
from tests.support.many_bed import ManyBed
from tests.support.party import will

Make = Callable[..., ManyBed]
KEPT = {"clean_start": False, "session_expiry": 86_400}


def test_what_is_published_on_one_comes_to_those_who_subscribed_on_another(make_many: Make) -> None:
    bed = make_many()
    nodes = [bed.start(name) for name in ("one", "two", "three")]
    for number in range(60):
        here, there = nodes[number % 3], nodes[(number + 1 + number // 3 % 2) % 3]
        receiver = here.connect(f"r{number}")
        assert receiver.subscribe(f"t/{number}", qos=number % 3) == (number % 3,)
        there.connect(f"p{number}").exchange(f"t/{number}", b"%d" % number, 2)
        assert receiver.payloads() == [b"%d" % number]


def test_a_killed_node_s_sessions_live_elsewhere_within_seconds(make_many: Make) -> None:
    """Connected ones and others, with what was acknowledged meanwhile; one tcpclean and one will a connection."""
    bed = make_many()
    one, two, three = (bed.start(name) for name in ("one", "two", "three"))
    away = two.connect("away", **KEPT)
    away.subscribe("t", qos=1)
    away.disconnect()
    live = two.connect("live", **KEPT, will=will("wills", b"live is gone"))
    live.subscribe("t", qos=2)
    two.connect("clean", will=will("wills", b"clean is gone"))
    watcher = one.connect("watcher")
    watcher.subscribe("wills", qos=1)
    bed.advance(1)
    publisher = three.connect("p")
    publisher.exchange("t", b"before", 2)
    bed.kill(two)
    publisher.exchange("t", b"meanwhile", 2)
    bed.advance(3)
    publisher.exchange("t", b"after", 2)
    bed.advance(1)
    assert sorted(watcher.payloads()) == [b"clean is gone", b"live is gone"]
    assert [bed.events(client).count(Kind.TCPCLEAN) for client in ("live", "clean", "away")] == [1, 1, 1]
    assert [node.node for node in bed.store._state.cluster.nodes.values()] == ["one", "three"]
    got = one.connect("away", **KEPT).payloads()
    assert got == [b"before", b"meanwhile", b"after"]
    assert three.connect("live", **KEPT).payloads()[-2:] == [b"meanwhile", b"after"]
    bed.advance(120)
    assert watcher.payloads() == []


def test_the_leader_s_death_leaves_the_work_to_another(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    assert one.leads
    assert not two.leads
    one.connect("c", will=will("wills"))
    watcher = two.connect("watcher")
    watcher.subscribe("wills")
    bed.settle()  # before anything of it is folded
    bed.kill(one)
    bed.advance(4)
    assert two.leads
    assert watcher.payloads() == [b"gone"]
    assert bed.events("c") == [Kind.CONNECT, Kind.TCPCLEAN]
    three = bed.start("three")
    three.connect("d").drop()
    bed.advance(2)
    assert bed.store._state.channels.keys() == {watcher.connection.channel}


def test_a_delayed_will_is_not_sent_when_the_session_goes_on_elsewhere(make_many: Make) -> None:
    """[MQTT-3.1.3-9], whether its node lives or not."""
    for dies in (False, True):
        bed = make_many()
        one, two = bed.start("one"), bed.start("two")
        watcher = two.connect("watcher")
        watcher.subscribe("wills")
        party = one.connect("s", **KEPT, will=will("wills", delay=30))
        bed.advance(2)
        if dies:
            bed.kill(one)
        else:
            party.drop()
        bed.advance(10)
        two.connect("s", **KEPT)
        bed.advance(60)
        assert watcher.payloads() == [], dies
        assert two.connect("s", clean_start=True).connack is not None


def test_a_delayed_will_is_sent_once_where_nothing_goes_on(make_many: Make) -> None:
    bed = make_many()
    one, two, three = (bed.start(name) for name in ("one", "two", "three"))
    watcher = three.connect("watcher")
    watcher.subscribe("wills")
    one.connect("s", **KEPT, will=will("wills", delay=30))
    bed.advance(2)
    bed.kill(one)
    bed.advance(10)
    assert watcher.payloads() == []
    bed.kill(two)
    bed.advance(40)
    assert watcher.payloads() == [b"gone"]
    bed.advance(600)
    assert watcher.payloads() == []
    assert bed.events("s").count(Kind.TCPCLEAN) == 1


def test_retained_messages_are_everybody_s(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    one.connect("p").exchange("t/1", b"kept", retain=True)
    receiver = two.connect("r")
    receiver.subscribe("t/#", qos=1)
    assert receiver.payloads() == [b"kept"]


def test_a_message_to_a_device_finds_it_on_its_node_and_else_its_mailbox(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    sender = one.connect("sender", **KEPT)
    there = two.connect("device")
    bed.advance(3)
    sender.exchange("plant/p2p/device", b"to it")
    assert there.payloads() == [b"to it"]
    sender.exchange("plant/p2p/nobody", b"kept")
    bed.advance(9)
    assert two.connect("nobody").payloads() == [b"kept"]
    bed.advance(9)
    assert one.connect("device").payloads() == [], "it had that"


def test_a_device_that_comes_before_its_message_was_looked_at_gets_it(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    two.connect("sender", **KEPT).exchange("plant/p2p/device", b"kept")
    bed.advance(1)
    device = two.connect("device")
    assert device.payloads() == []
    bed.advance(9)
    assert device.payloads() == [b"kept"]
    assert one.leads


def test_a_message_to_a_device_that_is_away_outlives_the_leader(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    two.connect("sender", **KEPT).exchange("plant/p2p/nobody", b"kept")
    assert one.leads
    bed.kill(one)
    bed.advance(12)
    assert two.connect("nobody").payloads() == [b"kept"]


def test_a_message_to_a_device_whose_node_has_just_died_is_kept(make_many: Make) -> None:
    """The store has it as online when the message comes."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    assert one.leads
    two.connect("device")
    bed.advance(5)
    bed.sever(two)
    one.connect("sender", **KEPT).exchange("plant/p2p/device", b"kept")
    bed.advance(4)
    bed.store._state.cluster.nodes[two.node.epoch].until = 0
    bed.advance(6)
    assert one.connect("device").payloads() == [b"kept"]


def test_a_node_that_leaves_hands_its_sessions_on(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    one.connect("s", **KEPT).subscribe("t", qos=1)
    bed.settle()
    del bed.living["one"]
    bed.loop.finish(one.app.stop())
    two.connect("p").exchange("t", b"x")
    bed.advance(2)
    assert two.connect("s", **KEPT).payloads() == [b"x"]
    assert bed.events("s").count(Kind.TCPCLEAN) == 1


def test_both_live(make_many: Make) -> None:
    """A publish that comes between a claim and the end of the old connection is delivered once or twice, never not at all."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    one.connect("s", **KEPT).subscribe("t", qos=1)
    publisher = one.connect("p")
    for number in range(30):
        publisher.publish("t", b"%d" % number, 1)
        party = (two, one)[number % 2].connect("s", **KEPT)
        publisher.publish("t", b"%d+" % number, 1)
        bed.advance(0.3 * (number % 3))
        assert {b"%d" % number, b"%d+" % number} <= {packet.payload for packet in party.take(Publish)}


def test_rules_run_on_one_node_that_the_others_name(make_many: Make) -> None:
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    engines = [node.app._engine for node in (one, two)]
    assert engines[0] is not None and engines[1] is not None
    assert RuleManagement(engines[0]).all() == []
    for call in (lambda: RuleManagement(engines[1]).all(), lambda: RuleManagement(engines[1]).show("r")):
        with pytest.raises(RuleError, match="rules run on the node one: ask its API"):
            call()
    bed.kill(one)
    bed.advance(2)
    assert RuleManagement(engines[1]).all() == []


def test_after_an_outage_of_the_store_nobody_takes_those_for_dead_who_are_late(make_many: Make) -> None:
    """All leases have run out; who is back first waits as long as a lease lasts. An earlier start of its own is known to be over."""
    bed = make_many()
    one, two = bed.start("one"), bed.start("two")
    kept = two.connect("s", **KEPT)
    assert one.app._membership is not None
    one.app._membership._held_since = bed.loop.time()
    nodes = bed.store._state.cluster.nodes
    renew, bed.store.cluster.renew = bed.store.cluster.renew, _refuse  # type: ignore[method-assign]
    nodes[two.node.epoch].until = 0
    bed.advance(3)
    assert not nodes[two.node.epoch].dead
    bed.store.cluster.renew = renew  # type: ignore[method-assign]
    bed.advance(2)
    assert not kept.closed
    before = one.node.epoch
    bed.kill(one)
    again = bed.start("one")
    assert again.app._membership is not None
    again.app._membership._held_since = bed.loop.time()
    bed.advance(2)
    assert before not in nodes


async def _refuse(epoch: int, lease_ms: int = 0) -> bool:
    raise StoreError("not yet")
