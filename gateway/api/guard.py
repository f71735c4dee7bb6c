"""What stands before every route: how much may be sent, how slowly, and who is asking.

The limits are an ASGI layer of their own, so that no route can be reached around them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.errors import ApiError
from gateway.api.scopes import is_enough, scope_of
from gateway.api.services import ApiServices
from gateway.auth.bearers import KIND, key_id_of
from gateway.auth.bearers import principal_of as bearer_principal
from gateway.auth.failures import RETRY_AFTER
from gateway.auth.login import ADMINISTRATOR, LoginRefused, Peer
from schemas.identities import Principal
from schemas.limits import MIB
from schemas.reasons import ReasonCode
from schemas.settings import Address

MAX_BODY: Final = MIB
"""Bytes of a request's body. A payload in base64 is a third longer than itself."""

BODY_TIMEOUT: Final = 10.0
"""Seconds until the next part of a body has to be here."""

Guard = Callable[[Request], Awaitable[Principal]]

_log = logging.getLogger(__name__)


class BodyLimit:
    """Refuses bodies that are too large or come too slowly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0
        is_complete = False

        async def limited() -> Message:
            nonlocal read, is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request's body came too slowly") from None
            read += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if read > MAX_BODY:
                raise HTTPException(413, f"the request's body is larger than {MAX_BODY} bytes")
            return message

        await self._app(scope, limited, send)


def principal_of(services: ApiServices, request: Request) -> Principal:
    """Who asks: a bearer key, or HTTP Basic with an access key's id and secret. ApiError where that is missing or wrong."""
    peer = _peer(request)
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _bearer(services, request, encoded.strip(), peer)
    if scheme.lower() != "basic":
        raise ApiError(401, "unauthorized", "give an access key: HTTP Basic with its id and its secret")
    try:
        key_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ApiError(401, "unauthorized", "Authorization is not HTTP Basic with an access key's id and secret") from None
    _check_budget(services, key_id, peer)
    outcome = services.authenticator.login_api(key_id, secret, peer, time.time_ns() // 1_000_000)
    if isinstance(outcome, Principal):
        return outcome
    raise _refused(services, outcome, key_id, peer)


def _bearer(services: ApiServices, request: Request, token: str, peer: Peer) -> Principal:
    """The principal of a bearer key whose scope is enough for this request."""
    key_id = key_id_of(token)
    _check_budget(services, key_id, peer)
    if not services.authenticator.may_send_secrets(peer):
        raise _refused(services, LoginRefused(ReasonCode.NOT_AUTHORIZED, "bearer key in clear text from another machine"), key_id, peer)
    key = services.bearers.find(token, time.time_ns() // 1_000_000)
    if key is None:
        raise _refused(services, LoginRefused(ReasonCode.BAD_USER_NAME_OR_PASSWORD, "unknown bearer key"), key_id, peer, "no valid bearer key")
    needed = scope_of(request.method, request.scope["path"])
    if not is_enough(key.scope, needed):
        _log.warning("api-scope-refused peer=%s key=%s scope=%s needed=%s", peer.address, key.id, key.scope, needed)
        raise ApiError(403, "forbidden", f"this needs a bearer key of the scope {needed}, and this one has {key.scope}")
    return bearer_principal(key)


def _is_bearer(principal: Principal) -> bool:
    """A bearer key has shown that its scope is enough: roles are for access keys."""
    return principal.name.startswith(KIND)


def _check_budget(services: ApiServices, key_id: str, peer: Peer) -> None:
    """Before anything of a login is looked at: who has failed too often waits, right or wrong."""
    if services.failed_logins.refuse(peer.host, key_id):
        raise ApiError(429, "too_many_failed_logins", f"too many logins from this address or with this key have failed: try again in {RETRY_AFTER} s")


def _refused(services: ApiServices, refused: LoginRefused, key_id: str, peer: Peer, words: str = "unknown access key or wrong secret") -> ApiError:
    """The answer to a login that failed, which counts. It says nothing of why, but where the peer itself can't be helped."""
    services.failed_logins.add(peer.host, key_id, is_loopback=peer.is_loopback)
    _log.warning("api-login-refused peer=%s key=%r reason=%s", peer.address, key_id[:64], refused.reason)
    if refused.reason_code == ReasonCode.NOT_AUTHORIZED:
        return ApiError(403, "forbidden", f"{refused.reason}: use TLS in front of it, or set allow_plaintext_login")
    return ApiError(401, "unauthorized", words)


def manager_guard(services: ApiServices) -> Guard:
    """The dependency of routes that are for keys of the role manager and the administrator."""

    async def manager(request: Request) -> Principal:
        principal = principal_of(services, request)
        if principal.role not in ("manager", ADMINISTRATOR) and not _is_bearer(principal):
            raise ApiError(403, "forbidden", "this needs a key of the role manager, or the administrator's credential")
        return principal

    return manager


def guards(services: ApiServices) -> tuple[Guard, Guard]:
    """The dependencies of routes: any key, and the administrator's credential only. Coroutines, or they would each cost a thread."""

    async def any_key(request: Request) -> Principal:
        return principal_of(services, request)

    async def administrator(request: Request) -> Principal:
        principal = principal_of(services, request)
        if principal.role != ADMINISTRATOR and not _is_bearer(principal):
            raise ApiError(403, "forbidden", "this needs the administrator's credential (admin.json in the data folder)")
        return principal

    return any_key, administrator


def _peer(request: Request) -> Peer:
    host, port = request.client or ("", 0)
    return Peer(f"{host}:{port}", Address(host, 0).is_loopback, request.url.scheme == "https")
