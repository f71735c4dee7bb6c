"""Rules: what leaves for a backend's topic (outflow, status) and what comes from one (inflow), and what is kept of a rule as it runs.

``read_rule`` is the one way from what a user wrote to a Rule: a table of fields, each with what it takes and the words for a refusal.
What has to do with a connection (its name, its kind, its allow lists) is in schemas/targets.py; whether a filter compiles, streams/mapping says.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from schemas.errors import SluicewayError
from schemas.positions import At
from schemas.records import Source
from schemas.topics import is_topic_name

RuleKind = Literal["outflow", "inflow", "status"]
KINDS: Final = ("outflow", "inflow", "status")

MAX_RULES: Final = 100
MAX_EXPRESSION: Final = 2_048
"""Characters of a filter or projection."""
MAX_SCHEMA: Final = 64 * 1024
"""Bytes of a JSON Schema."""
MAX_RATE: Final = 1_000_000
MAX_TIME: Final = 2**53
ANY_GROUP: Final = "*"
SOURCES: Final = tuple(source.name.lower() for source in Source)


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One rule. What does not belong to its kind has its default.

    ``backend_topic`` of an outflow rule may be a template over topic levels, `orders-{2}`; the parent topic is level 1. So may ``tag``.
    ``start`` is `now`, `earliest`, or ms of the wall clock; ``position`` a place in the log, or offsets by queue, and wins over it.
    """

    id: str
    kind: RuleKind
    connection: str
    backend_topic: str
    topic: str = ""
    group: str = ""
    enabled: bool = True
    description: str = ""
    key: Literal["client", "topic", "none"] = "client"
    tag: str = ""
    ordered: bool = False
    sources: tuple[str, ...] = ("device", "will")
    start: Literal["now", "earliest"] | int = "now"
    position: str = ""
    filter: str = ""
    projection: str = ""
    json_schema: str = ""
    tags: str = ""
    sql: str = ""
    rate: float = 0.0
    on_poison: Literal["skip", "stop"] = "skip"
    undelivered: str = ""
    create: bool = False

    @property
    def resource(self) -> tuple[str, ...]:
        """What there is one rule of a kind for: a parent topic or a group."""
        return (self.kind, self.topic or self.group)


class RuleCounts(msgspec.Struct, frozen=True, gc=False):
    """Since the rule was made. ``sent`` to where it goes, ``filtered`` by its filter, ``dead`` to dead letters, ``looped`` has been here before.

    ``lost`` was cut by retention before it could be sent; ``skipped`` a backend had no more.
    """

    sent: int = 0
    filtered: int = 0
    dead: int = 0
    looped: int = 0
    lost: int = 0
    skipped: int = 0
    letters_dropped: int = 0


class RuleState(msgspec.Struct, frozen=True):
    """Where a rule stands. ``positions`` in the log by shard (outflow, status), ``offsets`` the next one by queue (inflow).

    ``matched`` and ``done``: what is the rule's, as the shared feed has seen it and as the rule is through with it; both since ``counted_from``.
    ``letters``: the number of the next dead letter.
    """

    positions: dict[int, At] = {}
    offsets: dict[str, int] = {}
    counts: RuleCounts = RuleCounts()
    matched: int = 0
    done: int = 0
    counted_from: dict[int, At] = {}
    has_gap: bool = False
    letters: int = 1


class RuleError(SluicewayError):
    """A rule, or what is asked of one, is refused. ``field`` names what is to blame, in the spelling of the API."""

    def __init__(self, field: str, message: str, *, conflict: bool = False, missing: bool = False) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message
        self.conflict = conflict
        self.missing = missing


class _Refused(ValueError):
    """A value is not what a field takes; the text says what it takes."""


class _Field(msgspec.Struct, frozen=True):
    name: str
    kinds: tuple[str, ...]
    read: Callable[[Any], Any]
    required: bool = False


