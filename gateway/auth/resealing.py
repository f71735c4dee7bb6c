"""The change of the key that seals secrets: everything sealed is sealed anew under a new key, in steps of which each leaves a readable store.

1. The key file gets the new key in front of the old one: what is sealed from here on is under the new, what is there opens with either.
2. Every secret is sealed under the new key. A crash leaves some under the old; running it again goes on.
3. The old key leaves the file.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Protocol

import msgspec

from gateway.auth.devices import Devices
from gateway.auth.identities import Identities
from gateway.auth.keys import KeyStore, seal_name
from gateway.auth.seal import Seal, new_key, read_keys, write_keys
from gateway.auth.shelf import DocumentStore
from gateway.auth.tokens import PROPERTY as MINT_PROPERTY
from gateway.auth.tokens import SEAL_NAME as MINT_SEAL_NAME
from schemas.errors import StartError
from schemas.identities import AccessKey


class SealedStore(DocumentStore, KeyStore, Protocol):
    """What holds sealed secrets (streams/store.py)."""

    async def put_property(self, name: str, value: str) -> None: ...


async def rotate_seal(store: SealedStore, file: Path) -> int:
    """How many secrets are under the new key now. StartError where one of them opens with no key of the file; nothing is lost then."""
    keys = read_keys(file)
    if len(keys) == 1:
        keys = (new_key(), *keys)
        write_keys(file, keys)
    seal = Seal(*keys)
    count = await _reseal_keys(store, seal) + await _reseal_mint(store, seal)
    for register in (Devices(store, seal), Identities(store, seal)):
        await register.load()
        count += await register.reseal()
    write_keys(file, keys[:1])
    return count


async def _reseal_keys(store: SealedStore, seal: Seal) -> int:
    count = 0
    for key in await store.keys():
        name = seal_name(key.id, key.role)
        try:
            fresh = msgspec.structs.replace(key, sealed_secret=seal.reseal(key.sealed_secret, name), sealed_previous=_previous(seal, key, name))
        except StartError:
            if not key.revoked:
                raise
            continue  # of a revoked key nobody opens it
        if fresh != key:
            await store.put_key(fresh)
        count += 1
    return count


def _previous(seal: Seal, key: AccessKey, name: str) -> bytes:
    return seal.reseal(key.sealed_previous, name) if key.sealed_previous else b""


async def _reseal_mint(store: SealedStore, seal: Seal) -> int:
    """The secret of tokens."""
    kept = await store.property(MINT_PROPERTY)
    if kept is None:
        return 0
    fresh = base64.b64encode(seal.reseal(base64.b64decode(kept), MINT_SEAL_NAME)).decode()
    if fresh != kept:
        await store.put_property(MINT_PROPERTY, fresh)
    return 1
