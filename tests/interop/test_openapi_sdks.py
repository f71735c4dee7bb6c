"""The official SDKs of the model product call every action through their endpoint override: the new one in both signature families, and the
classic one. Rules, parent topics and some others they have no methods for: their generic calls make these.

What they return has passed their models; what they raise has the product's codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from alibabacloud_onsmqtt20200420 import models
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkonsmqtt.request import v20200420
from Tea.exceptions import TeaException

from gateway.openapi.table import ACTIONS
from tests.support.certificates import Authority, Pair
from tests.support.gateway import Gateway
from tests.support.openapi_sdks import SDKS, Call, acted, pascal
from tests.support.wire import Clients

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CONNECTION = '[connections.main]\nkind = "rocketmq"\naddress = "127.0.0.1:1"\nallow_outflow = ["*"]\nallow_inflow = ["*"]\n'
SDK = pytest.mark.parametrize("sdk", SDKS)


class Site(NamedTuple):
    gateway: Gateway
    key: str
    secret: str
    instance: str

    def caller(self, sdk: Callable[..., Call], secret: str | None = None, called: set[str] | None = None) -> Call:
        """Calls an action by its snake-case name, for this instance; its name in the product goes into ``called``."""
        send = sdk(str(self.gateway.http), self.key, secret or self.secret)

        def call(action: str, *, instance: bool = True, **fields: Any) -> Any:
            if instance:
                fields.setdefault("instance_id", self.instance)
            if called is not None:
                called.add(pascal(action))
            return send(action, **fields)

        return call

    def classic(self, action: str, secret: str | None = None, **fields: Any) -> Any:
        """By the classic SDK's class for this action, where it has one."""
        module = __import__(f"{v20200420.__name__}.{action}Request", fromlist=["x"])
        request = getattr(module, f"{action}Request")()
        request.set_endpoint(str(self.gateway.http))
        request.set_InstanceId(self.instance)
        for name, value in fields.items():
            getattr(request, f"set_{name}")(value)
        return acted(AcsClient(self.key, secret or self.secret, "mq-internet-access"), request)


@pytest.fixture
def site(start_gateway: Callable[..., Gateway], tmp_path: Path) -> Iterator[Site]:
    server = Authority(tmp_path, "server authority").issue("server")
    files = ("--tls-certificate", str(server.certificate), "--tls-key", str(server.key))
    gateway = start_gateway(anonymous=True, listen=("mqtts",), arguments=files, config=CONNECTION)
    key = json.loads(gateway.run("key", "create", "--role", "manager", "--json"))
    return Site(gateway, key["accessKeyId"], key["accessKeySecret"], key["instanceId"])


