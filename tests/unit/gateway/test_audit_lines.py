"""Whatever changes something has a line that says what, by whom and to what; so has what is refused for security; no line holds a secret.

The command line asks the HTTP routes with the administrator's credential; here it does so without a socket.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.auth.login import sign, signature_user_name
from gateway.cli import main
from gateway.commands import bearers, keys, registers, rules
from gateway.commands.endpoint import Endpoint
from gateway.openapi.audit import SUBJECTS, is_noted
from gateway.openapi.table import ACTIONS
from gateway.refusals import LINES_A_SECOND
from schemas.identities import AccessRule
from tests.support.certificates import Authority
from tests.support.party import Party
from tests.unit.gateway.openapi.requests import acs3, v1
from tests.unit.gateway.openapi.test_endpoint import Site
from tests.unit.gateway.rules.conftest import RuleBed
from tests.unit.gateway.rules.conftest import make_bed as make_bed

Make = Callable[..., RuleBed]
PEER: Final = "127.0.0.1:9"
CANARY: Final = "canary-secret-5f0e77"
SPOKEN: Final = ("gateway.api", "gateway.openapi", "gateway.rules.management", "gateway.refusals")


class Desk(Site):
    """The HTTP side with the administrator's key, and the words that the answers and requests should keep to themselves."""

    def __init__(self, bed: RuleBed, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        bed.clock.ahead = time.time_ns() // 1_000_000 - bed.clock.raw()
        super().__init__(bed)
        caplog.set_level("INFO", "gateway")
        self.caplog = caplog
        self.admin = bed.do(bed.keyring.create("administrator", 0))
        self.authority = Authority(folder)
        code = bed.node.registers.certificates.code
        self.names = {
            "admin": self.admin.id, "manager": self.key.id, "key": bed.do(bed.keyring.create("device", 0)).id,
            "ca": self.authority.serial, "pem": self.authority.pem, "proof": self.authority.verification(code), "peer": PEER, "canary": CANARY,
        }  # fmt: skip
        self.secrets = [self.admin.secret.reveal(), self.key.secret.reveal(), CANARY, self.authority.pem[40:80]]

    def fill(self, given: Any) -> Any:
        if isinstance(given, dict):
            return {name: self.fill(value) for name, value in given.items()}
        return given.format(**self.names) if isinstance(given, str) else given

    def rest(self, step: tuple[str, str, Any]) -> Any:
        """A call of the HTTP API by the administrator."""
        method, path, body = step

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 9))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                login = (self.admin.id, self.admin.secret.reveal())
                return await client.request(method, "/api/v1/" + self.fill(path), json=self.fill(body), auth=login)

        response = self.bed.loop.finish(ask())
        assert response.status_code in (200, 201), response.text
        answer = response.json()
        self.secrets += [answer[name] for name in ("accessKeySecret", "bearerKey") if name in answer]
        self.names["made"] = answer.get("id") or answer.get("accessKeyId") or self.names.get("made", "")
        return answer

    def openapi(self, action: str, fields: dict[str, str]) -> None:
        answer = self.call(action, MqttInstanceId="bed", **self.fill(fields))
        self.secrets += [answer[name] for name in ("Token",) if name in answer]
        self.names["token"] = answer.get("Token") or self.names.get("token", "")
        self.secrets += [value for name, value in answer.get("DeviceCredential", {}).items() if name.endswith("Secret")]

    def device(self) -> None:
        """A device comes with a certificate, and has registered it."""
        self.bed.connect("cert", certificate=self.authority.issue("d1", client=True).der)
        [found], _ = self.bed.node.registers.certificates.devices(self.authority.serial, 0, 10, self.bed.clock.wall())
        self.names["certificate"] = found.serial

    def lines(self) -> list[str]:
        """What was said since they were asked for; with no secret in it."""
        said = [record.getMessage() for record in self.caplog.records if record.name.startswith(SPOKEN)]
        for secret in self.secrets:
            assert secret not in self.caplog.text
        self.caplog.clear()
        return said


