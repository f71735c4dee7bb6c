"""The actions about the trace, over what a whole gateway has traced."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from gateway.openapi.traces import CODES
from schemas.settings import TraceSettings
from schemas.traces import WORDS
from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.test_endpoint import Site, code


@pytest.fixture
def site(bed: Testbed) -> Site:
    site = Site(bed)
    reader = bed.connect("reader")
    reader.subscribe("a")
    bed.connect("writer").exchange("a", b"x")
    reader.disconnect()
    bed.advance(1)
    return site


def asked(site: Site, **fields: str) -> dict[str, str]:
    now = site.bed.clock.wall()
    paging = {"CurrentPage": "1", "PageSize": "10"}
    return {"MqttRegionId": "here", "BeginTime": str(now - 60_000), "EndTime": str(now)} | paging | fields


def test_a_device(site: Site) -> None:
    answer = site.call("QueryMqttTraceDevice", **asked(site, ClientId="reader"))
    assert (answer["CurrentPage"], answer["PageSize"], answer["Total"], answer["GapList"]) == (1, 10, 3, [])
    told = answer["DeviceInfoList"]
    assert [(event["Action"], event["ActionCode"], event["ActionInfo"]) for event in told] == [
        ("connect", "mqtt.trace.action.connect", "accepted"),
        ("disconnect", "mqtt.trace.action.disconnect", "disconnected by client"),
        ("close", "mqtt.trace.action.close", "closed by client"),
    ]
    assert len({event["ChannelId"] for event in told}) == 1
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", event["Time"]) for event in told)


def test_a_message_from_its_publisher_to_its_receivers(site: Site) -> None:
    message = site.bed.published()[0].id.hex().upper()
    [sent] = site.call("QueryMqttTraceMessagePublish", **asked(site, MsgId=message))["MessageTraceLists"]
    assert (sent["ClientId"], sent["MsgId"], sent["ActionInfo"]) == ("writer", message, "Pub From Mqtt Client")
    for more in ({}, {"ClientId": "reader"}):
        found = site.call("QueryMqttTraceMessageSubscribe", **asked(site, MsgId=message.lower(), **more))
        assert [(event["ClientId"], event["ActionCode"]) for event in found["MessageTraceLists"]] == [
            ("reader", "mqtt.trace.action.msg.sub"),
            ("reader", "mqtt.trace.action.msg.ack"),
        ]
    assert site.call("QueryMqttTraceMessageSubscribe", **asked(site, MsgId=message, ClientId="writer"))["Total"] == 0


def test_messages_of_a_client_page_by_page_and_backwards(site: Site) -> None:
    page = asked(site, ClientId="reader", PageSize="1")
    assert [e["Action"] for e in site.call("QueryMqttTraceMessageOfClient", **page)["MessageOfClientList"]] == ["sub"]
    last = site.call("QueryMqttTraceMessageOfClient", **page, Reverse="true")
    assert (last["Total"], [e["Action"] for e in last["MessageOfClientList"]]) == (2, ["ack"])
    past = site.call("QueryMqttTraceMessageOfClient", **page | {"CurrentPage": "3"})
    assert past["MessageOfClientList"] == []


@pytest.mark.parametrize(
    ("action", "fields", "name"),
    [
        ("QueryMqttTraceDevice", {"ClientId": ""}, "ClientId"),
        ("QueryMqttTraceDevice", {"MqttRegionId": ""}, "MqttRegionId"),
        ("QueryMqttTraceDevice", {"BeginTime": "x"}, "BeginTime"),
        ("QueryMqttTraceDevice", {"BeginTime": "9999999999999"}, "BeginTime"),
        ("QueryMqttTraceDevice", {"CurrentPage": "0"}, "CurrentPage"),
        ("QueryMqttTraceMessageOfClient", {"PageSize": "101"}, "PageSize"),
        ("QueryMqttTraceMessageOfClient", {"Reverse": "maybe"}, "Reverse"),
        ("QueryMqttTraceMessagePublish", {"MsgId": "AB"}, "MsgId"),
        ("QueryMqttTraceMessageSubscribe", {"MsgId": "x" * 32}, "MsgId"),
    ],
)
def test_what_is_wrong_is_named(site: Site, action: str, fields: dict[str, str], name: str) -> None:
    made = site.make(action, **asked(site, ClientId="c") | fields)
    assert code(site.send(made), 400) == f"InvalidParameter.{name}"


def test_off_there_is_no_such_action(make_bed: Callable[..., Any]) -> None:
    site = Site(make_bed(trace=TraceSettings(enabled=False)))
    assert code(site.send(site.make("QueryMqttTraceDevice", **asked(site, ClientId="c"))), 404) == "ApiNotSupport"


def test_every_action_has_a_code() -> None:
    assert set(CODES) == set(WORDS.values())


def test_a_group_page_by_page_and_counted(site: Site) -> None:
    bed = site.bed
    parties = [bed.connect(f"GID_abc@@@{number}") for number in range(3)]
    parties[1].drop()
    bed.advance(1)
    page = site.call("QuerySessionsByGroupId", GroupId="GID_abc", PageSize="2")
    assert (page["OnlineCount"], page["NextToken"]) == (2, "GID_abc@@@1")
    assert [(each["ClientId"], each["OnlineStatus"]) for each in page["OnlineStatusList"]] == [("GID_abc@@@0", True), ("GID_abc@@@1", False)]
    last = site.call("QuerySessionsByGroupId", GroupId="GID_abc", PageSize="2", NextToken=page["NextToken"])
    assert (len(last["OnlineStatusList"]), last["NextToken"]) == (1, "")
    counted = site.call("OnsMqttQueryClientByGroupId", GroupId="GID_abc", Version="2019-02-14")
    assert counted["MqttClientSetDo"] == {"OnlineCount": 2}
    assert code(site.send(site.make("QuerySessionsByGroupId", GroupId="a")), 400) == "InvalidParameter.GroupId"
