"""From flags, environment and file to ``Settings``: flag over environment over file over preset over default; every problem is found at once.

What an option may be is in kinds.py, which options there are in options.py. An unknown key is a problem that names it, never ignored.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.settings.connections import VARIABLE_PREFIX, given_in_environment, given_in_file, read_connections
from gateway.settings.kinds import NotAllowed
from gateway.settings.nodes import node_problems
from gateway.settings.options import ENVIRONMENT_PREFIX, OPTIONS, PRESETS, SECTIONS, default
from schemas.errors import SettingsError
from schemas.limits import MIB
from schemas.settings import Address, Settings

CONFIG_VARIABLE: Final = "SLUICEWAY_CONFIG"

_OTHER_VARIABLES: Final = (CONFIG_VARIABLE, "SLUICEWAY_URL", "SLUICEWAY_ACCESS_KEY", "SLUICEWAY_ACCESS_SECRET", "SLUICEWAY_FAILPOINT")
"""Variables of the commands and of tests, which are no options."""

_TEST_PREFIX: Final = "SLUICEWAY_TEST_"

MAX_FILE: Final = MIB
"""Bytes of a configuration file: more is some other file."""

MAX_SHOWN: Final = 80
"""Characters of a refused value that a message repeats."""

_NOT_SHOWN: Final = ("access", "proxy", "tls.certificates", "store.url")
"""Too long to repeat, or it may hold a password."""

Given = tuple[Any, str]
"""A value as found, and where, in words."""


class Problems(SettingsError):
    """Everything that is wrong with the settings. As text: the first problem, and how many more there are."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more: see sluiceway check-config)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings in force; Problems where something is unknown, not allowed, or doesn't go together.

    ``flags`` holds values by option name, None for a flag that was not given. ``file`` None: SLUICEWAY_CONFIG, if that is set.
    """
    problems: list[str] = []
    if file is None and environment.get(CONFIG_VARIABLE):
        file = Path(environment[CONFIG_VARIABLE])
    given: dict[str, Given] = {}
    connections: dict[str, dict[str, Given]] = {}
    if file is not None:
        tables = _tables(file)
        connections = given_in_file(tables.pop("connections", {}), file, problems)
        given.update(_from_file(tables, file, problems))
    given_in_environment(environment, connections, problems)
    given.update(_from_environment(environment, problems))
    given.update({name: (_single(value), OPTIONS[name].flag) for name, value in flags.items() if value is not None})

    values = _read_values(given, problems)
    layered = {**{name: default(name) for name in OPTIONS}, **PRESETS[values.get("preset", "standard")], **values}
    settings = msgspec.structs.replace(_build(layered), connections=read_connections(connections, problems))
    if problems := problems or list(_disagreements(settings)):
        raise Problems(problems)
    return settings


def _read_values(given: Mapping[str, Given], problems: list[str]) -> dict[str, Any]:
    values = {}
    for name, (value, where) in given.items():
        try:
            values[name] = OPTIONS[name].kind.read(value)
        except NotAllowed as allowed:
            shown = "" if name in _NOT_SHOWN else f"{_shown(value)} is refused, "
            problems.append(f"{name} ({where}): {shown}it must be {allowed}")
    return values


def _single(value: Any) -> Any:
    """What a flag was given: flags that may be repeated come as lists, and are shown as they were typed where they were not."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _shown(value: object) -> str:
    found = ascii(value)
    return found if len(found) <= MAX_SHOWN else found[:MAX_SHOWN] + "..."


