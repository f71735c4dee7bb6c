"""A QoS 2 publish that the log holds twice leaves by a rule once, whether the rule is fed, reads for itself, or goes from the one to the other."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from gateway.protocol.packet_types import PacketType
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Flag, Record
from tests.support.party import Party
from tests.unit.gateway.rules.conftest import RuleBed


class Nobody:
    def appended(self, records: Sequence[Record], first: At) -> None:
        """No one waits for it."""


def device(bed: RuleBed) -> Party:
    return bed.connect("device", clean_start=False, session_expiry=3600)


def begin(bed: RuleBed, party: Party, payload: bytes) -> int:
    number = party.publish("shop/1", payload, 2)
    bed.settle()
    assert party.acks(PacketType.PUBREC) == [number]
    return number


def double(bed: RuleBed, payload: bytes) -> None:
    """The copy that the device brought by another node."""
    record = next(record for record in bed.published() if record.payload == payload)
    again = msgspec.structs.replace(record, id=bed.node.ids.next(bed.clock.wall()), epoch=record.epoch + 1, flags=record.flags | Flag.DUP)
    bed.log.append(PUBLISH_TOPIC, record.client, again, Nobody())  # type: ignore[arg-type]
    bed.settle()


def test_it_leaves_once_and_the_next_use_of_its_id_leaves_too(bed: RuleBed) -> None:
    bed.outflow()
    party = device(bed)
    number = begin(bed, party, b"first")
    double(bed, b"first")
    party.ack(PacketType.PUBREL, number)
    bed.settle()
    assert party.acks(PacketType.PUBCOMP) == [number]
    party.exchange("shop/1", b"second", 2)
    bed.advance(1)
    assert bed.bodies() == [b"first", b"second"]


def test_a_backfill_sends_it_once(bed: RuleBed) -> None:
    begin(bed, device(bed), b"first")
    double(bed, b"first")
    bed.outflow(start="earliest")
    bed.advance(1)
    assert bed.bodies() == [b"first"]


def test_a_rule_that_falls_behind_between_the_copies_sends_one(bed: RuleBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.outflow.BUFFER_RECORDS", 3)
    bed.backend.faults.down = "away"
    bed.outflow()
    begin(bed, device(bed), b"first")
    other = bed.connect("other")
    for number in range(4):
        other.exchange("shop/1", b"%d" % number)
    double(bed, b"first")
    assert not bed.engine.runners["out"]._live  # type: ignore[union-attr]
    bed.backend.faults.down = ""
    bed.advance(5)
    assert bed.bodies() == [b"first", b"0", b"1", b"2", b"3"]
