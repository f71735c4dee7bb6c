"""Access keys: made once, kept sealed, revoked for good; the first start's instance id, administrator and key."""

import asyncio
import json
import re

import pytest

from gateway.auth import keys as keys_module
from gateway.auth.credentials import Credential, first_start_lines, make_first_key, prepare_administrator, read_credential
from gateway.auth.keys import KeyLimit
from gateway.auth.login import sign
from schemas.errors import StartError, StoreError
from schemas.settings import Address
from tests.unit.gateway.auth.keystore import MemoryKeys, new_keyring


async def test_the_instance_id_is_made_once(tmp_path):
    store = MemoryKeys()
    first = await new_keyring(tmp_path, store)
    again = await new_keyring(tmp_path, store)
    assert re.fullmatch(r"mqtt-sw-[a-z0-9]{11}", first.instance_id)
    assert again.instance_id == first.instance_id
    assert (await new_keyring(tmp_path, store, instance_id="mine")).instance_id == "mine"


async def test_a_key_survives_a_restart_sealed(tmp_path):
    store = MemoryKeys()
    made = await (await new_keyring(tmp_path, store)).create("device", now=17)
    row = store.rows[made.id]
    assert made.secret.reveal().encode() not in row.sealed_secret
    assert row.created == 17
    again = await new_keyring(tmp_path, store)
    assert again.is_secret_of(made.id, made.secret.reveal().encode(), 0)
    assert again.role(made.id) == "device"


async def test_ids_and_secrets_need_no_quoting_and_differ(tmp_path):
    keyring = await new_keyring(tmp_path)
    made = [await keyring.create("device", 0) for _ in range(20)]
    for key in made:
        assert re.fullmatch(r"SW[A-Za-z0-9]{22}", key.id)
        assert re.fullmatch(r"[A-Za-z0-9]{40}", key.secret.reveal())
    assert len({key.id for key in made}) == len({key.secret.reveal() for key in made}) == 20


async def test_no_representation_shows_a_secret(tmp_path):
    made = await (await new_keyring(tmp_path)).create("device", 0)
    credential = Credential(made.id, made.secret.reveal(), made.instance_id)
    for shown in (repr(made), str(made), repr(credential), str(credential)):
        assert made.secret.reveal() not in shown


async def test_a_revoked_key_is_gone_at_once_and_after_a_restart(tmp_path):
    store = MemoryKeys()
    keyring = await new_keyring(tmp_path, store)
    made = await keyring.create("device", 0)
    before = keyring.version
    assert await keyring.revoke(made.id)
    assert keyring.version > before
    for ring in (keyring, await new_keyring(tmp_path, store)):
        assert not ring.is_secret_of(made.id, made.secret.reveal().encode(), 0)
        assert ring.role(made.id) is None
        assert [info.revoked for info in ring.all()] == [True]
    assert not await keyring.revoke(made.id)
    assert not await keyring.revoke("never made")


async def test_a_key_that_was_not_stored_is_not_there(tmp_path):
    store = MemoryKeys()
    keyring = await new_keyring(tmp_path, store)
    store.is_failing = True
    with pytest.raises(StoreError):
        await keyring.create("device", 0)
    assert keyring.all() == []


async def test_a_revocation_that_was_not_stored_changes_nothing(tmp_path):
    store = MemoryKeys()
    keyring = await new_keyring(tmp_path, store)
    made = await keyring.create("device", 0)
    store.is_failing = True
    with pytest.raises(StoreError):
        await keyring.revoke(made.id)
    assert keyring.role(made.id) == "device"
    assert keyring.is_secret_of(made.id, made.secret.reveal().encode(), 0)


@pytest.mark.parametrize("change", ["create", "rotate", "revoke"])
async def test_a_reading_that_began_before_a_change_does_not_undo_it(tmp_path, change):
    store = MemoryKeys()
    keyring = await new_keyring(tmp_path, store)
    made = await keyring.create("device", 0)
    read, began, go = store.keys, asyncio.Event(), asyncio.Event()

    async def slow():
        rows = await read()
        began.set()
        await go.wait()
        return rows

    store.keys = slow
    loading = asyncio.create_task(keyring.load())
    await began.wait()
    if change == "create":
        made = await keyring.create("device", 0)
    elif change == "rotate":
        made = await keyring.rotate(made.id, 0, 0)
    else:
        await keyring.revoke(made.id)
    go.set()
    await loading
    assert keyring.is_secret_of(made.id, made.secret.reveal().encode(), 0) is (change != "revoke")
    assert keyring.role(made.id) == (None if change == "revoke" else "device")


