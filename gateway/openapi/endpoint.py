"""The route `/`: a signed request in, an action's fields or a fault out. The order of checks is what keeps it safe.

Signature before anything is believed, the key's right to come in from there, the clock, then the nonce, which is stored so that it is used once
on every node and across restarts; the action last.
"""

# No postponed annotations here: FastAPI reads those of the handler.

import logging
import uuid
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, HTTPException, Response
from fastapi import Request as HttpRequest
from starlette.requests import ClientDisconnect

from gateway.auth.login import LoginRefused, Peer
from gateway.openapi import audit
from gateway.openapi.answers import answer, fault_answer
from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault
from gateway.openapi.parameters import Parameters
from gateway.openapi.signing import WINDOW_MS, Claim, Request, claim_of
from gateway.openapi.table import ACTIONS
from gateway.transports.peer import is_loopback
from schemas.errors import SluicewayError
from schemas.identities import Principal
from schemas.reasons import ReasonCode
from streams.store import Document

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.services import Services

MAX_PARAMETERS: Final = 500
MAX_SHOWN: Final = 16_384
"""Bytes of a string to sign that a refusal repeats to its sender."""
NOT_SHOWN: Final = frozenset({"Secret", "Token", "SecurityToken"})
"""Parameters with which it repeats none: what a caller is told, it may log."""
FORM: Final = "application/x-www-form-urlencoded"

_log = logging.getLogger(__name__)


def open_api_routes(node: "Node", services: "Services") -> APIRouter:
    """`/` of the HTTP listener, GET and POST: a plain route, since it takes the request as it is, many times a second."""
    router = APIRouter()

    async def call(request: HttpRequest) -> Response:
        request_id = str(uuid.uuid4()).upper()
        xml, host, peer = False, request.headers.get("host", "")[:255], _peer(request)
        claim: Claim | None = None
        try:
            read = await _read(request)
            xml = dict((*read.query, *read.form)).get("Format", "JSON").upper() == "XML"
            claim = claim_of(read)
            fields = await _serve(node, services, claim, peer)
            audit.done(peer, claim, fields)
            return answer(claim.action, fields, request_id, xml=xml)
        except Fault as fault:
            audit.refused(node, peer, claim, fault)
            return fault_answer(fault, host, request_id, xml=xml)
        except HTTPException as refused:  # of the layer before all routes: a body that is too large or too slow
            return fault_answer(Fault("InvalidParameter", detail=f"{refused.detail}."), host, request_id, xml=xml)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except SluicewayError as error:
            acted = ("", "") if claim is None else (claim.action[:64], claim.key_id[:64])
            _log.warning("openapi-failed peer=%s action=%r key=%r error=%s", peer.address, *acted, type(error).__name__)
            return fault_answer(Fault("SystemOverFlow"), host, request_id, xml=xml)
        except Exception:  # noqa: BLE001 - SDKs read no error of another form; the log has what it was
            _log.exception("openapi-failed request=%s peer=%s", request_id, peer.address)
            return fault_answer(Fault("InternalError"), host, request_id, xml=xml)

    router.add_route("/", call, methods=["GET", "POST"], include_in_schema=False)
    return router


async def _read(request: HttpRequest) -> Request:
    body = await request.body()
    try:
        query = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
        form = []
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
            form = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Fault("IncompleteSignature", detail=f"Parameters must be at most {MAX_PARAMETERS}, URL-encoded, in UTF-8.") from None
    headers = {name: ",".join(request.headers.getlist(name)) for name in request.headers}
    return Request(request.method, request.scope["path"], query, form, headers, body)


def _peer(request: HttpRequest) -> Peer:
    host, port = request.client or ("", 0)
    return Peer(f"{host}:{port}", is_loopback(host), request.scope["scheme"] == "https")


async def _serve(node: "Node", services: "Services", claim: Claim, peer: Peer) -> Fields:
    now = node.clock.wall()
    principal = _authenticate(node, claim, peer, now)
    if claim.parameters.get("SecurityToken"):
        raise Fault("CheckAccountInfoFailed")
    if abs(claim.time - now) > WINDOW_MS:
        raise Fault("InvalidTimeStamp.Expired")
    nonce = Document("nonce", f"{claim.key_id}\x00{claim.nonce}", expires_at=claim.time + 2 * WINDOW_MS)
    if not await node.store.add_document(nonce):
        raise Fault("SignatureNonceUsed")
    action = ACTIONS.get(claim.action)
    if action is None or claim.version not in action.versions:
        raise Fault("ApiNotSupport")
    if action.manages and principal.role == "device":
        raise Fault("Forbidden")
    call = Call(node, services, principal, Parameters(claim.parameters, action.bad), now)
    return await action.run(call)


def _authenticate(node: "Node", claim: Claim, peer: Peer, now: int) -> Principal:
    """Whose key signed; a wrong signature and a key that nobody has cost the same."""
    failed = node.failed_logins
    if failed.refuse(peer.host, claim.key_id):
        raise Fault("Throttling")
    keyring = node.registers.keyring
    secret, known = keyring.secret_or_dummy(claim.key_id)
    signed = claim.is_signed_with(secret) and known
    if not signed:
        previous = keyring.previous_secret(claim.key_id, now)
        signed = previous is not None and claim.is_signed_with(previous)
    if not signed:
        failed.add(peer.host, claim.key_id, is_loopback=peer.is_loopback)
        if not known:
            raise Fault("InvalidAccessKeyId.NotFound")
        # The classic SDK compares this with what it has signed, to tell a wrong secret from a request that was changed on its way
        shown = "" if NOT_SHOWN & claim.parameters.keys() else "server string to sign is:" + claim.signed[:MAX_SHOWN].decode(errors="replace")
        raise Fault("SignatureDoesNotMatch", detail=shown)
    admitted = node.authenticator.admit_signed(claim.key_id, peer)
    if isinstance(admitted, LoginRefused):
        raise Fault("Forbidden.Plaintext" if admitted.reason_code == ReasonCode.NOT_AUTHORIZED else "SignatureDoesNotMatch")
    return admitted