def _text(pattern: str, expected: str) -> Callable[[Any], str]:
    compiled = re.compile(pattern)

    def read(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _Refused(expected)
        return value

    return read


def _choice(*values: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in values:
            raise _Refused(f"one of {', '.join(values)}")
        return str(value)

    return read


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Refused("true or false")
    return value


def _parent(value: Any) -> str:
    expected = "a parent topic: the first level of MQTT topics, 1 to 255 characters without /, +, #, control characters, and not beginning with $"
    if not isinstance(value, str) or not 0 < len(value) <= 255 or "/" in value or value.startswith("$"):
        raise _Refused(expected)
    if not is_topic_name(value) or not value.isprintable():
        raise _Refused(expected)
    return value


def _sources(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or len(value) > len(SOURCES) or any(name not in SOURCES for name in value):
        raise _Refused(f"a list of {', '.join(SOURCES)}")
    return tuple(dict.fromkeys(value))


def _start(value: Any) -> str | int:
    if value in ("now", "earliest"):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TIME:
        return value
    raise _Refused("now, earliest, or a time in milliseconds since 1970")


def _position(value: Any) -> str:
    """Kept as text: whose queues or shards they are is known when the rule starts."""
    expected = 'offsets by queue or shard, such as "0:1200" or "broker-a:0:7,broker-a:1:9"'
    if not isinstance(value, str) or len(value) > 4_096:
        raise _Refused(expected)
    if value:
        try:
            parse_position(value)
        except ValueError:
            raise _Refused(expected) from None
    return value


def parse_position(text: str) -> dict[str, int]:
    """Offsets by queue (or shard): `QUEUE:OFFSET`, separated by commas; ValueError for anything else."""
    offsets = {}
    for part in text.split(","):
        queue, colon, number = part.strip().rpartition(":")
        if not colon or not queue or not (number.isascii() and number.isdigit()) or int(number) >= 2**62:
            raise ValueError(part)
        offsets[queue] = int(number)
    return offsets


def _expression(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_EXPRESSION:
        raise _Refused(f"a JMESPath expression of at most {MAX_EXPRESSION} characters")
    return value


def _schema(value: Any) -> str:
    """As JSON text or as an object; references stay inside of it."""
    if value == "":
        return ""
    expected = f"a JSON Schema: an object or its text, of at most {MAX_SCHEMA} bytes"
    try:
        schema = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(schema, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        raise _Refused(expected) from None
    if not isinstance(schema, dict) or len(text) > MAX_SCHEMA:
        raise _Refused(expected)
    if any(not reference.startswith("#") for reference in _references(schema)):
        raise _Refused("a JSON Schema without references to other documents: every $ref begins with #")
    return text


def _references(node: Any) -> Iterator[str]:
    nodes = [node]
    while nodes:
        found = nodes.pop()
        if isinstance(found, dict):
            for name, value in found.items():
                if name in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                    yield value
                nodes.append(value)
        elif isinstance(found, list):
            nodes += found


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 0.01 <= value <= MAX_RATE):
        raise _Refused(f"messages a second, from 0.01 to {MAX_RATE}, or 0 for no limit")
    return float(value)


BACKEND_NAME: Final = r"[A-Za-z0-9._-]{1,249}"
_TEMPLATE = r"(?:[A-Za-z0-9._-]|\{[1-9][0-9]{0,2}\}){1,249}"
_BACKEND = _text(BACKEND_NAME, "the name of a backend topic: 1 to 249 letters, digits, ., _ and -")
_OUTFLOW, _INFLOW, _STATUS = ("outflow",), ("inflow",), ("status",)
_SENDING = ("outflow", "status")

FIELDS: Final = (
    _Field("id", KINDS, _text(r"[A-Za-z0-9_-]{3,64}", "3 to 64 letters, digits, - and _"), required=True),
    _Field("kind", KINDS, _choice(*KINDS), required=True),
    _Field("connection", KINDS, _text(r"[A-Za-z0-9_-]{1,64}", "the name of a [connections.NAME] section of the settings"), required=True),
    _Field(
        "backend_topic",
        _OUTFLOW,
        _text(_TEMPLATE, "the name of a backend topic (letters, digits, ., _ and -), where {2} stands for the second topic level"),
        required=True,
    ),
    _Field("backend_topic", ("inflow", "status"), _BACKEND, required=True),
    _Field("topic", ("outflow", "inflow"), _parent, required=True),
    _Field("group", _STATUS, _text(r"GID[_-][A-Za-z0-9_-]{1,60}|\*", "a group id, GID_… or GID-…, or * for all clients"), required=True),
    _Field("enabled", KINDS, _switch),
    _Field("description", KINDS, _text(r"[^\x00-\x1f\x7f]{0,256}", "at most 256 characters without control characters")),
    _Field("key", _OUTFLOW, _choice("client", "topic", "none")),
    _Field(
        "tag",
        _OUTFLOW,
        _text(r"(?:[A-Za-z0-9._-]|\{[1-9][0-9]{0,2}\}){0,127}", "a tag of letters, digits, ., _ and -, where {2} stands for the second topic level"),
    ),
    _Field("ordered", _OUTFLOW, _switch),
    _Field("sources", _OUTFLOW, _sources),
    _Field("start", KINDS, _start),
    _Field("position", KINDS, _position),
    _Field("filter", KINDS, _expression),
    _Field("projection", ("outflow", "inflow"), _expression),
    _Field("json_schema", ("outflow", "inflow"), _schema),
    _Field("tags", _INFLOW, _text(r"[A-Za-z0-9._ |*-]{0,1024}", "RocketMQ tags such as a || b")),
    _Field("sql", _INFLOW, _text(r"[^\x00-\x1f\x7f]{0,2048}", "an SQL92 condition of at most 2048 characters")),
    _Field("rate", KINDS, _rate),
    _Field("on_poison", KINDS, _choice("skip", "stop")),
    _Field("undelivered", _INFLOW, _text(BACKEND_NAME + "|", "the name of a topic of the same connection")),
    _Field("create", KINDS, _switch),
)
"""The one table of a rule's fields: for which kinds, and what each takes."""


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


NAMES: Final = {camel(field.name): field.name for field in FIELDS}
FIXED: Final = {"outflow": ("id", "kind"), "status": ("id", "kind"), "inflow": ("id", "kind", "connection", "backendTopic")}
"""What an update can't change: the offsets of an inflow rule are of its source."""


def read_rule(given: Mapping[str, Any]) -> Rule:
    """The rule that was written, with the API's spelling of fields; RuleError names the first field that is refused, and the fix."""
    for name in given:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            raise RuleError(str(name)[:64], f"unknown field{f'; did you mean {close[0]}?' if close else ''}")
    kind = given.get("kind")
    if kind not in KINDS:
        raise RuleError("kind", f"it must be one of {', '.join(KINDS)}")
    values = {}
    taken = {camel(field.name): field for field in FIELDS if kind in field.kinds}
    for name, value in given.items():
        if name not in taken:
            raise RuleError(name, f"not a field of {kind} rules: leave it out")
        try:
            values[NAMES[name]] = taken[name].read(value)
        except _Refused as expected:
            raise RuleError(name, f"{shown(value)} is refused, it must be {expected}") from None
    for name, field in taken.items():
        if field.required and name not in given:
            raise RuleError(name, "is missing")
    rule = Rule(**values)
    if rule.tags and rule.sql:
        raise RuleError("sql", "tags and sql are two ways to say the same: give one of them")
    return rule


def changed_rule(rule: Rule, changes: Mapping[str, Any]) -> Rule:
    """The rule with other values; RuleError for fields that make it another rule."""
    for name in changes:
        if name in FIXED[rule.kind] and changes[name] != written(rule).get(name):
            raise RuleError(name, "it can't be changed: delete the rule and create another one")
    return read_rule(written(rule) | dict(changes))


def written(rule: Rule) -> dict[str, Any]:
    """The rule as a user would write it: the fields of its kind, in the API's spelling."""
    fields = {field.name for field in FIELDS if rule.kind in field.kinds}
    return {camel(name): value for name in dict.fromkeys(field.name for field in FIELDS) if name in fields for value in (getattr(rule, name),)}


def shown(value: Any) -> str:
    """A refused value, cut short and without what a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:80] + "..."