def raised(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises((TeaException, ServerException)) as found:
        call()
    error = found.value
    if isinstance(error, ServerException):
        return error.get_http_status(), error.get_error_code()
    return error.statusCode, error.code


@SDK
async def test_every_action_answers_every_sdk(site: Site, sdk: Callable[..., Call], clients: Clients) -> None:
    called: set[str] = set()
    call = site.caller(sdk, called=called)
    device = "GID_sdk@@@d 1é"
    wire = await clients.connect(site.gateway.mqtt, device)
    await clients.connect(site.gateway.mqtt, "GID_sdk@@@e")
    async with asyncio.timeout(10):  # the status is a fold over events: it follows the CONNACK, soon
        while not all(call("query_session_by_client_id", client_id=client).online_status for client in (device, "GID_sdk@@@e")):
            await asyncio.sleep(0.02)
    batch = call("batch_query_session_by_client_ids", client_id_list=[device, "GID_sdk@@@other"])
    assert [(s.client_id, s.online_status) for s in batch.online_status_list] == [(device, True), ("GID_sdk@@@other", False)]
    await wire.subscribe("plant/#")
    sent = call("send_message", mqtt_topic="plant/a b~*c", payload="hello ~*&=+/ü")
    assert len(sent.msg_id) == 32
    [message] = await wire.publishes(1)
    assert message.payload == "hello ~*&=+/ü".encode()
    _traces(call, device, sent.msg_id)
    _batch(call)
    assert sorted(message.topic for message in await wire.publishes(2)) == ["plant/b", "plant/c"]
    _group_online(call, [device, "GID_sdk@@@e"])
    _groups_and_devices(call)
    _topics(call)
    _identities(call)
    closed = call("close_connection", client_id=device)
    assert (closed.code, closed.success) == (200, True)
    assert call("close_connection", client_id=device).success is False
    assert call("list_instances", instance=False).instances[0].instance_id == site.instance
    _tags(call, site.instance)
    _tokens(call)
    for family in ("mqtt_outbound_rule", "mqtt_inbound_rule", "client_status_notify_rule"):
        _rules(call, family)
    assert call("disaster_recovery", recovery_instance_id="other").success is False
    assert call("disaster_downgrade", downgrade_instance_id="other").success is False
    sni = lambda: call("set_sni_config", instance=False, mqtt_instance_id=site.instance, default_certificate="x")  # noqa: E731
    assert raised(sni) == (404, "ApiNotSupport")
    _authorities(functools.partial(call, instance=False, mqtt_instance_id=site.instance), site)
    assert called == set(ACTIONS), "an action that no SDK has called"


def _in_pages(ask: Callable[[str], tuple[list[Any], str]]) -> list[Any]:
    """What all pages have, each asked for with the token of the one before."""
    found, token = ask("")
    while token:
        assert len(found) < 10
        rows, token = ask(token)
        found += rows
    return found


def _batch(call: Call) -> None:
    messages = [{"Id": 1, "Topics": ["plant/b", "plant/c"], "Payload": "é ~*"}, {"Id": 2, "Topics": ["plant/#"], "Payload": "x"}]
    right, wrong = call("batch_send_messages", messages=messages).responses
    assert (right.id, len(right.msg_id), right.error_code) == (1, 65, 0)
    assert (wrong.id, wrong.msg_id, wrong.error_code) == (2, "", 400)


def _group_online(call: Call, clients: list[str]) -> None:
    assert call("ons_mqtt_query_client_by_group_id", group_id="GID_sdk").mqtt_client_set_do.online_count == 2

    def page(token: str) -> tuple[list[Any], str]:
        found = call("query_sessions_by_group_id", group_id="GID_sdk", page_size=1, next_token=token)
        return [(status.client_id, status.online_status) for status in found.online_status_list], found.next_token

    assert _in_pages(page) == [(client, True) for client in clients]


def _topics(call: Call) -> None:
    call("create_topic", topic="shop", remark="first")
    call("update_topic", topic="shop", remark="ä ~*& second")
    assert [(topic.topic, topic.remark) for topic in call("list_topic").data] == [("shop", "ä ~*& second")]
    call("delete_topic", topic="shop")
    assert call("list_topic").data == []


def _rules(call: Call, family: str) -> None:
    resource = {"group_id": "GID_shop"} if family.startswith("client") else {"mqtt_topic": "shop"}
    target = {"target_type": "ROCKETMQ", "target_instance_id": "main", "target_topic": "orders"}
    call(f"create_{family}", rule_id="one", description="the first", status="0", **resource, **target)
    assert raised(lambda: call(f"create_{family}", rule_id="one", **resource, **target)) == (400, "InvalidParameter.RuleId")
    call(f"update_{family}", rule_id="one", description="ä ~*& changed")
    [rule] = call(f"list_{family}_in_page", page_no="1", page_size="10").data.rules
    assert (rule.description, rule.status, rule.target_topic) == ("ä ~*& changed", 0, "orders")
    call(f"delete_{family}", rule_id="one")
    assert call(f"list_{family}_in_page").data.total == 0


def _traces(call: Call, device: str, message: str) -> None:
    now = int(time.time() * 1000)
    window = {"mqtt_region_id": "here", "begin_time": now - 600_000, "end_time": now + 60_000}
    paged = window | {"current_page": 1, "page_size": 10}
    found = call("query_mqtt_trace_device", client_id=device, reverse=True, **paged)
    assert (found.total, found.device_info_list[0].action_code) == (1, "mqtt.trace.action.connect")
    [published] = call("query_mqtt_trace_message_publish", msg_id=message, **window).message_trace_lists
    assert (published.msg_id, published.action) == (message, "pub_api")
    pushed = call("query_mqtt_trace_message_subscribe", msg_id=message, **paged).message_trace_lists[0]
    assert (pushed.client_id, pushed.action_info) == (device, "Push To Mqtt Client")
    [first, *_] = call("query_mqtt_trace_message_of_client", client_id=device, **paged).message_of_client_list
    assert (first.msg_id, first.action) == (message, "sub")


def _groups_and_devices(call: Call) -> None:
    tags = '[{"Key":"made by","Value":"~*ü"}]'
    call("create_group_id", group_id="GID_sdk", tags=tags)
    call("create_group_id", group_id="GID_none")
    assert [group.group_id for group in call("list_group_id", tags=tags).data] == ["GID_sdk"]
    call("delete_group_id", group_id="GID_none")
    assert raised(lambda: call("create_group_id", group_id="GID_sdk")) == (400, "GroupIdAlreadyExsited")
    assert raised(lambda: call("create_group_id", group_id="sdk")) == (400, "ParameterFieldCheckFailed")
    assert [(g.group_id, g.independent_naming) for g in call("list_group_id").data] == [("GID_sdk", True)]
    made = call("register_device_credential", client_id="GID_sdk@@@d1").device_credential
    assert made.device_access_key_secret.startswith("DC.")
    assert call("get_device_credential", client_id="GID_sdk@@@d1").device_credential.to_map() == made.to_map()
    fresh = call("refresh_device_credential", client_id="GID_sdk@@@d1").device_credential
    assert fresh.device_access_key_id == made.device_access_key_id
    assert fresh.device_access_key_secret != made.device_access_key_secret
    call("register_device_credential", client_id="GID_sdk@@@d2")

    def page(token: str) -> tuple[list[Any], str]:
        found = call("list_device_credential_client_id", group_id="GID_sdk", page_size="1", next_token=token).device_credential_client_id_list
        assert found.total == "2"
        return list(found.client_id_list), found.next_token

    assert _in_pages(page) == ["GID_sdk@@@d1", "GID_sdk@@@d2"]
    call("un_register_device_credential", client_id="GID_sdk@@@d1")
    assert raised(lambda: call("get_device_credential", client_id="GID_sdk@@@d1")) == (400, "InvalidParameter.ClientId")
    call("delete_group_id", group_id="GID_sdk")
    assert raised(lambda: call("delete_group_id", group_id="GID_sdk")) == (400, "InvalidParameter.GroupId")


def _identities(call: Call) -> None:
    def rows(query: str) -> list[Any]:
        def page(token: str) -> tuple[list[Any], str]:
            data = call(query, size=1, next_token=token).data
            return list(data.results), data.next_token

        return _in_pages(page)

    named = {"username": "user one", "identity_type": "USER"}
    of_client = {"username": "user one", "identity_type": "CLIENT", "client_id": "any ü"}
    assert call("add_custom_auth_identity", **named, secret="s&=+ü", sign_mode="ORIGIN").success is True
    call("update_custom_auth_identity", **named, secret="two", sign_mode="SIGNED")
    call("add_custom_auth_identity", **of_client, secret="three", sign_mode="ORIGIN")
    assert [(identity.username, identity.client_id, identity.secret, identity.sign_mode) for identity in rows("query_custom_auth_identity")] == [
        ("user one", "any ü", "three", "ORIGIN"),
        ("user one", "", "two", "SIGNED"),
    ]
    rule = {"identity": "user one", "identity_type": "USER", "topic": "plant/#"}
    rule_of_client = {"identity": "any ü", "identity_type": "CLIENT", "topic": "plant/+/ü"}
    call("add_custom_auth_permission", **rule, permit_action="PUB", effect="ALLOW")
    call("update_custom_auth_permission", **rule, permit_action="SUB", effect="DENY")
    call("add_custom_auth_permission", **rule_of_client, permit_action="ALL", effect="ALLOW")
    found = [(row.identity_type, row.topic, row.permit_action, row.effect) for row in rows("query_custom_auth_permission")]
    assert found == [("CLIENT", "plant/+/ü", "ALL", "ALLOW"), ("USER", "plant/#", "SUB", "DENY")]
    call("delete_custom_auth_permission", **rule)
    call("delete_custom_auth_permission", **rule_of_client)
    assert rows("query_custom_auth_permission") == []
    for client in ("bad one", "bad two"):
        call("add_custom_auth_connect_black", client_id=client)
    blocks = [(black.client_id, black.permit_action, black.effect) for black in rows("query_custom_auth_connect_black")]
    assert blocks == [("bad one", "CONNECT", "DENY"), ("bad two", "CONNECT", "DENY")]
    call("delete_custom_auth_connect_black", client_id="bad one")
    call("delete_custom_auth_identity", **of_client)
    call("delete_custom_auth_identity", **named)
    assert raised(lambda: call("delete_custom_auth_identity", **named)) == (400, "InvalidParameter.Username")


def _tags(call: Call, instance: str) -> None:
    where = {"instance": False, "resource_type": "INSTANCE", "resource_id": [instance]}
    assert call("tag_resources", **where, tag=[models.TagResourcesRequestTag(key="k", value="v")]).data is True
    [tag] = call("list_tag_resources", **where).tag_resources
    assert (tag.resource_id, tag.tag_key, tag.tag_value) == (instance, "k", "v")
    call("untag_resources", **where, tag_key=["k"])
    assert call("list_tag_resources", **where).tag_resources == []


def _tokens(call: Call) -> None:
    expires = int(time.time() + 3600) * 1000
    token = call("apply_token", resources="plant/#,plant/+/x", actions="R,W", expire_time=expires).token
    assert call("query_token", token=token).token_status is True
    call("revoke_token", token=token)
    assert call("query_token", token=token).token_status is False
    assert raised(lambda: call("apply_token", resources="plant/#", actions="X", expire_time=expires)) == (400, "ParameterCheckFailed")


def _authorities(call: Call, site: Site) -> None:
    """X.509: a device of a registered authority comes by TLS, and goes when its certificate is refused."""
    authority = Authority(site.gateway.data)
    proof = authority.verification(call("get_register_code").register_code)
    named = {"ca_name": "mqtt_ca", "ca_content": authority.pem}
    assert raised(lambda: call("register_ca_certificate", **named, verification_content="x")) == (400, "ParameterFieldCheckFailed")
    wrong = authority.verification("another code")
    assert raised(lambda: call("register_ca_certificate", **named, verification_content=wrong)) == (500, "RegisterCodeError")
    serial = call("register_ca_certificate", **named, verification_content=proof).sn
    shown = call("get_ca_certificate", sn=serial).data
    assert (shown.ca_name, shown.ca_content, shown.status) == ("mqtt_ca", authority.pem, "1")
    listed = call("list_ca_certificate", page_no="1", page_size="10").data
    assert ([ca.to_map() for ca in listed.ca_certificate_vos], listed.total) == ([shown.to_map()], 1)
    with tls_client(site.gateway, authority.issue("d1", client=True)) as connected:
        assert connected.answer() == 0
        device = call("list_device_certificate", page_no="1", page_size="10").data.device_certificate_vos[0]
        assert (device.ca_sn, device.device_name, device.status) == (serial, "d1", "1")
        of_ca = call("list_device_certificate_by_ca_sn", ca_sn=serial, page_no="1", page_size="10").data
        assert of_ca.device_certificate_vos[0].to_map() == device.to_map()
        known = {"ca_sn": serial, "device_sn": device.device_sn}
        assert call("get_device_certificate", **known).data.to_map() == device.to_map()
        assert call("inactivate_device_certificate", **known).device_sn == device.device_sn
        assert connected.is_closed(within=5)
    call("active_device_certificate", **known)
    with tls_client(site.gateway, authority.issue("d2", client=True)) as connected:
        assert connected.answer() == 0
        assert call("inactivate_ca_certificate", sn=serial).sn == serial
        assert connected.is_closed(within=5)
    call("active_ca_certificate", sn=serial)
    call("delete_device_certificate", **known)
    assert raised(lambda: call("get_device_certificate", **known)) == (500, "FindDeviceBySnError")
    call("delete_ca_certificate", sn=serial)
    assert raised(lambda: call("get_ca_certificate", sn=serial)) == (500, "FindCaBySnError")


class TlsClient(NamedTuple):
    stream: ssl.SSLSocket

    def answer(self) -> int:
        """The return code of the CONNACK to a CONNECT without a password."""
        self.stream.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02dv")
        return self.stream.recv(4)[3]

    def is_closed(self, within: float) -> bool:
        self.stream.settimeout(within)
        return self.stream.recv(1) == b""


@contextlib.contextmanager
def tls_client(gateway: Gateway, pair: Pair) -> Iterator[TlsClient]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_connection(gateway.endpoints["mqtts"], 5) as raw, context.wrap_socket(raw) as stream:
        yield TlsClient(stream)


@SDK
def test_what_is_wrong_with_a_call_is_raised_with_its_code(site: Site, sdk: Callable[..., Call]) -> None:
    call = site.caller(sdk)
    assert raised(lambda: call("query_session_by_client_id", client_id="c", instance_id="other")) == (400, "InstancePermissionCheckFailed")
    assert raised(lambda: call("query_session_by_client_id", client_id="")) == (400, "InvalidParameter.ClientId")
    wrong = site.caller(sdk, secret="wrong")
    assert raised(lambda: wrong("query_session_by_client_id", client_id="c")) == (400, "SignatureDoesNotMatch")
    nobody = site._replace(key="nobody").caller(sdk)
    assert raised(lambda: nobody("query_session_by_client_id", client_id="c")) == (404, "InvalidAccessKeyId.NotFound")


def test_the_classic_sdk_calls_what_it_knows(site: Site) -> None:
    call = site.classic
    call("CreateGroupId", GroupId="GID_old")
    assert call("ListGroupId")["Data"][0]["GroupId"] == "GID_old"
    assert call("QuerySessionByClientId", ClientId="GID_old@@@d")["OnlineStatus"] is False
    batch = call("BatchQuerySessionByClientIds", ClientIdLists=["GID_old@@@d"])
    assert batch["OnlineStatusList"] == [{"ClientId": "GID_old@@@d", "OnlineStatus": False}]
    assert len(call("SendMessage", MqttTopic="plant/~a*b", Payload="ü +&")["MsgId"]) == 32
    made = call("RegisterDeviceCredential", ClientId="GID_old@@@d")["DeviceCredential"]
    assert call("GetDeviceCredential", ClientId="GID_old@@@d")["DeviceCredential"] == made
    call("RefreshDeviceCredential", ClientId="GID_old@@@d")
    call("UnRegisterDeviceCredential", ClientId="GID_old@@@d")
    token = call("ApplyToken", Resources="plant/#", Actions="R", ExpireTime=int(time.time() + 600) * 1000)["Token"]
    assert call("QueryToken", Token=token)["TokenStatus"] is True
    call("RevokeToken", Token=token)
    call("DeleteGroupId", GroupId="GID_old")
    assert raised(lambda: call("DeleteGroupId", GroupId="GID_old")) == (400, "InvalidParameter.GroupId")
    # What its classes make of SignatureDoesNotMatch where both ends have signed the same text
    assert raised(lambda: call("ListGroupId", secret="wrong")) == (400, "InvalidAccessKeySecret")
