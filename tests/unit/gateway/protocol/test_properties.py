"""Properties: which packet may carry which, what a value may be, and the limits. The table here is written anew from section 2.2.2.2."""

from __future__ import annotations

import msgspec
import pytest

from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError, Unencodable
from gateway.protocol.packets import PacketType
from gateway.protocol.properties import (
    NONE,
    RULES,
    WILL,
    Properties,
    decode_properties,
    encode_block,
    encode_properties,
    forwardable,
)
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.unit.gateway.protocol.vectors import written

LIMITS = Limits()
CONTEXTS: dict[str, int] = {kind.name: kind for kind in PacketType if not kind.name.startswith("PING")} | {"WILL": WILL}
ALL = tuple(CONTEXTS)

TABLE: dict[str, tuple[str, object, str]] = {
    "payload_format_indicator": ("01 01", 1, "PUBLISH WILL"),
    "message_expiry_interval": ("02 00000001", 1, "PUBLISH WILL"),
    "content_type": ('03 "x"', "x", "PUBLISH WILL"),
    "response_topic": ('08 "x"', "x", "PUBLISH WILL"),
    "correlation_data": ('09 "x"', b"x", "PUBLISH WILL"),
    "subscription_identifier": ("0b 01", (1,), "PUBLISH SUBSCRIBE"),
    "session_expiry_interval": ("11 00000001", 1, "CONNECT CONNACK DISCONNECT"),
    "assigned_client_identifier": ('12 "x"', "x", "CONNACK"),
    "server_keep_alive": ("13 0001", 1, "CONNACK"),
    "authentication_method": ('15 "x"', "x", "CONNECT CONNACK AUTH"),
    "authentication_data": ('16 "x"', b"x", "CONNECT CONNACK AUTH"),
    "request_problem_information": ("17 01", 1, "CONNECT"),
    "will_delay_interval": ("18 00000001", 1, "WILL"),
    "request_response_information": ("19 01", 1, "CONNECT"),
    "response_information": ('1a "x"', "x", "CONNACK"),
    "server_reference": ('1c "x"', "x", "CONNACK DISCONNECT"),
    "reason_string": ('1f "x"', "x", "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH"),
    "receive_maximum": ("21 0001", 1, "CONNECT CONNACK"),
    "topic_alias_maximum": ("22 0001", 1, "CONNECT CONNACK"),
    "topic_alias": ("23 0001", 1, "PUBLISH"),
    "maximum_qos": ("24 01", 1, "CONNACK"),
    "retain_available": ("25 01", 1, "CONNACK"),
    "user_property": ('26 "x" "y"', (("x", "y"),), " ".join(ALL)),
    "maximum_packet_size": ("27 00000001", 1, "CONNECT CONNACK"),
    "wildcard_subscription_available": ("28 01", 1, "CONNACK"),
    "subscription_identifier_available": ("29 01", 1, "CONNACK"),
    "shared_subscription_available": ("2a 01", 1, "CONNACK"),
}
CELLS = [(field, context) for field in TABLE for context in ALL]
ALLOWED = [(field, context) for field, context in CELLS if context in TABLE[field][2].split()]
FORBIDDEN = [cell for cell in CELLS if cell not in ALLOWED]


def _decoded(text: str, context: str, limits: Limits = LIMITS) -> Properties | None:
    data = written(f"ff [ {text} ]")
    decoded, at = decode_properties(data, 1, CONTEXTS[context], limits)
    assert at == len(data)
    return decoded


def _one(field: str) -> Properties:
    return Properties(**{field: TABLE[field][1]})  # type: ignore[arg-type]


def test_rules_are_in_the_order_of_the_fields() -> None:
    assert tuple(rule.field for rule in RULES) == Properties.__struct_fields__ == tuple(TABLE)


@pytest.mark.parametrize(("field", "context"), ALLOWED)
def test_allowed(field: str, context: str) -> None:
    assert _decoded(TABLE[field][0], context) == _one(field)
    assert encode_block(_one(field)) == written(TABLE[field][0])


@pytest.mark.parametrize(("field", "context"), FORBIDDEN)
def test_not_allowed_is_malformed(field: str, context: str) -> None:
    with pytest.raises(MalformedPacket) as caught:
        _decoded(TABLE[field][0], context)
    assert caught.value.reason_code == ReasonCode.MALFORMED_PACKET


@pytest.mark.parametrize("identifier", sorted(set(range(256)) - {rule.identifier for rule in RULES}))
def test_unknown_identifiers_are_malformed(identifier: int) -> None:
    for context in CONTEXTS.values():
        with pytest.raises(MalformedPacket):
            decode_properties(bytes((2, identifier, 0)), 0, context, LIMITS)


@pytest.mark.parametrize(("field", "context"), ALLOWED)
def test_twice(field: str, context: str) -> None:
    text = f"{TABLE[field][0]} {TABLE[field][0]}"
    if field == "user_property" or (field, context) == ("subscription_identifier", "PUBLISH"):
        assert _decoded(text, context) == Properties(**{field: TABLE[field][1] * 2})  # type: ignore[operator, arg-type]
        return
    with pytest.raises(ProtocolError) as caught:
        _decoded(text, context)
    assert caught.value.reason_code == ReasonCode.PROTOCOL_ERROR
    assert field in str(caught.value)


