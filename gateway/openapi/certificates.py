"""Actions about X.509: the registration code, authorities, and the certificates of devices that have registered themselves.

Serial numbers are hexadecimal; the product's answers of status 500 to unknown ones are kept, since callers know them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from gateway.auth.client_certificates import Authority, ClientCertificates, DeviceCertificate
from gateway.auth.shelf import ShelfFull
from gateway.auth.x509 import MAX_PEM, MAX_SERIAL, CertificateRefused, der_to_pem, read_serial
from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault

MAX_PAGE: Final = 100
MAX_PAGES: Final = 1_000_000

_FIELDS: Final = {"name": "CaName", "ca": "CaContent", "verification": "VerificationContent"}


def _check_instance(call: Call) -> None:
    call.check_instance("MqttInstanceId", code="MqttInstanceNotFound")


def _serial(call: Call, name: str) -> str:
    """As it stands in the register; one that is no serial number is no bad parameter but unknown."""
    return read_serial(call.parameters.text(name, MAX_SERIAL))


def _page(call: Call) -> tuple[int, int]:
    return call.parameters.number("PageNo", 1, MAX_PAGES), call.parameters.number("PageSize", 1, MAX_PAGE)


async def get_register_code(call: Call) -> Fields:
    _check_instance(call)
    return {"RegisterCode": call.node.registers.certificates.code}


# Authorities


async def register_ca(call: Call) -> Fields:
    call.check_instance("MqttInstanceId")
    parameters = call.parameters
    name, content, verification = parameters.text("CaName"), parameters.text("CaContent", MAX_PEM), parameters.text("VerificationContent", MAX_PEM)
    try:
        authority = await call.node.registers.certificates.register(name, content, verification, call.now)
    except CertificateRefused as refused:
        if refused.is_code:
            raise Fault("RegisterCodeError") from None
        raise parameters.fault(_FIELDS[refused.part], str(refused)) from None
    except ShelfFull as full:
        raise Fault("SystemOverFlow", detail=str(full)) from None
    return {"Sn": authority.serial}


async def get_ca(call: Call) -> Fields:
    _check_instance(call)
    found = call.node.registers.certificates.authority(_serial(call, "Sn"))
    if found is None:
        raise Fault("FindCaBySnError")
    return {"Data": _authority(found)}


async def list_cas(call: Call) -> Fields:
    _check_instance(call)
    page, size = _page(call)
    found, total = call.node.registers.certificates.authorities((page - 1) * size, size)
    return {"Data": {"PageNo": page, "PageSize": size, "Total": total, "CaCertificateVOS": [_authority(authority) for authority in found]}}


async def activate_ca(call: Call) -> Fields:
    return await _change_ca(call, lambda register, serial: register.set_authority(serial, active=True))


async def inactivate_ca(call: Call) -> Fields:
    """Connections of its devices are closed."""
    return await _change_ca(call, lambda register, serial: register.set_authority(serial, active=False))


async def delete_ca(call: Call) -> Fields:
    """With the certificates that it has issued; connections of its devices are closed."""
    return await _change_ca(call, lambda register, serial: register.delete_authority(serial))


async def _change_ca(call: Call, change: Callable[[ClientCertificates, str], Awaitable[bool]]) -> Fields:
    _check_instance(call)
    serial = _serial(call, "Sn")
    if not await change(call.node.registers.certificates, serial):
        raise Fault("FindCaBySnError")
    return {"Sn": serial}


def _authority(authority: Authority) -> Fields:
    return {
        "CaName": authority.name,
        "CaContent": authority.content,
        "VerificationContent": authority.verification,
        "RegistrationCode": authority.code,
        "Sn": authority.serial,
        "Status": str(int(authority.state)),
        "ValidBegin": str(authority.begin),
        "ValidEnd": str(authority.end),
    }


# Certificates of devices


async def get_device(call: Call) -> Fields:
    _check_instance(call)
    found = call.node.registers.certificates.device(_serial(call, "CaSn"), _serial(call, "DeviceSn"))
    if found is None:
        raise Fault("FindDeviceBySnError")
    return {"Data": _device(found)}


async def list_devices(call: Call) -> Fields:
    _check_instance(call)
    return _devices(call, "")


async def list_devices_of_ca(call: Call) -> Fields:
    _check_instance(call)
    serial = _serial(call, "CaSn")
    if call.node.registers.certificates.authority(serial) is None:
        raise Fault("FindCaBySnError")
    return _devices(call, serial)


def _devices(call: Call, authority: str) -> Fields:
    page, size = _page(call)
    found, total = call.node.registers.certificates.devices(authority, (page - 1) * size, size, call.now)
    return {"Data": {"PageNo": page, "PageSize": size, "Total": total, "DeviceCertificateVOS": [_device(device) for device in found]}}


async def activate_device(call: Call) -> Fields:
    """One that was deleted may register itself again."""
    return await _change_device(call, lambda register, authority, serial: register.set_device(authority, serial, active=True))


async def inactivate_device(call: Call) -> Fields:
    """Connections that were made with it are closed."""
    return await _change_device(call, lambda register, authority, serial: register.set_device(authority, serial, active=False))


async def delete_device(call: Call) -> Fields:
    """It stays refused; connections that were made with it are closed."""
    return await _change_device(call, lambda register, authority, serial: register.delete_device(authority, serial))


async def _change_device(call: Call, change: Callable[[ClientCertificates, str, str], Awaitable[bool]]) -> Fields:
    _check_instance(call)
    authority, serial = _serial(call, "CaSn"), _serial(call, "DeviceSn")
    if not await change(call.node.registers.certificates, authority, serial):
        raise Fault("FindDeviceBySnError")
    return {"DeviceSn": serial}


def _device(device: DeviceCertificate) -> Fields:
    return {
        "CaSn": device.authority,
        "DeviceSn": device.serial,
        "DeviceName": device.name,
        "DeviceContent": der_to_pem(device.content),
        "Status": str(int(device.state)),
        "ValidBegin": str(device.begin),
        "ValidEnd": str(device.end),
    }
