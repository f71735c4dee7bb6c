"""Every parameter that an action needs, missing, empty, too long, of the wrong kind: HTTP 400 and the code that the product documents for it.

``VALID`` is a call of each action that is right as far as its parameters go; each is then broken in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from gateway.openapi.table import ACTIONS
from schemas.limits import KIB, Limits
from tests.unit.gateway.openapi.test_endpoint import OF_STATUS_500, Site, code
from tests.unit.gateway.rules.conftest import RuleBed
from tests.unit.gateway.rules.conftest import make_bed as make_bed

CLIENT, GROUP, TOPIC = {"ClientId": "GID_shop@@@b"}, {"GroupId": "GID_shop"}, {"Topic": "shop"}
IDENTITY = {"Username": "u", "IdentityType": "USER"}
PERMISSION = {"Identity": "u", "IdentityType": "USER", "Topic": "shop/#"}
PAGE = {"CurrentPage": "1", "PageSize": "10"}
SPAN = {"MqttRegionId": "local", "BeginTime": "1700000000000", "EndTime": "1700000060000"}
RESOURCE = {"ResourceType": "GROUP", "ResourceId.1": "GID_shop"}
TARGET = {"RuleId": "one", "TargetInstanceId": "main", "TargetTopic": "orders"}

VALID: dict[str, dict[str, str]] = {
    "QuerySessionByClientId": CLIENT,
    "BatchQuerySessionByClientIds": {"ClientIdList.1": "GID_shop@@@b"},
    "CloseConnection": CLIENT,
    "SendMessage": {"MqttTopic": "shop/a", "Payload": "x"},
    "ApplyToken": {"Resources": "shop/#", "Actions": "R", "ExpireTime": "9999999999999"},
    "QueryToken": {"Token": "x"},
    "RevokeToken": {"Token": "x"},
    "CreateGroupId": GROUP,
    "DeleteGroupId": GROUP,
    "CreateTopic": TOPIC,
    "UpdateTopic": TOPIC,
    "DeleteTopic": TOPIC,
    "RegisterDeviceCredential": CLIENT,
    "GetDeviceCredential": CLIENT,
    "RefreshDeviceCredential": CLIENT,
    "UnRegisterDeviceCredential": CLIENT,
    "ListDeviceCredentialClientId": GROUP | {"PageSize": "10"},
    "TagResources": RESOURCE | {"Tag.1.Key": "k"},
    "UntagResources": RESOURCE | {"TagKey.1": "k"},
    "ListTagResources": {"ResourceType": "GROUP"},
    "AddCustomAuthIdentity": IDENTITY | {"Secret": "s", "SignMode": "ORIGIN"},
    "UpdateCustomAuthIdentity": IDENTITY | {"Secret": "s", "SignMode": "ORIGIN"},
    "DeleteCustomAuthIdentity": IDENTITY,
    "QueryCustomAuthIdentity": {"Size": "10"},
    "AddCustomAuthPermission": PERMISSION | {"PermitAction": "PUB", "Effect": "ALLOW"},
    "UpdateCustomAuthPermission": PERMISSION | {"PermitAction": "PUB", "Effect": "ALLOW"},
    "DeleteCustomAuthPermission": PERMISSION,
    "QueryCustomAuthPermission": {"Size": "10"},
    "AddCustomAuthConnectBlack": CLIENT,
    "DeleteCustomAuthConnectBlack": CLIENT,
    "QueryCustomAuthConnectBlack": {"Size": "10"},
    "CreateMqttOutboundRule": TARGET | {"MqttTopic": "shop"},
    "CreateMqttInboundRule": TARGET | {"MqttTopic": "shop"},
    "CreateClientStatusNotifyRule": TARGET | GROUP,
    "DisasterRecovery": {"RecoveryInstanceId": "other"},
    "DisasterDowngrade": {"DowngradeInstanceId": "other"},
    "SetSniConfig": {"DefaultCertificate": "x"},
    "RegisterCaCertificate": {"CaName": "a", "CaContent": "x", "VerificationContent": "x"},
    **{f"{verb}CaCertificate": {"Sn": "1f"} for verb in ("Get", "Active", "Inactivate", "Delete")},
    **{f"{verb}DeviceCertificate": {"CaSn": "1f", "DeviceSn": "2f"} for verb in ("Get", "Active", "Inactivate", "Delete")},
    "ListCaCertificate": {"PageNo": "1", "PageSize": "10"},
    "ListDeviceCertificate": {"PageNo": "1", "PageSize": "10"},
    "ListDeviceCertificateByCaSn": {"CaSn": "1f"},  # pages as of the other two, behind the question whether there is such an authority
    "QuerySessionsByGroupId": GROUP,
    "OnsMqttQueryClientByGroupId": GROUP,
    "QueryMqttTraceDevice": CLIENT | SPAN | PAGE,
    "QueryMqttTraceMessageOfClient": CLIENT | SPAN | PAGE,
    "QueryMqttTraceMessagePublish": {"MsgId": "0" * 32} | SPAN,
    "QueryMqttTraceMessageSubscribe": {"MsgId": "0" * 32} | SPAN | PAGE,
    **{f"{verb}{family}": {"RuleId": "one"} for verb in ("Update", "Delete") for family in ("MqttOutboundRule", "MqttInboundRule")},
    **{f"{verb}ClientStatusNotifyRule": {"RuleId": "one"} for verb in ("Update", "Delete")},
}
LONG_ALLOWED = {"Payload": 65_537, "DefaultCertificate": 65_537, "Resources": 16_385, "Token": 8_193}
"""Characters that are too many, where it is more than of a name."""


@pytest.fixture
def site(make_bed: Callable[..., RuleBed]) -> Site:
    return Site(make_bed(limits=msgspec.structs.replace(Limits(), packet=64 * KIB)))


def broken(action: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The parameter that is to blame, and the call."""
    for name, value in VALID[action].items():
        others = {key: kept for key, kept in VALID[action].items() if key != name}
        yield name, others
        yield name, others | {name: ""}
        yield name, others | {name: "x" * LONG_ALLOWED.get(name, 8_000)}
        yield name, others | {name: value[:1] + "\x00"}
        if value.isdigit():
            for wrong in ("x", "-1", "1e3", "1.5", "9" * 30, "١", *([] if name in SPAN else ["0"])):  # 1970 is a time
                yield name, others | {name: wrong}


