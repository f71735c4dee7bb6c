"""Bearer keys of the REST API: for programs that manage the gateway and speak no MQTT. A key has one scope, and does nothing beyond it.

`read` looks, `write` also changes and publishes, `admin` also decides who may do what (keys and access rules). Only a hash is stored: a key
is 256 random bits, so nothing can be guessed from it, and it is told once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from gateway.auth.shelf import DocumentStore, Shelf
from schemas.errors import SluicewayError
from schemas.identities import Principal, Secret
from schemas.reasons import ReasonCode

SCOPES: Final = ("read", "write", "admin")
"""Each has what the ones before it have."""
MAX_KEYS: Final = 10_000
MAX_NAME: Final = 64
MAX_VALID: Final = 10 * 365 * 86_400
"""Seconds."""
KIND: Final = "bearer:"
"""What the names of their principals begin with."""
_PREFIX: Final = "swb_"
_ID_BYTES: Final = 8


class BearerRefused(SluicewayError):
    """A key that can't be made as asked; ``field`` is to blame."""

    reason_code = ReasonCode.NOT_AUTHORIZED

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


class _Row(msgspec.Struct, frozen=True, gc=False):
    name: str
    scope: str
    digest: bytes
    created: int
    expires: int


class BearerKey(msgspec.Struct, frozen=True, rename="camel"):
    """What may be shown of a key. Times in ms; ``expires`` 0: never."""

    id: str
    name: str
    scope: str
    created: int
    expires: int


class Bearers:
    """All bearer keys of the installation."""

    def __init__(self, store: DocumentStore) -> None:
        self._shelf: Shelf[_Row] = Shelf(store, "bearer key", _Row, MAX_KEYS)
        self._nobody = secrets.token_bytes(32)

    async def load(self) -> None:
        await self._shelf.load()

    @property
    def version(self) -> int:
        return self._shelf.version

    def is_known(self, principal: str) -> bool:
        return principal.removeprefix(KIND) in self._shelf

    def all(self) -> list[BearerKey]:
        """Oldest first."""
        return sorted((_shown(key_id, row) for key_id, row in self._shelf.items().items()), key=lambda key: (key.created, key.id))

    def find(self, token: str, now: int) -> BearerKey | None:
        """The key that a request shows, where it is valid now. An unknown one costs what a known one costs."""
        key_id, _, secret = token.removeprefix(_PREFIX).partition("_")
        row = self._shelf.get(key_id)
        expected = self._nobody if row is None else row.digest
        fits = hmac.compare_digest(expected, hashlib.sha256(secret.encode(errors="replace")).digest())
        if row is None or not fits or not token.startswith(_PREFIX) or 0 < row.expires <= now:
            return None
        return _shown(key_id, row)

    async def create(self, name: str, scope: str, valid_seconds: int, now: int) -> tuple[BearerKey, Secret]:
        """A new key, and the text that requests show; ``valid_seconds`` 0: for ever."""
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise BearerRefused("name", f"must have 1 to {MAX_NAME} printable characters: say what the key is for")
        if scope not in SCOPES:
            raise BearerRefused("scope", f"must be one of {', '.join(SCOPES)}")
        if not 0 <= valid_seconds <= MAX_VALID:
            raise BearerRefused("validSeconds", f"must be 1 to {MAX_VALID}, or 0 for a key without an end")
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(32)
        expires = now + valid_seconds * 1000 if valid_seconds else 0
        row = _Row(name, scope, hashlib.sha256(secret.encode()).digest(), now, expires)
        await self._shelf.put(key_id, row, expires_at=expires)
        return _shown(key_id, row), Secret(f"{_PREFIX}{key_id}_{secret}")

    async def revoke(self, key_id: str) -> bool:
        """Durable, and in effect for the next request; False where there is none of that id."""
        return await self._shelf.drop(key_id)


def key_id_of(token: str) -> str:
    """The id that a request's key claims to have; empty where it has not the form of one."""
    return token.removeprefix(_PREFIX).partition("_")[0] if token.startswith(_PREFIX) else ""


def _shown(key_id: str, row: _Row) -> BearerKey:
    return BearerKey(key_id, row.name, row.scope, row.created, row.expires)


def principal_of(key: BearerKey) -> Principal:
    """Who acts where a bearer key is shown. What it may do over HTTP its scope says; what it may publish, access rules."""
    return Principal(KIND + key.id)
