"""`bearer create`, `bearer list` and `bearer revoke`: keys with a scope for the REST API."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from gateway.auth.bearers import MAX_VALID, SCOPES
from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint
from gateway.commands.keys import when

Find = Callable[[argparse.Namespace], Endpoint]
_PATH: Final = "/api/v1/bearer-keys"


def add_bearers(commands: Any, add_gateway: Callable[[argparse.ArgumentParser], None], find: Find) -> None:
    """The `bearer` commands."""
    parser = commands.add_parser("bearer", help="bearer keys of the HTTP API, each with a scope", allow_abbrev=False)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[Endpoint, argparse.Namespace], None], words: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words, allow_abbrev=False)
        add_gateway(made)
        made.add_argument("--json", action="store_true", help="print JSON")

        def run(arguments: argparse.Namespace) -> int:
            command(find(arguments), arguments)
            return 0

        made.set_defaults(command=run)
        return made

    create = add("create", _create, "make a bearer key")
    create.add_argument("name", metavar="NAME", help="what it is for")
    create.add_argument("--scope", choices=SCOPES, default="read", help="read; write: also change and publish; admin: also keys and access rules")
    create.add_argument("--valid", type=_seconds, default=0, metavar="SECONDS", help="how long it is valid (default: until it is revoked)")
    add("list", _list, "list bearer keys")
    revoke = add("revoke", _revoke, "end a bearer key")
    revoke.add_argument("id", metavar="ID", help="as bearer list shows it")


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_VALID):
        raise argparse.ArgumentTypeError(f"it must be a number from 1 to {MAX_VALID}")
    return int(text)


def _create(endpoint: Endpoint, arguments: argparse.Namespace) -> None:
    made = call(endpoint, "POST", _PATH, {"name": arguments.name, "scope": arguments.scope, "validSeconds": arguments.valid})
    if arguments.json:
        print(json.dumps(made))
        return
    print(f"id          {made['id']}")
    print(f"bearer key  {made['bearerKey']}")
    print("The key is shown only now. Requests show it as Authorization: Bearer KEY.")


def _list(endpoint: Endpoint, arguments: argparse.Namespace) -> None:
    answer = call(endpoint, "GET", _PATH)
    if arguments.json:
        print(json.dumps(answer))
        return
    for key in answer["bearerKeys"]:
        ends = f"until {when(key['expires'])}" if key["expires"] else "without end"
        print(f"{key['id']}  {key['scope']:<5}  created {when(key['created'])}  {ends}  {key['name']}")


def _revoke(endpoint: Endpoint, arguments: argparse.Namespace) -> None:
    answer = call(endpoint, "DELETE", f"{_PATH}/{quote(arguments.id, safe='')}")
    print(json.dumps(answer) if arguments.json else f"{arguments.id} is revoked")
