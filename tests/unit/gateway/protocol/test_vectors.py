"""Every vector: bytes give its packet, or its error with its reason code; the packet gives the bytes again."""

from __future__ import annotations

import pytest

from gateway.protocol.decode import decode_packet
from gateway.protocol.encode import encode_packet
from gateway.protocol.errors import PacketError
from schemas.limits import Limits
from tests.support.frames import Framer
from tests.unit.gateway.protocol.vectors import Vector
from tests.unit.gateway.protocol.vectors.connect import CONNACK, CONNECT
from tests.unit.gateway.protocol.vectors.control import AUTH, DISCONNECT, PING, RESERVED
from tests.unit.gateway.protocol.vectors.publish import ACKNOWLEDGEMENTS, PUBLISH
from tests.unit.gateway.protocol.vectors.subscribe import SUBACK, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE

LIMITS = Limits()
VECTORS = (
    *CONNECT,
    *CONNACK,
    *PUBLISH,
    *ACKNOWLEDGEMENTS,
    *SUBSCRIBE,
    *SUBACK,
    *UNSUBSCRIBE,
    *UNSUBACK,
    *PING,
    *DISCONNECT,
    *AUTH,
    *RESERVED,
)
GOOD = [vector for vector in VECTORS if vector.packet is not None]
BAD = [vector for vector in VECTORS if vector.error is not None]


def _name(vector: Vector) -> str:
    return vector.name


def _framed(vector: Vector) -> tuple[int, bytes]:
    (frame,) = Framer(LIMITS.packet).feed(vector.data)
    return frame


def test_names_are_unique() -> None:
    names = [vector.name for vector in VECTORS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("vector", GOOD, ids=_name)
def test_decodes(vector: Vector) -> None:
    first_byte, body = _framed(vector)
    assert decode_packet(first_byte, body, vector.version, LIMITS, from_server=vector.from_server) == vector.packet


@pytest.mark.parametrize("vector", [vector for vector in GOOD if vector.shortest], ids=_name)
def test_encodes(vector: Vector) -> None:
    assert vector.packet is not None
    assert encode_packet(vector.packet, vector.version) == vector.data


@pytest.mark.parametrize("vector", [vector for vector in GOOD if not vector.shortest], ids=_name)
def test_encodes_no_longer_than_it_was(vector: Vector) -> None:
    assert vector.packet is not None
    encoded = encode_packet(vector.packet, vector.version)
    assert len(encoded) <= len(vector.data)
    assert encoded != vector.data


@pytest.mark.parametrize("vector", BAD, ids=_name)
def test_refuses(vector: Vector) -> None:
    first_byte, body = _framed(vector)
    with pytest.raises(PacketError) as caught:
        decode_packet(first_byte, body, vector.version, LIMITS, from_server=vector.from_server)
    assert (type(caught.value), caught.value.reason_code) == (vector.error, vector.code)
    assert len(str(caught.value)) > 5
