"""Packets that hypothesis draws: all types, both versions, every property where it is allowed."""

from __future__ import annotations

from hypothesis import strategies as st

from gateway.protocol.packets import (
    MQTT_3_1_1,
    MQTT_5_0,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    WillMessage,
)
from gateway.protocol.properties import BINARY, PAIR, RULES, STRING, VARINT, WILL, Properties, Rule
from gateway.protocol.reason_tables import REASONS, RETURN_CODES
from schemas.reasons import ReasonCode

strings = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20)
topics = st.text(st.characters(exclude_characters="\x00+#", exclude_categories=("Cs",)), min_size=1, max_size=20)
filters = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=20)
packet_ids = st.integers(1, 65535)
payloads = st.binary(max_size=300)


def _value(rule: Rule, packet_type: int) -> st.SearchStrategy[object]:
    if rule.field == "response_topic":
        return topics
    if rule.wire == STRING:
        return strings
    if rule.wire == BINARY:
        return st.binary(max_size=20)
    if rule.wire == PAIR:
        return st.lists(st.tuples(strings, strings), min_size=1, max_size=4).map(tuple)
    numbers = st.integers(rule.lowest, min(rule.highest, 256**rule.wire - 1 if rule.wire != VARINT else rule.highest))
    if rule.wire == VARINT:
        return st.lists(numbers, min_size=1, max_size=3 if packet_type == PacketType.PUBLISH else 1).map(tuple)
    return numbers


def properties(packet_type: int, *without: str, needs: str = "") -> st.SearchStrategy[Properties | None]:
    """Properties allowed in a packet; never the empty struct, which stands for no block of its own."""
    values = {rule.field: _value(rule, packet_type) for rule in RULES if packet_type in rule.allowed and rule.field not in without}
    drawn = st.fixed_dictionaries({needs: values.pop(needs)} if needs else {}, optional=values)
    made = drawn.map(lambda fields: _properties(fields))
    return made.filter(lambda made: made is not None) if needs else st.one_of(st.none(), made)


def _properties(fields: dict[str, object]) -> Properties | None:
    if "authentication_method" not in fields:
        fields = {field: value for field, value in fields.items() if field != "authentication_data"}
    return Properties(**fields) if fields else None  # type: ignore[arg-type]


def _if_5(version: int, packet_type: int, *without: str) -> st.SearchStrategy[Properties | None]:
    return properties(packet_type, *without) if version == MQTT_5_0 else st.none()


def _reasons(packet_type: PacketType, version: int) -> st.SearchStrategy[ReasonCode]:
    return st.sampled_from(list(REASONS[packet_type].values())) if version == MQTT_5_0 else st.just(ReasonCode.SUCCESS)


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    will = st.builds(WillMessage, topic=topics, payload=payloads, qos=st.integers(0, 2), retain=st.booleans(), properties=_if_5(version, WILL))
    user_name = draw(st.none() | strings)
    clean_start = draw(st.booleans())
    return Connect(
        version=version,
        clean_start=clean_start,
        keep_alive=draw(st.integers(0, 65535)),
        client_id=draw(strings if version == MQTT_5_0 or clean_start else topics),
        user_name=user_name,
        password=draw(st.none() | payloads if version == MQTT_5_0 or user_name is not None else st.none()),
        will=draw(st.none() | will),
        properties=draw(_if_5(version, PacketType.CONNECT)),
    )


@st.composite
def connacks(draw: st.DrawFn, version: int) -> Connack:
    reason = draw(_reasons(PacketType.CONNACK, version) if version == MQTT_5_0 else st.sampled_from(RETURN_CODES))
    present = draw(st.booleans()) and reason == ReasonCode.SUCCESS
    return Connack(session_present=present, reason_code=reason, properties=draw(_if_5(version, PacketType.CONNACK)))


@st.composite
def publishes(draw: st.DrawFn, version: int, *, from_server: bool = True) -> Publish:
    qos = draw(st.integers(0, 2))
    without = () if from_server else ("subscription_identifier",)
    drawn = draw(_if_5(version, PacketType.PUBLISH, *without))
    may_be_empty = drawn is not None and drawn.topic_alias is not None
    return Publish(
        topic=draw(st.just("") | topics if may_be_empty else topics),
        payload=draw(payloads),
        qos=qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) and qos > 0,
        packet_id=draw(packet_ids) if qos else 0,
        properties=drawn,
    )


