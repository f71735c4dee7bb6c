"""The payloads of the control topics `$SYS/getOfflineMsg`, `$SYS/enableOrderMsg` and `$SYS/uploadToken`, and how often the first may be asked.

Whatever bytes come, the answer is a typed value or a sentence that names the field and the fix. Knows nothing of sessions;
gateway/controls.py obeys what is read here.
"""

from __future__ import annotations

from typing import Final

import msgspec

MAX_PAYLOAD: Final = 1024
"""Bytes of a control payload; the documented ones need 45."""

MAX_TOKEN_PAYLOAD: Final = 8192
"""Bytes of an uploaded token with what is around it."""

MAX_PUSH_NUM: Final = 30
"""Messages of one pull; who asks for more gets as many."""

PULLS_PER_SECOND: Final = 5
"""Pulls that a client may ask for in a second, at once or spread."""

PUSH_ORDERS: Final = ("DESC", "ASC")


class GetOffline(msgspec.Struct, frozen=True):
    """A batch of stored messages is asked for, newest (`DESC`) or oldest (`ASC`) first."""

    max_push_num: int
    push_order: str


class EnableOrder(msgspec.Struct, frozen=True):
    """From now on all that this client publishes keeps its order on the way to backends."""


class UploadToken(msgspec.Struct, frozen=True):
    """A token, in the place of the one of that type."""

    token: str
    type: str


class TokenBucket(msgspec.Struct, frozen=True, gc=False):
    """How much may still be done at once, as of ``at`` (seconds). The default is full, whatever the time."""

    tokens: float = float(PULLS_PER_SECOND)
    at: float = 0.0


def parse_get_offline(payload: bytes) -> GetOffline | str:
    """`{"maxPushNum": 30, "pushOrder": "DESC"}`, or what is wrong with it."""
    fields = _fields(payload)
    if isinstance(fields, str):
        return fields
    count, order = fields.get("maxPushNum"), fields.get("pushOrder")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return f"maxPushNum must be a whole number from 1 to {MAX_PUSH_NUM}"
    if not isinstance(order, str) or order not in PUSH_ORDERS:
        return 'pushOrder must be "DESC" (newest first) or "ASC" (oldest first)'
    return GetOffline(min(count, MAX_PUSH_NUM), order)


def parse_enable_order(payload: bytes) -> EnableOrder | str:
    """`{"order": "true"}`, or what is wrong with it."""
    fields = _fields(payload)
    if isinstance(fields, str):
        return fields
    if fields.get("order") != "true":
        return 'order must be the string "true"'
    return EnableOrder()


def parse_upload_token(payload: bytes) -> UploadToken | str:
    """`{"token": "…", "type": "R"}`, or what is wrong with it."""
    fields = _fields(payload, MAX_TOKEN_PAYLOAD)
    if isinstance(fields, str):
        return fields
    token, kind = fields.get("token"), fields.get("type")
    if not isinstance(token, str) or not token:
        return "token must be the text of a token"
    if not isinstance(kind, str) or kind not in ("R", "W", "RW"):
        return "type must be R, W or RW"
    return UploadToken(token, kind)


def take(bucket: TokenBucket, now: float, rate: float = PULLS_PER_SECOND) -> tuple[TokenBucket, bool]:
    """Use up one token, of which ``rate`` come back in a second and are kept at most; false where there is none. ``now`` in seconds."""
    passed = max(now - bucket.at, 0.0)
    tokens = min(bucket.tokens + passed * rate, float(rate))
    if tokens < 1.0:
        return TokenBucket(tokens, now), False
    return TokenBucket(tokens - 1.0, now), True


def _fields(payload: bytes, limit: int = MAX_PAYLOAD) -> dict[str, object] | str:
    if len(payload) > limit:
        return f"the payload must be a JSON object of at most {limit} bytes"
    try:
        decoded = msgspec.json.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return "the payload must be a JSON object in UTF-8"
    if not isinstance(decoded, dict):
        return "the payload must be a JSON object"
    return decoded
