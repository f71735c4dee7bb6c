"""Routes that tell what happened: the trace by client, message and time, and the history of a client. For managers and the administrator."""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

import time
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from gateway.api.errors import ApiError
from gateway.api.guard import manager_guard
from gateway.api.services import ApiServices
from schemas.identities import Principal
from schemas.limits import DAY_MS
from schemas.traces import OF_DEVICE, OF_MESSAGE, TracePage, TraceQuery
from streams.tracing import TraceBusy, TraceOff, TraceTooDeep

MAX_PAGES: Final = 1_000_000
MAX_SIZE: Final = 1000
LATEST: Final = 2**53
ACTIONS: Final = {"device": OF_DEVICE, "message": OF_MESSAGE, "": ()}

Begin = Annotated[int | None, Query(ge=0, le=LATEST, description="ms of the wall clock; a day before end where it is missing")]
End = Annotated[int | None, Query(ge=0, le=LATEST, description="ms of the wall clock; now where it is missing")]
Page = Annotated[int, Query(ge=1, le=MAX_PAGES)]
Size = Annotated[int, Query(ge=1, le=MAX_SIZE, alias="pageSize")]


def trace_routes(services: ApiServices, headers: dict[str, str]) -> APIRouter:
    manager = manager_guard(services)
    router = APIRouter()

    async def find(begin: int | None, end: int | None, page: int, size: int, reverse: bool, **what: Any) -> Response:
        until = time.time_ns() // 1_000_000 if end is None else end
        since = max(0, until - DAY_MS) if begin is None else begin
        if since > until:
            raise ApiError(400, "invalid", "must not be later than end", "begin")
        query = TraceQuery(begin=since, end=until, page=page, size=size, newest_first=reverse, **what)
        return JSONResponse(msgspec.to_builtins(_described(await ask(services, query), query)), headers=headers)

    @router.get("/trace")
    async def trace(
        principal: Annotated[Principal, Depends(manager)],
        client: Annotated[str, Query(max_length=256)] = "",
        message: Annotated[str, Query(pattern="^([0-9A-Fa-f]{32})?$")] = "",
        kind: Literal["", "device", "message"] = "",
        begin: Begin = None,
        end: End = None,
        page: Page = 1,
        size: Size = 100,
        reverse: bool = False,
    ) -> Response:
        what = {"client": client, "message": bytes.fromhex(message), "actions": ACTIONS[kind]}
        return await find(begin, end, page, size, reverse, **what)

    @router.get("/history/{client_id:path}")
    async def history(
        client_id: str,
        principal: Annotated[Principal, Depends(manager)],
        begin: Begin = None,
        end: End = None,
        page: Page = 1,
        size: Size = 100,
        reverse: bool = True,
    ) -> Response:
        return await find(begin, end, page, size, reverse, client=client_id, actions=OF_DEVICE)

    return router


async def ask(services: ApiServices, query: TraceQuery) -> TracePage:
    try:
        return await services.trace(query)
    except TraceOff as error:
        raise ApiError(409, "trace_off", str(error)) from None
    except TraceTooDeep as error:
        raise ApiError(400, "invalid", str(error), "page") from None
    except TraceBusy as error:
        raise ApiError(503, "busy", str(error)) from None


def _described(found: TracePage, query: TraceQuery) -> dict[str, Any]:
    """Empty fields are left out of events."""
    events = [{name: value for name, value in msgspec.to_builtins(event).items() if value != ""} for event in found.events]
    return {"page": query.page, "pageSize": query.size, "total": found.total, "events": events, "gaps": found.gaps}
