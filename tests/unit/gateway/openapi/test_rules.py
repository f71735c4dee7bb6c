"""The actions about rules: each kind is made, listed, changed and deleted, and what management refuses is a fault that names the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.gateway.openapi.test_endpoint import Site, code
from tests.unit.gateway.rules.conftest import RuleBed
from tests.unit.gateway.rules.conftest import make_bed as make_bed

KINDS = pytest.mark.parametrize(
    ("family", "resource"),
    [
        ("MqttOutboundRule", {"MqttTopic": "shop"}),
        ("MqttInboundRule", {"MqttTopic": "shop"}),
        ("ClientStatusNotifyRule", {"GroupId": "GID_shop"}),
    ],
)
TARGET = {"TargetType": "ROCKETMQ", "TargetInstanceId": "main", "TargetTopic": "orders"}


@pytest.fixture
def site(make_bed: Callable[..., RuleBed]) -> Site:
    return Site(make_bed())


def rules(site: Site, family: str, **fields: str) -> list[dict[str, Any]]:
    return site.call(f"List{family}InPage", **fields)["Data"]["Rules"]  # type: ignore[no-any-return]


@KINDS
def test_a_rule_is_made_shown_changed_and_deleted(site: Site, family: str, resource: dict[str, str]) -> None:
    site.call(f"Create{family}", RuleId="one", Description="first", Status="0", **resource, **TARGET)
    row = {"RuleId": "one", "InstanceId": "bed", "Description": "first", "Status": 0, **resource, **TARGET}
    assert rules(site, family) == [row]
    site.call(f"Update{family}", RuleId="one", Status="1")
    assert rules(site, family, RuleId="one") == [row | {"Status": 1}]
    assert site.bed.engine.rules["one"].enabled
    site.call(f"Delete{family}", RuleId="one")
    assert rules(site, family) == []


@KINDS
def test_a_rule_of_another_kind_is_not_there(site: Site, family: str, resource: dict[str, str]) -> None:
    site.call(f"Create{family}", RuleId="one", **resource, **TARGET)
    for other in ("MqttOutboundRule", "MqttInboundRule", "ClientStatusNotifyRule"):
        if other != family:
            assert rules(site, other) == []
            assert code(site.send(site.make(f"Update{other}", RuleId="one", Status="0")), 400) == "InvalidParameter.RuleId"
            assert code(site.send(site.make(f"Delete{other}", RuleId="one")), 400) == "InvalidParameter.RuleId"
    assert site.bed.engine.rules["one"].enabled


def test_pages(site: Site) -> None:
    for number in range(5):
        site.call("CreateMqttOutboundRule", RuleId=f"rule{number}", MqttTopic=f"shop{number}", **TARGET)
    data = site.call("ListMqttOutboundRuleInPage", PageNo="2", PageSize="2")["Data"]
    assert ([rule["RuleId"] for rule in data["Rules"]], data["Total"]) == (["rule2", "rule3"], 5)
    assert rules(site, "MqttOutboundRule", PageNo="4", PageSize="2") == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"RuleId": ""}, "RuleId"),
        ({"RuleId": "x"}, "RuleId"),
        ({"RuleId": "there"}, "RuleId"),
        ({"MqttTopic": ""}, "MqttTopic"),
        ({"MqttTopic": "a/b"}, "MqttTopic"),
        ({"MqttTopic": "taken"}, "MqttTopic"),
        ({"TargetType": "AMQP"}, "TargetType"),
        ({"TargetType": "KAFKA"}, "TargetType"),
        ({"TargetInstanceId": ""}, "TargetInstanceId"),
        ({"TargetInstanceId": "nowhere", "TargetType": ""}, "TargetInstanceId"),
        ({"TargetTopic": ""}, "TargetTopic"),
        ({"TargetTopic": "missing"}, "TargetTopic"),
        ({"Status": "on"}, "Status"),
        ({"Description": "x" * 257}, "Description"),
    ],
)
def test_what_is_refused_names_the_parameter_and_changes_nothing(site: Site, fields: dict[str, str], named: str) -> None:
    site.call("CreateMqttOutboundRule", RuleId="there", MqttTopic="taken", **TARGET)
    given = {"RuleId": "one", "MqttTopic": "shop", **TARGET} | fields
    assert code(site.send(site.make("CreateMqttOutboundRule", **given)), 400) == f"InvalidParameter.{named}"
    assert list(site.bed.engine.rules) == ["there"]


def test_an_update_without_anything_to_change_is_refused(site: Site) -> None:
    site.call("CreateMqttOutboundRule", RuleId="one", MqttTopic="shop", **TARGET)
    assert code(site.send(site.make("UpdateMqttOutboundRule", RuleId="one")), 400) == "InvalidParameter.RuleId"


@KINDS
def test_rules_are_not_for_keys_of_devices(site: Site, family: str, resource: dict[str, str]) -> None:
    device = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    made = site.make(f"Create{family}", key=device, RuleId="one", **resource, **TARGET)
    assert code(site.send(made), 403) == "Forbidden"
    assert not site.bed.engine.rules