async def test_a_rotation_on_its_way_does_not_undo_a_revocation(tmp_path):
    store = MemoryKeys()
    keyring = await new_keyring(tmp_path, store)
    made = await keyring.create("device", 0)
    put = store.put_key

    async def slow(key):
        await asyncio.sleep(0)
        await put(key)

    store.put_key = slow
    await asyncio.gather(keyring.rotate(made.id, 0, 0), keyring.revoke(made.id))
    assert store.rows[made.id].revoked
    assert keyring.role(made.id) is None


async def test_keys_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(keys_module, "MAX_KEYS", 2)
    keyring = await new_keyring(tmp_path)
    first = await keyring.create("device", 0)
    await keyring.create("device", 0)
    with pytest.raises(KeyLimit, match="revoke some"):
        await keyring.create("device", 0)
    await keyring.revoke(first.id)
    await keyring.create("device", 0)


async def test_another_seal_key_stops_the_start(tmp_path):
    store = MemoryKeys()
    await (await new_keyring(tmp_path, store)).create("device", 0)
    (tmp_path / "other").mkdir()
    await new_keyring(tmp_path / "other")
    with pytest.raises(StartError, match="can't be opened with this seal key"):
        await new_keyring(tmp_path / "other", store)


async def test_the_administrators_file_is_made_once_and_private(tmp_path):
    keyring = await new_keyring(tmp_path)
    await prepare_administrator(keyring, tmp_path, 0)
    file = tmp_path / "admin.json"
    content = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(content) == {"accessKeyId", "accessKeySecret", "instanceId"}
    assert keyring.role(content["accessKeyId"]) == "administrator"
    await prepare_administrator(keyring, tmp_path, 1)
    assert json.loads(file.read_text()) == content
    assert len(keyring.all()) == 1


@pytest.mark.parametrize("spoil", ["missing", "not JSON", "of a revoked key"])
async def test_an_administrators_file_that_is_no_good_is_made_again(tmp_path, spoil):
    keyring = await new_keyring(tmp_path)
    await prepare_administrator(keyring, tmp_path, 0)
    file = tmp_path / "admin.json"
    old = read_credential(tmp_path).access_key_id
    if spoil == "missing":
        file.unlink()
    elif spoil == "not JSON":
        file.write_text("{")
    else:
        await keyring.revoke(old)
    await prepare_administrator(keyring, tmp_path, 1)
    new = read_credential(tmp_path)
    assert new.access_key_id != old
    assert keyring.role(old) is None
    assert keyring.is_secret_of(new.access_key_id, new.access_key_secret.encode(), 0)


async def test_one_of_many_nodes_leaves_the_others_credentials_alone(tmp_path):
    keyring = await new_keyring(tmp_path)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        await prepare_administrator(keyring, folder, 0, alone=False)
    credentials = [read_credential(folder) for folder in folders]
    assert len({credential.access_key_id for credential in credentials}) == 2
    for credential in credentials:
        assert keyring.is_secret_of(credential.access_key_id, credential.access_key_secret.encode(), 0)


async def test_a_device_key_in_the_administrators_file_is_no_administrator(tmp_path):
    keyring = await new_keyring(tmp_path)
    await prepare_administrator(keyring, tmp_path, 0)
    device = await keyring.create("device", 0)
    (tmp_path / "admin.json").write_text(
        json.dumps({"accessKeyId": device.id, "accessKeySecret": device.secret.reveal(), "instanceId": device.instance_id})
    )
    await prepare_administrator(keyring, tmp_path, 1)
    assert read_credential(tmp_path).access_key_id != device.id


async def test_an_administrators_file_that_others_may_read_stops_the_start(tmp_path):
    keyring = await new_keyring(tmp_path)
    await prepare_administrator(keyring, tmp_path, 0)
    (tmp_path / "admin.json").chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        await prepare_administrator(keyring, tmp_path, 1)


async def test_the_first_key_is_made_once_even_when_revoked(tmp_path):
    keyring = await new_keyring(tmp_path)
    await prepare_administrator(keyring, tmp_path, 0)
    first = await make_first_key(keyring, 0)
    assert keyring.role(first.id) == "device"
    assert await make_first_key(keyring, 0) is None
    await keyring.revoke(first.id)
    assert await make_first_key(keyring, 0) is None


async def test_the_first_start_prints_commands_that_log_in(tmp_path):
    key = await make_first_key(await new_keyring(tmp_path), 0)
    text = "\n".join(first_start_lines(key, Address("127.0.0.1", 1999), tmp_path))
    password = sign(key.secret.reveal().encode(), "first-pub").decode()
    assert f"-h 127.0.0.1 -p 1999 -i first-pub -u 'Signature|{key.id}|{key.instance_id}' -P '{password}'" in text
    assert text.count(key.secret.reveal()) == 1
