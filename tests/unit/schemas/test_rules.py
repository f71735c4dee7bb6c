"""A rule as a user writes it: every field, and the words for each refusal."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.rules import FIELDS, NAMES, Rule, RuleError, camel, changed_rule, parse_position, read_rule, written

OUT = {"id": "out", "kind": "outflow", "connection": "main", "backendTopic": "orders", "topic": "shop"}
IN = {"id": "inf", "kind": "inflow", "connection": "main", "backendTopic": "commands", "topic": "shop"}
STATUS = {"id": "sta", "kind": "status", "connection": "main", "backendTopic": "events", "group": "GID_a"}


@pytest.mark.parametrize("given", [OUT, IN, STATUS])
def test_a_rule_is_read_back_as_it_was_written(given: dict[str, Any]) -> None:
    rule = read_rule(given)
    assert read_rule(written(rule)) == rule
    assert given.items() <= written(rule).items()


def test_every_field_of_a_rule_is_in_the_table() -> None:
    assert {field.name for field in FIELDS} == set(Rule.__struct_fields__)
    assert set(NAMES) == set(Rule.__struct_encode_fields__)
    assert [camel(name) for name in ("id", "json_schema", "on_poison")] == ["id", "jsonSchema", "onPoison"]


@pytest.mark.parametrize(
    ("base", "name", "good"),
    [
        (OUT, "id", ["abc", "a" * 64, "A-b_9"]),
        (OUT, "topic", ["a", "a b", "ü", "a" * 255]),
        (OUT, "backendTopic", ["a", "a.b-c_D", "orders-{2}", "{1}", "{2}{3}"]),
        (OUT, "sources", [["device"], ["inflow", "api", "will"]]),
        (OUT, "start", ["now", "earliest", 0, 1_700_000_000_000]),
        (OUT, "position", ["", "0:17", "0:1,1:2"]),
        (OUT, "rate", [0, 1, 0.5, 1_000_000]),
        (OUT, "key", ["client", "topic", "none"]),
        (OUT, "tag", ["", "t", "{2}"]),
        (OUT, "onPoison", ["skip", "stop"]),
        (OUT, "jsonSchema", ["", {}, '{"type":"object"}', {"$ref": "#/definitions/a"}]),
        (IN, "tags", ["a || b", "*", ""]),
        (IN, "undelivered", ["", "told"]),
        (STATUS, "group", ["GID_a", "GID-b-1", "*"]),
        (STATUS, "description", ["", "ü" * 256]),
    ],
)
def test_what_is_taken(base: dict[str, Any], name: str, good: list[Any]) -> None:
    for value in good:
        read_rule(base | {name: value})


@pytest.mark.parametrize(
    ("base", "name", "bad", "words"),
    [
        (OUT, "id", ["", "ab", "a" * 65, "a b", "a/b", "ü" * 5, 7, None], "3 to 64 letters"),
        (OUT, "kind", ["other", None, 1, []], "outflow, inflow, status"),
        (OUT, "connection", ["", "a b", None], "[connections.NAME]"),
        (OUT, "topic", ["", "a/b", "a+", "#", "$SYS", "a\x00", "a\nb", "a" * 256, None], "parent topic"),
        (OUT, "backendTopic", ["", "a b", "a/b", "{0}", "{x}", "{2", "ü", 5], "backend topic"),
        (IN, "backendTopic", ["orders-{2}", "%RETRY%a"], "backend topic"),
        (OUT, "sources", [[], ["devices"], "device", None], "a list of"),
        (OUT, "start", ["later", -1, True, 1.5, None, 2**60], "now, earliest"),
        (OUT, "position", ["7", "0:", "0:-1", "0:x", ":1", 7, "0:" + "9" * 30], "offsets by queue"),
        (OUT, "rate", [-1, 0.001, 2e6, "7", True, None], "messages a second"),
        (OUT, "key", ["id", None], "client, topic, none"),
        (OUT, "tag", ["a b", "a||b", "{x}"], "tag"),
        (OUT, "ordered", ["true", 1, None], "true or false"),
        (OUT, "enabled", ["yes"], "true or false"),
        (OUT, "filter", ["a" * 2_049, 7], "JMESPath"),
        (OUT, "jsonSchema", ["{", "[]", 7, [1], {"a": "x" * 70_000}], "JSON Schema"),
        (OUT, "jsonSchema", [{"$ref": "http://x/y"}, {"a": [{"b": {"$dynamicRef": "other.json"}}]}], "without references"),
        (OUT, "onPoison", ["halt"], "skip, stop"),
        (OUT, "description", ["a\nb", "x" * 257], "256 characters"),
        (IN, "tags", ["a\x01b", 7], "tags"),
        (IN, "sql", ["a\nb"], "SQL92"),
        (IN, "undelivered", ["a/b"], "topic of the same connection"),
        (STATUS, "group", ["a", "GID_", "gid_a", ""], "group id"),
    ],
)
def test_what_is_refused_names_the_field_and_the_fix(base: dict[str, Any], name: str, bad: list[Any], words: str) -> None:
    for value in bad:
        with pytest.raises(RuleError) as caught:
            read_rule(base | {name: value})
        assert caught.value.field == name
        assert words in caught.value.message
        assert len(caught.value.message) < 400


@pytest.mark.parametrize("base", [OUT, IN, STATUS])
def test_what_has_to_be_there(base: dict[str, Any]) -> None:
    for name in base:
        with pytest.raises(RuleError) as caught:
            read_rule({other: value for other, value in base.items() if other != name})
        assert caught.value.field == name


def test_unknown_fields_and_those_of_other_kinds() -> None:
    with pytest.raises(RuleError, match="unknown field; did you mean ordered"):
        read_rule(OUT | {"orderd": True})
    with pytest.raises(RuleError, match="tags: not a field of outflow rules"):
        read_rule(OUT | {"tags": "a"})
    with pytest.raises(RuleError, match="group: not a field of inflow rules"):
        read_rule(IN | {"group": "GID_a"})
    with pytest.raises(RuleError, match="sql"):
        read_rule(IN | {"tags": "a", "sql": "b > 1"})


def test_what_an_update_may_change() -> None:
    rule = read_rule(IN)
    assert changed_rule(rule, {"topic": "other", "id": "inf"}).topic == "other"
    for fixed in ({"id": "abc"}, {"kind": "outflow"}, {"backendTopic": "x"}, {"connection": "x"}):
        with pytest.raises(RuleError, match="can't be changed"):
            changed_rule(rule, fixed)
    assert changed_rule(read_rule(OUT), {"backendTopic": "x"}).backend_topic == "x"


def test_positions_name_queues_that_have_colons() -> None:
    assert parse_position("broker-a:0:7, broker-b:1:9") == {"broker-a:0": 7, "broker-b:1": 9}