@pytest.mark.parametrize(("field", "context"), ALLOWED)
def test_every_cut_is_malformed(field: str, context: str) -> None:
    """Cut in the block, and cut at the end of the packet."""
    whole = written(TABLE[field][0])
    for size in range(1, len(whole)):
        with pytest.raises(MalformedPacket):
            decode_properties(bytes((size,)) + whole[:size], 0, CONTEXTS[context], LIMITS)
        with pytest.raises(MalformedPacket):
            decode_properties(bytes((len(whole),)) + whole[:size], 0, CONTEXTS[context], LIMITS)
        with pytest.raises(PacketError):  # the block ends inside the value, the packet goes on
            decode_properties(bytes((size,)) + whole + whole, 0, CONTEXTS[context], LIMITS)


BOUNDS = [
    *((rule.field, rule.highest + 1) for rule in RULES if rule.wire == 1),
    ("receive_maximum", 0),
    ("maximum_packet_size", 0),
    ("topic_alias", 0),
    ("subscription_identifier", 0),
]


@pytest.mark.parametrize(("field", "value"), BOUNDS)
def test_values_out_of_range(field: str, value: int) -> None:
    (rule,) = (rule for rule in RULES if rule.field == field)
    size = rule.wire if rule.wire <= 4 else 1
    block = bytes((rule.identifier,)) + value.to_bytes(size, "big")
    with pytest.raises(ProtocolError) as caught:
        decode_properties(bytes((len(block),)) + block, 0, rule.allowed[0], LIMITS)
    expected = ReasonCode.TOPIC_ALIAS_INVALID if field == "topic_alias" else ReasonCode.PROTOCOL_ERROR  # [MQTT-3.3.2-8]
    assert caught.value.reason_code == expected
    with pytest.raises(Unencodable):
        encode_block(Properties(**{field: (value,) if field == "subscription_identifier" else value}))  # type: ignore[arg-type]


def test_bytes_are_booleans_except_none() -> None:
    """Each property of one byte is 0 or 1."""
    assert len([rule for rule in RULES if rule.wire == 1]) == 8
    assert {rule.highest for rule in RULES if rule.wire == 1} == {1}


def test_no_properties() -> None:
    """[MQTT-2.2.2-1] An empty block is one byte, and comes back as None."""
    assert encode_properties(None) == encode_properties(NONE) == b"\x00"
    assert decode_properties(b"\x00", 0, PacketType.PUBLISH, LIMITS) == (None, 1)


def test_user_properties_up_to_the_limit() -> None:
    limits = Limits(user_properties=3)
    assert _decoded('26 "k" "v" ' * 3, "CONNECT", limits) == Properties(user_property=(("k", "v"),) * 3)
    with pytest.raises(ProtocolError) as caught:
        _decoded('26 "k" "v" ' * 4, "CONNECT", limits)
    assert caught.value.reason_code == ReasonCode.QUOTA_EXCEEDED


def test_default_limits() -> None:
    _decoded('26 "k" "v" ' * 64, "PUBLISH")
    with pytest.raises(ProtocolError):
        _decoded('26 "k" "v" ' * 65, "PUBLISH")
    block = b"\x09" + (8 * 1024 - 3).to_bytes(2, "big") + bytes(8 * 1024 - 3)
    assert len(block) == 8 * 1024
    decode_properties(b"\x80\x40" + block, 0, PacketType.PUBLISH, LIMITS)
    with pytest.raises(ProtocolError) as caught:
        decode_properties(b"\x81\x40" + block + b"\x00", 0, PacketType.PUBLISH, LIMITS)
    assert caught.value.reason_code == ReasonCode.QUOTA_EXCEEDED


def test_a_long_block_that_is_cut_is_malformed_first() -> None:
    with pytest.raises(MalformedPacket):
        decode_properties(b"\xff\xff\xff\x7f" + bytes(10), 0, PacketType.PUBLISH, LIMITS)


FULL = Properties(
    payload_format_indicator=0,
    message_expiry_interval=60,
    content_type="",
    response_topic="r",
    correlation_data=b"\x00",
    subscription_identifier=(1, 2),
    topic_alias=3,
    user_property=(("b", "1"), ("a", "2"), ("b", "1")),
)


def test_forwardable() -> None:
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]"""
    expected = written('01 00 03 "" 08 "r" 09 0001 00 26 "b" "1" 26 "a" "2" 26 "b" "1"')
    assert forwardable(FULL) == expected
    assert forwardable(None) == forwardable(NONE) == forwardable(Properties(topic_alias=1, message_expiry_interval=1)) == b""


def test_forwardable_is_a_block_that_decodes() -> None:
    forwarded = forwardable(FULL)
    decoded, _ = decode_properties(bytes((len(forwarded),)) + forwarded, 0, PacketType.PUBLISH, LIMITS)
    assert decoded == msgspec.structs.replace(FULL, message_expiry_interval=None, subscription_identifier=(), topic_alias=None)


def test_too_long_values_are_unencodable() -> None:
    for properties in (
        Properties(content_type="x" * 65536),
        Properties(correlation_data=bytes(65536)),
        Properties(user_property=(("k", "x" * 65536),)),
        Properties(reason_string="\x00"),
        Properties(reason_string="\ud800"),
    ):
        with pytest.raises(Unencodable):
            encode_block(properties)
