"""Inbound QoS 2: an id is one message until PUBREL, whatever becomes of the publish, and the ids that are kept are bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.auth.login import sign, signature_user_name
from gateway.protocol.packets import Ack, Disconnect, PacketType
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Kind
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])
ORDER = b'{"order":"true"}'


@VERSIONS
@pytest.mark.parametrize("expiry", [0, 60])
@pytest.mark.parametrize("topic", ["a", "$SYS/enableOrderMsg"])
def test_ids_without_pubrel_are_capped(make_bed: Make, version: int, expiry: int, topic: str) -> None:
    """[MQTT-4.9.0-2] [MQTT-3.3.4-7], for 3.1.1 too; publishes to control topics, which no log has, count like others."""
    bed = make_bed(limits=Limits(receive_maximum=5))
    party = bed.connect("p", version, clean_start=expiry == 0, session_expiry=expiry)
    for number in range(1, 8):
        party.publish(topic, ORDER, 2, packet_id=number)
        bed.settle()
    assert party.acks(PacketType.PUBREC) == [1, 2, 3, 4, 5]
    assert party.closed
    if version == 5:
        assert party.one(Disconnect).reason_code == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    session = bed.session("p")
    assert (len(session.received) if session is not None else 0) == (5 if expiry else 0)


@pytest.mark.slow
@VERSIONS
@pytest.mark.parametrize("expiry", [0, 60])
def test_a_hundred_thousand_publishes_of_repeated_ids_keep_no_more_than_the_cap(make_bed: Make, version: int, expiry: int) -> None:
    """[MQTT-4.3.3-10]: each repeat is answered, none is a message."""
    bed = make_bed(limits=Limits(receive_maximum=50))
    party = bed.connect("p", version, auto_ack=False, clean_start=expiry == 0, session_expiry=expiry)
    repeats = b"".join(b"\x34\x05\x00\x01a\x00" + bytes((number,)) for number in range(1, 51))
    if version == 5:
        repeats = b"".join(b"\x34\x06\x00\x01a\x00" + bytes((number, 0)) for number in range(1, 51))
    for _ in range(2_000):
        party.write_bytes(repeats)
        bed.settle()
    session = bed.session("p")
    assert session is not None
    assert len(session.received) == 50
    assert len(party.acks(PacketType.PUBREC)) == 100_000
    assert len(bed.published()) == 50


def test_a_control_publish_of_qos_2_sent_again_is_done_once(make_bed: Make) -> None:
    """[MQTT-4.3.3-10]: of five pulls a second a repeat takes none."""
    bed = make_bed(pace="batches")
    party = bed.connect("p", clean_start=False, session_expiry=60)
    for _ in range(8):
        party.publish("$SYS/getOfflineMsg", b'{"maxPushNum":5,"pushOrder":"ASC"}', 2, packet_id=3)
    bed.settle()
    assert [ack.reason_code for ack in party.take(Ack)] == [ReasonCode.SUCCESS] * 8
    party.ack(PacketType.PUBREL, 3)
    assert party.one(Ack).type == PacketType.PUBCOMP


@VERSIONS
def test_a_publish_sent_again_after_its_right_was_taken_away_is_still_a_repeat(bed: Testbed, version: int) -> None:
    """[MQTT-4.3.3-10]: it was taken, so that is what the client is told; its id is free behind PUBCOMP alone."""
    key = bed.loop.finish(bed.keyring.create("device", 0))
    login = {"user_name": signature_user_name(key.id, bed.keyring.instance_id), "password": sign(key.secret.reveal().encode(), "p")}
    party = bed.connect("p", version, clean_start=False, session_expiry=60, **login)
    party.publish("a", b"1", 2, packet_id=3)
    bed.settle()
    assert party.acks(PacketType.PUBREC) == [3]
    assert party.connection.topics is not None
    party.connection.topics.clear()
    bed.loop.finish(bed.keyring.revoke(key.id))
    party.publish("a", b"1", 2, packet_id=3, dup=True)
    assert party.one(Ack) == Ack(type=PacketType.PUBREC, packet_id=3)
    party.ack(PacketType.PUBREL, 3)
    bed.settle()
    assert party.acks(PacketType.PUBCOMP) == [3]
    assert [record.payload for record in bed.published() if record.kind == Kind.PUBLISH] == [b"1"]


def test_a_control_publish_that_is_refused_leaves_its_id_free(bed: Testbed) -> None:
    """[MQTT-4.3.3-9]"""
    party = bed.connect("p")
    party.publish("$SYS/enableOrderMsg", b"not json", 2, packet_id=3)
    assert party.one(Ack).reason_code == ReasonCode.PAYLOAD_FORMAT_INVALID
    party.publish("a", b"1", 2, packet_id=3)
    bed.settle()
    assert party.acks(PacketType.PUBREC) == [3]
    assert [record.payload for record in bed.published()] == [b"1"]
