"""PUBLISH that is denied, refused by the log, or sent again after a crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.protocol.packets import Ack, Disconnect, PacketType
from schemas.identities import AccessRule
from schemas.reasons import ReasonCode
from schemas.records import Kind
from tests.support.party import Party, will
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
DENY = (AccessRule("*", "publish", "no/#", "deny"),)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_denied_publish_closes_3_1_1_and_tells_5(make_bed: Make, qos: int) -> None:
    """[MQTT-3.3.5-2]: no untrue acknowledgement."""
    bed = make_bed(access=DENY)
    old, new = bed.connect("o", 4), bed.connect("n", 5)
    old.publish("no/a", b"", qos)
    bed.settle()
    assert old.closed
    assert old.inbox == []
    new.publish("no/a", b"", qos)
    bed.settle()
    assert not new.closed
    if qos:
        assert new.one(Ack).reason_code == ReasonCode.NOT_AUTHORIZED
    assert bed.published() == []
    assert bed.node.counters.refused["publish_not_authorized"] == 2


def test_a_denied_qos_2_id_is_free(make_bed: Make) -> None:
    """[MQTT-4.3.3-9]: behind a PUBREC of 0x80 or more the next PUBLISH of that id is a new one."""
    bed = make_bed(access=DENY)
    party = bed.connect("p")
    party.publish("no/a", b"", 2, packet_id=3)
    bed.settle()
    party.inbox.clear()
    party.publish("yes", b"1", 2, packet_id=3)
    bed.settle()
    assert party.acks(PacketType.PUBREC) == [3]
    assert [record.payload for record in bed.published()] == [b"1"]


def test_a_log_that_refuses_gets_no_acknowledgement_and_no_will(bed: Testbed) -> None:
    """And the QoS 2 publish that comes again is a first one."""
    party = bed.connect("p", clean_start=False, session_expiry=60, will=will("w"))
    bed.log.refusing = True
    party.publish("a", b"1", 2, packet_id=5)
    assert party.one(Disconnect).reason_code == ReasonCode.SERVER_BUSY
    assert party.inbox == []
    bed.log.refusing = False
    bed.advance(5)
    assert bed.published() == []
    again = bed.connect("p", clean_start=False, session_expiry=60)
    again.publish("a", b"1", 2, packet_id=5, dup=True)
    bed.settle()
    assert again.acks(PacketType.PUBREC) == [5]
    assert [record.payload for record in bed.published()] == [b"1"]


def test_a_kept_sessions_qos_2_ids_survive_reconnect_and_crash(bed: Testbed) -> None:
    """[MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT-4.3.3-10]: no second message, whenever the process ended."""

    def again(party: Party, payload: bytes, number: int) -> None:
        party.publish("a", payload, 2, packet_id=number, dup=True)
        bed.settle()
        assert party.acks(PacketType.PUBREC) == [number]

    party = bed.connect("p", clean_start=False, session_expiry=600)
    again(party, b"1", 5)
    party.drop()
    party = bed.connect("p", clean_start=False, session_expiry=600)
    again(party, b"1", 5)
    bed.crash()  # before the store has its fold
    party = bed.connect("p", clean_start=False, session_expiry=600)
    again(party, b"1", 5)
    bed.advance(2)
    bed.crash()
    party = bed.connect("p", clean_start=False, session_expiry=600)
    again(party, b"1", 5)
    party.ack(PacketType.PUBREL, 5)
    bed.settle()
    assert party.acks(PacketType.PUBCOMP) == [5]
    bed.crash()
    party = bed.connect("p", clean_start=False, session_expiry=600)
    again(party, b"2", 5)
    assert [r.payload for r in bed.published() if r.kind == Kind.PUBLISH] == [b"1", b"2"]


def test_a_qos_2_id_that_was_durable_when_the_process_died_at_once_is_known(bed: Testbed) -> None:
    """The router had not come to it: the replay alone knows."""
    party = bed.connect("p", clean_start=False, session_expiry=600)
    bed.store.commit = lambda *_: bed.loop.create_future()  # type: ignore[assignment, method-assign]
    party.publish("a", b"1", 2, packet_id=5)
    bed.settle()
    assert party.acks(PacketType.PUBREC) == [5]
    bed.crash()
    party = bed.connect("p", clean_start=False, session_expiry=600)
    party.publish("a", b"1", 2, packet_id=5, dup=True)
    bed.settle()
    assert party.acks(PacketType.PUBREC) == [5]
    assert len(bed.published()) == 1
