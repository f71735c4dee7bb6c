"""Records to messages: names, limits and characters of properties, whatever devices send."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.properties import Properties, forwardable
from schemas.connections import ConnectionSettings
from schemas.limits import Limits
from schemas.records import Flag, Kind, Record, Source
from schemas.rules import read_rule
from streams.backend import Incoming, Outgoing
from streams.mapping import mqtt5
from streams.mapping import properties as names
from streams.mapping.inflow import InflowMapper, Stamp
from streams.mapping.outflow import OutflowMapper, lane_of
from tests.unit.schemas.test_rules import IN, OUT

CONNECTIONS = {kind: ConnectionSettings(name="main", kind=kind, address=("a:1",), allow_outflow=("*",)) for kind in ("kafka", "rocketmq")}  # type: ignore[arg-type]


def mapper(kind: str = "rocketmq", **fields: Any) -> OutflowMapper:
    return OutflowMapper(read_rule(OUT | fields), CONNECTIONS[kind], "i:out")


def record(topic: str = "shop/1", payload: bytes = b"x", client: str = "dev", **fields: Any) -> Record:
    return Record(int(Kind.PUBLISH), bytes(range(16)), 1_000, client, topic, payload, **fields)


def one(each: Record, kind: str = "rocketmq", **fields: Any) -> Outgoing:
    mapped = mapper(kind, **fields).map_all([each])
    assert not mapped.poison
    return mapped.messages[0]


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)
topics = st.lists(texts.filter(lambda level: not set("+#/") & set(level)), max_size=5).map(lambda levels: "/".join(["shop", *levels]))
blocks = st.builds(
    Properties,
    content_type=st.none() | texts,
    response_topic=st.none() | st.just("a/b") | texts.filter(lambda text: bool(text) and not set("+#") & set(text)),
    correlation_data=st.none() | st.binary(max_size=30),
    payload_format_indicator=st.none() | st.just(0),
    user_property=st.lists(st.tuples(texts, texts), max_size=5).map(tuple),
)


@given(topics, texts, st.binary(max_size=60), st.integers(0, 2), blocks, st.sampled_from(("kafka", "rocketmq")), st.integers(0, 3))
def test_whatever_devices_send(topic: str, client: str, payload: bytes, qos: int, block: Properties, kind: str, flags: int) -> None:
    """No control characters anywhere, limits kept, the body byte for byte, and the way back gives what was there."""
    raw = forwardable(block)
    message = one(record(topic, payload, client, qos=qos, flags=flags, properties=raw, expires_at=61_000), kind)
    assert message.body == payload
    assert message.id == bytes(range(16)).hex().upper()
    for name, value in message.properties:
        assert not names.has_control(name + value)
    assert names.size_of(message.properties) <= names.MAX_BYTES
    assert len(message.properties) <= names.MAX_ENTRIES
    assert len({name for name, _ in message.properties}) == len(message.properties)

    decoded = mqtt5.decode(raw)
    assert names.read_user_json(dict(message.properties).get(names.USER, "[]")) == tuple(p for p in decoded.user if p[0] != names.HOPS)
    given_back = Incoming("t", "0", 0, message.body, message.properties)
    back = InflowMapper(read_rule(IN), Limits(), lambda topic: False).map(given_back, Stamp(bytes(16), 1_000))
    if isinstance(back, Record):
        assert (back.topic, back.payload, back.qos, back.expires_at) == (topic if topic != "shop/" else "shop", payload, qos, 61_000)
        again = mqtt5.decode(back.properties)
        assert (again.content_type, again.response_topic, again.correlation_data) == (
            decoded.content_type,
            decoded.response_topic,
            decoded.correlation_data,
        )
    else:
        bad_level = any(level in (".", "..") or level[:1] == "$" for level in topic.split("/"))
        assert bad_level or names.has_control(topic + (decoded.response_topic or ""))


@given(blocks)
def test_the_block_is_the_protocols(block: Properties) -> None:
    assert mqtt5.encode(mqtt5.decode(forwardable(block))) == forwardable(block)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_block_or_an_error(block: bytes) -> None:
    try:
        mqtt5.decode(block)
    except (ValueError, IndexError):
        return


def test_the_documented_properties() -> None:
    block = forwardable(Properties(content_type="UTF-8", user_property=(("k", "v"),)))
    message = one(record("shop/a/b", flags=int(Flag.PERSISTENT), qos=2, properties=block, expires_at=3_500))
    assert dict(message.properties) == {
        "mqttSecondTopic": "/a/b",
        "clientId": "dev",
        "qoslevel": "2",
        "cleansessionflag": "false",
        "topic": "shop/a/b",
        "mqtt5UserProperty": '[{"key":"k","value":"v"}]',
        "mqtt5MsgExpireInterval": "3",
        "mqtt5ContentType": "UTF-8",
    }


def test_a_parent_alone_has_no_second_topic() -> None:
    assert "mqttSecondTopic" not in dict(one(record("shop")).properties)


def test_expiry_is_65535_at_most() -> None:
    assert dict(one(record(expires_at=10**12)).properties)["mqtt5MsgExpireInterval"] == "65535"


@pytest.mark.parametrize(("key", "expected"), [("client", "dev"), ("topic", "shop/1"), ("none", None)])
def test_keys(key: str, expected: str | None) -> None:
    assert one(record(), "kafka", key=key).key == expected


def test_tags_are_fixed_or_of_a_level() -> None:
    assert one(record(), tag="fixed").tag == "fixed"
    assert one(record("shop/berlin"), tag="at-{2}").tag == "at-berlin"
    assert one(record("shop"), tag="{2}").tag == ""


@pytest.mark.parametrize(
    ("client", "lane"),
    [
        ("GID_a@@@1", "GID_a@@@1"),
        ("a" * 63, "a" * 63),
        ("a" * 64, "#ffe054fe7ae0cb6dc65c3af9b61d5209"),
        ("", "#e3b0c44298fc1c149afbf4c8996fb924"),
        ("a b", "#"),
        ("a\x01b", "#"),
        ("ü" * 32, "#"),
        ("x" * 256, "#"),
    ],
)
def test_lanes_fit_a_sharding_key(client: str, lane: str) -> None:
    found = lane_of(client)
    assert found.startswith(lane)
    assert len(found.encode()) < 64
    assert found.isprintable()


def test_ordered_rules_and_ordered_clients_have_lanes() -> None:
    assert one(record()).lane is None
    assert one(record(), ordered=True).lane == "dev"
    assert one(record(flags=int(Flag.ORDERED))).lane == "dev"


def test_20_kib_of_user_properties_are_left_out_and_named() -> None:
    block = forwardable(Properties(user_property=tuple(("k" * 10, "v" * 1_014) for _ in range(20)), content_type="x"))
    properties = dict(one(record(properties=block)).properties)
    assert properties["mqttOmitted"] == "mqtt5UserProperty"
    assert properties["mqtt5ContentType"] == "x"
    assert "mqtt5UserProperty" not in properties


def test_more_is_left_out_in_a_fixed_order() -> None:
    large = "x" * 9_000
    block = forwardable(Properties(user_property=(("k", large),), correlation_data=bytes(9_000), response_topic=large, content_type=large))
    assert dict(one(record(properties=block)).properties)["mqttOmitted"] == "mqtt5UserProperty,mqtt5CorrelationData,mqtt5ResponseTopic"


def test_what_does_not_fit_without_the_optional_ones_is_poison() -> None:
    mapped = mapper().map_all([record(), record("shop/" + "x" * 20_000), record()])
    assert [poison.origin for poison in mapped.poison] == [1]
    assert mapped.origins == [0, 2]


def test_a_long_topic_is_told_once() -> None:
    properties = dict(one(record("shop/" + "x" * 9_000)).properties)
    assert properties["mqttOmitted"] == "topic"
    assert len(properties["mqttSecondTopic"]) == 9_001


@pytest.mark.parametrize("client", ["c" * 63, "c" * 64, "c" * 65, "c" * 256, " ", "a\x01b", "\x7f"])
def test_client_ids_of_any_kind_come_back(client: str) -> None:
    properties = dict(one(record(client=client)).properties)
    if "clientId" in properties:
        assert properties["clientId"] == client
    else:
        assert base64.b64decode(properties["clientIdBase64"]).decode() == client
        assert names.has_control(client)


def test_the_trace_context_is_a_property_of_its_own() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    block = forwardable(Properties(user_property=(("traceparent", trace), ("tracestate", "a=b"))))
    properties = dict(one(record(properties=block)).properties)
    assert (properties["traceparent"], properties["tracestate"]) == (trace, "a=b")
    for bad in ("00-0-0-01", "ff" + trace[2:], "00-" + "0" * 32 + trace[35:], trace + "\x01"):
        block = forwardable(Properties(user_property=(("traceparent", bad),)))
        assert "traceparent" not in dict(one(record(properties=block)).properties)


def test_sources_and_hops() -> None:
    assert mapper().sources == {Source.DEVICE, Source.WILL}
    wide = mapper(sources=["device", "inflow"])
    came = forwardable(Properties(user_property=(("mqttHops", "x:1"), ("k", "v"))))
    message = wide.map_all([record(source=int(Source.INFLOW), properties=came)]).messages[0]
    assert dict(message.properties)["mqttHops"] == "x:1,i:out"
    assert json.loads(dict(message.properties)["mqtt5UserProperty"]) == [{"key": "k", "value": "v"}]
    been = forwardable(Properties(user_property=(("mqttHops", "x:1,i:out"),)))
    assert wide.map_all([record(source=int(Source.INFLOW), properties=been)]).looped == 1
    assert wide.map_all([record(properties=been)]).looped == 0  # a device can't keep its own messages from leaving


def test_a_template_reaches_no_topic_that_is_not_allowed() -> None:
    narrow = ConnectionSettings(name="main", kind="kafka", address=("a:1",), allow_outflow=("orders-a*",))
    mapped = OutflowMapper(read_rule(OUT | {"backendTopic": "orders-{2}"}), narrow, "").map_all([record("shop/a1"), record("shop/b"), record("shop")])
    assert [message.topic for message in mapped.messages] == ["orders-a1"]
    assert "allow_outflow" in mapped.poison[0].reason
    assert "level 2" in mapped.poison[1].reason


def test_a_template_comes_to_a_bounded_number_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.mapping.outflow.MAX_TARGETS", 2)
    mapped = mapper("kafka", backendTopic="{2}").map_all([record(f"shop/{number}") for number in (1, 2, 3, 1)])
    assert [message.topic for message in mapped.messages] == ["1", "2", "1"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.mapping.outflow.MAX_SHAPES", 10)
    made = mapper()
    made.map_all([record(f"shop/{number}") for number in range(100)])
    assert len(made._shapes) <= 10
