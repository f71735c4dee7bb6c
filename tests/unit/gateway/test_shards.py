"""A log of several shards: what is promised per publisher holds, though shards are read in any order and boxes are sorted by them."""

from __future__ import annotations

from collections.abc import Callable

from gateway.presence import PRESENCE_READER
from gateway.protocol.packets import PacketType
from gateway.recovery import ROUTER_READER
from schemas.limits import Limits
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
KEPT = {"clean_start": False, "session_expiry": 86_400}
SHARDS = 4
PUBLISHERS = tuple("abcdefgh")


def publish_all(bed: Testbed, count: int, qos: int = 1, since: int = 0) -> None:
    """Of each publisher so many, numbered, round and round."""
    parties = {name: bed.connect(name) for name in PUBLISHERS}
    for number in range(since, since + count):
        for name, party in parties.items():
            party.exchange("t", b"%s %d" % (name.encode(), number), qos)


def by_publisher(payloads: list[bytes]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in PUBLISHERS}
    for payload in payloads:
        name, _, number = payload.decode().partition(" ")
        found[name].append(int(number))
    return found


def test_publishers_are_spread(make_bed: Make) -> None:
    """Else the tests here would show nothing."""
    bed = make_bed(shards=SHARDS)
    publish_all(bed, 1)
    assert sum(bool(shard.frames) for shard in bed.log.shards[PUBLISH_TOPIC]) >= 3


def test_a_backlog_over_all_shards_comes_whole_and_what_comes_meanwhile_too(make_bed: Make) -> None:
    """New records of a shard that the backlog has passed are behind its back in the box; so are those in flight, which don't come again."""
    bed = make_bed(shards=SHARDS, limits=Limits(window=6))
    party = bed.connect("s", **KEPT)
    party.subscribe("t", qos=1)
    party.drop()
    publish_all(bed, 20)
    again = bed.connect("s", auto_ack=False, **KEPT)
    bed.advance(1)
    first = again.deliveries()
    unsettled = [packet.packet_id for packet in first[:2]]
    got = [packet.payload for packet in first]
    for packet in first[2:]:
        again.ack(PacketType.PUBACK, packet.packet_id)
    for turn in range(400):
        if turn == 30:
            publish_all(bed, 10, since=20)
        if turn == 350:
            for packet_id in unsettled:
                again.ack(PacketType.PUBACK, packet_id)
        bed.advance(0.05)
        deliveries = again.deliveries()
        got += [packet.payload for packet in deliveries]
        for packet in deliveries:
            again.ack(PacketType.PUBACK, packet.packet_id)
    assert by_publisher(got) == {name: list(range(30)) for name in PUBLISHERS}
    assert bed.stored("s") == []


def test_positions_of_all_shards_are_stored_and_a_crash_repeats_nothing_that_was_settled(make_bed: Make) -> None:
    bed = make_bed(shards=SHARDS)
    party = bed.connect("s", **KEPT)
    party.subscribe("t", qos=2)
    publish_all(bed, 5, qos=2)
    assert by_publisher(party.payloads()) == {name: list(range(5)) for name in PUBLISHERS}
    bed.advance(2)
    for reader, topic in ((ROUTER_READER, PUBLISH_TOPIC), (PRESENCE_READER, PRESENCE_TOPIC)):
        ends = {number: shard.end for number, shard in enumerate(bed.log.shards[topic]) if shard.end}
        assert positions(bed, reader) == ends
    bed.crash()
    again = bed.connect("s", **KEPT)
    bed.advance(2)
    assert again.payloads() == []


def positions(bed: Testbed, reader: str) -> dict[int, int]:
    """By shard the number of records before the reader's stored position."""
    stored = bed.store._state.positions.items()
    return {shard: at.offset + at.index for name, places in stored if name.partition(":")[0] == reader for shard, at in places.items()}


def test_a_retained_message_that_stays_unacknowledged_is_stored_as_what_it_is(make_bed: Make) -> None:
    """It comes from no shard."""
    bed = make_bed(shards=SHARDS)
    bed.connect("p").exchange("t", b"kept", retain=True)
    party = bed.connect("s", auto_ack=False, **KEPT)
    party.subscribe("t", qos=1)
    bed.advance(1)
    assert party.payloads() == [b"kept"]
    assert bed.stored("s") == [b"kept"]


def test_a_subscription_gets_no_record_of_any_shard_from_before_it_after_a_crash(make_bed: Make) -> None:
    bed = make_bed(shards=SHARDS)
    publish_all(bed, 2)
    late = bed.connect("s", **KEPT)
    late.subscribe("t", qos=1)
    publish_all(bed, 2, since=2)
    late.drop()
    bed.crash()
    again = bed.connect("s", **KEPT)
    bed.advance(2)
    assert all(number >= 2 for numbers in by_publisher(again.payloads()).values() for number in numbers)


def test_routing_lag_counts_all_shards(make_bed: Make) -> None:
    bed = make_bed(shards=SHARDS)
    publish_all(bed, 1)
    bed.advance(1)
    assert bed.node.pressure.lag == 0


def test_what_was_in_flight_comes_again_as_it_was_whatever_waits_in_other_shards(make_bed: Make) -> None:
    """[MQTT-4.4.0-1]: only what lies behind a queued record of its own shard goes back to the queue."""
    bed = make_bed(shards=SHARDS)
    first, second = bed.connect("a"), bed.connect("d")
    party = bed.connect("s", auto_ack=False, **KEPT)
    party.subscribe("t", qos=1)
    first.exchange("t", b"a 0")
    (sent,) = party.deliveries()
    party.drop()
    second.exchange("t", b"d 0")
    first.exchange("t", b"a 1")
    shards = {shard for shard, found in enumerate(bed.log.shards[PUBLISH_TOPIC]) if found.frames}
    assert len(shards) == 2
    again = bed.connect("s", auto_ack=False, **KEPT)
    bed.advance(1)
    packets = again.deliveries()
    assert (packets[0].payload, packets[0].packet_id, packets[0].dup) == (b"a 0", sent.packet_id, True)
    assert sorted(packet.payload for packet in packets[1:]) == [b"a 1", b"d 0"]
