"""The routes. Open to all: /metrics, /healthz, /readyz, and the pages of gateway/console. With a key: /api/v1/…, and the documentation.

Every handler is a coroutine on the gateway's own loop: it may wait, and must not compute for long.
"""

# No postponed annotations here: FastAPI reads those of the handlers, which name the guards of their enclosing function.

import logging
import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from gateway.api.authorities import authority_routes
from gateway.api.bearers import bearer_routes
from gateway.api.bodies import NewKeyBody, PublishBody, RotationBody, SignatureBody, read_payload, read_properties, read_topic
from gateway.api.documentation import describe, documentation_routes
from gateway.api.errors import ApiError, install
from gateway.api.guard import BodyLimit, guards, manager_guard
from gateway.api.registers import register_routes
from gateway.api.rules import rule_routes
from gateway.api.services import ApiServices
from gateway.api.statuses import naming, status_routes
from gateway.api.traces import trace_routes
from gateway.auth.credentials import credential_of
from gateway.auth.diagnosis import RIGHT, diagnose
from gateway.auth.keys import KeyLimit
from gateway.console.pages import page_routes
from schemas.identities import Principal

_log = logging.getLogger(__name__)

_HEADERS: Final[dict[str, str]] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def create_api(services: ApiServices, first: APIRouter | None = None) -> FastAPI:
    """The HTTP application of a running gateway. Routes are tried in order: ``first`` has those that are asked most often."""
    app = FastAPI(title="Sluiceway", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    install(app)
    app.add_middleware(BodyLimit)
    if not services.has_api:
        app.include_router(_open_routes(services))
        app.include_router(_no_api_routes())
        return app
    if first is not None:
        app.include_router(first)
    app.include_router(_open_routes(services))
    app.include_router(_key_routes(services), prefix="/api/v1")
    app.include_router(_client_routes(services), prefix="/api/v1")
    app.include_router(_node_routes(services), prefix="/api/v1")
    app.include_router(register_routes(services), prefix="/api/v1")
    app.include_router(authority_routes(services, _HEADERS), prefix="/api/v1")
    app.include_router(rule_routes(services, _HEADERS), prefix="/api/v1")
    app.include_router(status_routes(services, _HEADERS), prefix="/api/v1")
    app.include_router(trace_routes(services, _HEADERS), prefix="/api/v1")
    app.include_router(bearer_routes(services), prefix="/api/v1")
    app.include_router(documentation_routes(app, services))
    app.include_router(page_routes())
    describe(app)
    return app


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(msgspec.to_builtins(value), status_code=status, headers=_HEADERS)


def _open_routes(services: ApiServices) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(services.metrics(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @router.get("/healthz")
    async def health() -> Response:
        return _json({"status": "ok"})

    @router.get("/readyz")
    async def ready() -> Response:
        reasons = list(services.readiness())
        doubts = {"durability": "as configured", "doubts": list(services.weaknesses())} if services.weaknesses() else {}
        missing = {"missing": list(services.missing_roles())} if services.missing_roles() else {}
        return _json({"ready": not reasons, "reasons": reasons, **missing, **doubts}, 503 if reasons else 200)

    return router


def _no_api_routes() -> APIRouter:
    router = APIRouter()

    @router.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def elsewhere(path: str) -> Response:
        raise ApiError(404, "no_api", "this node lacks the role api (node.roles): ask one that has it; here are /metrics, /healthz and /readyz alone")

    return router


def _key_routes(services: ApiServices) -> APIRouter:
    _, administrator = guards(services)
    router = APIRouter()

    @router.get("/keys")
    async def list_keys(principal: Annotated[Principal, Depends(administrator)]) -> Response:
        infos = services.keyring.all()
        return _json({"keys": [{"accessKeyId": i.id, "role": i.role, "created": i.created, "revoked": i.revoked} for i in infos]})

    @router.post("/keys")
    async def create_key(principal: Annotated[Principal, Depends(administrator)], body: NewKeyBody) -> Response:
        try:
            key = await services.keyring.create(body.role, time.time_ns() // 1_000_000)
        except KeyLimit as error:
            raise ApiError(409, "key_limit", str(error)) from None
        _log.info("key-created key=%s role=%s by=%s", key.id, key.role, principal.name)
        return _json(credential_of(key), 201)

    @router.post("/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, principal: Annotated[Principal, Depends(administrator)], body: RotationBody) -> Response:
        if key_id == principal.name:
            raise ApiError(409, "own_credential", "a credential can't rotate itself: delete admin.json and start the gateway again")
        key = await services.keyring.rotate(key_id, time.time_ns() // 1_000_000, body.valid_seconds * 1000)
        if key is None:
            raise ApiError(404, "not_found", "there is no active key of this id")
        _log.info("key-rotated key=%s by=%s", key_id, principal.name)
        return _json(credential_of(key))

    @router.delete("/keys/{key_id}")
    async def revoke_key(key_id: str, principal: Annotated[Principal, Depends(administrator)]) -> Response:
        if key_id == principal.name:
            message = "a credential can't revoke itself: delete admin.json and start the gateway again, which makes a new one"
            raise ApiError(409, "own_credential", message)
        if not await services.keyring.revoke(key_id):
            raise ApiError(404, "not_found", "there is no active key of this id")
        closed = await services.close_connections_of(key_id)
        _log.info("key-revoked key=%s by=%s connections=%d", key_id, principal.name, closed.count)
        return _json({"accessKeyId": key_id, "revoked": True, "connectionsClosed": closed.count, **naming(closed.silent)})

    return router


def _client_routes(services: ApiServices) -> APIRouter:
    _, administrator = guards(services)
    router = APIRouter()

    @router.get("/sessions/{client_id:path}")
    async def session(client_id: str, principal: Annotated[Principal, Depends(administrator)]) -> Response:
        found = await services.session(client_id)
        if found is None:
            raise ApiError(404, "not_found", "this client has no session")
        subscriptions = [{"filter": s.filter, "qos": s.qos, "identifier": s.identifier} for s in found.subscriptions]
        return _json({**msgspec.to_builtins(found), "subscriptions": subscriptions})

    @router.delete("/connections/{client_id:path}")
    async def close(client_id: str, principal: Annotated[Principal, Depends(administrator)]) -> Response:
        if not await services.close_connection(client_id):
            raise ApiError(404, "not_found", "this client is not connected")
        _log.info("connection-closed client=%s by=%s", client_id, principal.name)
        return _json({"clientId": client_id, "closed": True})

    return router


def _node_routes(services: ApiServices) -> APIRouter:
    any_key, _ = guards(services)
    manager = manager_guard(services)
    router = APIRouter()

    @router.get("/node")
    async def node(principal: Annotated[Principal, Depends(any_key)]) -> Response:
        return _json(services.node())

    @router.post("/signature")
    async def check_signature(principal: Annotated[Principal, Depends(manager)], body: SignatureBody) -> Response:
        """What is wrong with a Signature login, for its key's owner; by the key that the user name names."""
        keyring, parts = services.keyring, body.user_name.split("|")
        key_id = parts[1] if len(parts) == 3 else ""
        secret, known = keyring.secret_or_dummy(key_id)
        if len(parts) == 3 and not known:
            return _json({"right": False, "problem": "there is no active access key of this id"})
        sent = body.password.encode(errors="replace")
        secrets = [secret, keyring.previous_secret(key_id, time.time_ns() // 1_000_000)]
        found = [diagnose(body.client_id, key_id or "<key>", each, keyring.instance_id, body.user_name, sent) for each in secrets if each is not None]
        right = RIGHT in found
        return _json({"right": right, "problem": "" if right else found[0]})

    @router.post("/publish")
    async def publish(principal: Annotated[Principal, Depends(any_key)], body: PublishBody) -> Response:
        topic = read_topic(body, services.limits)
        payload, properties = read_payload(body, services.limits), read_properties(body, services.limits)
        if not services.access.may(principal, "publish", topic):
            raise ApiError(403, "forbidden", "this key may not publish to this topic", "topic")
        message_id = await services.publish(topic, payload, body.qos, body.retain, properties, principal)
        return _json({"messageId": message_id.hex()})

    return router
