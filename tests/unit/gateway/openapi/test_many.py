"""Actions at one of many nodes: they answer and act for all, and say which node said nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.tracing import DEPTH
from tests.support.many_bed import ManyBed
from tests.unit.gateway.openapi.gate import Reply, app_of, ask
from tests.unit.gateway.openapi.requests import v1


class Site:
    """Asked is node one; the client is on node two."""

    def __init__(self, folder: Path) -> None:
        self.bed = ManyBed(folder)
        self.one, self.two = self.bed.start("one"), self.bed.start("two")
        assert self.one.app._keyring is not None
        self.key = self.bed.loop.finish(self.one.app._keyring.create("manager", 0))
        self.app = app_of(self.one.node, self.one.services())
        self.party = self.two.connect("GID_abc@@@1")
        self.party.subscribe("a", qos=1)
        self.two.connect("writer").exchange("a", b"x")
        self.bed.advance(2)

    def send(self, action: str, **fields: str) -> Reply:
        made = v1(self.key.id, self.key.secret.reveal(), action, self.one.node.clock.wall(), **{"InstanceId": "bed"} | fields)
        return self.bed.loop.finish(ask(self.app, made))

    def call(self, action: str, **fields: str) -> dict[str, Any]:
        reply = self.send(action, **fields)
        assert reply.status == 200, reply
        return reply.body

    def trace(self, action: str, **fields: str) -> dict[str, Any]:
        return self.call(action, **self.asked(), **fields)

    def asked(self, page: int = 1) -> dict[str, str]:
        return {"MqttRegionId": "here", "BeginTime": "1", "EndTime": str(2**53), "CurrentPage": str(page), "PageSize": "100"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.bed.close()


def test_a_connection_on_another_node_is_closed(site: Site) -> None:
    assert site.call("CloseConnection", ClientId="GID_abc@@@1")["Code"] == 200
    assert site.party.closed
    assert site.call("CloseConnection", ClientId="GID_abc@@@1")["Code"] == 404


def test_counts_and_traces_are_of_all_nodes(site: Site) -> None:
    for action in ("QuerySessionsByGroupId", "OnsMqttQueryClientByGroupId"):
        answer = site.call(action, GroupId="GID_abc")
        assert (answer.get("MqttClientSetDo") or answer)["OnlineCount"] == 1
        assert "SilentNodes" not in answer
    message = site.bed.published()[0].id.hex()
    published = site.trace("QueryMqttTraceMessagePublish", MsgId=message)
    assert [event["ClientId"] for event in published["MessageTraceLists"]] == ["writer"]
    assert published["GapList"] == []
    assert [event["Action"] for event in site.trace("QueryMqttTraceMessageSubscribe", MsgId=message)["MessageTraceLists"]] == ["sub", "ack"]
    assert [event["Action"] for event in site.trace("QueryMqttTraceDevice", ClientId="GID_abc@@@1")["DeviceInfoList"]] == ["connect"]


def test_a_node_that_says_nothing_is_named(site: Site) -> None:
    site.bed.cut_off(site.two)
    closed = site.call("CloseConnection", ClientId="GID_abc@@@1")
    assert (closed["Code"], closed["Success"]) == (503, False)
    assert closed["Message"].endswith("no answer of: two.")
    for action in ("QuerySessionsByGroupId", "OnsMqttQueryClientByGroupId"):
        assert site.call(action, GroupId="GID_abc")["SilentNodes"] == ["two"]
    gap = {"BeginTime": 1, "EndTime": 2**53, "Messages": 0, "Events": 0, "Node": "two"}
    assert site.trace("QueryMqttTraceDevice", ClientId="GID_abc@@@1")["GapList"] == [gap]
    assert site.trace("QueryMqttTraceMessagePublish", MsgId="ab" * 16)["GapList"] == [gap]


def test_a_page_too_deep_names_its_field(site: Site) -> None:
    assert site.send("QueryMqttTraceDevice", ClientId="c", **site.asked(DEPTH // 100)).status == 200
    reply = site.send("QueryMqttTraceDevice", ClientId="c", **site.asked(DEPTH // 100 + 1))
    assert (reply.status, reply.code) == (400, "InvalidParameter.CurrentPage")
