"""Routes for authorities of client certificates, and the certificates of devices. For keys of the role manager and the administrator."""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

import logging
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from gateway.api.bodies import AuthorityBody
from gateway.api.errors import ApiError
from gateway.api.guard import manager_guard
from gateway.api.services import ApiServices
from gateway.auth.client_certificates import Authority, DeviceCertificate, State
from gateway.auth.shelf import ShelfFull
from gateway.auth.x509 import CertificateRefused, der_to_pem, read_serial
from schemas.identities import Principal

_log = logging.getLogger(__name__)

MAX_PAGE: Final = 100
Start = Annotated[int, Query(ge=0, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Answer = Callable[..., JSONResponse]


def authority_routes(services: ApiServices, headers: Mapping[str, str]) -> APIRouter:
    router = APIRouter()

    def answer(value: Any, status: int = 200) -> JSONResponse:
        return JSONResponse(value, status_code=status, headers=dict(headers))

    _add_authorities(router, services, answer)
    _add_authority_changes(router, services, answer)
    _add_certificates(router, services, answer)
    return router


def _now() -> int:
    return time.time_ns() // 1_000_000


def _authority(authority: Authority) -> dict[str, Any]:
    return {
        "serial": authority.serial,
        "name": authority.name,
        "active": authority.state is State.ACTIVE,
        "validFrom": authority.begin,
        "validUntil": authority.end,
        "ca": authority.content,
        "verification": authority.verification,
    }


def _certificate(device: DeviceCertificate) -> dict[str, Any]:
    return {
        "authority": device.authority,
        "serial": device.serial,
        "name": device.name,
        "active": device.state is State.ACTIVE,
        "validFrom": device.begin,
        "validUntil": device.end,
        "certificate": der_to_pem(device.content),
    }


def _add_authorities(router: APIRouter, services: ApiServices, answer: Answer) -> None:
    manager, certificates = manager_guard(services), services.certificates

    @router.get("/registration-code")
    async def registration_code(principal: Annotated[Principal, Depends(manager)]) -> Response:
        return answer({"registrationCode": certificates.code})

    @router.get("/authorities")
    async def list_authorities(principal: Annotated[Principal, Depends(manager)], start: Start = 0, limit: Limit = MAX_PAGE) -> Response:
        found, total = certificates.authorities(start, limit)
        return answer({"authorities": [_authority(authority) for authority in found], "total": total})

    @router.post("/authorities")
    async def register(principal: Annotated[Principal, Depends(manager)], body: AuthorityBody) -> Response:
        try:
            authority = await certificates.register(body.name, body.ca, body.verification, _now())
        except CertificateRefused as refused:
            raise ApiError(409 if refused.exists else 400, "exists" if refused.exists else "invalid", str(refused), refused.part) from None
        except ShelfFull as full:
            raise ApiError(409, "limit", str(full)) from None
        _log.info("authority-registered serial=%s name=%r by=%s", authority.serial, authority.name, principal.name)
        return answer(_authority(authority), 201)

    @router.get("/authorities/{serial}")
    async def show(serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        found = certificates.authority(read_serial(serial))
        if found is None:
            raise _no_authority()
        return answer(_authority(found))


def _no_authority() -> ApiError:
    return ApiError(404, "not_found", "there is no authority of this serial number")


def _no_certificate() -> ApiError:
    return ApiError(404, "not_found", "there is no certificate of this authority and serial number")


def _add_authority_changes(router: APIRouter, services: ApiServices, answer: Answer) -> None:
    manager, certificates = manager_guard(services), services.certificates

    async def change(serial: str, principal: Principal, done: bool, event: str) -> Response:
        if not done:
            raise _no_authority()
        _log.info("authority-%s serial=%s by=%s", event, serial, principal.name)
        return answer({"serial": serial, event: True})

    @router.post("/authorities/{serial}/activate")
    async def activate(serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        serial = read_serial(serial)
        return await change(serial, principal, await certificates.set_authority(serial, active=True), "activated")

    @router.post("/authorities/{serial}/deactivate")
    async def deactivate(serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        serial = read_serial(serial)
        return await change(serial, principal, await certificates.set_authority(serial, active=False), "deactivated")

    @router.delete("/authorities/{serial}")
    async def delete(serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        serial = read_serial(serial)
        return await change(serial, principal, await certificates.delete_authority(serial), "deleted")


def _add_certificates(router: APIRouter, services: ApiServices, answer: Answer) -> None:
    manager, certificates = manager_guard(services), services.certificates

    def changed(authority: str, serial: str, principal: Principal, done: bool, event: str) -> Response:
        if not done:
            raise _no_certificate()
        _log.info("certificate-%s authority=%s serial=%s by=%s", event, authority, serial, principal.name)
        return answer({"authority": authority, "serial": serial, event: True})

    @router.get("/certificates")
    async def list_certificates(
        principal: Annotated[Principal, Depends(manager)], of: str = "", start: Start = 0, limit: Limit = MAX_PAGE
    ) -> Response:
        found, total = certificates.devices(read_serial(of) or of, start, limit, _now())
        return answer({"certificates": [_certificate(device) for device in found], "total": total})

    @router.get("/certificates/{authority}/{serial}")
    async def show(authority: str, serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        found = certificates.device(read_serial(authority), read_serial(serial))
        if found is None:
            raise _no_certificate()
        return answer(_certificate(found))

    @router.post("/certificates/{authority}/{serial}/activate")
    async def activate(authority: str, serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        authority, serial = read_serial(authority), read_serial(serial)
        return changed(authority, serial, principal, await certificates.set_device(authority, serial, active=True), "activated")

    @router.post("/certificates/{authority}/{serial}/deactivate")
    async def deactivate(authority: str, serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        authority, serial = read_serial(authority), read_serial(serial)
        return changed(authority, serial, principal, await certificates.set_device(authority, serial, active=False), "deactivated")

    @router.delete("/certificates/{authority}/{serial}")
    async def delete(authority: str, serial: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        authority, serial = read_serial(authority), read_serial(serial)
        return changed(authority, serial, principal, await certificates.delete_device(authority, serial), "deleted")
