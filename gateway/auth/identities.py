"""Custom identities: user names and secrets of the installation's own choice, and the client ids that may not connect.

A USER identity is for any client id, a CLIENT identity for one. Sign mode ORIGIN: the password is the secret; SIGNED: base64(HMAC-SHA1(secret,
client id)). Secrets can be read back (QueryCustomAuthIdentity), so they are sealed and not hashed. What an identity may do are rules of the
principals `user:<user name>` and `client:<client id>` (policies.py); without one it may do nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

import msgspec

from gateway.auth.seal import Seal
from gateway.auth.shelf import DocumentStore, Shelf
from schemas.errors import SluicewayError
from schemas.identities import Secret
from schemas.reasons import ReasonCode

MAX_IDENTITIES: Final = 100_000
"""As many as there may be connections (limits.connections), as the product has it."""
MAX_BLOCKED: Final = 100_000
MAX_NAME: Final = 64
MAX_SECRET: Final = 256

TYPES: Final = ("USER", "CLIENT")
SIGN_MODES: Final = ("ORIGIN", "SIGNED")
MODE_WORDS: Final = ("Signature", "Token", "DeviceCredential")
"""First fields of the user names of other logins."""


class _Row(msgspec.Struct, frozen=True, gc=False):
    sealed_secret: bytes
    sign_mode: str


class _Blocked(msgspec.Struct, frozen=True, gc=False):
    since: int


class Identity(msgspec.Struct, frozen=True):
    """``client`` is empty for type USER."""

    user: str
    type: str
    client: str
    sign_mode: str
    secret: Secret

    @property
    def principal(self) -> str:
        return principal_name(self.type, self.client or self.user)


class IdentityRefused(SluicewayError):
    """An identity that is not well formed; ``field`` is to blame. ``missing``, ``exists``: because there is none, or one already."""

    reason_code = ReasonCode.NOT_AUTHORIZED

    def __init__(self, field: str, message: str, *, missing: bool = False, exists: bool = False) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.missing = missing
        self.exists = exists


def principal_name(identity_type: str, identity: str) -> str:
    return f"{identity_type.lower()}:{identity}"


def name_problem(name: str) -> str:
    """What is wrong with a user name or client id of an identity; `*` would stand for all of them in rules."""
    if not 0 < len(name) <= MAX_NAME or any(ord(c) < 32 or ord(c) == 127 for c in name) or name == "*":
        return f"must have 1 to {MAX_NAME} characters, no control characters, and not be *"
    return ""


class Identities:
    """All custom identities and blocked client ids."""

    def __init__(self, store: DocumentStore, seal: Seal) -> None:
        self._seal = seal
        self._shelf: Shelf[_Row] = Shelf(store, "identity", _Row, MAX_IDENTITIES)
        self._blocked: Shelf[_Blocked] = Shelf(store, "blocked client", _Blocked, MAX_BLOCKED)
        self._clients: dict[str, int] = {}
        """How many CLIENT identities a client id has."""
        nobody = _key(secrets.token_hex(4), "USER", "")
        self._nobody = nobody, _Row(seal.seal(secrets.token_hex(16), _seal_name(nobody)), "ORIGIN")

    async def load(self) -> None:
        await self._shelf.load()
        await self._blocked.load()
        self._clients = {}
        for name in self._shelf.items():
            self._count(name, 1)

    @property
    def version(self) -> int:
        return self._shelf.version + self._blocked.version

    def is_known(self, principal: str) -> bool:
        """Whether there is an identity that a principal's name stands for."""
        kind, _, name = principal.partition(":")
        return _key(name, "USER", "") in self._shelf if kind == "user" else name in self._clients

    def __len__(self) -> int:
        return len(self._shelf)

    def find(self, user: str, client: str) -> tuple[Identity, bool]:
        """Whose login it is: a CLIENT identity of this client id before a USER identity; False, for the same cost, where it is nobody's."""
        of_client, of_user = _key(user, "CLIENT", client), _key(user, "USER", "")
        for_client, for_user = self._shelf.get(of_client), self._shelf.get(of_user)
        if for_client is not None:
            key, row = of_client, for_client
        elif for_user is not None:
            key, row = of_user, for_user
        else:
            key, row = self._nobody
        return self._shown(key, row), key is not self._nobody[0]

    def get(self, user: str, identity_type: str, client: str) -> Identity | None:
        key = _key(user, identity_type, client)
        row = self._shelf.get(key)
        return None if row is None else self._shown(key, row)

    def page(self, after: str, limit: int, *, user: str = "", identity_type: str = "", client: str = "") -> Iterator[tuple[str, Identity]]:
        """Identities by their name in the store behind ``after``; empty arguments filter nothing."""
        found = 0
        for kind in sorted((identity_type,) if identity_type else TYPES):
            for key, row in self._shelf.page(after, len(self), f"{kind}\x00{user}"):
                _, of_user, of_client = (*key.split("\x00"), "")[:3]
                if user not in ("", of_user) or client not in ("", of_client):
                    continue
                if found == limit:
                    return
                found += 1
                yield key, self._shown(key, row)

    async def add(self, user: str, identity_type: str, client: str, secret: str, sign_mode: str) -> None:
        key, row = self._row(user, identity_type, client, secret, sign_mode)
        if not await self._shelf.add(key, row):
            raise IdentityRefused("Username", "has such an identity already", exists=True)
        self._count(key, 1)

    async def update(self, user: str, identity_type: str, client: str, secret: str, sign_mode: str) -> None:
        key, row = self._row(user, identity_type, client, secret, sign_mode)
        if key not in self._shelf:
            raise IdentityRefused("Username", "has no such identity", missing=True)
        await self._shelf.put(key, row)

    async def delete(self, user: str, identity_type: str, client: str) -> bool:
        key = _key(user, identity_type, client)
        there = await self._shelf.drop(key)
        if there:
            self._count(key, -1)
        return there

    async def reseal(self) -> int:
        """Every secret under the key that seals; how many there are."""
        fresh = {
            key: msgspec.structs.replace(row, sealed_secret=self._seal.reseal(row.sealed_secret, _seal_name(key)))
            for key, row in self._shelf.items().items()
        }
        await self._shelf.replace_all(fresh)
        return len(fresh)

    def _row(self, user: str, identity_type: str, client: str, secret: str, sign_mode: str) -> tuple[str, _Row]:
        if identity_type not in TYPES:
            raise IdentityRefused("IdentityType", "must be USER or CLIENT")
        if problem := name_problem(user):
            raise IdentityRefused("Username", problem)
        if user.split("|")[0] in MODE_WORDS and user.count("|") == 2:
            raise IdentityRefused("Username", "has the form of another login's user name")
        if identity_type == "CLIENT" and (problem := name_problem(client)):
            raise IdentityRefused("ClientId", problem)
        if not 0 < len(secret) <= MAX_SECRET or "\x00" in secret:
            raise IdentityRefused("Secret", f"must have 1 to {MAX_SECRET} characters, none of them NUL")
        if sign_mode not in SIGN_MODES:
            raise IdentityRefused("SignMode", "must be ORIGIN or SIGNED")
        key = _key(user, identity_type, client)
        return key, _Row(self._seal.seal(secret, _seal_name(key)), sign_mode)

    def _shown(self, key: str, row: _Row) -> Identity:
        identity_type, user, client = (*key.split("\x00"), "")[:3]
        return Identity(user, identity_type, client, row.sign_mode, Secret(self._seal.unseal(row.sealed_secret, _seal_name(key))))

    def _count(self, key: str, step: int) -> None:
        if key.startswith("CLIENT\x00"):
            client = key.split("\x00")[2]
            self._clients[client] = self._clients.get(client, 0) + step
            if self._clients[client] <= 0:
                del self._clients[client]

    # Client ids that may not connect

    def is_blocked(self, client: str) -> bool:
        return client in self._blocked

    def blocked(self, after: str, limit: int) -> list[str]:
        return [name for name, _ in self._blocked.page(after, limit)]

    async def block(self, client: str, now: int) -> bool:
        """False where it is blocked already."""
        if problem := name_problem(client):
            raise IdentityRefused("ClientId", problem)
        return await self._blocked.add(client, _Blocked(now))

    async def unblock(self, client: str) -> bool:
        return await self._blocked.drop(client)


def _key(user: str, identity_type: str, client: str) -> str:
    """In the store. No part holds a NUL."""
    return "\x00".join((identity_type, user, client) if identity_type == "CLIENT" else (identity_type, user))


def _seal_name(key: str) -> str:
    return "identity " + key.replace("\x00", " ")
