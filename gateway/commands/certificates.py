"""`authority` and `certificate`: who issues certificates for clients, and the certificates that have come. Through the API of a running gateway."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint
from gateway.commands.errors import CommandError

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name for it
AddGateway: TypeAlias = Callable[[argparse.ArgumentParser], None]
Find: TypeAlias = Callable[[argparse.Namespace], Endpoint]
Command: TypeAlias = Callable[[Endpoint, argparse.Namespace], Any]
"""Gives the API's answer, and prints nothing itself."""

PAGE: Final = 100
MAX_FILE: Final = 64 * 1024

_CHANGES: Final = {"activate": "admit it", "deactivate": "refuse it and close its connections", "delete": "forget it and close its connections"}


def add_certificates(commands: Subparsers, add_gateway: AddGateway, find: Find) -> None:
    """The commands."""

    def add(parent: Subparsers, name: str, command: Command, show: Callable[[Any], str], words: str) -> argparse.ArgumentParser:
        parser = parent.add_parser(name, help=words, description=words, allow_abbrev=False)
        add_gateway(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(command=lambda arguments: _run(command, show, find, arguments))
        return parser

    authority = commands.add_parser("authority", help="authorities whose certificates clients log in with", allow_abbrev=False)
    verbs = authority.add_subparsers(required=True, metavar="COMMAND")
    add(verbs, "code", _code, lambda found: str(found["registrationCode"]), "the common name that a verification certificate must have")
    register = add(verbs, "register", _register, lambda made: f"authority {made['serial']} is registered", "register an authority")
    register.add_argument("name", metavar="NAME", help="what principals are called by: cert:NAME/<common name>")
    register.add_argument("ca", type=Path, metavar="CA_FILE", help="its certificate, PEM")
    register.add_argument("verification", type=Path, metavar="VERIFICATION_FILE", help="a certificate for the registration code, signed by its key")
    add(verbs, "list", _all("authorities"), _lines("authorities"), "all authorities, a line each")
    certificate = commands.add_parser("certificate", help="certificates that clients have logged in with", allow_abbrev=False)
    kinds = certificate.add_subparsers(required=True, metavar="COMMAND")
    listed = add(kinds, "list", _all("certificates"), _lines("certificates"), "all certificates, a line each")
    listed.add_argument("--authority", default="", metavar="SERIAL", help="of this authority only")
    for parent, kind in ((verbs, "authority"), (kinds, "certificate")):
        made = [add(parent, "show", _ask(kind, "GET"), _whole, f"an {kind}'s fields and PEM".replace("an c", "a c"))]
        made += [add(parent, verb, _ask(kind, verb), _changed(verb), words) for verb, words in _CHANGES.items()]
        for parser in made:
            if kind == "certificate":
                parser.add_argument("authority", metavar="AUTHORITY", help="serial number of its authority")
            parser.add_argument("serial", metavar="SERIAL", help="serial number")


def _run(command: Command, show: Callable[[Any], str], find: Find, arguments: argparse.Namespace) -> int:
    answer = command(find(arguments), arguments)
    text = json.dumps(answer) if arguments.json else show(answer)
    if text:
        print(text)
    return 0


def _code(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    return call(endpoint, "GET", "/api/v1/registration-code")


def _register(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    body = {"name": arguments.name, "ca": _read(arguments.ca), "verification": _read(arguments.verification)}
    return call(endpoint, "POST", "/api/v1/authorities", body)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a PEM file"
        raise CommandError(f"{file} can't be read: {why}") from None


def _all(kind: str) -> Command:
    """Every page of a list."""

    def ask(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
        found: list[Any] = []
        of = f"&of={quote(arguments.authority, safe='')}" if getattr(arguments, "authority", "") else ""
        while True:
            page = call(endpoint, "GET", f"/api/v1/{kind}?start={len(found)}&limit={PAGE}{of}")
            found += page[kind]
            if len(page[kind]) < PAGE:
                return {kind: found, "total": page["total"]}

    return ask


def _ask(kind: str, verb: str) -> Command:
    """Show or change one."""

    def ask(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
        path = "/api/v1/authorities/" if kind == "authority" else f"/api/v1/certificates/{quote(arguments.authority, safe='')}/"
        path += quote(arguments.serial, safe="")
        if verb in ("activate", "deactivate"):
            return call(endpoint, "POST", f"{path}/{verb}")
        return call(endpoint, "DELETE" if verb == "delete" else "GET", path)

    return ask


def _changed(verb: str) -> Callable[[Any], str]:
    words = {"activate": "active", "deactivate": "inactive", "delete": "deleted"}[verb]
    return lambda answer: f"{answer['serial']} is {words}"


def _lines(kind: str) -> Callable[[Any], str]:
    return lambda answer: "\n".join(_line(one) for one in answer[kind])


def _line(one: Mapping[str, Any]) -> str:
    state = "active" if one["active"] else "inactive"
    serial = f"{one['authority']} {one['serial']}" if "authority" in one else one["serial"]
    return f"{serial}  {state:8}  until {_day(one['validUntil'])}  {one['name']}"


def _whole(one: Mapping[str, Any]) -> str:
    return "\n".join((_line(one), *(one[name].rstrip("\n") for name in ("ca", "certificate") if name in one)))


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
