"""Routes about who is online: some clients at a time, a group's clients page by page, and how many of each group."""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from gateway.api.errors import ApiError
from gateway.api.guard import guards, manager_guard
from gateway.api.services import ApiServices
from schemas.identities import Principal
from schemas.presence import ClientStatus
from schemas.resources import SEPARATOR, group_id_problem

MAX_CLIENTS: Final = 10
"""Clients of one batch query, as in the OpenAPI."""
MAX_PAGE: Final = 1000


def described(client_id: str, status: ClientStatus | None) -> dict[str, Any]:
    """A client that was never seen is offline since no time."""
    if status is None:
        return {"clientId": client_id, "online": False}
    channel = {"channelId": status.channel, "address": status.address} if status.online else {}
    return {"clientId": client_id, "online": status.online, "time": status.time, **channel}


def naming(silent: Sequence[str]) -> dict[str, list[str]]:
    """Of many nodes, those that did not answer."""
    return {"silent": list(silent)} if silent else {}


def status_routes(services: ApiServices, headers: dict[str, str]) -> APIRouter:
    any_key, _ = guards(services)
    manager = manager_guard(services)
    router = APIRouter()

    def checked(group_id: str) -> str:
        if problem := group_id_problem(group_id):
            raise ApiError(400, "invalid", problem, "groupId")
        return group_id

    @router.get("/status/{client_id:path}")
    async def status(client_id: str, principal: Annotated[Principal, Depends(any_key)]) -> Response:
        found = (await services.statuses([client_id])).get(client_id)
        if found is None:
            raise ApiError(404, "not_found", "this client was never seen")
        return JSONResponse(described(client_id, found), headers=headers)

    @router.get("/statuses")
    async def statuses(
        principal: Annotated[Principal, Depends(any_key)], client: Annotated[list[str], Query(min_length=1, max_length=MAX_CLIENTS)]
    ) -> Response:
        found = await services.statuses(client)
        return JSONResponse({"statuses": [described(each, found.get(each)) for each in client]}, headers=headers)

    @router.get("/online")
    async def online(principal: Annotated[Principal, Depends(manager)]) -> Response:
        """Where many nodes are one gateway and some did not answer, ``silent`` names those: their clients are not counted."""
        found = await services.online()
        groups = [{"groupId": group, "online": found.counts[group]} for group in sorted(found.counts)]
        return JSONResponse({"groups": groups, **naming(found.silent)}, headers=headers)

    @router.get("/groups/{group_id}/clients")
    async def clients(
        group_id: str,
        principal: Annotated[Principal, Depends(manager)],
        after: Annotated[str, Query(max_length=256)] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    ) -> Response:
        """``next`` is what to give as ``after`` for the next page; it is missing on the last. ``silent``: as for counts of all groups."""
        found = await services.group_statuses(checked(group_id) + SEPARATOR, after, limit)
        following = {"next": found[-1].client} if len(found) == limit else {}
        counted = await services.online(group_id)
        page = [described(status.client, status) for status in found]
        answer = {"groupId": group_id, "online": counted.counts.get(group_id, 0), "clients": page}
        return JSONResponse({**answer, **following, **naming(counted.silent)}, headers=headers)

    return router
