"""What a connection's will is decided by after a crash, beside the name of its principal: the tokens that were shown, or a JWT's claims.

It goes into the connect event and from there into the channel's row; whoever publishes the will asks again whether the tokens are valid.
Tokens that were uploaded later are not known: then the will is decided by those of the CONNECT, and there is none where they have expired.
"""

from __future__ import annotations

import msgspec

from gateway.auth.tokens import ShownTokens, Token
from schemas.identities import AccessRule, Principal


class _Rights(msgspec.Struct, frozen=True, array_like=True):
    """``tokens`` None: no login by token."""

    user: str
    tokens: tuple[Token, ...] | None
    claims: tuple[AccessRule, ...]
    expires: int
    signed_by: str


def encode(principal: Principal) -> bytes:
    """Empty where the name says it all."""
    shown = tuple(principal.tokens.by_type.values()) if isinstance(principal.tokens, ShownTokens) else None
    if shown is None and not principal.claims and not principal.expires:
        return b""
    return msgspec.msgpack.encode(_Rights(principal.user, shown, principal.claims, principal.expires, principal.signed_by))


def restore(principal: Principal, rights: bytes) -> Principal:
    """The principal with what was encoded."""
    if not rights:
        return principal
    kept = msgspec.msgpack.decode(rights, type=_Rights)
    tokens = None if kept.tokens is None else ShownTokens(kept.tokens)
    return msgspec.structs.replace(principal, user=kept.user, tokens=tokens, claims=kept.claims, expires=kept.expires, signed_by=kept.signed_by)
