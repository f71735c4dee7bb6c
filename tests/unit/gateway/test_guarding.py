"""Limits on connects, connections and rates: what is refused and with which code, and that a throttled publisher loses nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from gateway.guarding import Bucket
from schemas.limits import Limits
from tests.support.party import Party
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]


def limited(make_bed: Make, **limits: int) -> Testbed:
    return make_bed(limits=msgspec.structs.replace(Limits(), **limits))


def refusal(bed: Testbed, client: str, version: int = 5, host: str = "127.0.0.1") -> int | None:
    """The code of a CONNACK; None for success."""
    party = bed.dial(version, host=host)
    party.connect(client)
    assert party.connack is not None
    code = int(party.connack.reason_code)
    assert party.closed is (code != 0)
    return code or None


def test_a_bucket_is_paid_back_at_its_rate() -> None:
    bucket = Bucket(10, 0.0)
    assert bucket.take(10, 0.0) == 0.0
    assert bucket.take(5, 0.0) == 0.5
    assert not bucket.has_one(0.55)
    assert bucket.has_one(0.61)
    assert bucket.take(10, 1_000.0) == 0.0  # never more than a burst is saved
    assert bucket.take(1, 1_000.0) == pytest.approx(0.1)


def test_connects_of_a_listener(make_bed: Make) -> None:
    bed = limited(make_bed, connect_rate=3)
    assert [refusal(bed, f"c{number}") for number in range(4)] == [None, None, None, 0x9F]
    assert bed.node.counters.refused["connect_rate"] == 1
    bed.advance(0.4)
    assert [refusal(bed, f"d{number}") for number in range(2)] == [None, 0x9F]


def test_3_1_1_is_told_that_the_server_is_unavailable(make_bed: Make) -> None:
    bed = limited(make_bed, connect_rate=1)
    assert refusal(bed, "a", 4) is None
    party = bed.dial(4)
    party.connect("b")
    assert party.connack is not None
    assert party.connack.reason_code == 0x88  # as its return code 3 reads


def test_connects_of_an_address_are_its_own(make_bed: Make) -> None:
    bed = limited(make_bed, connect_rate_address=2)
    guarding = bed.node.guarding
    assert [refusal(bed, f"c{number}") for number in range(3)] == [None, None, 0x9F]
    assert guarding._of_address("192.0.2.1", bed.loop.time()).has_one(bed.loop.time())
    assert bed.node.counters.refused["connect_rate_address"] == 1


def test_connections_of_an_address(make_bed: Make) -> None:
    bed = limited(make_bed, connections_per_address=2)
    first = bed.connect("a")
    bed.connect("b")
    assert refusal(bed, "c") == 0x97
    assert bed.node.counters.refused["connections_per_address"] == 1
    assert refusal(bed, "a") is None  # takes over: as many as before
    assert first.closed
    bed.settle()
    assert refusal(bed, "c") == 0x97
    bed.parties[1].drop()
    bed.settle()
    assert refusal(bed, "c") is None


def test_connections_of_a_principal(make_bed: Make) -> None:
    bed = limited(make_bed, connections_per_principal=1)
    key = bed.loop.finish(bed.keyring.create("device", 0))
    from gateway.auth.login import sign

    def login(client: str) -> Party:
        party = bed.dial(5)
        party.connect(client, user_name=f"Signature|{key.id}|bed", password=sign(key.secret.reveal().encode(), client))
        return party

    assert not login("a").closed
    assert login("b").closed
    assert refusal(bed, "anonymous one") is None
    assert bed.node.counters.refused["connections_per_principal"] == 1
    assert bed.node.guarding._by_principal == {key.id: 1, "anonymous": 1}


def test_what_is_counted_is_forgotten_with_the_connection(make_bed: Make) -> None:
    bed = limited(make_bed, connections_per_address=9, message_rate=9, byte_rate_principal=9_000)
    parties = [bed.connect(f"c{number}") for number in range(5)]
    for party in parties:
        party.exchange("a", b"x")
        party.drop()
    bed.settle()
    guarding = bed.node.guarding
    assert (guarding._admitted, guarding._by_address, guarding._by_principal, guarding._buckets) == ({}, {}, {}, {})


@pytest.mark.parametrize("limit", ["message_rate", "message_rate_principal"])
@pytest.mark.parametrize("qos", [0, 1])
def test_messages_past_the_rate_wait_and_none_is_lost(make_bed: Make, limit: str, qos: int) -> None:
    bed = limited(make_bed, **{limit: 10})
    party = bed.connect("p")
    for number in range(100):
        party.publish("a", b"%d" % number, qos)
    bed.settle()
    first = len(bed.published())
    assert first < 100 or bed.node.counters.throttled[limit]
    bed.advance(1)
    assert len(bed.published()) <= max(first, 21)
    bed.advance(30)
    assert [record.payload for record in bed.published()] == [b"%d" % number for number in range(100)]
    assert bed.node.counters.throttled[limit] >= 1
    assert not party.closed
    assert not sum(bed.node.counters.dropped.values())


def test_bytes_past_the_rate_wait(make_bed: Make) -> None:
    bed = limited(make_bed, byte_rate=1_000)
    party = bed.connect("p", keep_alive=2)
    party.publish("a", b"x" * 10_000, 0)
    party.publish("a", b"y", 0)
    bed.settle()
    assert len(bed.published()) == 1
    bed.advance(8)  # its keep-alive stands still while we don't read
    assert (len(bed.published()), party.closed) == (1, False)
    bed.advance(2)
    assert len(bed.published()) == 2
    assert bed.node.counters.throttled["byte_rate"] >= 1


def test_a_principals_rate_is_of_all_its_connections(make_bed: Make) -> None:
    bed = limited(make_bed, message_rate_principal=10)
    parties = [bed.connect(f"p{number}") for number in range(4)]
    for party in parties:
        for number in range(10):
            party.publish("a", b"%d" % number, 0)
            bed.settle()
    assert len(bed.published()) <= 14
    bed.advance(10)
    assert len(bed.published()) == 40


def test_an_acknowledgement_does_not_end_a_pause(make_bed: Make) -> None:
    bed = limited(make_bed, message_rate=10)
    party = bed.connect("p")
    bed.log.held = True
    for number in range(30):
        party.publish("a", b"%d" % number, 1)
        bed.settle()
    bed.log.release_held()
    bed.settle()
    assert len(bed.published()) == 11
    bed.advance(30)
    assert len(bed.published()) == 30
