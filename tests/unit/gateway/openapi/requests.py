"""Signed requests, made by the rules of the product and not by our code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

NONCES = itertools.count(1)


class _Quoted(dict[int, str]):
    """By code point, filled as they come: a large text is of few different ones."""

    def __missing__(self, code: int) -> str:
        self[code] = quoted = quote(chr(code), safe="~")
        return quoted


_QUOTED = _Quoted()


def encode(text: str) -> str:
    return text.translate(_QUOTED)


def stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def v1(key: str, secret: str, action: str, now: int, method: str = "POST", **fields: str) -> tuple[str, str, dict[str, str], bytes]:
    """Method, target, headers and body of a request with Signature V1."""
    parameters = {
        "Action": action, "Version": "2020-04-20", "Format": "JSON", "AccessKeyId": key, "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0", "SignatureNonce": f"nonce-{next(NONCES)}", "Timestamp": stamp(now), "SignatureType": "",
    } | fields  # fmt: skip
    joined = "&".join(f"{encode(k)}={encode(v)}" for k, v in sorted(parameters.items()))
    text = f"{method}&%2F&{encode(joined)}"
    signature = base64.b64encode(hmac.digest(f"{secret}&".encode(), text.encode(), "sha1")).decode()
    return method, "/?" + urlencode({**parameters, "Signature": signature}), {"host": "gateway"}, b""


def acs3(key: str, secret: str, action: str, now: int, body: bytes = b"", extra: dict[str, str] | None = None, **fields: str):
    """The same with ACS3-HMAC-SHA256."""
    headers = {
        "host": "gateway", "x-acs-action": action, "x-acs-version": "2020-04-20", "x-acs-date": stamp(now),
        "x-acs-signature-nonce": f"nonce-{next(NONCES)}", "x-acs-content-sha256": hashlib.sha256(body).hexdigest(),
    } | (extra or {})  # fmt: skip
    query = "&".join(f"{encode(k)}={encode(v)}" for k, v in sorted(fields.items()))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    names = ";".join(sorted(headers))
    canonical = f"POST\n/\n{query}\n{lines}\n{names}\n{headers['x-acs-content-sha256']}"
    signature = hmac.digest(secret.encode(), f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}".encode(), "sha256").hex()
    headers["authorization"] = f"ACS3-HMAC-SHA256 Credential={key},SignedHeaders={names},Signature={signature}"
    return "POST", f"/?{query}", headers, body