def _tables(file: Path) -> dict[str, Any]:
    """What is in a TOML file. What is wrong with it as a whole ends here, for nothing in it can be trusted then."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise SettingsError(f"{file} is larger than {MAX_FILE} bytes: it is no configuration file")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from None


def _from_file(tables: Mapping[str, Any], file: Path, problems: list[str]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for name, value in _flatten(tables):
        if name in OPTIONS:
            given[name] = (value, str(file))
        elif name in SECTIONS:
            problems.append(f"{name} ({file}): it must be a section, [{name}]")
        else:
            problems.append(f"{_shown(name)[1:-1]} ({file}): unknown key{_meant(name, OPTIONS)}")
    return given


def _flatten(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys by their full name. Only sections are opened, so that a table in the place of a value is refused as a value."""
    for key, value in tables.items():
        if isinstance(value, dict) and key not in OPTIONS:
            yield from ((f"{key}.{inner}", part) for inner, part in value.items())
        else:
            yield key, value


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> dict[str, Given]:
    variables = {option.variable: name for name, option in OPTIONS.items()}
    names = [variable.removeprefix(ENVIRONMENT_PREFIX) for variable in variables]
    given: dict[str, Given] = {}
    for variable in sorted(environment):
        if variable in variables:
            given[variables[variable]] = (environment[variable], variable)
        elif variable.startswith((_TEST_PREFIX, VARIABLE_PREFIX)) or variable in _OTHER_VARIABLES:
            continue
        elif variable.startswith(ENVIRONMENT_PREFIX):
            close = _meant(variable.removeprefix(ENVIRONMENT_PREFIX), names)
            problems.append(f"{variable} (environment): unknown variable{close.replace('mean ', 'mean ' + ENVIRONMENT_PREFIX)}")
    return given


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _build(values: Mapping[str, Any]) -> Settings:
    """The nested structs from values by full name."""
    top = {name: value for name, value in values.items() if "." not in name}
    for section in SECTIONS:
        made = getattr(Settings(), section)
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(section + ".")}
        top[section] = msgspec.structs.replace(made, **inner)
    return Settings(**top)


def _disagreements(settings: Settings) -> Iterator[str]:
    """What is allowed by itself and not together."""
    listeners = [(name, address) for name in ("mqtt", "mqtts", "ws", "wss") for address in getattr(settings, name)]
    if not listeners and "gateway" in settings.node.roles:
        yield "mqtt: no listener is left; give at least one of mqtt, mqtts, ws, wss"
    seen: dict[Address, str] = {}
    for name, address in (*listeners, ("http", settings.http)):
        if address.port and address in seen:
            yield f"{name}: {address} is taken by {seen[address]} already; give each listener a port of its own"
        seen[address] = name
    for name, address in listeners:
        if settings.anonymous and not address.is_loopback:
            yield f"anonymous: it is for loopback listeners only and {name} has {address}; use 127.0.0.1 or switch anonymous off"
    if (settings.mqtts or settings.wss or settings.tls.http) and not (settings.tls.certificate and settings.tls.key):
        listener = "mqtts, wss" if settings.mqtts or settings.wss else "http, by tls.http"
        missing = "tls.certificate" if not settings.tls.certificate else "tls.key"
        yield f"{missing}: a listener with TLS ({listener}) needs tls.certificate and tls.key"
    yield from _proxied(settings, {address for _, address in listeners})
    if settings.log.kind != "embedded":
        yield from _log_connection(settings)
    yield from node_problems(settings, listeners)
    limits = settings.limits
    if limits.topic_bytes >= limits.packet:
        yield f"limits.topic_bytes: {limits.topic_bytes} does not fit in a packet of limits.packet = {limits.packet}"
    if limits.pending_bytes < limits.packet:
        yield f"limits.pending_bytes: {limits.pending_bytes} is less than one packet of limits.packet = {limits.packet}"


def _proxied(settings: Settings, listeners: Container[Address]) -> Iterator[str]:
    seen: set[Address] = set()
    for proxy in settings.proxy:
        if proxy.listener not in listeners:
            yield f"proxy: there is no listener {proxy.listener}; name the address of one of mqtt, mqtts, ws, wss as it is written there"
        if proxy.listener in seen:
            yield f"proxy: listener {proxy.listener} has two sections; put all networks into one"
        seen.add(proxy.listener)


def _log_connection(settings: Settings) -> Iterator[str]:
    kind, name = settings.log.kind, settings.log.connection
    found = next((connection for connection in settings.connections if connection.name == name), None)
    if found is None:
        words = f"there is no [connections.{name}]" if name else "it is empty"
        yield f"log.connection: {words}; name the [connections.NAME] section of the log's {kind}"
    elif found.kind != kind:
        yield f"log.connection: connections.{name} is of kind {found.kind} and log.kind is {kind}; name another one"
