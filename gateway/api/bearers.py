"""Routes for bearer keys: made, listed and revoked. For the administrator, and for bearer keys of the scope admin."""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

import logging
import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from gateway.api.bodies import BearerKeyBody
from gateway.api.errors import ApiError
from gateway.api.guard import guards
from gateway.api.services import ApiServices
from gateway.auth.bearers import KIND, BearerRefused
from gateway.auth.shelf import ShelfFull
from schemas.identities import Principal

_log = logging.getLogger(__name__)

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(msgspec.to_builtins(value), status_code=status, headers=_HEADERS)


def bearer_routes(services: ApiServices) -> APIRouter:
    _, administrator = guards(services)
    router = APIRouter(prefix="/bearer-keys")

    @router.get("")
    async def list_bearer_keys(principal: Annotated[Principal, Depends(administrator)]) -> Response:
        return _json({"bearerKeys": services.bearers.all()})

    @router.post("")
    async def create_bearer_key(principal: Annotated[Principal, Depends(administrator)], body: BearerKeyBody) -> Response:
        try:
            key, secret = await services.bearers.create(body.name, body.scope, body.valid_seconds, time.time_ns() // 1_000_000)
        except BearerRefused as refused:
            raise ApiError(400, "invalid", refused.message, refused.field) from None
        except ShelfFull as error:
            raise ApiError(409, "limit", str(error)) from None
        _log.info("bearer-key-created key=%s scope=%s name=%r by=%s", key.id, key.scope, key.name, principal.name)
        return _json(msgspec.to_builtins(key) | {"bearerKey": secret.reveal()}, 201)

    @router.delete("/{key_id}")
    async def revoke_bearer_key(key_id: str, principal: Annotated[Principal, Depends(administrator)]) -> Response:
        if principal.name == KIND + key_id:
            raise ApiError(409, "own_credential", "a key can't revoke itself: use another one, or the administrator's credential")
        if not await services.bearers.revoke(key_id):
            raise ApiError(404, "not_found", "there is no bearer key of this id")
        _log.info("bearer-key-revoked key=%s by=%s", key_id, principal.name)
        return _json({"id": key_id, "revoked": True})

    return router
