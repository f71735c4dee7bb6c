"""What encoding adds to the vectors: fitting a peer's maximum packet size, 3.1.1's return codes, and what has no encoding."""

from __future__ import annotations

import pytest

from gateway.protocol.decode import answer_version, decode_packet
from gateway.protocol.encode import encode_packet, encode_within
from gateway.protocol.errors import Unencodable
from gateway.protocol.packets import (
    Ack,
    Auth,
    Connack,
    Disconnect,
    Packet,
    PacketType,
    Pingresp,
    Publish,
    Suback,
    Unsuback,
)
from gateway.protocol.properties import Properties
from gateway.protocol.reason_tables import RETURN_CODES
from schemas.limits import Limits
from schemas.reasons import CONNECT_RETURN_CODES, ReasonCode
from tests.support.frames import Framer
from tests.unit.gateway.protocol.vectors import written

LIMITS = Limits()
WORDS = Properties(reason_string="because", user_property=(("key", "value"),))
USER = Properties(user_property=(("key", "value"),))
METHOD = Properties(authentication_method="m", reason_string="because", user_property=(("key", "value"),))

ANSWERS: list[Packet] = [
    Connack(session_present=False, reason_code=ReasonCode.SUCCESS, properties=WORDS),
    *(Ack(type=kind, packet_id=1, properties=WORDS) for kind in (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)),
    Suback(packet_id=1, reason_codes=(ReasonCode.SUCCESS,), properties=WORDS),
    Unsuback(packet_id=1, reason_codes=(ReasonCode.SUCCESS,), properties=WORDS),
    Disconnect(reason_code=ReasonCode.SERVER_BUSY, properties=WORDS),
    Auth(reason_code=ReasonCode.CONTINUE_AUTHENTICATION, properties=METHOD),
]


def _name(packet: Packet) -> str:
    return packet.type.name if isinstance(packet, Ack) else type(packet).__name__.upper()


def _decoded(data: bytes) -> Packet:
    ((first_byte, body),) = Framer(LIMITS.packet).feed(data)
    return decode_packet(first_byte, body, 5, LIMITS, from_server=True)


@pytest.mark.parametrize("packet", ANSWERS, ids=_name)
def test_within(packet: Packet) -> None:
    """[MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
    [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4]
    [MQTT-3.15.2-2] [MQTT-3.15.2-3]: the reason string goes first, then the user properties, then the packet."""
    whole = encode_packet(packet, 5)
    assert encode_within(packet, 5, len(whole)) == whole
    without_reason = encode_within(packet, 5, len(whole) - 1)
    assert without_reason is not None and b"because" not in without_reason and b"value" in without_reason
    least = encode_within(packet, 5, len(without_reason) - 1)
    assert least is not None and b"because" not in least and b"value" not in least
    assert _decoded(least) == _decoded(encode_within(packet, 5, len(least)) or b"")
    assert encode_within(packet, 5, len(least) - 1) is None


def test_within_keeps_other_properties() -> None:
    """[MQTT-3.2.2-19] [MQTT-3.2.2-20]"""
    packet = Connack(
        session_present=True,
        reason_code=ReasonCode.SUCCESS,
        properties=Properties(server_keep_alive=60, reason_string="because", user_property=(("k", "v"),)),
    )
    assert encode_within(packet, 5, 8) == written("20 [ 01 00 [ 13 003c ] ]")
    assert encode_within(packet, 5, 7) is None


def test_publish_loses_nothing() -> None:
    """[MQTT-3.1.2-24] [MQTT-3.1.2-25] [MQTT-3.3.2-17]"""
    packet = Publish(topic="t", payload=b"p", qos=0, retain=False, dup=False, properties=USER)
    whole = encode_packet(packet, 5)
    assert encode_within(packet, 5, len(whole), problem_information=False) == whole
    assert encode_within(packet, 5, len(whole) - 1) is None
    assert encode_within(Pingresp(), 5, 1) is None
    assert encode_within(Ack(type=PacketType.PUBACK, packet_id=1), 5, 3) is None


@pytest.mark.parametrize("packet", ANSWERS, ids=_name)
def test_without_problem_information(packet: Packet) -> None:
    """[MQTT-3.1.2-29]"""
    encoded = encode_within(packet, 5, 1000, problem_information=False)
    assert encoded is not None
    kept = isinstance(packet, Connack | Disconnect)
    assert (b"because" in encoded, b"value" in encoded) == (kept, kept)


