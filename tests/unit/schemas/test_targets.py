"""Which topics of a connection a rule may use."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.connections import ConnectionSettings
from schemas.rules import RuleError, read_rule
from schemas.targets import check_connection, is_allowed, topic_problem
from tests.unit.schemas.test_rules import IN, OUT

KAFKA = ConnectionSettings(name="main", kind="kafka", address=("a:1",), allow_outflow=("orders*", "*"), allow_inflow=("commands",))
ROCKETMQ = ConnectionSettings(name="main", kind="rocketmq", address=("a:1",), allow_outflow=("orders-*",), allow_inflow=("commands",))


@pytest.mark.parametrize(
    ("name", "pattern", "allowed"),
    [
        ("orders", "orders", True),
        ("orders", "order", False),
        ("orders-1", "orders-*", True),
        ("orders-", "orders-*", True),
        ("xorders-1", "orders-*", False),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
        ("anything", "*", True),
        ("a-1-b", "a-*-b", True),
    ],
)
def test_patterns(name: str, pattern: str, allowed: bool) -> None:
    assert is_allowed(name, (pattern,)) is allowed


def test_nothing_is_allowed_by_an_empty_list() -> None:
    assert not is_allowed("a", ())


@pytest.mark.parametrize("name", ["__consumer_offsets", "__x", "%RETRY%g", "%DLQ%g", "RMQ_SYS_TRACE_TOPIC", "SCHEDULE_TOPIC_XXXX", "TBW102", ".."])
def test_internal_topics_are_refused_whatever_is_allowed(name: str) -> None:
    assert "internal" in topic_problem(name, KAFKA, outflow=True)


def test_the_backends_own_rules_of_names() -> None:
    assert "no RocketMQ topic" in topic_problem("orders-a.b", ROCKETMQ, outflow=True)
    assert "takes 127" in topic_problem("orders-" + "a" * 121, ROCKETMQ, outflow=True)
    assert topic_problem("orders-" + "a" * 120, ROCKETMQ, outflow=True) == ""
    assert topic_problem("a.b", KAFKA, outflow=True) == ""


def test_the_two_lists_are_apart() -> None:
    assert "allow_inflow" in topic_problem("orders-1", ROCKETMQ, outflow=False)
    assert "allow_outflow of [connections.main]" in topic_problem("commands", ROCKETMQ, outflow=True)


@pytest.mark.parametrize(
    ("base", "changes", "field"),
    [
        (OUT, {"connection": "other"}, "connection"),
        (OUT, {"backendTopic": "secret"}, "backendTopic"),
        (OUT, {"backendTopic": "__{2}"}, "backendTopic"),
        (IN, {"backendTopic": "orders-1"}, "backendTopic"),
        (IN, {"undelivered": "secret"}, "undelivered"),
    ],
)
def test_a_rule_is_checked_against_its_connection(base: dict[str, Any], changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RuleError) as caught:
        check_connection(read_rule(base | changes), {"main": ROCKETMQ})
    assert caught.value.field == field


@pytest.mark.parametrize(("base", "field"), [(OUT, "tag"), (IN, "tags"), (IN, "sql")])
def test_kafka_has_no_tags(base: dict[str, Any], field: str) -> None:
    check_connection(read_rule(base | {field: "a"}), {"main": _wide(ROCKETMQ)})
    with pytest.raises(RuleError) as caught:
        check_connection(read_rule(base | {field: "a"}), {"main": KAFKA})
    assert caught.value.field == field


def _wide(connection: ConnectionSettings) -> ConnectionSettings:
    return ConnectionSettings(name="main", kind=connection.kind, address=connection.address, allow_outflow=("*",), allow_inflow=("*",))
