"""Device credentials: a key of its own for one client id, made and handed out by a backend. Stored sealed; looked up by key id at login.

A client has one credential at most; whoever registers again gets a new one and the old one ends. Sessions belong to `device:<client id>`,
so they outlive a credential.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.auth.seal import Seal
from gateway.auth.shelf import DocumentStore, Shelf
from schemas.identities import Secret
from schemas.resources import SEPARATOR

MAX_CREDENTIALS: Final = 1_000_000
"""As many as there may be sessions, each of some 0.6 KB in memory."""

PREFIX: Final = "DC."
"""What ids and secrets begin with, as the product's do."""

_LETTERS: Final = string.ascii_letters + string.digits


class _Row(msgspec.Struct, frozen=True, gc=False):
    key_id: str
    sealed_secret: bytes
    created: int
    updated: int


class DeviceCredential(msgspec.Struct, frozen=True):
    """As a backend sees it; times in ms."""

    client: str
    key_id: str
    secret: Secret
    created: int
    updated: int


class Devices:
    """All device credentials of the installation."""

    def __init__(self, store: DocumentStore, seal: Seal) -> None:
        self._seal = seal
        self._shelf: Shelf[_Row] = Shelf(store, "device credential", _Row, MAX_CREDENTIALS)
        self._clients: dict[str, str] = {}
        """Client ids by key id."""
        self._nobody = _Row("", seal.seal(PREFIX + _random(40), _seal_name("", "")), 0, 0)

    async def load(self) -> None:
        await self._shelf.load()
        self._clients = {row.key_id: client for client, row in self._shelf.items().items()}

    @property
    def version(self) -> int:
        return self._shelf.version

    def is_known(self, principal: str) -> bool:
        """Whether the client of a principal's name has a credential."""
        return principal.removeprefix("device:") in self._shelf

    def secret_or_dummy(self, key_id: str, client: str) -> tuple[bytes, bool]:
        """The secret of the credential that is for this client and True, or for the same cost a secret that nobody has and False."""
        row = self._shelf.get(client)
        known = row is not None and row.key_id == key_id
        owner, shown = (client, row) if known and row is not None else ("", self._nobody)
        return self._open(owner, shown).encode(), known

    def get(self, client: str) -> DeviceCredential | None:
        row = self._shelf.get(client)
        return None if row is None else self._shown(client, row)

    def clients(self, group: str, after: str, limit: int, skipped: int = 0) -> tuple[Sequence[str], int]:
        """Client ids of a group that have a credential, by name behind ``after`` and so many more, and how many there are in all."""
        prefix = group + SEPARATOR
        return self._shelf.names(after, limit, prefix, skipped), self._shelf.count(prefix)

    async def register(self, client: str, now: int) -> DeviceCredential:
        """A new credential, in the place of an older one."""
        return await self._put(client, PREFIX + _random(22), now, now)

    async def refresh(self, client: str, now: int) -> DeviceCredential | None:
        """A new secret under the same id; None where the client has no credential."""
        row = self._shelf.get(client)
        return None if row is None else await self._put(client, row.key_id, row.created, now)

    async def unregister(self, client: str) -> bool:
        row = self._shelf.get(client)
        if row is None:
            return False
        gone = await self._shelf.drop(client)
        self._clients.pop(row.key_id, None)
        return gone

    async def reseal(self) -> int:
        """Every secret under the key that seals; how many there are."""
        fresh = {
            client: msgspec.structs.replace(row, sealed_secret=self._seal.reseal(row.sealed_secret, _seal_name(client, row.key_id)))
            for client, row in self._shelf.items().items()
        }
        await self._shelf.replace_all(fresh)
        return len(fresh)

    async def _put(self, client: str, key_id: str, created: int, updated: int) -> DeviceCredential:
        secret = PREFIX + _random(40)
        row = _Row(key_id, self._seal.seal(secret, _seal_name(client, key_id)), created, updated)
        before = self._shelf.get(client)
        await self._shelf.put(client, row)
        if before is not None:
            self._clients.pop(before.key_id, None)
        self._clients[key_id] = client
        return self._shown(client, row)

    def _shown(self, client: str, row: _Row) -> DeviceCredential:
        return DeviceCredential(client, row.key_id, Secret(self._open(client, row)), row.created, row.updated)

    def _open(self, client: str, row: _Row) -> str:
        return self._seal.unseal(row.sealed_secret, _seal_name(client, row.key_id))


def _seal_name(client: str, key_id: str) -> str:
    return f"device credential {key_id} of {client}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
