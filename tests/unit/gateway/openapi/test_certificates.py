"""The actions about X.509 from beginning to end: an authority is registered, a device comes, and each change is in force at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.testbed import Testbed
from tests.unit.gateway.openapi.test_endpoint import Site, code


@pytest.fixture
def site(bed: Testbed) -> Site:
    bed.clock.ahead = time.time_ns() // 1_000_000 - bed.clock.raw()
    return Site(bed)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def call(site: Site, action: str, **fields: str) -> dict[str, Any]:
    answer = site.call(action, MqttInstanceId="bed", **fields)
    answer.pop("RequestId")
    return answer


def refused(site: Site, status: int, action: str, **fields: str) -> str:
    return code(site.send(site.make(action, **{"MqttInstanceId": "bed"} | fields)), status)


def register(site: Site, authority: Authority) -> str:
    number = call(site, "GetRegisterCode")["RegisterCode"]
    made = call(site, "RegisterCaCertificate", CaName="mqtt_ca", CaContent=authority.pem, VerificationContent=authority.verification(number))
    return made["Sn"]  # type: ignore[no-any-return]


def test_an_authority_from_beginning_to_end(site: Site, authority: Authority) -> None:
    serial = register(site, authority)
    assert serial == authority.serial
    shown = call(site, "GetCaCertificate", Sn=serial.upper())["Data"]
    assert (shown["CaName"], shown["CaContent"], shown["Sn"], shown["Status"]) == ("mqtt_ca", authority.pem, serial, "1")
    assert shown["RegistrationCode"] == call(site, "GetRegisterCode")["RegisterCode"]
    assert int(shown["ValidBegin"]) < site.bed.clock.wall() < int(shown["ValidEnd"])
    listed = call(site, "ListCaCertificate", PageNo="1", PageSize="10")["Data"]
    assert listed == {"PageNo": 1, "PageSize": 10, "Total": 1, "CaCertificateVOS": [shown]}
    assert call(site, "ListCaCertificate", PageNo="2", PageSize="10")["Data"]["CaCertificateVOS"] == []
    for action, status in (("InactivateCaCertificate", "0"), ("ActiveCaCertificate", "1")):
        assert call(site, action, Sn=serial) == {"Sn": serial}
        assert call(site, "GetCaCertificate", Sn=serial)["Data"]["Status"] == status
    assert call(site, "DeleteCaCertificate", Sn=serial) == {"Sn": serial}
    for action in ("GetCaCertificate", "ActiveCaCertificate", "InactivateCaCertificate", "DeleteCaCertificate"):
        assert refused(site, 500, action, Sn=serial) == "FindCaBySnError"


def test_a_device_from_beginning_to_end(site: Site, authority: Authority) -> None:
    serial, pair = register(site, authority), authority.issue("d1", client=True)
    party = site.bed.connect("c", certificate=pair.der)
    page = {"PageNo": "1", "PageSize": "100"}
    [shown] = call(site, "ListDeviceCertificate", **page)["Data"]["DeviceCertificateVOS"]
    assert (shown["CaSn"], shown["DeviceName"], shown["DeviceContent"]) == (serial, "d1", pair.certificate.read_text())
    assert call(site, "ListDeviceCertificateByCaSn", CaSn=serial, **page)["Data"] == {
        "PageNo": 1, "PageSize": 100, "Total": 1, "DeviceCertificateVOS": [shown],
    }  # fmt: skip
    named = {"CaSn": serial, "DeviceSn": shown["DeviceSn"]}
    assert call(site, "GetDeviceCertificate", **named)["Data"] == shown
    assert call(site, "InactivateDeviceCertificate", **named) == {"DeviceSn": shown["DeviceSn"]}
    site.bed.advance(0.06)
    assert party.closed
    assert call(site, "GetDeviceCertificate", **named)["Data"]["Status"] == "0"
    call(site, "ActiveDeviceCertificate", **named)
    party = site.bed.connect("c", certificate=pair.der)
    call(site, "DeleteDeviceCertificate", **named)
    site.bed.advance(0.06)
    assert party.closed
    party = site.bed.dial(certificate=pair.der)
    party.connect("c")
    assert party.closed
    for action in ("GetDeviceCertificate", "InactivateDeviceCertificate", "DeleteDeviceCertificate"):
        assert refused(site, 500, action, **named) == "FindDeviceBySnError"
    call(site, "ActiveDeviceCertificate", **named)
    site.bed.connect("c", certificate=pair.der)


def test_what_is_wrong_has_the_products_code(site: Site, authority: Authority, tmp_path: Path) -> None:
    number = call(site, "GetRegisterCode")["RegisterCode"]
    right = {"CaName": "a", "CaContent": authority.pem, "VerificationContent": authority.verification(number)}
    other = authority.verification("another code")
    assert refused(site, 500, "RegisterCaCertificate", **right | {"VerificationContent": other}) == "RegisterCodeError"
    for change in ({"CaName": "a/b"}, {"CaContent": "x"}, {"VerificationContent": "x"}, {"CaName": ""}, {"CaContent": "x" * 40_000}):
        fault = site.send(site.make("RegisterCaCertificate", MqttInstanceId="bed", **right | change))
        assert code(fault, 400) == "ParameterFieldCheckFailed"
        assert next(iter(change)) in fault.json()["Message"]
    assert refused(site, 400, "RegisterCaCertificate", **right | {"MqttInstanceId": "other"}) == "InstancePermissionCheckFailed"
    assert refused(site, 500, "GetRegisterCode", MqttInstanceId="other") == "MqttInstanceNotFound"
    register(site, authority)
    assert refused(site, 400, "RegisterCaCertificate", **right) == "ParameterFieldCheckFailed"
    for page in ({"PageNo": "0"}, {"PageSize": "101"}, {"PageNo": "x"}, {"PageSize": ""}):
        assert refused(site, 400, "ListCaCertificate", **{"PageNo": "1", "PageSize": "1"} | page) == "ParameterFieldCheckFailed"
    assert refused(site, 500, "ListDeviceCertificateByCaSn", CaSn="no serial", PageNo="1", PageSize="1") == "FindCaBySnError"
    assert refused(site, 500, "GetDeviceCertificate", CaSn=authority.serial, DeviceSn="../x") == "FindDeviceBySnError"
    assert refused(site, 400, "GetDeviceCertificate", CaSn=authority.serial, DeviceSn="f" * 129) == "ParameterFieldCheckFailed"
