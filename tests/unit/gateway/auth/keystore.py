"""The part of the store that keys need, in memory."""

from __future__ import annotations

from gateway.auth.keys import KeyRing, open_keyring
from schemas.errors import StoreError
from schemas.identities import AccessKey


class MemoryKeys:
    """``is_failing`` makes every write fail."""

    def __init__(self) -> None:
        self.rows: dict[str, AccessKey] = {}
        self.properties: dict[str, str] = {}
        self.is_failing = False

    async def put_key(self, key: AccessKey) -> None:
        if self.is_failing:
            raise StoreError("disk full")
        self.rows[key.id] = key

    async def keys(self) -> list[AccessKey]:
        return list(self.rows.values())

    async def property(self, name: str, default: str | None = None) -> str | None:
        if default is not None:
            self.properties.setdefault(name, default)
        return self.properties.get(name)


async def new_keyring(folder, store: MemoryKeys | None = None, **options) -> KeyRing:
    return await open_keyring(store or MemoryKeys(), folder / "seal.key", **options)
