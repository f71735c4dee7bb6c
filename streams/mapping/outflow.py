"""From records to messages of a backend, compiled once a rule: what hangs on topic, client, QoS and flags alone is kept between records.

A record that can't be mapped is poison with a reason; one that was through this rule before is looped. Neighbours: conditions.py
judges bodies before they come here, properties.py has names and limits.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from schemas.connections import ConnectionSettings
from schemas.records import Flag, Record, Source
from schemas.rules import Rule
from schemas.targets import topic_problem
from streams.backend import Outgoing
from streams.mapping import mqtt5
from streams.mapping import properties as names
from streams.mapping.conditions import Verdict
from streams.mapping.topics import compile_template, is_template

MAX_SHAPES: Final = 20_000
"""Shapes remembered by a rule."""
MAX_TARGETS: Final = 1_000
"""Backend topics that a template may come to."""
LANE_BYTES: Final = 63
"""A sharding key of RocketMQ is below 64 bytes."""
MAX_EXPIRY: Final = 65_535

_PERSISTENT: Final = int(Flag.PERSISTENT)
_ORDERED: Final = int(Flag.ORDERED)
_RETAIN: Final = int(Flag.RETAIN)
_INFLOW: Final = int(Source.INFLOW)
_OWN_SOURCES: Final = frozenset(("device", "will"))


class Poison(NamedTuple):
    """Which of the records can't be sent, and why."""

    origin: int
    reason: str


class Mapped(NamedTuple):
    """``origins[i]`` is the index of the record that became ``messages[i]``."""

    messages: list[Outgoing]
    origins: list[int]
    poison: list[Poison]
    filtered: int
    looped: int


class _Shape(NamedTuple):
    topic: str
    pairs: tuple[tuple[str, str], ...]
    key: str | None
    lane: str | None
    tag: str


