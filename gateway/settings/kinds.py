"""The kinds of values that options have: each turns what a flag, the environment or TOML gives into a value, or says what would be one.

Knows no option by name. The table that uses these is options.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.identities import AccessRule
from schemas.limits import KIB, MIB
from schemas.policies import ACTIONS, EFFECTS, filter_problem
from schemas.settings import Address, NamedCertificate, ProxySettings

MAX_LIST: Final = 1024
"""Entries of a list in the settings: more is a mistake, and each may cost a socket or a comparison a publish."""

MAX_HOST: Final = 253
"""Characters of a host's name: no longer one exists in DNS."""

MAX_CERTIFICATES: Final = 256
"""Certificates by server name: all are loaded again when one changes."""

_SIZES: Final = {"": 1, "B": 1, "KIB": KIB, "MIB": MIB, "GIB": 1024 * MIB}
_TIMES: Final = {"": 1.0, "MS": 0.001, "S": 1.0, "M": 60.0, "H": 3600.0, "D": 86400.0}
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


class NotAllowed(ValueError):
    """What an allowed value would be, in words that follow `must be`."""


class Kind(msgspec.Struct, frozen=True):
    """``read`` takes text or a TOML value and raises NotAllowed. ``metavar`` stands in the help; a ``switch`` needs no value as a flag."""

    metavar: str
    read: Callable[[Any], Any]
    many: bool = False
    switch: bool = False


def _as_text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise NotAllowed(expected)
    return value


