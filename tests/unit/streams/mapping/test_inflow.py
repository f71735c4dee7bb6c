"""Messages to records: whatever a backend holds, a topic stays under the rule's parent and nothing raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.packet_types import PacketType
from gateway.protocol.properties import decode_properties
from schemas.limits import Limits
from schemas.records import Flag, Record, Source
from schemas.rules import read_rule
from schemas.topics import is_topic_name, parse_p2p
from streams.backend import Incoming
from streams.mapping import mqtt5
from streams.mapping.inflow import Expired, InflowMapper, Stamp
from tests.unit.schemas.test_rules import IN

LIMITS = Limits(packet=10_000, user_properties=8, topic_bytes=200, topic_levels=8)
NOW = 1_000_000


def came(*properties: tuple[str, str], body: bytes = b"x", time: int = 0) -> Any:
    mapper = InflowMapper(read_rule(IN), LIMITS, lambda topic: parse_p2p(topic) is not None)
    return mapper.map(Incoming("commands", "0", 1, body, properties, time=time), Stamp(b"i" * 16, NOW))


KEYS = (
    "mqttSecondTopic",
    "mqttSecondTopicBase64",
    "mqttRealTopic",
    "qoslevel",
    "cleansessionflag",
    "mqtt5UserProperty",
    "mqtt5MsgExpireInterval",
    "mqtt5ContentType",
    "mqtt5ResponseTopic",
    "mqtt5CorrelationData",
    "mqtt5PayloadFormat",
    "mqttHops",
    "traceparent",
    "clientId",
    "topic",
)
WORDS = ("0", "1", "2", "true", "false", "/a/b", "a/../b", "/$SYS/x", "/+", "/p2p/d", "YQ==", '[{"key":"a","value":"b"}]', "x" * 300, "\ud800")
VALUES = st.text(max_size=20) | st.sampled_from(WORDS)


@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=8), st.binary(max_size=40))
def test_whatever_comes(properties: list[tuple[str, str]], body: bytes) -> None:
    found = came(*properties, body=body)
    if isinstance(found, str):
        assert found
        return
    record = found.record if isinstance(found, Expired) else found
    assert record.topic.partition("/")[0] == "shop"
    assert is_topic_name(record.topic)
    assert not any(level in (".", "..") or level.startswith("$") for level in record.topic.split("/")[1:])
    assert record.real_topic == "" or record.real_topic.partition("/")[0] == "shop"
    assert (record.client, record.source, record.principal, record.session) == ("", Source.INFLOW, "rule:inf", 0)
    block = len(record.properties)
    head = bytes((block & 0x7F | 0x80, block >> 7)) if block > 0x7F else bytes((block,))
    decode_properties(head + record.properties, 0, PacketType.PUBLISH, LIMITS)


SECOND = {"": "shop", "/": "shop", "/a": "shop/a", "a": "shop/a", "/a/": "shop/a/", "//a": "shop//a"}


@pytest.mark.parametrize(("given_topic", "topic"), SECOND.items())
def test_second_topics(given_topic: str, topic: str) -> None:
    assert came(("mqttSecondTopic", given_topic)).topic == topic


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_qos(qos: str) -> None:
    assert came(("qoslevel", qos)).qos == int(qos)


def test_one_is_the_qos_of_those_that_say_nothing() -> None:
    assert came().qos == 1


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ((("qoslevel", "3"),), "qoslevel must be 0, 1 or 2"),
        ((("cleansessionflag", "no"),), "cleansessionflag must be true or false"),
        ((("mqtt5UserProperty", "{"),), "mqtt5UserProperty is not JSON"),
        ((("mqtt5UserProperty", '[{"key":1,"value":"x"}]'),), "mqtt5UserProperty is not an array"),
        ((("mqtt5UserProperty", '[{"key":"a","value":"b\\u0000"}]'),), "mqtt5UserProperty is not an array"),
        ((("mqtt5UserProperty", '"' + "x" * 9_000 + '"'),), "more than 8192 bytes"),
        ((("mqtt5UserProperty", "[" + ",".join(['{"key":"a","value":"b"}'] * 9) + "]"),), "more than 8 entries"),
        ((("mqtt5MsgExpireInterval", "-1"),), "mqtt5MsgExpireInterval must be a number"),
        ((("mqtt5ResponseTopic", "a/#"),), "mqtt5ResponseTopic is not a topic name"),
        ((("mqtt5CorrelationData", "?"),), "mqtt5CorrelationData is not base64"),
        ((("mqtt5PayloadFormat", "2"),), "mqtt5PayloadFormat must be 0, or 1"),
        ((("mqttRealTopic", "a/+"), ("mqttSecondTopic", "/p2p/d")), "mqttRealTopic has a wildcard"),
        ((("mqttHops", ",".join(["a:b"] * 20)),), "more than 16 rules"),
        (tuple((f"k{number}", "v") for number in range(1_001)), "are more than 1000"),
    ],
)
def test_poison_names_the_property(properties: tuple[tuple[str, str], ...], word: str) -> None:
    assert word in came(*properties)


def test_p2p_flags() -> None:
    assert came(("mqttSecondTopic", "/p2p/d")).flags == Flag.P2P
    assert came(("mqttSecondTopic", "/p2p/d"), ("cleansessionflag", "false")).flags == Flag.P2P | Flag.PERSISTENT
    assert came(("cleansessionflag", "false")).flags == 0
    assert came(("mqttSecondTopic", "/a"), ("mqttRealTopic", "b")).real_topic == ""


@pytest.mark.parametrize("real", ["alarms/1", "/alarms/1", "shop/alarms/1"])
def test_the_real_topic_lies_under_the_parent(real: str) -> None:
    assert came(("mqttSecondTopic", "/p2p/d"), ("mqttRealTopic", real)).real_topic == "shop/alarms/1"


def test_expiry() -> None:
    assert came(("mqtt5MsgExpireInterval", "5")).expires_at == NOW + 5_000
    assert came(("mqtt5MsgExpireInterval", "5"), time=NOW - 2_000).expires_at == NOW + 3_000
    assert came(("mqtt5MsgExpireInterval", "5"), time=NOW + 10**9).expires_at == NOW + 5_000
    assert isinstance(came(("mqtt5MsgExpireInterval", "5"), time=NOW - 5_000), Expired)
    assert isinstance(came(("mqtt5MsgExpireInterval", "0")), Expired)


def test_what_only_we_may_say_is_not_taken_from_the_array() -> None:
    found = came(("mqtt5UserProperty", '[{"key":"mqttHops","value":"x:1"},{"key":"a","value":"b"}]'), ("mqttHops", "y:2"))
    assert isinstance(found, Record)
    assert mqtt5.decode(found.properties).user == (("a", "b"), ("mqttHops", "y:2"))
