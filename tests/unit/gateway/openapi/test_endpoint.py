"""The route `/` on a gateway without sockets: who may ask, when and how often, what a fault looks like, and that no parameter breaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway.api.guard import MAX_BODY
from gateway.auth.keys import NewKey
from gateway.openapi.table import ACTIONS
from gateway.services import Services
from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.gate import app_of
from tests.unit.gateway.openapi.requests import acs3, v1

OF_STATUS_500 = ("MqttInstanceNotFound", "FindCaBySnError", "FindDeviceBySnError", "RegisterCodeError")
"""Codes of bad parameters that the product has with this status."""
FAMILIES = pytest.mark.parametrize("family", [v1, acs3])


class Site:
    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        services = Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0)
        self.app = app_of(bed.node, services)
        self.key = bed.loop.finish(bed.keyring.create("manager", 0))

    def send(self, made: Any, peer: str = "127.0.0.1") -> httpx.Response:
        method, target, headers, body = made
        if len(target) > 8_000:  # the HTTP client takes no longer URL; Signature V1 signs query and form alike
            headers, body, target = {**headers, "content-type": "application/x-www-form-urlencoded"}, target[2:].encode(), "/"

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(peer, 9))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, target, headers=headers, content=body)

        return self.bed.loop.finish(ask())

    def make(self, action: str, family: Callable[..., Any] = v1, key: NewKey | None = None, **fields: str) -> Any:
        key = key or self.key
        now = self.bed.clock.wall()
        return family(key.id, key.secret.reveal(), action, now, **{"InstanceId": "bed"} | fields)

    def call(self, action: str, family: Callable[..., Any] = v1, key: NewKey | None = None, **fields: str) -> dict[str, Any]:
        response = self.send(self.make(action, family, key, **fields))
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]


@pytest.fixture
def site(bed: Testbed) -> Site:
    return Site(bed)


def code(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"RequestId", "HostId", "Code", "Message"}
    return body["Code"]  # type: ignore[no-any-return]


@FAMILIES
def test_an_action_answers_with_a_request_id(site: Site, family: Callable[..., Any]) -> None:
    site.bed.connect("dev")
    site.bed.advance(1)
    answer = site.call("QuerySessionByClientId", family, ClientId="dev")
    assert answer.pop("RequestId").isupper()
    assert answer == {"OnlineStatus": True}


def test_get_and_a_form_are_taken_as_well(site: Site) -> None:
    key = site.key
    now = site.bed.clock.wall()
    assert site.send(v1(key.id, key.secret.reveal(), "ListGroupId", now, "GET", InstanceId="bed")).status_code == 200
    body = b"InstanceId=bed&GroupId=GID_form"
    made = acs3(key.id, key.secret.reveal(), "CreateGroupId", now, body, {"content-type": "application/x-www-form-urlencoded"})
    assert site.send(made).status_code == 200
    assert [group["GroupId"] for group in site.call("ListGroupId")["Data"]] == ["GID_form"]


@pytest.mark.slow
@FAMILIES
def test_of_a_thousand_repeats_none_is_taken(site: Site, family: Callable[..., Any]) -> None:
    made = site.make("SendMessage", family, MqttTopic="a", Payload="once")
    assert site.send(made).status_code == 200
    for _ in range(500):
        assert code(site.send(made), 400) == "SignatureNonceUsed"
    assert [record.payload for record in site.bed.published()] == [b"once"]


def test_a_repeat_is_refused_after_a_crash_and_for_as_long_as_its_time_is_fresh(site: Site) -> None:
    made = site.make("ListGroupId")
    assert site.send(made).status_code == 200
    site.bed.crash()
    again = Site(site.bed)
    assert code(again.send(made), 400) == "SignatureNonceUsed"
    site.bed.advance(900)
    assert code(again.send(made), 400) == "SignatureNonceUsed"
    site.bed.advance(1)
    assert code(again.send(made), 400) == "InvalidTimeStamp.Expired"
    site.bed.advance(1800)
    assert site.bed.store._state.documents == {key: value for key, value in site.bed.store._state.documents.items() if key[0] != "nonce"}


def test_one_nonce_may_be_of_two_keys(site: Site) -> None:
    other = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    site.call("ListGroupId", SignatureNonce="same")
    site.call("ListGroupId", key=other, SignatureNonce="same")


@FAMILIES
@pytest.mark.parametrize(("off", "taken"), [(-901, False), (-899, True), (899, True), (901, False)])
def test_the_clock_of_a_request_may_differ_by_a_quarter_of_an_hour(site: Site, family: Callable[..., Any], off: int, taken: bool) -> None:
    made = family(site.key.id, site.key.secret.reveal(), "ListGroupId", site.bed.clock.wall() + off * 1000, InstanceId="bed")
    response = site.send(made)
    assert response.status_code == 200 if taken else code(response, 400) == "InvalidTimeStamp.Expired"


@FAMILIES
def test_who_is_not_known_or_signs_wrong(site: Site, family: Callable[..., Any]) -> None:
    now = site.bed.clock.wall()
    assert code(site.send(family("nobody", "x", "ListGroupId", now, InstanceId="bed")), 404) == "InvalidAccessKeyId.NotFound"
    assert code(site.send(family(site.key.id, "x", "ListGroupId", now, InstanceId="bed")), 400) == "SignatureDoesNotMatch"
    site.bed.loop.finish(site.bed.keyring.revoke(site.key.id))
    assert code(site.send(site.make("ListGroupId", family)), 404) == "InvalidAccessKeyId.NotFound"


def test_both_secrets_sign_while_a_key_is_rotated(site: Site) -> None:
    old = site.key
    site.key = site.bed.loop.finish(site.bed.keyring.rotate(old.id, site.bed.clock.wall(), 60_000))
    site.call("ListGroupId")
    site.call("ListGroupId", key=old)
    site.bed.advance(61)
    assert code(site.send(site.make("ListGroupId", key=old)), 400) == "SignatureDoesNotMatch"


@pytest.mark.slow
def test_a_key_that_fails_too_often_waits(site: Site) -> None:
    now = site.bed.clock.wall()
    for _ in range(100):
        site.send(v1(site.key.id, "wrong", "ListGroupId", now, InstanceId="bed"))
    assert code(site.send(site.make("ListGroupId")), 429) == "Throttling"
    site.bed.advance(61)
    site.call("ListGroupId")


@pytest.mark.slow
def test_an_address_that_fails_too_often_waits_and_no_other(bed: Testbed, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(bed)
    bed.node.authenticator._allow_plaintext = True
    now = bed.clock.wall()
    for number in range(10):  # limits.login_failures_address
        assert code(site.send(v1(f"nobody{number}", "x", "ListGroupId", now, InstanceId="bed"), "192.0.2.1"), 404) == "InvalidAccessKeyId.NotFound"
    for _ in range(3):
        assert code(site.send(site.make("ListGroupId"), "192.0.2.1"), 429) == "Throttling"
    assert [line for line in caplog.messages if "spent" in line] == ["login-failures-spent address='192.0.2.1' seconds=60"]
    assert bed.node.counters.refused["login_failures"] == 3
    assert site.send(site.make("ListGroupId"), "192.0.2.2").status_code == 200
    assert bed.node.failed_logins.refuse("192.0.2.1", "x"), "MQTT logins have the same budget"
    bed.advance(61)
    assert site.send(site.make("ListGroupId"), "192.0.2.1").status_code == 200


def test_another_machine_needs_tls(site: Site) -> None:
    assert code(site.send(site.make("ListGroupId"), peer="192.0.2.1"), 403) == "Forbidden.Plaintext"


@pytest.mark.parametrize("action", ["", "NoSuchAction", "listgroupid", "__init__", "BatchSendMessages"])
def test_what_is_no_action_of_this_version(site: Site, action: str) -> None:
    made = site.make("ListGroupId") if not action else site.make(action)
    if not action:
        return
    assert code(site.send(made), 404) == "ApiNotSupport"


def test_a_devices_key_manages_nothing(site: Site) -> None:
    device = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    for name, action in ACTIONS.items():
        if action.manages:
            assert code(site.send(site.make(name, key=device)), 403) == "Forbidden", name
    site.call("QuerySessionByClientId", key=device, ClientId="x")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_no_parameter_breaks_an_action(site: Site, name: str) -> None:
    """Missing, empty, too long, of the wrong kind: a 4xx with a code of the product and no stored change, never a 5xx that the product lacks."""
    fields = "ClientId GroupId Topic MqttTopic Payload Token Resources Actions ExpireTime Username Secret IdentityType SignMode Identity "
    fields += "PermitAction Effect Size PageSize PageNo NextToken ResourceType ResourceId.1 Tag.1.Key ClientIdList.1 MqttInstanceId "
    fields += "CaName CaContent VerificationContent Sn CaSn DeviceSn"
    fields += " MqttRegionId BeginTime EndTime CurrentPage Reverse MsgId"
    fields += " RuleId TargetType TargetInstanceId TargetTopic Status Description"
    version = {"Version": ACTIONS[name].versions[0]}
    before = {key for key in site.bed.store._state.documents if key[0] != "nonce"}

    def check(response: httpx.Response) -> None:
        is_documented = response.status_code == 500 and response.json()["Code"] in OF_STATUS_500
        assert response.status_code in (200, 400, 404) or is_documented, response.text

    for value in ("", "x" * 20_000, "-1", "1e9", "\x00", "+/#", "null", "ünï\u202e"):
        for instance in ({}, {"MqttInstanceId": "bed"}):
            check(site.send(site.make(name, **version, **dict.fromkeys(fields.split(), value) | instance)))
    check(site.send(site.make(name, **version, InstanceId="")))
    check(site.send(site.make(name, **version, InstanceId="other", **dict.fromkeys(fields.split(), "x"))))
    added = {key for key in site.bed.store._state.documents if key[0] != "nonce"} - before
    assert added <= {("topic", "null"), ("topic", "1e9")} or {kind for kind, _ in added} == {"blocked client"}


def test_a_body_that_is_too_large_is_a_fault_with_a_code(site: Site) -> None:
    method, target, headers, _ = site.make("ListGroupId")
    response = site.send((method, target, headers, b"x" * (MAX_BODY + 1)))
    assert code(response, 400) == "InvalidParameter"
    assert f"larger than {MAX_BODY} bytes" in response.json()["Message"]


def test_a_body_that_is_too_slow_is_a_fault_with_a_code(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.guard.BODY_TIMEOUT", 0.0)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://gateway") as client:
            return await client.post("/", content=slow())

    response = site.bed.loop.finish(ask())
    assert code(response, 400) == "InvalidParameter"
    assert "too slowly" in response.json()["Message"]


def test_what_nobody_foresaw_is_a_fault_with_a_code_and_in_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(site.bed.node.registers.resources, "groups", lambda: 1 / 0)
    response = site.send(site.make("ListGroupId"))
    assert code(response, 500) == "InternalError"
    [line] = [record for record in caplog.records if record.message.startswith(f"openapi-failed request={response.json()['RequestId']} ")]
    assert line.exc_info is not None
    assert line.exc_info[0] is ZeroDivisionError


def test_who_leaves_while_sending_is_no_failure_of_ours(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "scheme": "http", "server": ("gateway", 80)}
    site.bed.loop.finish(site.app(scope, receive, send))
    assert not [line for line in caplog.messages if "openapi" in line]


def test_answers_come_in_xml(site: Site) -> None:
    site.call("CreateGroupId", GroupId="GID_one")
    response = site.send(site.make("ListGroupId", Format="XML"))
    assert response.headers["content-type"] == "text/xml;charset=utf-8"
    assert "<ListGroupIdResponse><Data><GroupId>GID_one</GroupId><InstanceId>bed</InstanceId>" in response.text
    fault = site.send(site.make("QuerySessionByClientId", Format="XML", ClientId=""))
    assert fault.status_code == 400
    assert "<Error>" in fault.text
    assert "<Code>InvalidParameter.ClientId</Code>" in fault.text


def test_answers_are_escaped_and_secrets_do_not_come_back(site: Site) -> None:
    site.call("AddCustomAuthIdentity", Username="<b>&'\"", Secret="canary", IdentityType="USER", SignMode="ORIGIN")
    text = site.send(site.make("QueryCustomAuthIdentity", Format="XML", Size="9")).text
    assert "<Username>&lt;b&gt;&amp;" in text
    fault = site.send(site.make("AddCustomAuthIdentity", Username="u", Secret="canary\n2", IdentityType="USER", SignMode="?"))
    assert "canary" not in fault.text


def test_a_token_from_beginning_to_end(site: Site) -> None:
    """Apply, connect, publish; offline messages only after the token to read with; revoke, code 3, close."""
    bed = site.bed
    expires = str(bed.clock.wall() + 3_600_000)
    tokens = {a: site.call("ApplyToken", Resources="plant/#", Actions=a, ExpireTime=expires)["Token"] for a in ("R", "W")}
    kept: dict[str, Any] = {"clean_start": False, "session_expiry": 600, "user_name": f"Token|{site.key.id}|bed"}
    party = bed.connect("dev", password=f"R|{tokens['R']}".encode(), **kept)
    party.subscribe("plant/in")
    party.drop()
    site.call("SendMessage", MqttTopic="plant/in", Payload="offline")
    party = bed.connect("dev", password=f"W|{tokens['W']}".encode(), **kept)
    party.exchange("plant/out", b"hello")
    bed.advance(6)
    assert party.payloads() == []
    party.exchange("$SYS/uploadToken", json.dumps({"token": tokens["R"], "type": "R"}).encode())
    assert party.payloads() == [b"offline"]
    assert site.call("QueryToken", Token=tokens["R"])["TokenStatus"] is True
    site.call("RevokeToken", Token=tokens["R"])
    bed.settle()
    assert [json.loads(payload) for payload in party.payloads()] == [{"code": 3, "type": "R"}]
    assert party.closed


def test_tokens_of_another_key_are_none_of_a_devices_business(site: Site) -> None:
    expires = str(site.bed.clock.wall() + 3_600_000)
    token = site.call("ApplyToken", Resources="a", Actions="R", ExpireTime=expires)["Token"]
    device = site.bed.loop.finish(site.bed.keyring.create("device", 0))
    assert site.call("QueryToken", key=device, Token=token)["TokenStatus"] is False
    assert code(site.send(site.make("RevokeToken", key=device, Token=token)), 400) == "PermissionCheckFailed"


def test_an_identity_from_beginning_to_end(site: Site) -> None:
    """Added, refused without a permission, let in with one, blocked, deleted: each at once."""
    bed = site.bed
    site.call("AddCustomAuthIdentity", Username="u", Secret="s", IdentityType="USER", SignMode="ORIGIN")
    party = bed.connect("any id", user_name="u", password=b"s")
    assert party.subscribe("plant/a")[0] >= 0x80
    site.call("AddCustomAuthPermission", Identity="u", IdentityType="USER", Topic="plant/#", PermitAction="ALL", Effect="ALLOW")
    assert party.subscribe("plant/a") == (1,)
    party.exchange("plant/a", b"1")
    assert party.payloads() == [b"1"]
    site.call("UpdateCustomAuthPermission", Identity="u", IdentityType="USER", Topic="plant/#", PermitAction="ALL", Effect="DENY")
    bed.advance(0.1)
    site.call("SendMessage", MqttTopic="plant/a", Payload="2")
    assert party.payloads() == []
    site.call("AddCustomAuthConnectBlack", ClientId="any id")
    bed.settle()
    assert party.closed
    refused = bed.dial()
    refused.connect("any id", user_name="u", password=b"s")
    assert refused.connack is not None
    assert refused.connack.reason_code == 0x8A
    site.call("DeleteCustomAuthConnectBlack", ClientId="any id")
    party = bed.connect("any id", user_name="u", password=b"s")
    site.call("DeleteCustomAuthIdentity", Username="u", IdentityType="USER")
    bed.advance(0.1)
    assert party.closed


def test_a_device_credential_from_beginning_to_end(site: Site) -> None:
    from gateway.auth.login import sign

    bed, client = site.bed, "GID_test@@@d"
    made = site.call("RegisterDeviceCredential", ClientId=client)["DeviceCredential"]
    login: dict[str, Any] = {
        "user_name": f"DeviceCredential|{made['DeviceAccessKeyId']}|bed",
        "password": sign(made["DeviceAccessKeySecret"].encode(), client),
    }
    party = bed.connect(client, **login)
    party.exchange("a", b"x")
    site.call("UnRegisterDeviceCredential", ClientId=client)
    bed.advance(0.1)
    assert party.closed
    refused = bed.dial()
    refused.connect(client, **login)
    assert refused.closed
