"""The change of the seal key: whatever step it dies at, every secret opens with the file that is there, and another run completes it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import resealing
from gateway.auth.keys import open_keyring
from gateway.auth.registers import Registers, open_registers
from gateway.auth.resealing import rotate_seal
from gateway.auth.seal import read_keys
from schemas.errors import StartError
from schemas.settings import Settings
from streams.memory.store import MemoryStore

SETTINGS = Settings()
CLIENT = "GID_a@@@b"


class Died(Exception):
    """In place of kill -9."""


class MortalStore(MemoryStore):
    """Dies before its next write once ``left`` is used up."""

    left = 1_000

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Died

    async def commit(self, *arguments: Any, **named: Any) -> Any:
        self._step()
        return await super().commit(*arguments, **named)

    async def put_key(self, key: Any) -> None:
        self._step()
        await super().put_key(key)

    async def put_property(self, name: str, value: str) -> None:
        self._step()
        await super().put_property(name, value)


async def opened(store: MemoryStore, file: Path) -> Registers:
    keyring = await open_keyring(store, file)
    return await open_registers(store, keyring, SETTINGS)


async def secrets_of(store: MemoryStore, file: Path) -> dict[str, object]:
    """Everything that is sealed, opened as a start opens it."""
    registers = await opened(store, file)
    ring = registers.keyring
    found: dict[str, object] = {key.id: (ring.secret_or_dummy(key.id), ring.previous_secret(key.id, 0)) for key in ring.all() if not key.revoked}
    device, identity = registers.devices.get(CLIENT), registers.identities.get("u", "USER", "")
    assert device is not None
    assert identity is not None
    return found | {"device": device.secret.reveal(), "identity": identity.secret.reveal(), "mint": registers.mint.derive("x")}


async def filled(folder: Path) -> tuple[MortalStore, Path, dict[str, object]]:
    store, file = MortalStore(), folder / "seal.key"
    registers = await opened(store, file)
    keys = [await registers.keyring.create("device", number) for number in range(3)]
    await registers.keyring.rotate(keys[0].id, 5, 1_000)
    await registers.keyring.revoke(keys[1].id)
    await registers.devices.register(CLIENT, 1)
    await registers.identities.add("u", "USER", "", "secret", "ORIGIN")
    return store, file, await secrets_of(store, file)


def sealed_bytes(store: MemoryStore) -> set[bytes]:
    state = store._state
    found = {key.sealed_secret for key in state.keys.values()} | {key.sealed_previous for key in state.keys.values() if key.sealed_previous}
    found |= {document.body for document in state.documents.values()}
    return found | {base64.b64decode(state.properties["token mint"])}


async def test_all_is_under_the_new_key_alone(tmp_path: Path) -> None:
    store, file, secrets = await filled(tmp_path)
    before, old = sealed_bytes(store), file.read_bytes()
    assert await rotate_seal(store, file) == 3 + 1 + 2
    assert len(read_keys(file)) == 1
    assert file.read_bytes() != old
    assert await secrets_of(store, file) == secrets
    assert not before & sealed_bytes(store)
    file.write_bytes(old)
    with pytest.raises(StartError, match="can't be opened"):
        await secrets_of(store, file)


async def test_dying_at_any_step_leaves_every_secret_readable(tmp_path: Path) -> None:
    for steps in range(20):
        folder = tmp_path / str(steps)
        folder.mkdir()
        store, file, secrets = await filled(folder)
        store.left = steps
        try:
            await rotate_seal(store, file)
            break
        except Died:
            store.left = 1_000
        assert await secrets_of(store, file) == secrets
        await rotate_seal(store, file)
        assert len(read_keys(file)) == 1
        assert await secrets_of(store, file) == secrets
    assert steps == 6  # three keys, the mint, a device, an identity


@pytest.mark.parametrize("at", [1, 2])
async def test_dying_around_the_file_leaves_every_secret_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    store, file, secrets = await filled(tmp_path)
    write: Callable[..., None] = resealing.write_keys
    calls: list[int] = []

    def dying(path: Path, keys: tuple[bytes, ...]) -> None:
        calls.append(len(keys))
        if len(calls) == at:
            raise Died
        write(path, keys)

    monkeypatch.setattr(resealing, "write_keys", dying)
    with pytest.raises(Died):
        await rotate_seal(store, file)
    monkeypatch.undo()
    assert await secrets_of(store, file) == secrets
    half = await opened(store, file)
    made = await half.keyring.create("device", 9)  # a gateway may run in between
    await rotate_seal(store, file)
    assert len(read_keys(file)) == 1
    after = await secrets_of(store, file)
    assert after.pop(made.id) == ((made.secret.reveal().encode(), True), None)
    assert after == secrets


async def test_a_secret_that_opens_with_no_key_stops_it_and_nothing_is_lost(tmp_path: Path) -> None:
    store, file, _ = await filled(tmp_path)
    (other := tmp_path / "other").mkdir()
    _, foreign, _ = await filled(other)
    kept = file.read_bytes()
    file.write_bytes(foreign.read_bytes())
    with pytest.raises(StartError, match="can't be opened with this seal key"):
        await rotate_seal(store, file)
    assert len(read_keys(file)) == 2
    file.write_bytes(kept)
    await secrets_of(store, file)


async def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"keys\.seal_file"):
        await rotate_seal(MemoryStore(), tmp_path / "none")