@st.composite
def requests(draw: st.DrawFn, version: int) -> SubscriptionRequest:
    topic_filter = draw(filters)
    if version == MQTT_3_1_1:
        return SubscriptionRequest(filter=topic_filter, qos=draw(st.integers(0, 2)))
    return SubscriptionRequest(
        filter=topic_filter,
        qos=draw(st.integers(0, 2)),
        no_local=draw(st.booleans()) and not topic_filter.startswith("$share/"),
        retain_as_published=draw(st.booleans()),
        retain_handling=draw(st.integers(0, 2)),
    )


def acks(packet_type: PacketType, version: int) -> st.SearchStrategy[Ack]:
    return st.builds(
        Ack,
        type=st.just(packet_type),
        packet_id=packet_ids,
        reason_code=_reasons(packet_type, version),
        properties=_if_5(version, packet_type),
    )


def subacks(version: int) -> st.SearchStrategy[Suback]:
    codes = (0, 1, 2, 0x80) if version == MQTT_3_1_1 else tuple(REASONS[PacketType.SUBACK])
    return st.builds(
        Suback,
        packet_id=packet_ids,
        reason_codes=st.lists(st.sampled_from([ReasonCode(code) for code in codes]), min_size=1, max_size=5).map(tuple),
        properties=_if_5(version, PacketType.SUBACK),
    )


def unsubacks(version: int) -> st.SearchStrategy[Unsuback]:
    codes = st.lists(_reasons(PacketType.UNSUBACK, version), min_size=1, max_size=5).map(tuple)
    return st.builds(
        Unsuback,
        packet_id=packet_ids,
        reason_codes=codes if version == MQTT_5_0 else st.just(()),
        properties=_if_5(version, PacketType.UNSUBACK),
    )


def disconnects(version: int) -> st.SearchStrategy[Disconnect]:
    if version == MQTT_3_1_1:
        return st.just(Disconnect())
    # What a client may not send and what a server may not send are left out both.
    return st.builds(
        Disconnect,
        reason_code=_reasons(PacketType.DISCONNECT, version).filter(lambda code: code != ReasonCode.DISCONNECT_WITH_WILL),
        properties=properties(PacketType.DISCONNECT, "session_expiry_interval"),
    )


def of_type(packet_type: PacketType, version: int) -> st.SearchStrategy[Packet]:
    """Packets of one type, valid from the server (where it may send them) or else from the client."""
    table: dict[PacketType, st.SearchStrategy[Packet]] = {
        PacketType.CONNECT: connects(version),
        PacketType.CONNACK: connacks(version),
        PacketType.PUBLISH: publishes(version),
        PacketType.PUBACK: acks(PacketType.PUBACK, version),
        PacketType.PUBREC: acks(PacketType.PUBREC, version),
        PacketType.PUBREL: acks(PacketType.PUBREL, version),
        PacketType.PUBCOMP: acks(PacketType.PUBCOMP, version),
        PacketType.SUBSCRIBE: st.builds(
            Subscribe,
            packet_id=packet_ids,
            requests=st.lists(requests(version), min_size=1, max_size=4).map(tuple),
            properties=_if_5(version, PacketType.SUBSCRIBE),
        ),
        PacketType.SUBACK: subacks(version),
        PacketType.UNSUBSCRIBE: st.builds(
            Unsubscribe,
            packet_id=packet_ids,
            filters=st.lists(filters, min_size=1, max_size=4).map(tuple),
            properties=_if_5(version, PacketType.UNSUBSCRIBE),
        ),
        PacketType.UNSUBACK: unsubacks(version),
        PacketType.PINGREQ: st.just(Pingreq()),
        PacketType.PINGRESP: st.just(Pingresp()),
        PacketType.DISCONNECT: disconnects(version),
        PacketType.AUTH: st.builds(
            Auth, reason_code=_reasons(PacketType.AUTH, MQTT_5_0), properties=properties(PacketType.AUTH, needs="authentication_method")
        ),
    }
    return table[packet_type]