def _read_switch(value: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise NotAllowed("true or false")


SWITCH: Final = Kind("", _read_switch, switch=True)


def choice(*words: str) -> Kind:
    """One of some words."""
    expected = " or ".join(words) if len(words) == 2 else "one of " + ", ".join(words)

    def read(value: object) -> str:
        if value not in words:
            raise NotAllowed(expected)
        return str(value)

    return Kind("|".join(words), read)


def number(low: int, high: int) -> Kind:
    """A whole number in a range; from text also in hexadecimal, as reason codes are written."""
    expected = f"a whole number from {low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, str):
            try:
                value = int(value, 0)
            except ValueError:
                raise NotAllowed(expected) from None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise NotAllowed(expected)
        return value

    return Kind("N", read)


def _quantity(value: object, units: dict[str, float] | dict[str, int]) -> float | None:
    """A number, or text of a number and a unit; None where it is neither."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2].upper() not in units:
        return None
    return float(match[1]) * units[match[2].upper()]


def size(low: int, high: int) -> Kind:
    """Bytes, as a number or with KiB, MiB, GiB."""
    expected = f"bytes from {low} to {high}, as a number or like 64KiB, 256MiB, 1GiB"

    def read(value: object) -> int:
        quantity = _quantity(value, _SIZES)
        if quantity is None or quantity != int(quantity) or not low <= quantity <= high:
            raise NotAllowed(expected)
        return int(quantity)

    return Kind("BYTES", read)


def seconds(low: float, high: float, *, whole: bool = False) -> Kind:
    """A duration, in seconds or with ms, s, m, h, d; ``whole`` where the protocol counts in seconds."""
    expected = f"{'whole ' if whole else ''}seconds from {low:g} to {high:.0f}, as a number or like 90s, 10m, 1h, 3d"

    def read(value: object) -> float | int:
        quantity = _quantity(value, _TIMES)
        if quantity is None or not low <= quantity <= high or (whole and quantity != int(quantity)):
            raise NotAllowed(expected)
        return int(quantity) if whole else float(quantity)

    return Kind("SECONDS", read)


def text(pattern: str, expected: str) -> Kind:
    """Text of a form."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        found = _as_text(value, expected)
        if not compiled.fullmatch(found):
            raise NotAllowed(expected)
        return found

    return Kind("TEXT", read)


def _read_path(value: object) -> Path:
    found = _as_text(value, "a path")
    if not found or "\x00" in found:
        raise NotAllowed("a path")
    return Path(found).expanduser()


PATH: Final = Kind("PATH", _read_path)


_PASSWORD: Final = re.compile(r"://[^/?@]*:[^/?@]*@|[?&]password=", re.IGNORECASE)


def _read_database(value: object) -> str:
    expected = "a URL of PostgreSQL like postgresql://user@host:5432/database, or empty for SQLite"
    found = _as_text(value, expected)
    if found and (not re.fullmatch(r"postgres(ql)?://[!-~]+", found)):
        raise NotAllowed(expected)
    if _PASSWORD.search(found):
        raise NotAllowed("without a password: put it into a file that store.password_file names, or into PGPASSWORD")
    return found


DATABASE: Final = Kind("URL", _read_database)


def _read_address(value: object) -> Address:
    expected = "HOST:PORT with a port from 0 to 65535, like 127.0.0.1:1883 or [::1]:1883"
    host, colon, port = _as_text(value, expected).strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not re.fullmatch(r"[0-9A-Za-z_.:%-]+", host) or (":" in host) != bracketed:
        raise NotAllowed(expected)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise NotAllowed(expected)
    return Address(host, int(port))


ADDRESS: Final = Kind("HOST:PORT", _read_address)

_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to refuse them


def _read_reference(value: object) -> str:
    """A Server Reference of MQTT: where clients are sent, so no address that only a listener can have."""
    expected = "HOST:PORT that clients can reach, with a port from 1 to 65535, like mqtt-2.example.org:1883"
    if value == "":
        return ""
    try:
        address = _read_address(value)
    except NotAllowed:
        raise NotAllowed(expected) from None
    if not address.port or address.host in _EVERYWHERE or len(address.host) > MAX_HOST:
        raise NotAllowed(expected)
    return str(address)


REFERENCE: Final = Kind("HOST:PORT", _read_reference)


def several(kind: Kind) -> Kind:
    """A list of a kind: in TOML a list or one value, in text separated by commas; empty text is the empty list."""

    def read(value: object) -> tuple[Any, ...]:
        parts: list[Any] = []
        for part in value if isinstance(value, list) else [value]:
            parts.extend(_split(part) if isinstance(part, str) else [part])
        if len(parts) > MAX_LIST:
            raise NotAllowed(f"a list of at most {MAX_LIST} entries")
        return tuple(kind.read(part) for part in parts)

    return Kind(kind.metavar, read, many=True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _sections(read: Callable[[int, object], Any], limit: int, of_json: str, of_toml: str) -> Kind:
    """A list of sections like `[[access]]`; in the environment the same as JSON. ``read`` is told a section's number, the first being 1.

    ``of_json`` and ``of_toml`` say what it must be a list of.
    """

    def read_all(value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise NotAllowed(f"a JSON list of {of_json}") from None
        if not isinstance(value, list) or len(value) > limit:
            raise NotAllowed(f"a list of at most {limit} {of_toml}")
        return tuple(read(index, section) for index, section in enumerate(value, start=1))

    return Kind("JSON", read_all)


def _read_rule(index: int, value: object) -> AccessRule:
    try:
        rule = msgspec.convert(value, AccessRule)
    except msgspec.ValidationError as error:
        raise NotAllowed(f"rules of principal, action, filter and effect; rule {index}: {_plain(error)}") from None
    for field, found, allowed in (("action", rule.action, ACTIONS), ("effect", rule.effect, EFFECTS)):
        if found not in allowed:
            raise NotAllowed(f"valid rules; rule {index}: {field} {found!r} is not one of {', '.join(allowed)}")
    if not rule.principal:
        raise NotAllowed(f"valid rules; rule {index}: principal is empty: name an access key's id, anonymous, or * for all")
    if problem := filter_problem(rule.filter):
        raise NotAllowed(f"valid rules; rule {index}: filter {rule.filter!r} {problem}")
    return rule


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's words without its type notation: what is wrong with which field."""
    return str(error).replace("Object missing", "it is missing").replace("Object contains", "it contains").replace("`", "").replace("$.", "")


RULES: Final = _sections(_read_rule, MAX_LIST, "rules", "rules, each an [[access]] section")


def _read_proxy(index: int, value: object) -> ProxySettings:
    if not isinstance(value, dict) or value.keys() != {"listener", "networks"}:
        raise NotAllowed(f"[[proxy]] sections of listener and networks, and nothing else; section {index} isn't one")
    try:
        listener = _read_address(value["listener"])
    except NotAllowed as allowed:
        raise NotAllowed(f"valid; listener of section {index} must be {allowed}") from None
    named = value["networks"]
    if not isinstance(named, list) or not 0 < len(named) <= MAX_LIST or not all(isinstance(network, str) for network in named):
        raise NotAllowed(f'valid; networks of section {index} must be a list like ["10.0.0.0/8", "192.168.1.7"], not empty')
    try:
        return ProxySettings(listener=listener, networks=tuple(ip_network(network) for network in named))
    except ValueError as error:
        raise NotAllowed(f"valid; networks of section {index}: {error}") from None


PROXIES: Final = _sections(_read_proxy, MAX_LIST, "objects with listener and networks", "[[proxy]] sections")


def _read_certificate(index: int, value: object) -> NamedCertificate:
    if not isinstance(value, dict) or value.keys() != {"certificate", "key"}:
        raise NotAllowed(f"[[tls.certificates]] sections of certificate and key, and nothing else; section {index} isn't one")
    paths = {}
    for name, path in value.items():
        try:
            paths[name] = _read_path(path)
        except NotAllowed as allowed:
            raise NotAllowed(f"valid; {name} of section {index} must be {allowed}") from None
    return NamedCertificate(**paths)


CERTIFICATES: Final = _sections(_read_certificate, MAX_CERTIFICATES, "objects with certificate and key", "[[tls.certificates]] sections")
