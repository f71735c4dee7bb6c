"""JWT login: the password is a JSON Web Token that somebody else has signed; its claims say who it is for and what it may do.

`sub` names the principal `jwt:<sub>`, `exp` is demanded and ends the connection, `client_id` where it is there must be the client id. The claim
`acl` is `{"publish": [filters], "subscribe": [filters], "deny": [filters]}`, with the variables of access rules; without it a client may do nothing
until a stored rule says so. Only signatures are taken (no `none`, no HMAC: a public key must not be usable as a shared secret).
A signature takes 30 to 100 microseconds to verify, less than handing it to a thread would.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from gateway.auth.identities import name_problem
from schemas.errors import StartError
from schemas.identities import AccessRule
from schemas.policies import filter_problem

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
MAX_WEB_TOKEN: Final = 8192
MAX_RULES: Final = 100
"""Filters that one token may bring."""
LEEWAY: Final = 30
"""Seconds by which the signer's clock may differ, for `nbf` and `iat`; `exp` is taken as it is."""

_UNREADABLE: Final = (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm)
"""What is said to keys that are broken, or of a kind that nobody knows."""

_ACL: Final = {"publish": ("publish", "allow"), "subscribe": ("subscribe", "allow"), "deny": ("*", "deny")}


class WebTokenRefused(Exception):
    """Why a token is not taken, for the log."""


class WebTokens:
    """Verifies with the keys of a file: a JWKS, or one or more public keys in PEM."""

    def __init__(self, keys: KeySet, issuer: str = "", audience: str = "") -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def open(cls, path: Path, issuer: str = "", audience: str = "") -> WebTokens:
        """StartError where the file holds no public key that can be used."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"jwt.keys: {path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
        keys = _read_keys(path, text)
        if not keys:
            raise StartError(f"jwt.keys: {path} holds no public key: it must be a JWKS, or RSA, EC or Ed25519 public keys in PEM")
        return cls(KeySet(keys), issuer, audience)

    def read(self, text: str, client_id: str, now: int) -> tuple[str, tuple[AccessRule, ...], int]:
        """Subject, rules and expiry (ms) of a token that is valid now; WebTokenRefused where it isn't."""
        if len(text) > MAX_WEB_TOKEN:
            raise WebTokenRefused("jwt too long")
        try:
            claims = jwt.decode(text, self._key_of, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise WebTokenRefused(f"jwt not valid: {type(error).__name__}") from None
        expires = self._check_claims(claims, client_id, now)
        subject = claims.get("sub")
        if not isinstance(subject, str) or name_problem(subject):
            raise WebTokenRefused("jwt without a usable sub")
        return subject, rules_of(claims, "jwt:" + subject), expires

    def _check_claims(self, claims: dict[str, Any], client_id: str, now: int) -> int:
        seconds = now / 1000
        expires = _number(claims, "exp")
        if expires is None or expires <= seconds:
            raise WebTokenRefused("jwt expired" if expires is not None else "jwt without exp")
        for name in ("nbf", "iat"):
            since = _number(claims, name)
            if since is not None and since > seconds + LEEWAY:
                raise WebTokenRefused(f"jwt not valid yet ({name})")
        if self._issuer and claims.get("iss") != self._issuer:
            raise WebTokenRefused("jwt of another issuer")
        audience = claims.get("aud")
        if self._audience and self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise WebTokenRefused("jwt for another audience")
        if "client_id" in claims and claims["client_id"] != client_id:
            raise WebTokenRefused("jwt of another client id")
        return int(min(expires, 2**40) * 1000)

    def _key_of(self, token: Any) -> Any:
        """By `kid`; a token without one is of the only key that there is."""
        kid = token.headers().get("kid")
        if kid is None and len(self._keys.keys) == 1:
            return self._keys.keys[0]
        return self._keys.get_by_kid(kid)


def rules_of(claims: dict[str, Any], principal: str) -> tuple[AccessRule, ...]:
    """The access rules of the claim `acl`; WebTokenRefused where it is not well formed: half of it might be the half that denies."""
    acl = claims.get("acl", {})
    if not isinstance(acl, dict) or not set(acl) <= set(_ACL):
        raise WebTokenRefused("jwt with an acl that is not publish, subscribe and deny")
    rules = []
    for name, filters in acl.items():
        action, effect = _ACL[name]
        if not isinstance(filters, list) or not all(isinstance(each, str) and not filter_problem(each) for each in filters):
            raise WebTokenRefused(f"jwt with acl.{name} that is not a list of topic filters")
        rules += [AccessRule(principal, action, each, effect) for each in filters]
    if len(rules) > MAX_RULES:
        raise WebTokenRefused(f"jwt with more than {MAX_RULES} filters")
    return tuple(rules)


def looks_like(password: bytes) -> bool:
    """Whether a password has the form of a signed JWT: three parts, of which the first is a JSON object in base64."""
    return password.startswith(b"ey") and password.count(b".") == 2


def _number(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise WebTokenRefused(f"jwt with {name} that is not a number")
    return value


def _read_keys(path: Path, text: str) -> list[OctKey | RSAKey | ECKey | OKPKey]:
    """The public keys of a file. A private key, or one for HMAC, has no place there."""
    found: list[OctKey | RSAKey | ECKey | OKPKey] = []
    try:
        if text.lstrip().startswith("{"):
            content = json.loads(text)
            keys = KeySet.import_key_set(content if "keys" in content else {"keys": [content]}).keys
            found += [key for key in keys if not isinstance(key, OctKey)]
        else:
            found += [_import_pem("-----BEGIN " + block) for block in text.split("-----BEGIN ")[1:]]
    except _UNREADABLE as error:
        raise StartError(f"jwt.keys: {path} holds a key that can't be read: {type(error).__name__}") from None
    if any(key.is_private for key in found):
        raise StartError(f"jwt.keys: {path} holds a private key: give the public one only")
    return found


def _import_pem(block: str) -> RSAKey | ECKey | OKPKey:
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return kind.import_key(block)
        except _UNREADABLE:
            continue
    raise ValueError(block[:30])
