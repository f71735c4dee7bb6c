"""The routes under /api/v1/rules: for the administrator. What a rule may say is checked in schemas/rules.py and gateway/rules."""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Path, Query, Response
from fastapi.responses import JSONResponse

from gateway.api.guard import guards
from gateway.api.services import ApiServices
from schemas.identities import Principal
from schemas.rules import RuleError

Given = Annotated[dict[str, Any], Body()]
DEFAULT_RECORDS = 100


class _Json:
    """Answers with these headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, value: Any, status: int = 200) -> Response:
        return JSONResponse(msgspec.to_builtins(value), status_code=status, headers=self._headers)


def rule_routes(services: ApiServices, headers: dict[str, str]) -> APIRouter:
    """The rules, and the dead letters of each."""
    router, json = APIRouter(), _Json(headers)
    router.include_router(_rules(services, json))
    router.include_router(_letters(services, json))
    return router


def _rules(services: ApiServices, json: _Json) -> APIRouter:
    router = APIRouter(prefix="/rules")
    Administrator = Annotated[Principal, Depends(guards(services)[1])]

    @router.get("")
    async def list_rules(principal: Administrator) -> Response:
        return json({"rules": services.rules.all()})

    @router.post("")
    async def create(principal: Administrator, body: Given) -> Response:
        return json(await services.rules.create(body, by=principal.name), 201)

    @router.post("/dry-run")
    async def dry_run_of(principal: Administrator, body: Given) -> Response:
        rule, records = body.get("rule"), _records(body, "rule")
        if not isinstance(rule, dict):
            raise RuleError("rule", "is missing: give the rule as you would to create it")
        return json(await services.rules.dry_run("", rule, records))

    @router.get("/{rule_id}")
    async def show(principal: Administrator, rule_id: str) -> Response:
        return json(services.rules.show(rule_id))

    @router.patch("/{rule_id}")
    async def update(principal: Administrator, rule_id: str, body: Given) -> Response:
        return json(await services.rules.update(rule_id, body, by=principal.name))

    @router.delete("/{rule_id}")
    async def delete(principal: Administrator, rule_id: str) -> Response:
        await services.rules.delete(rule_id, by=principal.name)
        return json({"id": rule_id, "deleted": True})

    @router.post("/{rule_id}/enable")
    async def enable(principal: Administrator, rule_id: str) -> Response:
        return json(await services.rules.enable(rule_id, enabled=True, by=principal.name))

    @router.post("/{rule_id}/disable")
    async def disable(principal: Administrator, rule_id: str) -> Response:
        return json(await services.rules.enable(rule_id, enabled=False, by=principal.name))

    @router.post("/{rule_id}/reset")
    async def reset(principal: Administrator, rule_id: str, body: Given) -> Response:
        return json(await services.rules.reset(rule_id, body, by=principal.name))

    @router.post("/{rule_id}/dry-run")
    async def dry_run(principal: Administrator, rule_id: str, body: Given) -> Response:
        return json(await services.rules.dry_run(rule_id, None, _records(body)))

    return router


def _letters(services: ApiServices, json: _Json) -> APIRouter:
    router = APIRouter(prefix="/rules/{rule_id}/dead-letters")
    Administrator = Annotated[Principal, Depends(guards(services)[1])]

    @router.get("")
    async def letters(
        principal: Administrator,
        rule_id: str,
        after: Annotated[int, Query(ge=0, lt=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
    ) -> Response:
        return json({"deadLetters": await services.rules.letters(rule_id, after, limit)})

    @router.post("/resend")
    async def resend(principal: Administrator, rule_id: str, body: Given) -> Response:
        number = body.get("number")
        if set(body) - {"number"} or not (number is None or (isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**62)):
            raise RuleError("number", "it must be a dead letter's number, or be left out for all")
        return json(await services.rules.resend(rule_id, number))

    @router.delete("")
    async def drop_all(principal: Administrator, rule_id: str) -> Response:
        await services.rules.drop_letters(rule_id, None)
        return json({"id": rule_id, "dropped": True})

    @router.delete("/{number}")
    async def drop(principal: Administrator, rule_id: str, number: Annotated[int, Path(ge=1, lt=2**62)]) -> Response:
        await services.rules.drop_letters(rule_id, number)
        return json({"id": rule_id, "number": number, "dropped": True})

    return router


def _records(body: dict[str, Any], *others: str) -> int:
    unknown = set(body) - {"records", *others}
    if unknown:
        raise RuleError(str(sorted(unknown)[0])[:64], "unknown field: a dry run takes records")
    records = body.get("records", DEFAULT_RECORDS)
    if isinstance(records, bool) or not isinstance(records, int):
        raise RuleError("records", "it must be a number")
    return records
