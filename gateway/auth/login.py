"""From a CONNECT's user name and password to a principal: Signature login and anonymous. Pure, but for the key ring it asks.

Signature: user name `Signature|<access key id>|<instance id>`, password base64(HMAC-SHA1(secret, whole client id)). It signs nothing
that changes, so whoever sees it may repeat it for ever: it is taken in clear text on loopback only, unless settings say otherwise.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

import msgspec

from gateway.auth.keys import KeyRing
from schemas.identities import ANONYMOUS, Principal
from schemas.reasons import ReasonCode

ADMINISTRATOR: Final = "administrator"
_ANONYMOUS: Final = Principal(ANONYMOUS, "anonymous")


class Peer(msgspec.Struct, frozen=True):
    """Where a login comes from. ``is_loopback``: the peer's address is this machine's own; ``is_secure``: TLS ends in this process."""

    address: str
    is_loopback: bool
    is_secure: bool


class LoginRefused(msgspec.Struct, frozen=True):
    """``reason`` is for the log and the trace, never for the peer, who learns the code alone."""

    reason_code: ReasonCode
    reason: str


def _bad(reason: str) -> LoginRefused:
    """What is malformed or doesn't verify: 4 in MQTT 3.1.1."""
    return LoginRefused(ReasonCode.BAD_USER_NAME_OR_PASSWORD, reason)


def _not_authorized(reason: str) -> LoginRefused:
    """An identity without the right to come in here: 5 in MQTT 3.1.1."""
    return LoginRefused(ReasonCode.NOT_AUTHORIZED, reason)


def sign(secret: bytes, client_id: str) -> bytes:
    """The password of a Signature login."""
    return base64.b64encode(hmac.digest(secret, client_id.encode(), "sha1"))


def signature_user_name(key_id: str, instance_id: str) -> str:
    """The user name of a Signature login."""
    return f"Signature|{key_id}|{instance_id}"


class Authenticator:
    """Decides logins."""

    def __init__(self, keyring: KeyRing, *, anonymous: bool, allow_plaintext_login: bool) -> None:
        self._keyring = keyring
        self._anonymous = anonymous
        self._allow_plaintext = allow_plaintext_login

    def login(self, user_name: str | None, password: bytes | None, client_id: str, peer: Peer) -> Principal | LoginRefused:
        """A CONNECT's principal, or why there is none."""
        if user_name is None and password is None:
            return self._login_anonymous(peer)
        if not self._may_send_secrets(peer):
            return _not_authorized("login in clear text from another machine")
        mode, key_id, instance_id = _split(user_name)
        if mode != "Signature":
            return _bad("user name is not Signature|<access key id>|<instance id>")
        secret, known = self._keyring.secret_or_dummy(key_id)
        if not hmac.compare_digest(sign(secret, client_id), password or b"") or not known:
            return _bad("unknown access key or wrong signature")
        if instance_id != self._keyring.instance_id:
            return _not_authorized("access key of another instance")
        return self._admit(key_id, peer)

    def login_api(self, key_id: str, secret: str, peer: Peer) -> Principal | LoginRefused:
        """The principal of an HTTP request that carries an access key's id and secret."""
        if not self._may_send_secrets(peer):
            return _not_authorized("login in clear text from another machine")
        if not self._keyring.is_secret_of(key_id, secret.encode()):
            return _bad("unknown access key or wrong secret")
        return self._admit(key_id, peer)

    def _login_anonymous(self, peer: Peer) -> Principal | LoginRefused:
        if not self._anonymous:
            return _not_authorized("no login given")
        if not peer.is_loopback:
            return _not_authorized("anonymous from another machine")
        return _ANONYMOUS

    def _may_send_secrets(self, peer: Peer) -> bool:
        return peer.is_secure or peer.is_loopback or self._allow_plaintext

    def _admit(self, key_id: str, peer: Peer) -> Principal | LoginRefused:
        """The principal of a verified key. The administrator's credential is for commands on this machine."""
        role = self._keyring.role(key_id)
        if role == ADMINISTRATOR:
            return Principal(key_id, "administrator") if peer.is_loopback else _not_authorized("administrator from another machine")
        return Principal(key_id, "device")


def _split(user_name: str | None) -> tuple[str, str, str]:
    """Mode, access key id and instance id; empty where the user name has not three fields. The mode is case-sensitive."""
    parts = (user_name or "").split("|")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")