def test_return_codes_of_3_1_1() -> None:
    assert [CONNECT_RETURN_CODES[reason] for reason in RETURN_CODES] == list(range(6))
    for reason in ReasonCode:
        packet = Connack(session_present=False, reason_code=reason)
        if reason in CONNECT_RETURN_CODES:
            assert encode_within(packet, 4, 100) == bytes((0x20, 2, 0, CONNECT_RETURN_CODES[reason]))
        else:
            assert encode_within(packet, 4, 100) is None
            with pytest.raises(Unencodable):
                encode_packet(packet, 4)


def test_3_1_1_leaves_out_what_it_lacks() -> None:
    failed = Suback(packet_id=1, reason_codes=(ReasonCode.NOT_AUTHORIZED, ReasonCode.GRANTED_QOS_1), properties=WORDS)
    assert encode_packet(failed, 4) == written("90 [ 0001 80 01 ]")
    assert encode_packet(Unsuback(packet_id=1, reason_codes=(ReasonCode.SUCCESS,)), 4) == written("b0 [ 0001 ]")
    assert encode_packet(Ack(type=PacketType.PUBACK, packet_id=1, reason_code=ReasonCode.QUOTA_EXCEEDED, properties=WORDS), 4) == written(
        "40 [ 0001 ]"
    )
    assert encode_packet(Disconnect(reason_code=ReasonCode.SERVER_BUSY, properties=WORDS), 4) == written("e0 [ ]")


UNENCODABLE: list[tuple[str, Packet, int]] = [
    ("packet id 0", Ack(type=PacketType.PUBACK, packet_id=0), 5),
    ("packet id 65536", Ack(type=PacketType.PUBACK, packet_id=65536), 5),
    ("publish id 0", Publish(topic="t", payload=b"", qos=1, retain=False, dup=False), 4),
    ("publish topic", Publish(topic="x" * 65536, payload=b"", qos=0, retain=False, dup=False), 4),
    ("publish NUL", Publish(topic="\x00", payload=b"", qos=0, retain=False, dup=False), 4),
    ("present in a refusal", Connack(session_present=True, reason_code=ReasonCode.NOT_AUTHORIZED), 5),
    ("connack code", Connack(session_present=False, reason_code=ReasonCode.KEEP_ALIVE_TIMEOUT), 5),
    ("puback code", Ack(type=PacketType.PUBACK, packet_id=1, reason_code=ReasonCode.PROTOCOL_ERROR), 5),
    ("pubrec code", Ack(type=PacketType.PUBREC, packet_id=1, reason_code=ReasonCode.GRANTED_QOS_2), 5),
    ("pubrel code", Ack(type=PacketType.PUBREL, packet_id=1, reason_code=ReasonCode.UNSPECIFIED_ERROR), 5),
    ("pubcomp code", Ack(type=PacketType.PUBCOMP, packet_id=1, reason_code=ReasonCode.QUOTA_EXCEEDED), 5),
    ("suback code", Suback(packet_id=1, reason_codes=(ReasonCode.TOPIC_NAME_INVALID,)), 5),
    ("unsuback code", Unsuback(packet_id=1, reason_codes=(ReasonCode.GRANTED_QOS_1,)), 5),
    ("disconnect code", Disconnect(reason_code=ReasonCode.BANNED), 5),
    ("auth code", Auth(reason_code=ReasonCode.NOT_AUTHORIZED), 5),
    ("auth in 3.1.1", Auth(), 4),
]


@pytest.mark.parametrize(("packet", "version"), [row[1:] for row in UNENCODABLE], ids=[row[0] for row in UNENCODABLE])
def test_unencodable(packet: Packet, version: int) -> None:
    """[MQTT-3.2.2-6] [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2]
    [MQTT-3.14.2-1] [MQTT-3.15.2-1]"""
    with pytest.raises(Unencodable):
        encode_packet(packet, version)


@pytest.mark.parametrize(
    ("body", "version"),
    [
        ('"MQTT" 05', 5),
        ('"MQTT" 06', 5),
        ('"MQTT" 85', 5),
        ('"MQTT" 04', 4),
        ('"MQTT" 03', 4),
        ('"MQIsdp" 03', 4),
        ('"MQTT"', 4),
        ("", 4),
        ('"HTTP" 05', 4),
    ],
)
def test_version_of_the_answer(body: str, version: int) -> None:
    assert answer_version(written(body)) == version
