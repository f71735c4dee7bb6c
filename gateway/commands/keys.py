"""`key create`, `key list`, `key revoke`, `status` and `signature`: one call of the API, or none, and its answer printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.auth.diagnosis import RIGHT, diagnose
from gateway.auth.login import sign, signature_user_name
from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint, credential
from gateway.commands.errors import CommandError


def create_key(endpoint: Endpoint, role: str, *, as_json: bool) -> None:
    made = call(endpoint, "POST", "/api/v1/keys", {"role": role})
    if as_json:
        print(json.dumps(made))
        return
    print(f"access key id      {made['accessKeyId']}")
    print(f"access key secret  {made['accessKeySecret']}")
    print(f"instance id        {made['instanceId']}")
    print("The secret is shown only now.")


def list_keys(endpoint: Endpoint, *, as_json: bool) -> None:
    answer = call(endpoint, "GET", "/api/v1/keys")
    if as_json:
        print(json.dumps(answer))
        return
    for key in answer["keys"]:
        state = "revoked" if key["revoked"] else "active"
        print(f"{key['accessKeyId']}  {key['role']:<13}  {state:<7}  created {when(key['created'])}")


def rotate_key(endpoint: Endpoint, key_id: str, valid_seconds: int, *, as_json: bool) -> None:
    made = call(endpoint, "POST", f"/api/v1/keys/{quote(key_id, safe='')}/rotate", {"validSeconds": valid_seconds})
    if as_json:
        print(json.dumps(made))
        return
    print(f"access key secret  {made['accessKeySecret']}")
    print(f"The secret is shown only now; the one before is valid for {valid_seconds} s more.")


def revoke_key(endpoint: Endpoint, key_id: str, *, as_json: bool) -> None:
    answer = call(endpoint, "DELETE", f"/api/v1/keys/{quote(key_id, safe='')}")
    if as_json:
        print(json.dumps(answer))
        return
    print(f"{key_id} is revoked; connections closed: {answer['connectionsClosed']}")


def show_status(endpoint: Endpoint, client_id: str, *, as_json: bool) -> None:
    answer = call(endpoint, "GET", f"/api/v1/status/{quote(client_id, safe='/')}")
    if as_json:
        print(json.dumps(answer))
        return
    print(_status_line(answer))


def show_group(endpoint: Endpoint, group: str, *, as_json: bool) -> None:
    """A group's clients, all pages."""
    clients: list[Any] = []
    path, after = f"/api/v1/groups/{quote(group, safe='')}/clients?limit=1000", ""
    while True:
        answer = call(endpoint, "GET", path + (f"&after={quote(after, safe='')}" if after else ""))
        clients += answer["clients"]
        after = answer.get("next", "")
        if not after:
            break
    if as_json:
        silent = {"silent": answer["silent"]} if "silent" in answer else {}
        print(json.dumps({"groupId": group, "online": answer["online"], "clients": clients, **silent}))
        return
    for client in clients:
        print(_status_line(client))
    print(f"{group}: {answer['online']} online, {len(clients)} ever seen")
    if "silent" in answer:
        print(f"(not counted: clients of {', '.join(answer['silent'])}, which did not answer)")


def _status_line(answer: Mapping[str, Any]) -> str:
    where = f" from {answer['address']}" if answer["online"] else ""
    return f"{answer['clientId']} is {'online' if answer['online'] else 'offline'} since {when(answer['time'])}{where}"


def when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00") + " UTC"


def show_signature(
    client_id: str,
    data: Path | None,
    access_key: str | None,
    instance_id: str | None,
    environment: Mapping[str, str],
    *,
    only: str | None,
    as_json: bool,
) -> None:
    """The Signature login of a client id. Needs no running gateway."""
    key = credential(data, access_key, environment)
    instance_id = instance_id or key.instance_id
    if not instance_id:
        raise CommandError("the instance id is missing: give --instance-id, as key create printed it")
    login = {
        "userName": signature_user_name(key.access_key_id, instance_id),
        "password": sign(key.access_key_secret.encode(), client_id).decode(),
    }
    if as_json:
        print(json.dumps(login))
    elif only is not None:
        print(login[only])
    else:
        print(f"user name  {login['userName']}")
        print(f"password   {login['password']}")


def check_signature(
    client_id: str,
    data: Path | None,
    access_key: str | None,
    instance_id: str | None,
    environment: Mapping[str, str],
    user_name: str,
    password: bytes,
) -> bool:
    """Say what is wrong with a login that a device sent; whether nothing is."""
    key = credential(data, access_key, environment)
    found = diagnose(client_id, key.access_key_id, key.access_key_secret.encode(), instance_id or key.instance_id, user_name, password)
    print(found)
    return found == RIGHT
