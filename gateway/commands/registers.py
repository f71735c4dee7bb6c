"""`group`, `topic` and `policy`: what is registered, made, listed and removed through the API of a running gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint

FIELDS: Final = {"group": "groupId", "topic": "topic"}
"""What the API calls the name of each."""


def create(endpoint: Endpoint, kind: str, name: str, *, as_json: bool) -> None:
    made = call(endpoint, "POST", f"/api/v1/{kind}s", {FIELDS[kind]: name})
    print(json.dumps(made) if as_json else f"{kind} {made[FIELDS[kind]]} is there now")


def show(endpoint: Endpoint, kind: str, *, as_json: bool) -> None:
    answer = call(endpoint, "GET", f"/api/v1/{kind}s")
    if as_json:
        print(json.dumps(answer))
        return
    for one in answer[f"{kind}s"]:
        print(one[FIELDS[kind]])


def delete(endpoint: Endpoint, kind: str, name: str, *, as_json: bool) -> None:
    answer = call(endpoint, "DELETE", f"/api/v1/{kind}s/{quote(name, safe='')}")
    print(json.dumps(answer) if as_json else f"{kind} {name} is gone")


def put_policy(endpoint: Endpoint, rule: Mapping[str, str], *, as_json: bool) -> None:
    put = call(endpoint, "PUT", "/api/v1/policies", dict(rule))
    print(json.dumps(put) if as_json else "in force: " + _line(put))


def show_policies(endpoint: Endpoint, principal: str, *, as_json: bool) -> None:
    answer = call(endpoint, "GET", f"/api/v1/policies?of={quote(principal, safe='')}")
    if as_json:
        print(json.dumps(answer))
        return
    for rule in answer["policies"]:
        print(_line(rule))


def delete_policy(endpoint: Endpoint, rule: Mapping[str, str], *, as_json: bool) -> None:
    answer = call(endpoint, "DELETE", "/api/v1/policies", dict(rule))
    print(json.dumps(answer) if as_json else "no longer in force: " + _line(rule))


def _line(rule: Mapping[str, Any]) -> str:
    return f"{rule['principal']} {rule['action']} {rule['filter']} {rule['effect']}"
