"""RocketMQ's ACL: a request carries the access key and a signature over its fields, in the order of their names, and its body."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from schemas.connections import Secret

ACCESS_KEY = "AccessKey"
SIGNATURE = "Signature"


def sign(fields: Mapping[str, str], body: bytes, access_key: str, secret: Secret) -> dict[str, str]:
    """The fields with access key and signature: HMAC-SHA1 in base64, as both ACL 1 (4.9) and ACL 2 (5.x) want it."""
    signed = {**fields, ACCESS_KEY: access_key}
    signed.pop(SIGNATURE, None)
    content = "".join(signed[name] for name in sorted(signed)).encode() + body
    signed[SIGNATURE] = base64.b64encode(hmac.digest(secret.reveal().encode(), content, "sha1")).decode()
    return signed
