"""Where a running gateway is and with which key to talk to it: from its data folder, or from --url and --access-key.

The gateway writes `gateway.json` (0600) when it serves and removes it when it ends. A file that a killed gateway left behind does no harm:
what it names doesn't answer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from gateway.auth.credentials import Credential, read_credential
from gateway.auth.seal import read_private, write_private
from gateway.commands.errors import CommandError
from gateway.folder import WORKER_FOLDER
from schemas.errors import StartError

RENDEZVOUS_FILE: Final = "gateway.json"


class Rendezvous(msgspec.Struct, frozen=True):
    """What a running gateway leaves for commands: its process, its URL, and the addresses of its MQTT listeners by name.

    ``certificate``: the file of an HTTPS gateway's own, which commands on this machine expect to meet.
    """

    pid: int
    http: str
    mqtt: tuple[str, ...] = ()
    mqtts: tuple[str, ...] = ()
    ws: tuple[str, ...] = ()
    wss: tuple[str, ...] = ()
    certificate: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """``instance_id`` is empty where only the gateway can say it.

    HTTPS: ``certificate`` is the file of the very certificate to expect, ``ca_file`` has the authorities to trust in place of the system's.
    """

    url: str
    access_key: str
    secret: str
    instance_id: str = ""
    certificate: str = ""
    ca_file: Path | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.url}, {self.access_key}, ***)"


def write_rendezvous(data: Path, rendezvous: Rendezvous) -> None:
    """Say that this gateway serves; OSError where the folder can't be written."""
    write_private(data / RENDEZVOUS_FILE, msgspec.json.encode(rendezvous) + b"\n")


def remove_rendezvous(data: Path) -> None:
    """Say that it has ended. What another process wrote stays: a gateway that could not start must not hide the one that runs."""
    with contextlib.suppress(CommandError, StartError):
        found = read_rendezvous(data)
        if found is not None and found.pid == os.getpid():
            (data / RENDEZVOUS_FILE).unlink(missing_ok=True)


def read_rendezvous(data: Path) -> Rendezvous | None:
    """What the gateway of a data folder left; None where none serves."""
    try:
        return msgspec.json.decode(read_private(data / RENDEZVOUS_FILE), type=Rendezvous)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise CommandError(f"{data / RENDEZVOUS_FILE} can't be read: {error}") from None


def _folders(data: Path) -> list[Path]:
    """A data folder, and those of the workers that share its ports (`run --workers`): whichever serves answers for all."""
    return [data, *sorted(data.glob(f"{WORKER_FOLDER}*"))]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find(data: Path | None, url: str | None, access_key: str | None, environment: Mapping[str, str], ca_file: Path | None = None) -> Endpoint:
    """The gateway to talk to. What is given explicitly wins over the data folder; CommandError says what is missing."""
    certificate = ""
    url = url or environment.get("SLUICEWAY_URL") or None
    if url is None and data is None:
        raise CommandError("which gateway? give its data folder with --data DIR, or --url http://HOST:PORT with --access-key ID")
    if url is None and data is not None:
        left = [found for folder in _folders(data) if (found := read_rendezvous(folder)) is not None]
        rendezvous = next((found for found in left if _lives(found.pid)), left[0] if left else None)
        if rendezvous is None:
            raise CommandError(f"no gateway runs on {data} (there is no {RENDEZVOUS_FILE}): start it with sluiceway run --data {data}")
        url, certificate = rendezvous.http, rendezvous.certificate
    key = credential(data, access_key, environment)
    return Endpoint(url or "", key.access_key_id, key.access_key_secret, key.instance_id, certificate, ca_file)


def credential(data: Path | None, access_key: str | None, environment: Mapping[str, str]) -> Credential:
    """The key to use: the given one with its secret from the environment, else the administrator's of the data folder."""
    access_key = access_key or environment.get("SLUICEWAY_ACCESS_KEY") or None
    if access_key is not None:
        secret = environment.get("SLUICEWAY_ACCESS_SECRET")
        if not secret:
            raise CommandError("the access key's secret is missing: set SLUICEWAY_ACCESS_SECRET (never on the command line)")
        return Credential(access_key, secret, "")
    if data is None:
        raise CommandError("no access key: give --data DIR for the administrator's, or --access-key ID with SLUICEWAY_ACCESS_SECRET set")
    found = next((found for folder in _folders(data) if (found := read_credential(folder)) is not None), None)
    if found is None:
        raise CommandError(f"there is no administrator's credential in {data}: it is made when a gateway starts there")
    return found