@pytest.fixture
def desk(make_bed: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Desk:
    return Desk(make_bed(access=(AccessRule("*", "*", "no/#", "deny"),)), tmp_path, caplog)


RULE: Final = {"id": "rule1", "kind": "outflow", "connection": "main", "backendTopic": "orders", "topic": "shop"}
POLICY: Final = {"principal": "dev", "action": "publish", "filter": "a/#"}
PROOF: Final = {"name": "factory", "ca": "{pem}", "verification": "{proof}"}
MANAGED: Final = {
    "keys": [
        (("POST", "keys", {"role": "manager"}), "key-created key={made} role=manager by={admin}"),
        (("POST", "keys/{made}/rotate", {"validSeconds": 60}), "key-rotated key={made} by={admin}"),
        (("DELETE", "keys/{made}", None), "key-revoked key={made} by={admin} connections=0"),
    ],
    "bearer keys": [
        (("POST", "bearer-keys", {"name": "ci", "scope": "write"}), "bearer-key-created key={made} scope=write name='ci' by={admin}"),
        (("DELETE", "bearer-keys/{made}", None), "bearer-key-revoked key={made} by={admin}"),
    ],
    "groups": [
        (("POST", "groups", {"groupId": "GID_audit"}), "group-created group=GID_audit by={admin}"),
        (("DELETE", "groups/GID_audit", None), "group-deleted group=GID_audit by={admin}"),
    ],
    "topics": [
        (("POST", "topics", {"topic": "plant", "remark": "{canary}"}), "topic-created topic=plant by={admin}"),
        (("DELETE", "topics/plant", None), "topic-deleted topic=plant by={admin}"),
    ],
    "policies": [
        (("PUT", "policies", POLICY), "policy-put principal='dev' action=publish filter='a/#' effect=allow by={admin}"),
        (("DELETE", "policies", POLICY), "policy-deleted principal='dev' action=publish filter='a/#' by={admin}"),
    ],
    "authorities": [
        (("POST", "authorities", PROOF), "authority-registered serial={ca} name='factory' by={admin}"),
        (("POST", "authorities/{ca}/deactivate", None), "authority-deactivated serial={ca} by={admin}"),
        (("POST", "authorities/{ca}/activate", None), "authority-activated serial={ca} by={admin}"),
        ("device", None),
        (("POST", "certificates/{ca}/{certificate}/deactivate", None), "certificate-deactivated authority={ca} serial={certificate} by={admin}"),
        (("POST", "certificates/{ca}/{certificate}/activate", None), "certificate-activated authority={ca} serial={certificate} by={admin}"),
        (("DELETE", "certificates/{ca}/{certificate}", None), "certificate-deleted authority={ca} serial={certificate} by={admin}"),
        (("DELETE", "authorities/{ca}", None), "authority-deleted serial={ca} by={admin}"),
    ],
    "rules": [
        (("POST", "rules", RULE), "rule-created rule=rule1 kind=outflow by={admin}"),
        (("PATCH", "rules/rule1", {"description": "{canary}"}), "rule-updated rule=rule1 fields=description by={admin}"),
        (("POST", "rules/rule1/disable", None), "rule-updated rule=rule1 fields=enabled by={admin}"),
        (("POST", "rules/rule1/enable", None), "rule-updated rule=rule1 fields=enabled by={admin}"),
        (("POST", "rules/rule1/reset", {"start": "now"}), "rule-reset rule=rule1 by={admin}"),
        (("DELETE", "rules/rule1", None), "rule-deleted rule=rule1 by={admin}"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("noun", MANAGED)
def test_the_api_says_what_was_changed_and_by_whom(desk: Desk, noun: str) -> None:
    for step, wanted in MANAGED[noun]:
        if isinstance(step, str):
            desk.device()
            desk.lines()
            continue
        desk.rest(step)
        assert desk.lines() == [desk.fill(wanted)]


COMMANDS: Final = [
    ("key create --role manager", "key-created key={made} role=manager by={admin}"),
    ("key rotate {made}", "key-rotated key={made} by={admin}"),
    ("key revoke {made}", "key-revoked key={made} by={admin} connections=0"),
    ("bearer create ci --scope read", "bearer-key-created key={made} scope=read name='ci' by={admin}"),
    ("bearer revoke {made}", "bearer-key-revoked key={made} by={admin}"),
    ("group create GID_audit", "group-created group=GID_audit by={admin}"),
    ("group delete GID_audit", "group-deleted group=GID_audit by={admin}"),
    ("policy put dev publish a/#", "policy-put principal='dev' action=publish filter='a/#' effect=allow by={admin}"),
    ("policy delete dev publish a/#", "policy-deleted principal='dev' action=publish filter='a/#' by={admin}"),
    ("rule create outflow rule1 --topic shop --to main/orders", "rule-created rule=rule1 kind=outflow by={admin}"),
    ("rule update rule1 --description x", "rule-updated rule=rule1 fields=description by={admin}"),
    ("rule disable rule1", "rule-updated rule=rule1 fields=enabled by={admin}"),
    ("rule reset rule1 --start now", "rule-reset rule=rule1 by={admin}"),
    ("rule delete rule1", "rule-deleted rule=rule1 by={admin}"),
]


def test_commands_say_what_was_changed_and_by_whom(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(endpoint: Endpoint, method: str, path: str, body: object = None) -> Any:
        assert endpoint.access_key == desk.admin.id
        return desk.rest((method, path.removeprefix("/api/v1/"), body))

    for module in (bearers, keys, registers, rules):
        monkeypatch.setattr(module, "call", call)
    for name, value in {"URL": "http://gateway", "ACCESS_KEY": desk.admin.id, "ACCESS_SECRET": desk.admin.secret.reveal()}.items():
        monkeypatch.setenv(f"SLUICEWAY_{name}", value)
    for command, wanted in COMMANDS:
        assert main(desk.fill(command).split()) == 0
        assert desk.lines() == [desk.fill(wanted)]


def test_a_connection_that_was_closed(desk: Desk) -> None:
    desk.bed.connect("dev")
    desk.rest(("DELETE", "connections/dev", None))
    assert desk.lines() == [desk.fill("connection-closed client=dev by={admin}")]


USER: Final = {"IdentityType": "USER", "Username": "u1"}
ALLOWED: Final = {"IdentityType": "USER", "Identity": "u1", "Topic": "a/b"}
TARGET: Final = {"TargetType": "ROCKETMQ", "TargetInstanceId": "main", "TargetTopic": "orders"}
CALLED: Final = {
    "groups": [
        ("CreateGroupId", {"GroupId": "GID_audit"}, "GroupId='GID_audit'"),
        ("TagResources", {"ResourceType": "GROUP", "ResourceId.1": "GID_audit", "Tag.1.Key": "k", "Tag.1.Value": CANARY},
         "ResourceType='GROUP' ResourceId.1='GID_audit' Tag.1.Key='k'"),
        ("UntagResources", {"ResourceType": "GROUP", "ResourceId.1": "GID_audit", "TagKey.1": "k"},
         "ResourceType='GROUP' ResourceId.1='GID_audit' TagKey.1='k'"),
        ("RegisterDeviceCredential", {"ClientId": "GID_audit@@@d"}, "ClientId='GID_audit@@@d'"),
        ("GetDeviceCredential", {"ClientId": "GID_audit@@@d"}, "ClientId='GID_audit@@@d'"),
        ("RefreshDeviceCredential", {"ClientId": "GID_audit@@@d"}, "ClientId='GID_audit@@@d'"),
        ("UnRegisterDeviceCredential", {"ClientId": "GID_audit@@@d"}, "ClientId='GID_audit@@@d'"),
        ("DeleteGroupId", {"GroupId": "GID_audit"}, "GroupId='GID_audit'"),
    ],
    "topics": [
        ("CreateTopic", {"Topic": "plant", "Remark": CANARY}, "Topic='plant'"),
        ("UpdateTopic", {"Topic": "plant", "Remark": CANARY}, "Topic='plant'"),
        ("DeleteTopic", {"Topic": "plant"}, "Topic='plant'"),
    ],
    "identities": [
        ("AddCustomAuthIdentity", {**USER, "Secret": CANARY, "SignMode": "SIGNED"}, "Username='u1' IdentityType='USER' SignMode='SIGNED'"),
        ("UpdateCustomAuthIdentity", {**USER, "Secret": CANARY, "SignMode": "SIGNED"}, "Username='u1' IdentityType='USER' SignMode='SIGNED'"),
        ("QueryCustomAuthIdentity", {"Size": "10"}, ""),
        ("AddCustomAuthPermission", {**ALLOWED, "PermitAction": "PUB", "Effect": "ALLOW"},
         "Topic='a/b' IdentityType='USER' Identity='u1' PermitAction='PUB' Effect='ALLOW'"),
        ("UpdateCustomAuthPermission", {**ALLOWED, "PermitAction": "SUB", "Effect": "DENY"},
         "Topic='a/b' IdentityType='USER' Identity='u1' PermitAction='SUB' Effect='DENY'"),
        ("DeleteCustomAuthPermission", ALLOWED, "Topic='a/b' IdentityType='USER' Identity='u1'"),
        ("DeleteCustomAuthIdentity", USER, "Username='u1' IdentityType='USER'"),
        ("AddCustomAuthConnectBlack", {"ClientId": "bad"}, "ClientId='bad'"),
        ("DeleteCustomAuthConnectBlack", {"ClientId": "bad"}, "ClientId='bad'"),
    ],
    "authorities": [
        ("RegisterCaCertificate", {"CaName": "factory", "CaContent": "{pem}", "VerificationContent": "{proof}"}, "CaName='factory'"),
        ("InactivateCaCertificate", {"Sn": "{ca}"}, "Sn='{ca}'"),
        ("ActiveCaCertificate", {"Sn": "{ca}"}, "Sn='{ca}'"),
        ("device", {}, ""),
        ("InactivateDeviceCertificate", {"CaSn": "{ca}", "DeviceSn": "{certificate}"}, "CaSn='{ca}' DeviceSn='{certificate}'"),
        ("ActiveDeviceCertificate", {"CaSn": "{ca}", "DeviceSn": "{certificate}"}, "CaSn='{ca}' DeviceSn='{certificate}'"),
        ("DeleteDeviceCertificate", {"CaSn": "{ca}", "DeviceSn": "{certificate}"}, "CaSn='{ca}' DeviceSn='{certificate}'"),
        ("DeleteCaCertificate", {"Sn": "{ca}"}, "Sn='{ca}'"),
    ],
    "tokens": [
        ("ApplyToken", {"Resources": "a/b", "Actions": "W", "ExpireTime": "{soon}"}, "Resources='a/b' Actions='W' ExpireTime='{soon}'"),
        ("RevokeToken", {"Token": "{token}"}, ""),
    ],
}  # fmt: skip


@pytest.mark.parametrize("noun", CALLED)
def test_the_openapi_says_what_was_changed_and_by_whom(desk: Desk, noun: str) -> None:
    desk.names["soon"] = str(desk.bed.clock.wall() + 600_000)
    for action, fields, subject in CALLED[noun]:
        if action == "device":
            desk.device()
            desk.lines()
            continue
        desk.openapi(action, fields)
        wanted = desk.fill(f"openapi action={action} key={{manager}} peer={{peer}} outcome=200 {subject}".rstrip())
        assert desk.lines() == [wanted]


def test_a_rule_of_the_openapi_names_the_key_twice(desk: Desk) -> None:
    for action, fields, words in (
        ("CreateMqttOutboundRule", {"MqttTopic": "shop", **TARGET}, "rule-created rule=rule1 kind=outflow"),
        ("UpdateMqttOutboundRule", {"Status": "0", "Description": CANARY}, "rule-updated rule=rule1 fields=description,enabled"),
        ("DeleteMqttOutboundRule", {}, "rule-deleted rule=rule1"),
    ):
        desk.openapi(action, {"RuleId": "rule1", **fields})
        first, second = desk.lines()
        assert first == f"{words} by={desk.key.id}"
        assert second.startswith(f"openapi action={action} key={desk.key.id} peer={PEER} outcome=200")
        assert "RuleId='rule1'" in second


def test_an_action_that_says_that_it_did_nothing(desk: Desk) -> None:
    desk.openapi("CloseConnection", {"ClientId": "none"})
    assert desk.lines() == [desk.fill("openapi action=CloseConnection key={manager} peer={peer} outcome=404 ClientId='none'")]


def test_what_reads_and_what_sends_has_no_line_and_what_shows_secrets_has(desk: Desk) -> None:
    desk.openapi("ListGroupId", {})
    desk.openapi("SendMessage", {"MqttTopic": "a", "Payload": CANARY})
    assert desk.lines() == []
    silent = {name for name in ACTIONS if not is_noted(name)}
    assert not {name for name in silent if not re.match(r"(Batch)?(Query|Send|List|Get)|OnsMqttQuery", name)}
    assert {"GetDeviceCredential", "QueryCustomAuthIdentity", "ApplyToken", "RevokeToken"}.isdisjoint(silent)
    assert not [name for name in SUBJECTS if re.search(r"Secret|Token|Content|Payload|Value|Password", name)]


def refuse(desk: Desk, case: str) -> tuple[str, str, str]:
    """The request is refused; the key, action and rest of the line that says so."""
    key, now = desk.key, desk.bed.clock.wall()
    device = desk.bed.do(desk.bed.keyring.create("device", 0))
    if case == "Forbidden":
        desk.send(desk.make("DeleteGroupId", key=device, GroupId="GID_audit"))
        return device.id, "DeleteGroupId", " GroupId='GID_audit'"
    if case == "SignatureNonceUsed":
        made = desk.make("SendMessage", MqttTopic="a", Payload=CANARY)
        desk.send(made)
        desk.send(made)
        return key.id, "SendMessage", " MqttTopic='a'"
    if case == "PermissionCheckFailed":
        desk.send(desk.make("SendMessage", MqttTopic="no/a", Payload=CANARY))
        [first, *_] = [line for line in desk.caplog.messages if line.startswith("publish-denied")]
        assert first == f"publish-denied client='' principal={key.id!r} topic='no/a'"
        return key.id, "SendMessage", " MqttTopic='no/a'"
    if case == "IncompleteSignature":
        desk.send(("POST", "/?Action=ListGroupId&AccessKeyId=x", {}, b""))
        return "", "", ""
    if case == "Throttling":
        desk.bed.node.failed_logins.refuse = lambda host, key_id: True  # type: ignore[method-assign]
    id_, secret, off = {
        "InvalidTimeStamp.Expired": (key.id, key.secret.reveal(), 901_000),
        "InvalidAccessKeyId.NotFound": ("nobody", CANARY, 0),
        "SignatureDoesNotMatch": (key.id, CANARY, 0),
        "Throttling": (key.id, key.secret.reveal(), 0),
    }[case]
    desk.send(acs3(id_, secret, "ListGroupId", now - off, InstanceId="bed"))
    return id_, "ListGroupId", ""


@pytest.mark.parametrize(
    "outcome",
    [
        *("Forbidden", "SignatureNonceUsed", "PermissionCheckFailed", "IncompleteSignature", "Throttling"),
        *("InvalidTimeStamp.Expired", "InvalidAccessKeyId.NotFound", "SignatureDoesNotMatch"),
    ],
)
def test_the_openapi_says_whom_it_refused_and_why(desk: Desk, outcome: str) -> None:
    key, action, subject = refuse(desk, outcome)
    assert desk.lines()[-1] == f"openapi-refused peer={PEER} key={key!r} action={action!r} outcome={outcome}{subject}"


def test_refusals_can_t_fill_the_log(desk: Desk) -> None:
    desk.bed.node.failed_logins.refuse = lambda host, key_id: True  # type: ignore[method-assign]
    for _ in range(LINES_A_SECOND + 3):
        desk.send(v1("guess", CANARY, "ListGroupId", desk.bed.clock.wall(), InstanceId="bed"))
    assert len(desk.lines()) == LINES_A_SECOND
    desk.bed.advance(1)
    desk.send(v1("guess", CANARY, "ListGroupId", desk.bed.clock.wall(), InstanceId="bed"))
    assert desk.lines()[0].endswith("outcome=Throttling left_out=3")
    assert desk.bed.node.counters.refused["openapi_throttling"] == LINES_A_SECOND + 4


# Logins


def blocked(bed: RuleBed) -> Party:
    bed.do(bed.node.registers.identities.block("dev", 0))
    party = bed.dial()
    party.connect("dev")
    return party


def of_another(bed: RuleBed) -> Party:
    key = bed.do(bed.keyring.create("device", 0))
    bed.connect("dev", user_name=signature_user_name(key.id, "bed"), password=sign(key.secret.reveal().encode(), "dev"))
    party = bed.dial()
    party.connect("dev")
    return party


def wrong_password(bed: RuleBed) -> Party:
    key = bed.do(bed.keyring.create("device", 0))
    party = bed.dial()
    party.connect("dev", user_name=f"Signature|{key.id}|bed", password=CANARY.encode())
    return party


@pytest.mark.parametrize(
    ("come", "reason"),
    [(blocked, "client id is blocked"), (of_another, "client id of another principal"), (wrong_password, "unknown access key or wrong signature")],
)
def test_a_login_that_is_refused_says_why(make_bed: Make, caplog: pytest.LogCaptureFixture, come: Callable[[RuleBed], Party], reason: str) -> None:
    bed = make_bed()
    come(bed)
    bed.settle()
    [line] = [record.getMessage() for record in caplog.records if record.name == "gateway.refusals"]
    assert re.fullmatch(rf"connect-refused client='dev' address=127\.0\.0\.1:\d+ reason={reason}", line)
    assert CANARY not in caplog.text
