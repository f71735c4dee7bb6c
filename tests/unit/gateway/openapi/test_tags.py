"""Tags of groups and of the instance: given and asked for in either of the two forms that callers send."""

from __future__ import annotations

import json

import pytest

from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.test_endpoint import Site, code

NOT_TAGS = [
    "x", "{}", "[1]", "null", '[{"Value":"v"}]', '[{"Key":""}]', '[{"Key":1}]', '[{"Key":"k","More":"v"}]', '[{"Key":"k\\u0000"}]',
    '[{"Key":"\\ud800"}]', "[" * 9_000, json.dumps([{"Key": "k" * 129}]),
    json.dumps([{"Key": "k", "Value": "v" * 129}]), json.dumps([{"Key": str(n)} for n in range(21)]),
]  # fmt: skip


@pytest.fixture
def site(bed: Testbed) -> Site:
    return Site(bed)


def groups(site: Site, **fields: str) -> list[str]:
    return [group["GroupId"] for group in site.call("ListGroupId", **fields)["Data"]]


def test_a_group_has_the_tags_that_it_was_made_with_and_is_found_by_them(site: Site) -> None:
    site.call("CreateGroupId", GroupId="GID_json", Tags='[{"Key":"k","Value":"v"},{"Key":"more"}]')
    site.call("CreateGroupId", GroupId="GID_flat", **{"Tags.1.Key": "k", "Tags.1.Value": "w"})
    site.call("CreateGroupId", GroupId="GID_none", Tags="")
    shown = {group["GroupId"]: group["Tags"] for group in site.call("ListGroupId")["Data"]}
    assert shown == {
        "GID_json": [{"TagKey": "k", "TagValue": "v"}, {"TagKey": "more", "TagValue": ""}],
        "GID_flat": [{"TagKey": "k", "TagValue": "w"}],
        "GID_none": [],
    }
    assert groups(site, Tags='[{"Key":"k"}]') == ["GID_json", "GID_flat"]
    assert groups(site, **{"Tags.1.Key": "k", "Tags.1.Value": "w"}) == ["GID_flat"]
    assert groups(site, Tags='[{"Key":"k","Value":"w"},{"Key":"more"}]') == []
    assert groups(site, Tags="[]") == ["GID_json", "GID_flat", "GID_none"]


def test_the_instance_is_found_by_its_tags(site: Site) -> None:
    site.call("TagResources", ResourceType="INSTANCE", **{"ResourceId.1": "bed", "Tag.1.Key": "k", "Tag.1.Value": "v"})
    assert site.call("ListInstances", Tags='[{"Key":"k","Value":"v"}]')["Instances"][0]["MqttTags"] == [{"TagKey": "k", "TagValue": "v"}]
    assert site.call("ListInstances", Tags='[{"Key":"k","Value":"w"}]')["Instances"] == []


@pytest.mark.parametrize("action", ["CreateGroupId", "ListGroupId", "ListInstances"])
def test_what_are_no_tags_is_refused(site: Site, action: str) -> None:
    flat = {f"Tags.{number}.Key": "k" for number in range(1, 22)}
    for fields in (*({"Tags": text} for text in NOT_TAGS), flat, {"Tags.1.Key": ""}):
        assert code(site.send(site.make(action, GroupId="GID_one", **fields)), 400) == "InvalidParameter.Tags", fields
    assert groups(site) == []