class OutflowMapper:
    """``hop`` names this rule of this instance; ``always_in_lanes`` where the target wants a sharding key of every message."""

    def __init__(self, rule: Rule, connection: ConnectionSettings, hop: str) -> None:
        self.always_in_lanes = False
        self._rule = rule
        self._connection = connection
        self._hop = hop if not _OWN_SOURCES.issuperset(rule.sources) else ""
        self._topic_of = compile_template(rule.backend_topic)
        self._tag_of = compile_template(rule.tag)
        self._key_of: Callable[[Record], str | None] = {"client": _client, "topic": _topic, "none": _nothing}[rule.key]
        self._shapes: dict[tuple[str, str, int, int], _Shape | str] = {}
        self._targets: set[str] = set()
        self.sources = frozenset(int(Source[name.upper()]) for name in rule.sources)

    def map_all(self, records: Sequence[Record], verdicts: Sequence[Verdict] | None = None) -> Mapped:
        """Every record's message, in order."""
        messages: list[Outgoing] = []
        mapped = Mapped(messages, [], [], 0, 0)
        if verdicts is not None or self._hop:
            return self._with_care(records, verdicts, mapped)
        shapes, append = self._shapes, messages.append
        for index, record in enumerate(records):
            shape = shapes.get((record.topic, record.client, record.qos, record.flags))
            if shape is None:
                shape = self._learn(record)
            if shape.__class__ is str or record.properties or record.expires_at:
                self._map_one(index, record, record.payload, mapped)
                continue
            append(Outgoing(shape.topic, record.payload, shape.pairs, record.id.hex().upper(), record.time, shape.key, shape.lane, shape.tag))  # type: ignore[union-attr]
            mapped.origins.append(index)
        return mapped

    def _with_care(self, records: Sequence[Record], verdicts: Sequence[Verdict] | None, mapped: Mapped) -> Mapped:
        filtered = looped = 0
        for index, record in enumerate(records):
            body = record.payload
            if self._hop and record.source == _INFLOW and self._hop in _hops(record):
                looped += 1
                continue
            if verdicts is not None:
                verdict = verdicts[index]
                if verdict.reason:
                    mapped.poison.append(Poison(index, verdict.reason))
                    continue
                if verdict.body is None:
                    filtered += 1
                    continue
                body = verdict.body
            self._map_one(index, record, body, mapped)
        return mapped._replace(filtered=filtered, looped=looped)

    def _map_one(self, index: int, record: Record, body: bytes, mapped: Mapped) -> None:
        shape = self._shapes.get((record.topic, record.client, record.qos, record.flags)) or self._learn(record)
        if isinstance(shape, str):
            mapped.poison.append(Poison(index, shape))
            return
        pairs: tuple[tuple[str, str], ...] | None = shape.pairs
        extras = self._extras(record)
        if extras:
            pairs = names.within_limits([*shape.pairs, *extras])
            if pairs is None:
                mapped.poison.append(Poison(index, "its properties are larger than a message's may be, without the optional ones too"))
                return
        assert pairs is not None  # noqa: S101 - by the check above
        mapped.messages.append(Outgoing(shape.topic, body, pairs, record.id.hex().upper(), record.time, shape.key, shape.lane, shape.tag))
        mapped.origins.append(index)

    def _extras(self, record: Record) -> list[tuple[str, str]]:
        """What a record has beyond its shape."""
        pairs: list[tuple[str, str]] = []
        user: tuple[tuple[str, str], ...] = ()
        if record.properties:
            forwarded = mqtt5.decode(record.properties)
            user = tuple(pair for pair in forwarded.user if pair[0] != names.HOPS)
            if user:
                pairs.append((names.USER, names.user_json(user)))
                pairs += names.trace_of(user)
            if forwarded.content_type is not None:
                names.put_text(pairs, names.CONTENT_TYPE, forwarded.content_type)
            if forwarded.response_topic is not None:
                names.put_text(pairs, names.RESPONSE_TOPIC, forwarded.response_topic)
            if forwarded.correlation_data is not None:
                pairs.append((names.CORRELATION, base64.b64encode(forwarded.correlation_data).decode()))
            if forwarded.payload_format is not None:
                pairs.append((names.PAYLOAD_FORMAT, str(forwarded.payload_format)))
        if record.expires_at:
            seconds = -(-max(0, record.expires_at - record.time) // 1000)
            pairs.append((names.EXPIRY, str(min(MAX_EXPIRY, seconds))))
        if self._hop:
            before = _hops(record) if record.source == _INFLOW else ()
            pairs.append((names.HOPS, ",".join((*before, self._hop))))
        return pairs

    def _learn(self, record: Record) -> _Shape | str:
        """The shape of records like this one, or why they have none."""
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        shape = self._shapes[record.topic, record.client, record.qos, record.flags] = self._derive(record)
        return shape

    def _derive(self, record: Record) -> _Shape | str:
        topic = record.topic
        try:
            target = self._topic_of(topic)
        except ValueError as error:
            return str(error)
        if target not in self._targets:
            problem = topic_problem(target, self._connection, outflow=True)
            if not problem and len(self._targets) >= MAX_TARGETS:
                problem = f"{self._rule.backend_topic} has come to {MAX_TARGETS} topics already, and a rule has no more"
            if problem:
                return problem
            self._targets.add(target)
        try:
            tag = self._tag_of(topic)
        except ValueError:
            tag = ""
        pairs: list[tuple[str, str]] = []
        _, slash, second = topic.partition("/")
        if slash:
            names.put_text(pairs, names.SECOND_TOPIC, "/" + second)
        names.put_text(pairs, names.CLIENT, record.client)
        pairs.append((names.QOS, str(record.qos)))
        pairs.append((names.CLEAN, "false" if record.flags & _PERSISTENT else "true"))
        if record.flags & _RETAIN:
            pairs.append((names.RETAIN, "true"))
        names.put_text(pairs, names.TOPIC, topic)
        kept = names.within_limits(pairs)
        if kept is None:
            return "its topic and client id are larger than a message's properties may be"
        in_lane = self._rule.ordered or self.always_in_lanes or record.flags & _ORDERED
        return _Shape(target, kept, self._key_of(record), lane_of(record.client) if in_lane else None, tag)

    @property
    def is_template(self) -> bool:
        return is_template(self._rule.backend_topic)

    def forget(self) -> None:
        """What shapes are made of has changed."""
        self._shapes.clear()


def lane_of(client: str) -> str:
    """A client's lane, fit to be a sharding key: the client id, or `#` and half of its SHA-256 where that is too long or not plain."""
    if client and len(client.encode()) <= LANE_BYTES and client.isprintable() and " " not in client:
        return client
    return "#" + hashlib.sha256(client.encode()).hexdigest()[:32]


def _client(record: Record) -> str | None:
    return record.client or None


def _topic(record: Record) -> str | None:
    return record.topic


def _nothing(record: Record) -> str | None:
    return None


def _hops(record: Record) -> tuple[str, ...]:
    """The rules that an inflow record has been through."""
    if not record.properties:
        return ()
    found = [value for name, value in mqtt5.decode(record.properties).user if name == names.HOPS]
    return tuple(found[0].split(",")) if found and found[0] else ()
