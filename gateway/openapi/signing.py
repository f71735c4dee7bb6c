"""Signed requests, in both families that the SDKs use: Signature V1 (HMAC-SHA1 over all parameters) and ACS3-HMAC-SHA256. Pure.

``claim_of`` reads who a request says to be and what must be signed; ``is_signed_with`` verifies it with that key's secret. Nothing of a
request may be believed before that, but the key's id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.openapi.faults import Fault

Pairs = Sequence[tuple[str, str]]

ACS3: Final = "ACS3-HMAC-SHA256"
MUST_BE_SIGNED: Final = frozenset({"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"})
"""Without any of these in a signature somebody on the way could change what is asked, or ask again."""
WINDOW_MS: Final = 900_000
"""How far a request's time may be from ours, either way."""
MAX_NONCE: Final = 128

_CREDENTIAL: Final = re.compile(r"Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-fA-F]+)")
_ESCAPED: Final = re.compile(rb"[^A-Za-z0-9._~-]")
_ESCAPES: Final = [b"%%%02X" % byte for byte in range(256)]
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class Request(msgspec.Struct, frozen=True):
    """``headers`` by lower-case name; ``form`` is the body's parameters where it is a form."""

    method: str
    path: str
    query: Pairs
    form: Pairs
    headers: Mapping[str, str]
    body: bytes


class Claim(msgspec.Struct, frozen=True):
    """Who a request says to be, and what is signed. ``time`` in ms of the wall clock; ``parameters`` are the action's own and common ones."""

    key_id: str
    action: str
    version: str
    nonce: str
    time: int
    signature: bytes
    signed: bytes
    is_v1: bool
    parameters: Mapping[str, str]

    def is_signed_with(self, secret: bytes) -> bool:
        if self.is_v1:
            expected = base64.b64encode(hmac.digest(secret + b"&", self.signed, "sha1"))
        else:
            expected = hmac.digest(secret, self.signed, "sha256").hex().encode()
        return hmac.compare_digest(expected, self.signature)


def encode(text: str) -> str:
    """RFC 3986: space is %20, `~` stays. A payload is long, and signed twice encoded: `quote` would look at each of its bytes in turn."""
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0][0]], text.encode()).decode("ascii")


def claim_of(request: Request) -> Claim:
    """Fault where the request is not signed, or not in a form of either family."""
    parameters = dict(request.query) | dict(request.form)
    if len(parameters) != len(request.query) + len(request.form):
        raise Fault("IncompleteSignature", detail="A parameter is there twice.")
    authorization = request.headers.get("authorization", "")
    if authorization.startswith(ACS3):
        return _claim_acs3(request, authorization[len(ACS3) :], parameters)
    return _claim_v1(request, parameters)


def _claim_v1(request: Request, parameters: dict[str, str]) -> Claim:
    for name in ("AccessKeyId", "Signature", "SignatureNonce", "Timestamp", "Action", "Version"):
        if not parameters.get(name):
            raise Fault("IncompleteSignature", name, "is missing")
    if parameters.get("SignatureMethod") != "HMAC-SHA1" or parameters.get("SignatureVersion") != "1.0":
        raise Fault("IncompleteSignature", detail="SignatureMethod must be HMAC-SHA1 and SignatureVersion 1.0.")
    signed = v1_text(request.method, parameters)
    return Claim(
        parameters["AccessKeyId"],
        parameters["Action"],
        parameters["Version"],
        _nonce(parameters["SignatureNonce"]),
        _time(parameters["Timestamp"]),
        parameters["Signature"].encode(),
        signed.encode(),
        True,
        parameters,
    )


def v1_text(method: str, parameters: Mapping[str, str]) -> str:
    """The string to sign of Signature V1."""
    pairs = sorted((name, value) for name, value in parameters.items() if name != "Signature")
    joined = "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)
    return f"{method}&{encode('/')}&{encode(joined)}"


def _claim_acs3(request: Request, rest: str, parameters: dict[str, str]) -> Claim:
    parsed = _CREDENTIAL.fullmatch(rest.strip())
    if parsed is None:
        raise Fault("IncompleteSignature", "Authorization", "must have Credential, SignedHeaders and Signature")
    key_id, names, signature = parsed[1], parsed[2].lower().split(";"), parsed[3].lower()
    # As they are signed: with white space left around them a nonce would be another one under the same signature, and a request taken again
    headers = {name: value.strip() for name, value in request.headers.items()}
    must = MUST_BE_SIGNED | {"content-type"} if request.form else MUST_BE_SIGNED  # which makes the body parameters
    missing = [name for name in sorted(must) if name not in names] + [name for name in names if name not in headers]
    if missing:
        raise Fault("IncompleteSignature", "SignedHeaders", f"lacks {missing[0][:64]}" if missing[0] in must else "names a header not sent")
    digest = hashlib.sha256(request.body).hexdigest()
    if not hmac.compare_digest(headers["x-acs-content-sha256"].encode(), digest.encode()):
        raise Fault("SignatureDoesNotMatch", "x-acs-content-sha256", "is not the hash of the body")
    canonical = acs3_canonical(request.method, request.path, request.query, headers, names, digest)
    signed = f"{ACS3}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    if not headers["x-acs-action"]:
        raise Fault("IncompleteSignature", "x-acs-action", "is missing")
    return Claim(
        key_id,
        headers["x-acs-action"],
        headers["x-acs-version"],
        _nonce(headers["x-acs-signature-nonce"]),
        _time(headers["x-acs-date"]),
        signature.encode(),
        signed.encode(),
        False,
        parameters,
    )


def acs3_canonical(method: str, path: str, query: Pairs, headers: Mapping[str, str], names: Sequence[str], digest: str) -> str:
    """The canonical request of ACS3; ``headers`` have no white space around their values."""
    pairs = "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(query))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(names))
    return "\n".join((method, path, pairs, lines, ";".join(sorted(names)), digest))


def _nonce(text: str) -> str:
    if not 0 < len(text) <= MAX_NONCE or "\x00" in text:
        raise Fault("IncompleteSignature", detail=f"The nonce must have 1 to {MAX_NONCE} characters.")
    return text


def _time(text: str) -> int:
    if not _TIME.fullmatch(text):
        raise Fault("InvalidTimeStamp.Format")
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Fault("InvalidTimeStamp.Format") from None
