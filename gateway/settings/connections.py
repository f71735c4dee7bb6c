"""`[connections.NAME]` sections: a table of their options, and how they are read from the file and the environment.

SLUICEWAY_CONNECTIONS_NAME_OPTION sets an option of a connection (in capitals, - as _); it may make one that the file lacks. A
password is best in the environment or in a `password_file`; no message repeats one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from gateway.settings.kinds import PATH, SWITCH, Kind, NotAllowed, choice, several, text
from schemas.connections import Compression, ConnectionKind, ConnectionSettings, SaslMechanism, Secret

VARIABLE_PREFIX: Final = "SLUICEWAY_CONNECTIONS_"
MAX_CONNECTIONS: Final = 32
MAX_SECRET: Final = 64 * 1024
"""Bytes of a password file."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATTERNS = several(text(r"[A-Za-z0-9._*-]{1,249}", "topic names in which * stands for any characters, such as orders-*"))
_ADDRESSES = several(text(r"(?:[0-9A-Za-z_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", "HOST:PORT, several separated by commas"))
_USER = text(r"[^\x00-\x1f\x7f]{0,256}", "at most 256 characters without control characters")


def _read_secret(value: object) -> Secret:
    if not isinstance(value, str) or not value or len(value) > MAX_SECRET or "\x00" in value:
        raise NotAllowed("a text that is not empty")
    return Secret(value)


SECRET: Final = Kind("SECRET", _read_secret)


class ConnectionOption(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    help: str


OPTIONS: Final = {
    option.name: option
    for option in (
        ConnectionOption("kind", choice(*get_args(ConnectionKind)), "kafka or rocketmq"),
        ConnectionOption("address", _ADDRESSES, "Kafka's bootstrap servers, RocketMQ's name servers"),
        ConnectionOption("allow_outflow", _PATTERNS, "topics that rules may write to; empty for none"),
        ConnectionOption("allow_inflow", _PATTERNS, "topics that rules may read; empty for none"),
        ConnectionOption("tls", SWITCH, "connect by TLS"),
        ConnectionOption("ca", PATH, "PEM file of the authorities of the brokers' certificates; the system's where it is not given"),
        ConnectionOption("certificate", PATH, "PEM file of our certificate, for brokers that demand one"),
        ConnectionOption("key", PATH, "PEM file of our certificate's key"),
        ConnectionOption("mechanism", choice(*get_args(SaslMechanism)), "how to log in to Kafka (SASL)"),
        ConnectionOption("user", _USER, "user of SASL; access key of RocketMQ's ACL"),
        ConnectionOption("password", SECRET, "password of SASL; secret key of RocketMQ's ACL"),
        ConnectionOption("password_file", PATH, "file that holds the password"),
        ConnectionOption("token_file", PATH, "file that holds the token for OAUTHBEARER, read for each connect"),
        ConnectionOption("namespace", text(r"[A-Za-z0-9_-]{0,64}", "at most 64 letters, digits, - and _"), "RocketMQ namespace"),
        ConnectionOption("compression", choice(*get_args(Compression)), "how bodies are compressed on the way to the backend"),
        ConnectionOption("durability", choice("checked", "as configured"), "checked: refuse a broker that may lose what it acknowledged"),
    )
}


Given = tuple[Any, str]
"""A value as found, and where, in words."""


def given_in_file(value: Any, file: Path, problems: list[str]) -> dict[str, dict[str, Given]]:
    """By connection the options of the file's `[connections]`."""
    found: dict[str, dict[str, Given]] = {}
    if not isinstance(value, dict):
        problems.append(f"connections ({file}): it must be sections, [connections.NAME]")
        return found
    for name, options in value.items():
        if not isinstance(options, dict) or not _NAME.fullmatch(name):
            shown = ascii(name)[1:-1][:64]
            problems.append(f"connections.{shown} ({file}): it must be a section [connections.NAME] with a NAME of letters, digits, - and _")
            continue
        found[name] = {option: (given, str(file)) for option, given in options.items()}
    return found


def given_in_environment(environment: Mapping[str, str], connections: dict[str, dict[str, Given]], problems: list[str]) -> None:
    """Adds what variables say: to a connection of the file, or to one of their own."""
    names = {name.upper().replace("-", "_"): name for name in connections}
    for variable in sorted(environment):
        if not variable.startswith(VARIABLE_PREFIX):
            continue
        rest = variable.removeprefix(VARIABLE_PREFIX)
        option = next((option for option in sorted(OPTIONS, key=len, reverse=True) if rest.endswith("_" + option.upper())), "")
        name = rest[: -len(option) - 1] if option else ""
        if not name:
            problems.append(f"{variable} (environment): unknown variable; it must be {VARIABLE_PREFIX}NAME_OPTION with an option such as PASSWORD")
            continue
        connection = names.setdefault(name, name.lower())
        connections.setdefault(connection, {})[option] = (environment[variable], variable)


def read_connections(given: Mapping[str, Mapping[str, Given]], problems: list[str]) -> tuple[ConnectionSettings, ...]:
    """The connections; what is wrong with them is added to ``problems``."""
    if len(given) > MAX_CONNECTIONS:
        problems.append(f"connections: there are {len(given)}, at most {MAX_CONNECTIONS} are allowed")
    made = (_read(name, options, problems) for name, options in sorted(given.items()))
    return tuple(connection for connection in made if connection is not None)


def _read(name: str, given: Mapping[str, Given], problems: list[str]) -> ConnectionSettings | None:
    before = len(problems)
    values: dict[str, Any] = {}
    for option, (value, where) in given.items():
        full = f"connections.{name}.{ascii(option)[1:-1][:64]}"
        if option not in OPTIONS:
            close = difflib.get_close_matches(option, OPTIONS, n=1)
            problems.append(f"{full} ({where}): unknown key{f'; did you mean {close[0]}?' if close else ''}")
            continue
        try:
            values[option] = OPTIONS[option].kind.read(value)
        except NotAllowed as allowed:
            problems.append(f"{full} ({where}): it must be {allowed}")
    _read_password_file(name, values, problems)
    if len(problems) == before:
        problems += [f"connections.{name}.{problem}" for problem in _disagreements(values)]
    return ConnectionSettings(name=name, **values) if len(problems) == before else None


def _read_password_file(name: str, values: dict[str, Any], problems: list[str]) -> None:
    file: Path | None = values.pop("password_file", None)
    if file is None:
        return
    full = f"connections.{name}.password_file"
    if "password" in values:
        problems.append(f"{full}: password is given too; give one of them")
        return
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_SECRET + 1)
        values["password"] = SECRET.read(content.decode().rstrip("\r\n"))
    except OSError as error:
        problems.append(f"{full}: {file} can't be read: {error.strerror}")
    except (UnicodeDecodeError, NotAllowed):
        problems.append(f"{full}: {file} must hold the password alone, in UTF-8")


