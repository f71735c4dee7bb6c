"""What a rule asks of a message before it takes it: a filter and a projection in JMESPath, and a JSON Schema.

The expression sees one object: `topic`, `levels` (its parts), `clientId`, `qos`, `retain`, `time`, `properties` (an object of texts) and
`body` (the JSON in the payload, null where it is none). Nothing here waits and nothing reaches out: schemas have no references to
elsewhere, and their patterns are matched in linear time. It may compute for milliseconds, so it is run off the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import jmespath
import jsonschema_rs
import msgspec
from jmespath.exceptions import JMESPathError

from schemas.records import Flag, Record
from schemas.rules import Rule, RuleError
from streams.backend import Incoming
from streams.mapping import mqtt5
from streams.presence import EVENT_TYPES, event_json

MAX_BODY: Final = 64 * 1024
"""Bytes of a body that is looked into."""
MAX_DEPTH: Final = 64
"""Brackets that may be open at a time in an expression: the parser and the interpreter recurse."""


class Verdict(NamedTuple):
    """``body`` to go on with, None for a message that the filter leaves out; ``reason`` where it is poison."""

    body: bytes | None
    reason: str = ""


LEFT_OUT: Final = Verdict(None)


def _no_documents(uri: str) -> Any:
    raise ValueError(f"{uri[:80]}: other documents are not read")


class Conditions:
    """Compiled once a rule; RuleError where something does not compile."""

    def __init__(self, rule: Rule) -> None:
        self._filter = _compile("filter", rule.filter) if rule.filter else None
        self._projection = _compile("projection", rule.projection) if rule.projection else None
        self._schema = _compile_schema(rule.json_schema) if rule.json_schema else None

    def __bool__(self) -> bool:
        return not (self._filter is None and self._projection is None and self._schema is None)

    def judge(self, bodies: Sequence[bytes], contexts: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """One verdict a message, in order."""
        return [self._judge(body, context) for body, context in zip(bodies, contexts, strict=True)]

    def judge_records(self, records: Sequence[Record]) -> list[Verdict]:
        contexts = [record_context(record) for record in records]
        return self.judge([event_json(r) if r.kind in EVENT_TYPES else r.payload for r in records], contexts)

    def judge_incoming(self, messages: Sequence[Incoming]) -> list[Verdict]:
        return self.judge([message.body for message in messages], [incoming_context(message) for message in messages])

    def _judge(self, body: bytes, context: Mapping[str, Any]) -> Verdict:
        if len(body) > MAX_BODY:
            return Verdict(body, f"its body has {len(body)} bytes, filter, projection and schema look into {MAX_BODY} at most")
        try:
            decoded, is_json = msgspec.json.decode(body), True
        except (msgspec.DecodeError, ValueError, RecursionError):
            decoded, is_json = None, False
        subject = {**context, "body": decoded}
        try:
            if self._filter is not None and not _is_true(self._filter.search(subject)):
                return LEFT_OUT
            if self._schema is not None:
                if not is_json:
                    return Verdict(body, "its body is not JSON, and the rule has a schema")
                error = next(self._schema.iter_errors(decoded), None)
                if error is not None:
                    path = "/".join(map(str, error.instance_path))
                    return Verdict(body, f"its body does not fit the schema at /{path[:80]}: {error.kind.name}")
            if self._projection is not None:
                return Verdict(json.dumps(self._projection.search(subject), separators=(",", ":"), ensure_ascii=False).encode())
        except (JMESPathError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            return Verdict(body, f"its body can't be judged: {' '.join(str(error).split())[:160]}")
        return Verdict(body)


def _is_true(value: Any) -> bool:
    """As JMESPath has it: a number is true, 0 too."""
    return not (value is None or value is False or value in ("", [], {}))


def _compile(field: str, expression: str) -> Any:
    depth = deepest = 0
    for character in expression:
        depth += (character in "[({") - (character in "])}")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise RuleError(_camel(field), f"its brackets are nested {deepest} deep, at most {MAX_DEPTH} are allowed")
    try:
        return jmespath.compile(expression)
    except (JMESPathError, RecursionError, ValueError) as error:
        raise RuleError(_camel(field), f"not a JMESPath expression: {' '.join(str(error).split())[:160]}") from None


def _camel(field: str) -> str:
    return "jsonSchema" if field == "json_schema" else field


def _compile_schema(text: str) -> Any:
    try:
        linear = jsonschema_rs.RegexOptions(size_limit=1_000_000)
        return jsonschema_rs.validator_for(json.loads(text), retriever=_no_documents, pattern_options=linear)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise RuleError("jsonSchema", f"not a JSON Schema: {' '.join(str(error).split())[:160]}") from None


def record_context(record: Record) -> dict[str, Any]:
    """What expressions see of a record, its body aside."""
    user = mqtt5.decode(record.properties).user if record.properties else ()
    return {
        "topic": record.topic,
        "levels": record.topic.split("/"),
        "clientId": record.client,
        "qos": record.qos,
        "retain": bool(record.flags & Flag.RETAIN),
        "time": record.time,
        "properties": dict(user),
    }


def incoming_context(message: Incoming) -> dict[str, Any]:
    """What expressions see of a backend's message: its topic is the backend's, its properties are all it has."""
    return {
        "topic": message.topic,
        "levels": [message.topic],
        "clientId": "",
        "qos": 0,
        "retain": False,
        "time": message.time,
        "key": message.key,
        "tag": message.tag,
        "properties": dict(message.properties),
    }
