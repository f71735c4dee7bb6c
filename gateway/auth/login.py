"""From a CONNECT's user name and password to a principal. Pure, but for the registers it asks (keys, tokens, devices, identities).

| login | user name | password |
|---|---|---|
| Signature | `Signature|<access key id>|<instance id>` | base64(HMAC-SHA1(secret, whole client id)) |
| Token | `Token|<access key id>|<instance id>` | `R|<token>`, `W|<token>`, `RW|<token>`, one or more, in any order |
| device credential | `DeviceCredential|<device access key id>|<instance id>` | as Signature, with the device's secret |
| JWT | any other | a JSON Web Token (web_tokens.py) |
| custom identity | any other | the secret, or base64(HMAC-SHA1(secret, client id)) |
| client certificate | none, or one that is not looked at | none |

A certificate that is shown is checked whatever the login (``holder``): it has to be admitted even where a password says who it is.

A signature signs nothing that changes, so whoever sees it may repeat it for ever: it is taken in clear text on loopback only, unless
settings say otherwise. An unknown name costs what a known one costs: the same comparison, with a secret that nobody has. The nanoseconds by
which dictionaries still differ drown in a random amount of work.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.auth.client_certificates import ClientCertificates, Holder
from gateway.auth.devices import Devices
from gateway.auth.identities import Identities
from gateway.auth.keys import KeyRing
from gateway.auth.tokens import Mint, TokenFault
from gateway.auth.web_tokens import WebTokenRefused, WebTokens, looks_like
from schemas.identities import ANONYMOUS, Principal
from schemas.reasons import ReasonCode

ADMINISTRATOR: Final = "administrator"
BLUR: Final = bytes(16_384)
"""A random part of it is hashed at a refusal: up to some ten microseconds, hundreds of times what finding or missing a name differs by."""


class Peer(msgspec.Struct, frozen=True):
    """Where a login comes from. ``is_loopback``: the peer's address is this machine's own; ``is_secure``: TLS ends in this process;
    ``holder``: whose certificate it has shown."""

    address: str
    is_loopback: bool
    is_secure: bool
    holder: Holder | None = None

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0].strip("[]")


class LoginRefused(msgspec.Struct, frozen=True):
    """``reason`` is for the log and the trace, never for the peer, who learns the code alone."""

    reason_code: ReasonCode
    reason: str


class _Attempt(msgspec.Struct, frozen=True):
    """A login with a user name of three fields. ``now`` in ms of the wall clock."""

    key: str
    instance: str
    password: bytes
    client: str
    peer: Peer
    now: int


def _bad(reason: str) -> LoginRefused:
    """What is malformed or doesn't verify: 4 in MQTT 3.1.1."""
    hashlib.sha256(memoryview(BLUR)[secrets.randbelow(len(BLUR)) :])
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
    """Decides logins. Registers that are not there have nobody in them. ``other_certificates``: TLS takes some of authorities that are not
    registered (tls.client_ca); they say nothing about who it is."""

    def __init__(
        self,
        keyring: KeyRing,
        *,
        anonymous: bool,
        allow_plaintext_login: bool,
        mint: Mint | None = None,
        devices: Devices | None = None,
        identities: Identities | None = None,
        certificates: ClientCertificates | None = None,
        other_certificates: bool = False,
        web_tokens: WebTokens | None = None,
    ) -> None:
        self._keyring = keyring
        self._anonymous = anonymous
        self._allow_plaintext = allow_plaintext_login
        self._mint = mint
        self._devices = devices
        self._identities = identities
        self._certificates = certificates
        self._other_certificates = other_certificates
        self._web_tokens = web_tokens
        self._modes: dict[str, Callable[[_Attempt], Principal | LoginRefused]] = {
            "Signature": self._login_signature,
            "Token": self._login_token,
            "DeviceCredential": self._login_device,
        }

    def login(self, user_name: str | None, password: bytes | None, client_id: str, peer: Peer, now: int) -> Principal | LoginRefused:
        """A CONNECT's principal, or why there is none. ``now`` in ms of the wall clock."""
        if peer.holder is not None and password is None:
            return Principal(peer.holder.principal, "device", client_id, peer.holder.name, expires=peer.holder.end)
        if user_name is None and password is None:
            return self._login_anonymous(client_id, peer)
        if not self.may_send_secrets(peer):
            return _not_authorized("login in clear text from another machine")
        parts = (user_name or "").split("|")
        mode = self._modes.get(parts[0]) if len(parts) == 3 else None
        if mode is not None:
            return mode(_Attempt(parts[1], parts[2], password or b"", client_id, peer, now))
        if self._web_tokens is not None and password is not None and looks_like(password):
            return self._login_web_token(self._web_tokens, user_name or "", password, client_id, now)
        if self._identities is not None and len(self._identities):
            return self._login_identity(self._identities, user_name or "", password or b"", client_id)
        return _bad("user name is not Signature|<access key id>|<instance id>")

    def holder(self, certificate: bytes, now: int) -> Holder | LoginRefused | None:
        """Whose client certificate it is; None for one that is no login. ``now`` in ms of the wall clock."""
        found = None if self._certificates is None else self._certificates.find(certificate, now)
        if found is None and not self._other_certificates:
            return _not_authorized("certificate of no registered authority")
        return _not_authorized(found) if isinstance(found, str) else found

    def login_api(self, key_id: str, secret: str, peer: Peer, now: int) -> Principal | LoginRefused:
        """The principal of an HTTP request that carries an access key's id and secret."""
        if not self.may_send_secrets(peer):
            return _not_authorized("login in clear text from another machine")
        if not self._keyring.is_secret_of(key_id, secret.encode(), now):
            return _bad("unknown access key or wrong secret")
        return self._admit(key_id, "", peer)

    def admit_signed(self, key_id: str, peer: Peer) -> Principal | LoginRefused:
        """The principal of an HTTP request whose signature was verified with a key's secret. Answers may hold secrets."""
        if not self.may_send_secrets(peer):
            return _not_authorized("request in clear text from another machine")
        return self._admit(key_id, "", peer)

    def _login_anonymous(self, client_id: str, peer: Peer) -> Principal | LoginRefused:
        if not self._anonymous:
            return _not_authorized("no login given")
        if not peer.is_loopback:
            return _not_authorized("anonymous from another machine")
        return Principal(ANONYMOUS, "anonymous", client_id)

    def _login_signature(self, attempt: _Attempt) -> Principal | LoginRefused:
        secret, known = self._keyring.secret_or_dummy(attempt.key)
        if not hmac.compare_digest(sign(secret, attempt.client), attempt.password) or not known:
            previous = self._keyring.previous_secret(attempt.key, attempt.now)
            if previous is None or not hmac.compare_digest(sign(previous, attempt.client), attempt.password):
                return _bad("unknown access key or wrong signature")
        if attempt.instance != self._keyring.instance_id:
            return _not_authorized("access key of another instance")
        return self._admit(attempt.key, attempt.client, attempt.peer)

    def _login_token(self, attempt: _Attempt) -> Principal | LoginRefused:
        if self._mint is None:
            return _bad("no token was ever made here")
        shown = self._mint.read_password(attempt.password.decode(errors="replace"), attempt.key, attempt.now)
        if isinstance(shown, TokenFault):
            return _bad(f"token {shown.name.lower()}")
        if attempt.instance != self._keyring.instance_id:
            return _not_authorized("access key of another instance")
        admitted = self._admit(attempt.key, attempt.client, attempt.peer)
        return admitted if isinstance(admitted, LoginRefused) else msgspec.structs.replace(admitted, tokens=shown)

    def _login_device(self, attempt: _Attempt) -> Principal | LoginRefused:
        if self._devices is None:
            return _bad("no device credential was ever made here")
        secret, known = self._devices.secret_or_dummy(attempt.key, attempt.client)
        if not hmac.compare_digest(sign(secret, attempt.client), attempt.password) or not known:
            return _bad("unknown device credential or wrong signature")
        if attempt.instance != self._keyring.instance_id:
            return _not_authorized("device credential of another instance")
        return Principal("device:" + attempt.client, "device", attempt.client)

    def _login_identity(self, identities: Identities, user_name: str, password: bytes, client_id: str) -> Principal | LoginRefused:
        found, known = identities.find(user_name, client_id)
        secret = found.secret.reveal().encode()
        signed = sign(secret, client_id)
        expected = secret if found.sign_mode == "ORIGIN" else signed
        # By digests: comparing texts of different lengths would tell the secret's length
        salt, _ = self._keyring.secret_or_dummy("")
        if not hmac.compare_digest(hmac.digest(salt, expected, "sha256"), hmac.digest(salt, password, "sha256")) or not known:
            return _bad("unknown identity or wrong secret")
        return Principal(found.principal, "device", client_id, user_name)

    def _login_web_token(self, web_tokens: WebTokens, user_name: str, password: bytes, client_id: str, now: int) -> Principal | LoginRefused:
        try:
            token = web_tokens.read(password.decode("ascii", "replace"), client_id, now)
        except WebTokenRefused as refused:
            return _bad(str(refused))
        name = "jwt:" + token.subject
        return Principal(name, "device", client_id, user_name, claims=token.rules, expires=token.expires, signed_by=token.signed_by)

    def may_send_secrets(self, peer: Peer) -> bool:
        """Whether what such a peer sends is read by nobody else, or the settings don't mind."""
        return peer.is_secure or peer.is_loopback or self._allow_plaintext

    def _admit(self, key_id: str, client_id: str, peer: Peer) -> Principal | LoginRefused:
        """The principal of a verified key. The administrator's credential is for commands on this machine."""
        role = self._keyring.role(key_id)
        if role is None:
            return _bad("the access key was revoked")
        if role == ADMINISTRATOR and not peer.is_loopback:
            return _not_authorized("administrator from another machine")
        return Principal(key_id, role, client_id)
