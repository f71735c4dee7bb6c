"""Filters, projections and schemas: what they see, what they decide, and that nothing they meet raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.properties import Properties, forwardable
from schemas.records import Flag, Kind, Record
from schemas.rules import RuleError, read_rule
from streams.backend import Incoming
from streams.mapping.conditions import LEFT_OUT, MAX_BODY, Conditions, Verdict
from tests.unit.schemas.test_rules import IN, OUT


def judged(payload: bytes, topic: str = "shop/hot", block: Properties | None = None, **fields: Any) -> Verdict:
    record = Record(int(Kind.PUBLISH), bytes(16), 5, "dev", topic, payload, qos=1, flags=int(Flag.RETAIN), properties=forwardable(block))
    return Conditions(read_rule(OUT | fields)).judge_records([record])[0]


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("topic == 'shop/hot'", True),
        ("levels[1] == 'hot'", True),
        ("clientId == 'dev' && qos == `1` && retain && time == `5`", True),
        ("properties.k == 'v'", True),
        ("body.n > `6`", True),
        ("body.n > `7`", False),
        ("body.missing", False),
        ("body.zero", True),
        ("body.list[?@ == `2`]", True),
        ("body.list[?@ == `9`]", False),
        ("starts_with(topic, 'shop')", True),
    ],
)
def test_what_a_filter_sees(expression: str, kept: bool) -> None:
    verdict = judged(b'{"n":7,"zero":0,"list":[1,2]}', block=Properties(user_property=(("k", "v"),)), filter=expression)
    assert verdict == (Verdict(b'{"n":7,"zero":0,"list":[1,2]}') if kept else LEFT_OUT)


def test_a_body_that_is_no_json_is_null() -> None:
    assert judged(b"\xff", filter="body == null").body == b"\xff"
    assert judged(b"\xff", filter="body.a") is LEFT_OUT


def test_an_expression_that_fails_on_a_message_makes_it_poison() -> None:
    assert "can't be judged" in judged(b'{"a":"x"}', filter="abs(body.a)").reason


def test_a_projection_is_json() -> None:
    assert judged(b'{"a":{"b":1},"c":2}', projection="{x: body.a, from: clientId}").body == b'{"x":{"b":1},"from":"dev"}'
    assert judged(b"{}", projection="body.none").body == b"null"


def test_a_schema_names_the_place() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}}
    assert judged(b'{"a":[1]}', jsonSchema=schema).reason == ""
    assert "/a/1" in judged(b'{"a":[1,"x"]}', jsonSchema=schema).reason
    assert "not JSON" in judged(b"{", jsonSchema=schema).reason


def test_a_pattern_takes_linear_time() -> None:
    """Ten times as long would be an hour for an engine that tries again and again."""
    verdict = judged(b'"' + b"a" * 50_000 + b'!"', jsonSchema={"type": "string", "pattern": "^(a+)+$"})
    assert "schema" in verdict.reason


def test_a_body_that_is_too_large_is_not_looked_into() -> None:
    assert "at most" in judged(b" " * (MAX_BODY + 1), filter="body").reason


def test_deep_json_is_no_trouble() -> None:
    judged(b"[" * 30_000 + b"]" * 30_000, filter="body", projection="body")


@pytest.mark.parametrize("schema", [{"type": 7}, {"$ref": "#/nowhere"}, {"pattern": "("}])
def test_schemas_that_do_not_compile_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RuleError, match="jsonSchema"):
        Conditions(read_rule(OUT | {"jsonSchema": schema}))


EXPRESSIONS = ("body", "body.a", "length(body)", "sum(body)", "keys(body)", "body[*].a")


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode), st.sampled_from(EXPRESSIONS))
def test_any_body_gets_a_verdict(payload: bytes, expression: str) -> None:
    verdict = judged(payload, filter=expression, projection=expression)
    assert verdict.body is None or isinstance(verdict.body, bytes)


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_is_refused(expression: str) -> None:
    try:
        Conditions(read_rule(OUT | {"filter": expression}))
    except RuleError as error:
        assert error.field == "filter"


def test_messages_of_a_backend_are_seen_with_tag_and_key() -> None:
    conditions = Conditions(read_rule(IN | {"filter": "tag == 'a' && key == 'k' && properties.p == 'q'"}))
    message = Incoming("commands", "0", 1, b"x", (("p", "q"),), key="k", tag="a")
    assert conditions.judge_incoming([message]) == [Verdict(b"x")]
