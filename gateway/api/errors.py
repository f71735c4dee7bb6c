"""Errors as JSON: `{"error": {"code", "message", "field"}}`. The field is there where one is to blame; internals never are."""

from __future__ import annotations

import logging
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.auth.failures import RETRY_AFTER
from gateway.cluster.asking import Unanswered
from schemas.errors import LogError, StoreError
from schemas.rules import RuleError

_log = logging.getLogger(__name__)

_HEADERS: Final = {401: {"WWW-Authenticate": 'Basic realm="sluiceway"'}, 429: {"Retry-After": str(RETRY_AFTER)}}
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large", 415: "unsupported_media_type"}


class ApiError(Exception):
    """An answer other than success, made where the fault is seen."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field


def error_response(error: ApiError) -> JSONResponse:
    body = {"code": error.code, "message": error.message}
    if error.field:
        body["field"] = error.field
    headers = _HEADERS.get(error.status)
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return error_response(_as_api_error(error))


def _as_api_error(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error)
        case RuleError():
            status, code = (404, "not_found") if error.missing else (409, "conflict") if error.conflict else (400, "invalid")
            return ApiError(status, code, error.message, error.field)
        case HTTPException():
            return ApiError(error.status_code, _CODES.get(error.status_code, "refused"), str(error.detail))
        case Unanswered():
            return ApiError(503, "unavailable", str(error))
        case LogError() | StoreError():
            _log.warning("api-unavailable error=%s", type(error).__name__)
            return ApiError(503, "unavailable", "it can't be made durable or read now; try again")
        case _:
            return ApiError(500, "internal", "internal error; the log of the gateway says more")


def _invalid(error: RequestValidationError) -> ApiError:
    """The first fault, with the field's place in the body."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body")
    message = {"json_invalid": "the body is not valid JSON", "missing": "is missing", "extra_forbidden": "is unknown"}.get(
        first["type"], first["msg"]
    )
    return ApiError(400, "invalid", message, "" if first["type"] == "json_invalid" else field)


def install(app: FastAPI) -> None:
    """Answer every error this way."""
    for kind in (ApiError, RequestValidationError, RuleError, HTTPException, Unanswered, LogError, StoreError, Exception):
        app.add_exception_handler(kind, _answer)
