"""Rules and parent topics over OpenAPI. The official SDKs have no methods for these actions: their generic calls make them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alibabacloud_tea_openapi.client import Client
from alibabacloud_tea_openapi.models import Config, OpenApiRequest, Params
from alibabacloud_tea_util.models import RuntimeOptions
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest
from Tea.exceptions import TeaException

from tests.support.gateway import Gateway

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

VERSION = "2020-04-20"
CONNECTION = '[connections.main]\nkind = "rocketmq"\naddress = "127.0.0.1:1"\nallow_outflow = ["*"]\nallow_inflow = ["*"]\n'
TARGET = {"TargetType": "ROCKETMQ", "TargetInstanceId": "main", "TargetTopic": "orders"}

Call = Callable[..., dict[str, Any]]


def tea(http: str, key: str, secret: str, instance: str) -> Call:
    client = Client(Config(access_key_id=key, access_key_secret=secret, endpoint=http, protocol="HTTP"))

    def call(action: str, **fields: str) -> dict[str, Any]:
        params = Params(
            action=action, version=VERSION, protocol="HTTP", pathname="/", method="POST", auth_type="AK", style="RPC",
            req_body_type="formData", body_type="json",
        )  # fmt: skip
        request = OpenApiRequest(query={"InstanceId": instance, **fields})
        return client.call_api(params, request, RuntimeOptions(autoretry=False))["body"]  # type: ignore[no-any-return]

    return call


def classic(http: str, key: str, secret: str, instance: str) -> Call:
    client = AcsClient(key, secret, "mq-internet-access")

    def call(action: str, **fields: str) -> dict[str, Any]:
        request = CommonRequest(domain=http, version=VERSION, action_name=action)
        request.set_method("POST")
        for name, value in {"InstanceId": instance, **fields}.items():
            request.add_query_param(name, value)
        return json.loads(client.do_action_with_exception(request))  # type: ignore[no-any-return]

    return call


@pytest.fixture(params=[tea, classic])
def call(request: pytest.FixtureRequest, start_gateway: Callable[..., Gateway]) -> Iterator[Call]:
    gateway = start_gateway(anonymous=True, config=CONNECTION)
    key = json.loads(gateway.run("key", "create", "--role", "manager", "--json"))
    yield request.param(str(gateway.http), key["accessKeyId"], key["accessKeySecret"], key["instanceId"])


@pytest.mark.parametrize("family", ["MqttOutboundRule", "MqttInboundRule", "ClientStatusNotifyRule"])
def test_rules(call: Call, family: str) -> None:
    resource = {"GroupId": "GID_shop"} if family.startswith("Client") else {"MqttTopic": "shop"}
    call(f"Create{family}", RuleId="one", Description="the first", Status="0", **resource, **TARGET)
    with pytest.raises((TeaException, ServerException)) as found:
        call(f"Create{family}", RuleId="one", **resource, **TARGET)
    code = found.value.get_error_code() if isinstance(found.value, ServerException) else found.value.code
    assert code == "InvalidParameter.RuleId"
    call(f"Update{family}", RuleId="one", Description="ä ~*& changed")
    [rule] = call(f"List{family}InPage", PageNo="1", PageSize="10")["Data"]["Rules"]
    assert (rule["Description"], rule["Status"], rule["TargetTopic"]) == ("ä ~*& changed", 0, "orders")
    call(f"Delete{family}", RuleId="one")
    assert call(f"List{family}InPage")["Data"]["Total"] == 0


def test_topics(call: Call) -> None:
    call("CreateTopic", Topic="shop", Remark="first")
    call("UpdateTopic", Topic="shop", Remark="second")
    assert [(topic["Topic"], topic["Remark"]) for topic in call("ListTopic")["Data"]] == [("shop", "second")]
    call("DeleteTopic", Topic="shop")
    assert call("ListTopic")["Data"] == []
