"""Access keys in memory: made, revoked and looked up; stored sealed by the store. First start: instance id, administrator, a first key.

Knows no login form (login.py) and no rule (access.py). ``version`` changes with every change, so that cached decisions can be dropped.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from gateway.auth.seal import Seal, load_seal
from schemas.errors import SluicewayError
from schemas.identities import AccessKey, Role, Secret
from schemas.reasons import ReasonCode

INSTANCE_PROPERTY: Final = "instance_id"
MAX_KEYS: Final = 100_000
"""Active keys, each of some 0.5 KB in memory; a key a device is not what keys are for."""

_LETTERS: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 22
_SECRET_LENGTH: Final = 40
"""238 bits: more than HMAC-SHA1 makes use of."""


class KeyStore(Protocol):
    """What keys need of the store (streams/store.py)."""

    async def put_key(self, key: AccessKey) -> None: ...

    async def keys(self) -> list[AccessKey]: ...

    async def property(self, name: str, default: str | None = None) -> str | None: ...


class KeyLimit(SluicewayError):
    """There are as many active keys as there may be."""

    reason_code = ReasonCode.QUOTA_EXCEEDED


class NewKey(msgspec.Struct, frozen=True):
    """A key as its maker gets it: the only time its secret is told."""

    id: str
    role: Role
    secret: Secret
    instance_id: str


class KeyInfo(msgspec.Struct, frozen=True):
    """What may be shown of a key."""

    id: str
    role: str
    created: int
    revoked: bool


class KeyRing:
    """All access keys of the installation, with the secrets of the active ones unsealed for speed."""

    def __init__(self, store: KeyStore, seal: Seal, instance_id: str, keys: Sequence[AccessKey]) -> None:
        self._store = store
        self.seal = seal
        self.instance_id = instance_id
        self.version = 0
        self._changes = 0
        """Grows with each change that is made here."""
        self._changing = asyncio.Lock()
        """One change at a time: a rotation that is on its way must not undo a revocation."""
        self._keys: dict[str, AccessKey] = {}
        self._secrets: dict[str, bytes] = {}
        self._previous: dict[str, tuple[bytes, int]] = {}
        self._take(keys)
        self._dummy = secrets.token_bytes(_SECRET_LENGTH)

    def _take(self, keys: Sequence[AccessKey]) -> None:
        seal = self.seal
        self._keys = {key.id: key for key in keys}
        self._secrets = {key.id: seal.unseal(key.sealed_secret, seal_name(key.id, key.role)).encode() for key in keys if not key.revoked}
        self._previous = {
            key.id: (seal.unseal(key.sealed_previous, seal_name(key.id, key.role)).encode(), key.previous_until)
            for key in keys
            if key.sealed_previous and not key.revoked
        }
        self.version += 1

    async def load(self) -> None:
        """Keys as the store has them: another node may have made or changed some."""
        while True:
            before = self._changes
            keys = await self._store.keys()
            if before == self._changes:  # else what was read may be older than what was changed here meanwhile
                break
        if {key.id: key for key in keys} != self._keys:
            self._take(keys)

    def secret_or_dummy(self, key_id: str) -> tuple[bytes, bool]:
        """An active key's secret and True, or for any other id a secret that nobody has and False: one path for both."""
        secret = self._secrets.get(key_id)
        return (self._dummy, False) if secret is None else (secret, True)

    def previous_secret(self, key_id: str, now: int) -> bytes | None:
        """The secret that an active key had before it was rotated, as long as it is still valid."""
        previous = self._previous.get(key_id)
        return previous[0] if previous is not None and now < previous[1] else None

    def is_secret_of(self, key_id: str, secret: bytes, now: int) -> bool:
        """Whether an active key has this secret; takes as long for a key that doesn't exist."""
        expected, known = self.secret_or_dummy(key_id)
        if hmac.compare_digest(expected, secret):
            return known
        previous = self.previous_secret(key_id, now)
        return previous is not None and hmac.compare_digest(previous, secret)

    def role(self, key_id: str) -> Role | None:
        """An active key's role; None for a key that is revoked or was never made."""
        return self._keys[key_id].role if key_id in self._secrets else None

    def all(self) -> list[KeyInfo]:
        """Every key ever made, oldest first."""
        infos = [KeyInfo(key.id, key.role, key.created, key.revoked) for key in self._keys.values()]
        return sorted(infos, key=lambda info: (info.created, info.id))

    async def create(self, role: Role, now: int) -> NewKey:
        """Make a key; it is stored when this returns. ``now`` in ms of the wall clock."""
        async with self._changing:
            if len(self._secrets) >= MAX_KEYS:
                raise KeyLimit(f"there are {MAX_KEYS} active keys already: revoke some")
            key_id, secret = "SW" + _random(_ID_LENGTH), _random(_SECRET_LENGTH)
            await self._put(AccessKey(key_id, role, self.seal.seal(secret, seal_name(key_id, role)), now))
            self._secrets[key_id] = secret.encode()
        return NewKey(key_id, role, Secret(secret), self.instance_id)

    async def rotate(self, key_id: str, now: int, valid_ms: int) -> NewKey | None:
        """A new secret for an active key; the one it had stays valid for so long beside it. None where there is no such key."""
        async with self._changing:
            before = self._secrets.get(key_id)
            if before is None:
                return None
            key, secret, until = self._keys[key_id], _random(_SECRET_LENGTH), now + valid_ms
            sealed = self.seal.seal(secret, seal_name(key_id, key.role))
            await self._put(msgspec.structs.replace(key, sealed_secret=sealed, sealed_previous=key.sealed_secret, previous_until=until))
            self._previous[key_id] = (before, until)
            self._secrets[key_id] = secret.encode()
        return NewKey(key_id, key.role, Secret(secret), self.instance_id)

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key: durable, and in force, when this returns; False where there is none active of that id."""
        async with self._changing:
            if key_id not in self._secrets:
                return False
            await self._put(msgspec.structs.replace(self._keys[key_id], revoked=True))
            self._secrets.pop(key_id, None)
            self._previous.pop(key_id, None)
        return True

    async def _put(self, key: AccessKey) -> None:
        """Into the store first. The caller changes the secrets before anybody else runs."""
        await self._store.put_key(key)
        self._keys[key.id] = key
        self._changes += 1
        self.version += 1


async def open_keyring(store: KeyStore, seal_file: Path, instance_id: str = "") -> KeyRing:
    """The key ring of a store, with the instance id made where there is none; ``instance_id`` overrides it.

    The key file is made where nothing is sealed yet; StartError where it is missing later, readable by others, or another one.
    """
    keys = await store.keys()
    seal = load_seal(seal_file, create=not keys)
    kept = await store.property(INSTANCE_PROPERTY, "mqtt-sw-" + _random(11, string.ascii_lowercase + string.digits))
    return KeyRing(store, seal, instance_id or kept or "", keys)


def seal_name(key_id: str, role: str) -> str:
    """What a key's secrets are bound to."""
    return f"{role} key {key_id}"


def _random(length: int, alphabet: str = _LETTERS) -> str:
    """Random text without characters that shells, URLs or user names treat in a way of their own."""
    return "".join(secrets.choice(alphabet) for _ in range(length))
