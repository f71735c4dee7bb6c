"""From a backend's messages to records. What comes is untrusted: the topic is the rule's parent and a checked second topic, never more.

`clientId` and `topic` from outside are ignored. A message that can't be taken is poison with a reason, one whose time is over is expired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from schemas.limits import Limits
from schemas.records import Flag, Record, Source
from schemas.rules import Rule
from schemas.topics import is_topic_name
from streams.backend import Incoming
from streams.mapping import mqtt5
from streams.mapping import properties as names

PACKET_OVERHEAD: Final = 64
"""Bytes of a PUBLISH beside topic, properties and payload."""
MAX_PROPERTIES: Final = 1_000
MAX_SHAPES: Final = 10_000
"""Sets of properties that a rule remembers."""
PRINCIPAL: Final = "rule:"

_INFLOW: Final = int(Source.INFLOW)
_QOS: Final = {"0": 0, "1": 1, "2": 2}


class Stamp(NamedTuple):
    """Id and time of a record to be made; time in ms."""

    id: bytes
    time: int


class Expired(NamedTuple):
    """The record of a message whose time was over before it came here."""

    record: Record


class _Shape(NamedTuple):
    """``room``: bytes that a body may have. ``interval`` in seconds. ``is_text``: the body has to be UTF-8."""

    topic: str
    qos: int
    flags: int
    real: str
    block: bytes
    room: int
    interval: int | None
    is_text: bool


class InflowMapper:
    """``is_p2p`` says which topics name one device (settings decide that)."""

    def __init__(self, rule: Rule, limits: Limits, is_p2p: Callable[[str], bool]) -> None:
        self._rule = rule
        self._limits = limits
        self._is_p2p = is_p2p
        self._principal = PRINCIPAL + rule.id
        self._shapes: dict[names.Pairs, _Shape] = {}

    def map(self, message: Incoming, stamp: Stamp, body: bytes | None = None) -> Record | Expired | str:
        """The record, or why there is none. ``body`` replaces the message's."""
        shape = self._shapes.get(message.properties)
        try:
            if shape is None:
                shape = self._learn(message.properties)
            return self._map(message, shape, stamp, message.body if body is None else body)
        except _Bad as bad:
            return str(bad)

    def _learn(self, properties: names.Pairs) -> _Shape:
        """What hangs on the properties alone; many messages have the same."""
        if len(properties) > MAX_PROPERTIES:
            raise _Bad("properties", f"are more than {MAX_PROPERTIES}")
        given = dict(properties)
        topic = self._topic(given, names.SECOND_TOPIC)
        qos = _QOS.get(given.get(names.QOS, "1"))
        if qos is None:
            raise _Bad(names.QOS, "must be 0, 1 or 2")
        p2p = self._is_p2p(topic)
        real = self._topic(given, names.REAL_TOPIC) if p2p and given.get(names.REAL_TOPIC) else ""
        flags = int(Flag.P2P) if p2p else 0
        clean = given.get(names.CLEAN, "true")
        if clean not in ("true", "false"):
            raise _Bad(names.CLEAN, "must be true or false")
        if p2p and clean == "false":
            flags |= int(Flag.PERSISTENT)
        forwarded = self._forwarded(given)
        block = mqtt5.encode(forwarded)
        limits = self._limits
        if len(block) > limits.properties_bytes:
            raise _Bad("properties", f"come to {len(block)} bytes, at most {limits.properties_bytes} are taken")
        room = limits.packet - len(block) - len(topic.encode()) - PACKET_OVERHEAD
        shape = _Shape(topic, qos, flags, real if real != topic else "", block, room, _interval(given), forwarded.payload_format == 1)
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        self._shapes[properties] = shape
        return shape

    def _map(self, message: Incoming, shape: _Shape, stamp: Stamp, body: bytes) -> Record | Expired:
        if len(body) > shape.room:
            raise _Bad("body", f"has {len(body)} bytes: that is more than a packet of {self._limits.packet} holds")
        if shape.is_text and not _is_text(body):
            raise _Bad(names.PAYLOAD_FORMAT, "must be 0, or 1 with a body in UTF-8")
        expires_at = 0
        if shape.interval is not None:  # it counts from when the backend took the message
            since = min(message.time, stamp.time) if message.time > 0 else stamp.time
            expires_at = max(1, since + shape.interval * 1000)
        record = Record(
            0,
            stamp.id,
            stamp.time,
            "",
            shape.topic,
            body,
            qos=shape.qos,
            flags=shape.flags,
            principal=self._principal,
            source=_INFLOW,
            expires_at=expires_at,
            properties=shape.block,
            real_topic=shape.real,
        )
        return Expired(record) if 0 < expires_at <= stamp.time else record

    def _topic(self, given: Mapping[str, str], name: str) -> str:
        """The topic under the rule's parent that a property names; with or without a leading slash."""
        parent = self._rule.topic
        try:
            second = names.text_of(given, name) or ""
        except ValueError:
            raise _Bad(name, "is not base64 of a text") from None
        second = second.removeprefix("/")
        if name == names.REAL_TOPIC and (second == parent or second.startswith(parent + "/")):
            second = second[len(parent) + 1 :]
        if not second:
            return parent
        topic = f"{parent}/{second}"
        if not is_topic_name(topic) or not names.is_mqtt_string(topic) or names.has_control(topic):
            raise _Bad(name, "has a wildcard, a control character, or is too long for a topic")
        levels = topic.split("/")
        if any(level in (".", "..") or level.startswith("$") for level in levels[1:]):
            raise _Bad(name, "has a level that is . or .. or begins with $")
        limits = self._limits
        if len(levels) > limits.topic_levels or len(topic.encode()) > limits.topic_bytes:
            raise _Bad(name, f"makes a topic of more than {limits.topic_bytes} bytes or {limits.topic_levels} levels")
        return topic

    def _forwarded(self, given: Mapping[str, str]) -> mqtt5.Forwarded:
        values: dict[str, Any] = {}
        user = self._user(given)
        content, response = _text(given, names.CONTENT_TYPE), _text(given, names.RESPONSE_TOPIC)
        if response is not None and (not is_topic_name(response) or names.has_control(response)):
            raise _Bad(names.RESPONSE_TOPIC, "is not a topic name")
        correlation = given.get(names.CORRELATION)
        if correlation is not None:
            try:
                values["correlation_data"] = names.read_base64(correlation)
            except ValueError:
                raise _Bad(names.CORRELATION, "is not base64") from None
            if len(values["correlation_data"]) > 65_535:
                raise _Bad(names.CORRELATION, "has more than 65535 bytes")
        payload_format = given.get(names.PAYLOAD_FORMAT)
        if payload_format is not None:
            if payload_format not in ("0", "1"):
                raise _Bad(names.PAYLOAD_FORMAT, "must be 0, or 1 with a body in UTF-8")
            values["payload_format"] = int(payload_format)
        return mqtt5.Forwarded(content_type=content, response_topic=response, user=user, **values)

    def _user(self, given: Mapping[str, str]) -> names.Pairs:
        """User properties, the trace context and the hops: what is reserved for us is not taken from the array."""
        user: list[tuple[str, str]] = []
        text = given.get(names.USER)
        if text:
            try:
                user = [pair for pair in names.read_user_json(text) if pair[0] != names.HOPS]
            except ValueError as error:
                raise _Bad(names.USER, str(error)) from None
        have = {name.lower() for name, _ in user}
        if names.TRACE_PARENT not in have:
            user += names.trace_of([(name, given[name]) for name in (names.TRACE_PARENT, names.TRACE_STATE) if name in given])
        hops = given.get(names.HOPS)
        if hops:
            if hops.count(",") >= names.MAX_HOPS or not names.is_mqtt_string(hops) or names.has_control(hops):
                raise _Bad(names.HOPS, f"says that it has passed more than {names.MAX_HOPS} rules")
            user.append((names.HOPS, hops))
        if len(user) > self._limits.user_properties:
            raise _Bad(names.USER, f"has more than {self._limits.user_properties} entries")
        return tuple(user)


class _Bad(Exception):
    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"{name} {words}")


def _text(given: Mapping[str, str], name: str) -> str | None:
    try:
        found = names.text_of(given, name)
    except ValueError:
        raise _Bad(name, "is not base64 of a text") from None
    if found is not None and not names.is_mqtt_string(found):
        raise _Bad(name, "is not a text that MQTT can carry")
    return found


def _interval(given: Mapping[str, str]) -> int | None:
    text = given.get(names.EXPIRY)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise _Bad(names.EXPIRY, "must be a number of seconds")
    return int(text)


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
