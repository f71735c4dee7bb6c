"""JWT login: the password is a JSON Web Token that somebody else has signed; its claims say who it is for and what it may do.

`sub` names the principal `jwt:<sub>`, `exp` is demanded and ends the connection, `client_id` where it is there must be the client id. The claim
`acl` is `{"publish": [filters], "subscribe": [filters], "deny": [filters]}`, with the variables of access rules; without it a client may do nothing
until a stored rule says so. Only signatures are taken (no `none`, no HMAC: a public key must not be usable as a shared secret).
The file of keys is read again when it changes; connections whose key is no longer in it are closed (gateway/rights.py).
A signature takes 30 to 100 microseconds to verify, less than handing it to a thread would.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from gateway.auth.identities import name_problem
from gateway.file_state import file_state
from schemas.errors import StartError
from schemas.identities import AccessRule
from schemas.policies import filter_problem

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
MAX_WEB_TOKEN: Final = 8192
MAX_PEM_KEYS: Final = 8
"""Keys of a PEM file, each of which is tried: they have no names. A JWKS may have more."""
MAX_RULES: Final = 100
"""Filters that one token may bring."""
LEEWAY: Final = 30
"""Seconds by which the signer's clock may differ, for `nbf` and `iat`; `exp` is taken as it is."""

_UNREADABLE: Final = (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm)
"""What is said to keys that are broken, or of a kind that nobody knows."""

_FITS: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA",)),
    "ES256": ("P-256",),
    "ES384": ("P-384",),
    "ES512": ("P-521",),
    "Ed25519": ("Ed25519",),
    "EdDSA": ("Ed25519", "Ed448"),
}
"""By algorithm the kinds of keys that it may be used with: RSA, or a curve."""

_Key = OctKey | RSAKey | ECKey | OKPKey

_ACL: Final = {"publish": ("publish", "allow"), "subscribe": ("subscribe", "allow"), "deny": ("*", "deny")}

_log = logging.getLogger(__name__)


class WebTokenRefused(Exception):
    """Why a token is not taken, for the log."""


class WebToken(NamedTuple):
    """What a token that is valid says; ``expires`` in ms, ``signed_by`` the thumbprint of the key."""

    subject: str
    rules: tuple[AccessRule, ...]
    expires: int
    signed_by: str


class _Keys(NamedTuple):
    """``named``: a key is found by `kid`, else each that fits is tried."""

    set: KeySet
    named: bool
    thumbprints: frozenset[str]


class WebTokens:
    """Verifies with the keys of a file: a JWKS, or one or more public keys in PEM. ``version`` grows when they change."""

    def __init__(self, path: Path, issuer: str = "", audience: str = "") -> None:
        """StartError where the file holds no public key that can be used."""
        self._path = path
        self._issuer = issuer
        self._audience = audience
        self._complaint = ""
        self._seen = file_state(path)
        self._keys = _load(path)
        self.version = 0

    def check(self) -> None:
        """Take a changed file into force. One that doesn't load is tried again each time, and the keys that were there stay."""
        seen = file_state(self._path)
        if seen == self._seen and not self._complaint:
            return
        self._seen = seen  # taken before loading: what changes during it is loaded by the next check
        try:
            self._keys = _load(self._path)
        except StartError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("jwt keys kept, the new ones don't load reason=%s", error)
            return
        self._complaint = ""
        self.version += 1
        _log.info("jwt keys loaded file=%s keys=%d", self._path, len(self._keys.thumbprints))

    def is_current(self, thumbprint: str) -> bool:
        """Whether a key is still among those of the file."""
        return thumbprint in self._keys.thumbprints

    def read(self, text: str, client_id: str, now: int) -> WebToken:
        """A token that is valid now; WebTokenRefused where it isn't."""
        if len(text) > MAX_WEB_TOKEN:
            raise WebTokenRefused("jwt too long")
        try:
            claims, signed_by = self._verified(text)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise WebTokenRefused(f"jwt not valid: {type(error).__name__}") from None
        expires = self._check_claims(claims, client_id, now)
        subject = claims.get("sub")
        if not isinstance(subject, str) or name_problem(subject):
            raise WebTokenRefused("jwt without a usable sub")
        return WebToken(subject, rules_of(claims, "jwt:" + subject), expires, signed_by)

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

    def _verified(self, text: str) -> tuple[dict[str, Any], str]:
        """The claims of a token that one of the keys has signed, and which; JoseError and others of its kind where none has."""
        header = jws.extract_compact(text.encode()).headers()
        for key in self._keys_for(header):
            try:
                return jwt.decode(text, key, algorithms=list(ALGORITHMS)).claims, key.thumbprint()
            except BadSignatureError:
                continue
        raise BadSignatureError

    def _keys_for(self, header: dict[str, Any]) -> list[_Key]:
        """Of a JWKS the key that `kid` names, or without one the only key that there is; of a PEM file all that fit `alg`, whatever `kid` says."""
        fits = _FITS.get(str(header.get("alg")), ())
        keys = self._keys.set
        found = [keys.get_by_kid(header.get("kid"))] if self._keys.named else keys.keys
        return [key for key in found if (key.curve_name if isinstance(key, ECKey | OKPKey) else key.key_type) in fits]


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


def _load(path: Path) -> _Keys:
    """StartError where the file holds no public key that can be used."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"jwt.keys: {path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    keys = _read_keys(path, text)
    if not keys:
        raise StartError(f"jwt.keys: {path} holds no public key: it must be a JWKS, or RSA, EC or Ed25519 public keys in PEM")
    named = _is_jwks(text)
    if not named and len(keys) > MAX_PEM_KEYS:
        raise StartError(f"jwt.keys: {path} holds more than {MAX_PEM_KEYS} keys in PEM: remove some, or make it a JWKS")
    return _Keys(KeySet(keys), named, frozenset(key.thumbprint() for key in keys))


def _is_jwks(text: str) -> bool:
    return text.lstrip().startswith("{")


def _read_keys(path: Path, text: str) -> list[_Key]:
    """The public keys of a file. A private key, or one for HMAC, has no place there."""
    found: list[_Key] = []
    try:
        if _is_jwks(text):
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
