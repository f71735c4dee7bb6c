"""The first start's keys, and the file in which the commands of this machine find the administrator's credential.

The file is made again, under a new credential, whenever it is missing or holds none that is valid; older ones are revoked then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from gateway.auth.keys import KeyRing, NewKey
from gateway.auth.login import ADMINISTRATOR, sign, signature_user_name
from gateway.auth.seal import read_private, write_private
from schemas.errors import StartError
from schemas.settings import Address

ADMINISTRATOR_FILE: Final = "admin.json"


class Credential(msgspec.Struct, frozen=True, rename="camel"):
    """The form in which a key is written and printed. Holds a secret: never log it."""

    access_key_id: str
    access_key_secret: str
    instance_id: str

    def __repr__(self) -> str:
        return f"Credential({self.access_key_id}, ***)"


def credential_of(key: NewKey) -> Credential:
    return Credential(key.id, key.secret.reveal(), key.instance_id)


def read_credential(data: Path) -> Credential | None:
    """The administrator's credential in a data folder; None where there is no valid one. StartError where others may read it."""
    file = data / ADMINISTRATOR_FILE
    try:
        return msgspec.json.decode(read_private(file), type=Credential)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    except OSError as error:
        raise StartError(f"{file} can't be read: {error.strerror}") from None


async def prepare_administrator(keyring: KeyRing, data: Path, now: int, *, alone: bool = True) -> None:
    """Make sure that the data folder holds a valid administrator's credential. ``now`` in ms of the wall clock.

    Where it isn't ``alone`` other nodes have credentials of theirs, so none is revoked: that of a lost folder is for `key revoke`.
    """
    found = read_credential(data)
    if found is not None and found.instance_id == keyring.instance_id and _is_valid(keyring, found, now):
        return
    key = await keyring.create(ADMINISTRATOR, now)
    content = json.dumps(msgspec.to_builtins(credential_of(key)), indent=2).encode() + b"\n"
    try:
        write_private(data / ADMINISTRATOR_FILE, content)
    except OSError as error:
        raise StartError(f"{data / ADMINISTRATOR_FILE} can't be written: {error.strerror}") from None
    for info in keyring.all() if alone else ():
        if info.role == ADMINISTRATOR and info.id != key.id:
            await keyring.revoke(info.id)


def _is_valid(keyring: KeyRing, found: Credential, now: int) -> bool:
    known = keyring.is_secret_of(found.access_key_id, found.access_key_secret.encode(), now)
    return known and keyring.role(found.access_key_id) == ADMINISTRATOR


async def make_first_key(keyring: KeyRing, now: int) -> NewKey | None:
    """A first access key, where no key for devices was ever made; else None."""
    if any(info.role == "device" for info in keyring.all()):
        return None
    return await keyring.create("device", now)


def first_start_lines(key: NewKey, mqtt: Address | None, data: Path) -> list[str]:
    """What a first start prints: the first key, and commands that work as they stand. The only place its secret is shown."""
    user_name = signature_user_name(key.id, key.instance_id)
    host, port = (mqtt.host, mqtt.port) if mqtt else ("HOST", 1883)

    def options(client_id: str) -> str:
        password = sign(key.secret.reveal().encode(), client_id).decode()
        return f"-h {host} -p {port} -i {client_id} -u '{user_name}' -P '{password}'"

    return [
        f"First start. Instance {key.instance_id}; this access key is shown only now:",
        f"  access key id      {key.id}",
        f"  access key secret  {key.secret.reveal()}",
        "Devices log in with it (the password depends on the client id: sluiceway signature CLIENT_ID):",
        f"  mosquitto_sub {options('first-sub')} -v -t 'hello/#'",
        f"  mosquitto_pub {options('first-pub')} -q 1 -t hello/world -m 'it works'",
        f"Commands on this machine need no key: sluiceway pub --data {data} -t hello/world -m 'it works'",
        f"More keys: sluiceway key create --data {data}",
    ]