_Rule = tuple[Callable[[Mapping[str, Any]], bool], str]

_DISAGREEMENTS: Final[tuple[_Rule, ...]] = (
    (lambda v: "kind" not in v, "kind: it is missing; say kafka or rocketmq"),
    (lambda v: not v.get("address"), "address: it is missing; give HOST:PORT of Kafka's bootstrap servers or RocketMQ's name servers"),
    (lambda v: ("certificate" in v) != ("key" in v), "certificate: certificate and key go together; give both or none"),
    (lambda v: not v.get("tls") and bool({"ca", "certificate", "key"} & v.keys()), "tls: ca, certificate and key need tls = true"),
    (lambda v: _is(v, "rocketmq") and "mechanism" in v, "mechanism: RocketMQ has no SASL; give user and password, its ACL's access key and secret"),
    (lambda v: _is(v, "kafka") and bool(v.get("namespace")), "namespace: Kafka has none; leave it out"),
    (lambda v: v.get("mechanism") == "OAUTHBEARER" and "token_file" not in v, "token_file: it is missing; OAUTHBEARER takes its token from it"),
    (lambda v: v.get("mechanism") not in (None, "OAUTHBEARER") and not _has_login(v), "user: user and password are needed for this mechanism"),
    (lambda v: _is(v, "kafka") and "mechanism" not in v and "password" in v, "mechanism: it is missing; say how to log in, such as SCRAM-SHA-512"),
    (lambda v: _is(v, "rocketmq") and bool(v.get("user")) != bool(v.get("password")), "user: user and password go together; give both or none"),
    (lambda v: _is(v, "rocketmq") and v.get("compression") in ("gzip", "snappy"), "compression: RocketMQ takes none, lz4 or zstd"),
)


def _is(values: Mapping[str, Any], kind: str) -> bool:
    return values.get("kind") == kind


def _has_login(values: Mapping[str, Any]) -> bool:
    return bool(values.get("user") and values.get("password"))


def _disagreements(values: Mapping[str, Any]) -> list[str]:
    """What is allowed by itself and not together."""
    return [words for is_wrong, words in _DISAGREEMENTS if is_wrong(values)]
