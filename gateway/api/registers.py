"""Routes for what is registered: groups, parent topics and access rules. For keys of the role manager and the administrator."""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

import logging
import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from gateway.api.bodies import GroupBody, PolicyBody, TopicBody
from gateway.api.errors import ApiError
from gateway.api.guard import manager_guard
from gateway.api.services import ApiServices
from gateway.auth.policies import RuleRefused
from gateway.auth.resources import ResourceRefused
from gateway.auth.shelf import ShelfFull
from schemas.identities import AccessRule, Principal

_log = logging.getLogger(__name__)

MAX_PAGE: Final = 1000
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(msgspec.to_builtins(value), status_code=status, headers=_HEADERS)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _refused(field: str, error: ResourceRefused | RuleRefused | ShelfFull) -> ApiError:
    if isinstance(error, ShelfFull):
        return ApiError(409, "limit", str(error))
    message = str(error).removeprefix(error.field + " ")
    if isinstance(error, RuleRefused):
        return ApiError(400, "invalid", message, error.field)
    return ApiError(409, "exists", message, field) if error.exists else ApiError(400, "invalid", message, field)


def register_routes(services: ApiServices) -> APIRouter:
    router = APIRouter()
    _add_groups(router, services)
    _add_topics(router, services)
    _add_policies(router, services)
    return router


def _add_groups(router: APIRouter, services: ApiServices) -> None:
    manager = manager_guard(services)

    @router.get("/groups")
    async def list_groups(principal: Annotated[Principal, Depends(manager)]) -> Response:
        groups = sorted(services.resources.groups(), key=lambda group: group.id)
        return _json({"groups": [{"groupId": group.id, "created": group.created} for group in groups]})

    @router.post("/groups")
    async def create_group(principal: Annotated[Principal, Depends(manager)], body: GroupBody) -> Response:
        try:
            group = await services.resources.create_group(body.group_id, principal.name, _now())
        except (ResourceRefused, ShelfFull) as error:
            raise _refused("groupId", error) from None
        _log.info("group-created group=%s by=%s", group.id, principal.name)
        return _json({"groupId": group.id, "created": group.created}, 201)

    @router.delete("/groups/{group_id}")
    async def delete_group(group_id: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        if not await services.resources.delete_group(group_id):
            raise ApiError(404, "not_found", "there is no such group")
        _log.info("group-deleted group=%s by=%s", group_id, principal.name)
        return _json({"groupId": group_id, "deleted": True})


def _add_topics(router: APIRouter, services: ApiServices) -> None:
    manager = manager_guard(services)

    @router.get("/topics")
    async def list_topics(principal: Annotated[Principal, Depends(manager)]) -> Response:
        topics = sorted(services.resources.topics(), key=lambda topic: topic.name)
        return _json({"topics": [{"topic": topic.name, "remark": topic.remark, "created": topic.created} for topic in topics]})

    @router.post("/topics")
    async def create_topic(principal: Annotated[Principal, Depends(manager)], body: TopicBody) -> Response:
        try:
            topic = await services.resources.create_topic(body.topic, body.remark, principal.name, _now())
        except (ResourceRefused, ShelfFull) as error:
            raise _refused("topic", error) from None
        _log.info("topic-created topic=%s by=%s", topic.name, principal.name)
        return _json({"topic": topic.name, "remark": topic.remark, "created": topic.created}, 201)

    @router.delete("/topics/{topic}")
    async def delete_topic(topic: str, principal: Annotated[Principal, Depends(manager)]) -> Response:
        if not await services.resources.delete_topic(topic):
            raise ApiError(404, "not_found", "there is no such topic")
        _log.info("topic-deleted topic=%s by=%s", topic, principal.name)
        return _json({"topic": topic, "deleted": True})


def _add_policies(router: APIRouter, services: ApiServices) -> None:
    """A rule is one for each principal, filter and action; putting it again sets its effect."""
    manager = manager_guard(services)

    @router.get("/policies")
    async def list_policies(
        principal: Annotated[Principal, Depends(manager)],
        of: str = "",
        start: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    ) -> Response:
        return _json({"policies": list(services.policies.stored(of))[start : start + limit]})

    @router.put("/policies")
    async def put_policy(principal: Annotated[Principal, Depends(manager)], body: PolicyBody) -> Response:
        rule = AccessRule(body.principal, body.action, body.filter, body.effect)
        try:
            await services.policies.put(rule)
        except (RuleRefused, ShelfFull) as error:
            raise _refused("", error) from None
        _log.info("policy-put principal=%r action=%s filter=%r effect=%s by=%s", *msgspec.structs.astuple(rule), principal.name)
        return _json(rule)

    @router.delete("/policies")
    async def delete_policy(principal: Annotated[Principal, Depends(manager)], body: PolicyBody) -> Response:
        if not await services.policies.drop(AccessRule(body.principal, body.action, body.filter)):
            raise ApiError(404, "not_found", "there is no such rule")
        _log.info("policy-deleted principal=%r action=%s filter=%r by=%s", body.principal, body.action, body.filter, principal.name)
        return _json({"deleted": True})
