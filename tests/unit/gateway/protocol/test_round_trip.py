"""A packet encoded and decoded is the packet again, and encodes to the same bytes: all types, both versions."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.decode import decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.packets import PacketType
from schemas.limits import Limits
from tests.support.frames import Framer
from tests.unit.gateway.protocol.strategies import of_type

LIMITS = Limits()
EXAMPLES = int(os.environ.get("SLUICEWAY_EXAMPLES", "60"))
CASES = [(packet_type, version) for packet_type in PacketType for version in (4, 5) if (packet_type, version) != (PacketType.AUTH, 4)]


@pytest.mark.parametrize(("packet_type", "version"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_round_trip(packet_type: PacketType, version: int) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        packet = data.draw(of_type(packet_type, version))
        encoded = encode_packet(packet, version)
        ((first_byte, body),) = Framer(LIMITS.packet).feed(encoded)
        assert first_byte >> 4 == packet_type
        assert decode_packet(first_byte, body, version, LIMITS, from_server=packet_type != PacketType.CONNECT) == packet

    check()