def expected(action: str, name: str) -> str:
    bad = ACTIONS[action].bad
    return f"InvalidParameter.{name.partition('.')[0]}" if bad == "InvalidParameter" else bad


@pytest.mark.slow
@pytest.mark.parametrize("action", sorted(VALID))
def test_a_broken_parameter_is_the_documented_code_and_changes_nothing(site: Site, action: str) -> None:
    if action.lower().endswith("tagresources"):
        site.call("CreateGroupId", **GROUP)
    before = {key for key in site.bed.store._state.documents if key[0] != "nonce"}
    for name, fields in broken(action):
        version = {"Version": ACTIONS[action].versions[0]}
        found = code(site.send(site.make(action, **version, MqttInstanceId="bed", **fields)), 400)
        assert found == expected(action, name), (name, {key: value[:12] for key, value in fields.items()}, found)
    assert {key for key in site.bed.store._state.documents if key[0] != "nonce"} == before
    assert not site.bed.engine.rules


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_the_instance_is_the_one_that_there_is(site: Site, action: str) -> None:
    if action in ("ListInstances", "BatchSendMessages", "TagResources", "UntagResources", "ListTagResources"):
        return  # these need none
    for instance in ("", "other", "x" * 300):
        fields = VALID.get(action, {}) | {"InstanceId": instance, "MqttInstanceId": instance} | {"Version": ACTIONS[action].versions[0]}
        allowed = {"InstancePermissionCheckFailed", "InstanceNotFound", expected(action, "InstanceId"), expected(action, "MqttInstanceId")}
        response = site.send(site.make(action, **fields))
        assert code(response, 500 if response.json()["Code"] in OF_STATUS_500 else 400) in {*allowed, *OF_STATUS_500}


def test_every_action_with_parameters_is_here() -> None:
    without = {name for name in ACTIONS if name not in VALID}
    lists = {"ListGroupId", "ListTopic", "ListInstances", "GetRegisterCode", *(name for name in ACTIONS if name.endswith("InPage"))}
    assert without == lists | {"BatchSendMessages"}  # its faults are in its answer, message by message
