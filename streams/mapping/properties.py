"""Names, limits and spelling of the properties that carry a message's MQTT side: RocketMQ user properties and Kafka headers alike.

No key or value holds a control character, since 0x01 and 0x02 separate properties in RocketMQ: a text that has one goes as base64
under its name with `Base64` behind it. What is over the limits is left out in the order of ``OPTIONAL`` and named in `mqttOmitted`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

SECOND_TOPIC: Final = "mqttSecondTopic"
REAL_TOPIC: Final = "mqttRealTopic"
CLIENT: Final = "clientId"
QOS: Final = "qoslevel"
CLEAN: Final = "cleansessionflag"
TOPIC: Final = "topic"
RETAIN: Final = "mqttRetain"
USER: Final = "mqtt5UserProperty"
EXPIRY: Final = "mqtt5MsgExpireInterval"
CONTENT_TYPE: Final = "mqtt5ContentType"
RESPONSE_TOPIC: Final = "mqtt5ResponseTopic"
CORRELATION: Final = "mqtt5CorrelationData"
PAYLOAD_FORMAT: Final = "mqtt5PayloadFormat"
OMITTED: Final = "mqttOmitted"
HOPS: Final = "mqttHops"
TRACE_PARENT: Final = "traceparent"
TRACE_STATE: Final = "tracestate"

BASE64: Final = "Base64"
ENCODED: Final = (SECOND_TOPIC, CLIENT, TOPIC, CONTENT_TYPE, RESPONSE_TOPIC)
"""Texts that may hold control characters."""

OPTIONAL: Final = (USER, CORRELATION, TRACE_STATE, RESPONSE_TOPIC, CONTENT_TYPE, TRACE_PARENT, PAYLOAD_FORMAT, RETAIN, TOPIC)
"""What is left out first, in this order, where a message has too many properties."""

MAX_BYTES: Final = 16 * 1024 - 1024
MAX_ENTRIES: Final = 128 - 16
"""RocketMQ's limits, less what its client and broker add of their own: keys, tag, unique id, sharding key, and what a broker notes."""
ENTRY_OVERHEAD: Final = 2
"""Bytes that separate a property from the next."""
MAX_USER_PROPERTY: Final = 8 * 1024
MAX_HOPS: Final = 16
"""Rules that a message may have passed; one that has passed more is caught in a ring of gateways."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_TRACE_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x20-\x7e]{0,200})?")
_TRACE_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")

Pairs = tuple[tuple[str, str], ...]


def has_control(text: str) -> bool:
    return _CONTROL.search(text) is not None


def put_text(pairs: list[tuple[str, str]], name: str, value: str) -> None:
    """A text under its name, or as base64 beside it."""
    if value.isprintable() or not has_control(value):
        pairs.append((name, value))
    else:
        pairs.append((name + BASE64, base64.b64encode(value.encode()).decode()))


def plain(name: str) -> str:
    """The name without the mark of base64."""
    short = name.removesuffix(BASE64)
    return short if short in ENCODED else name


def size_of(pairs: Sequence[tuple[str, str]]) -> int:
    """Bytes that properties take."""
    return sum(len(name) + (len(value) if value.isascii() else len(value.encode())) for name, value in pairs) + ENTRY_OVERHEAD * len(pairs)


def within_limits(pairs: Sequence[tuple[str, str]]) -> Pairs | None:
    """The properties that fit, and `mqttOmitted` with the names of those that don't; None where what has to be there doesn't fit."""
    if len(pairs) <= MAX_ENTRIES and size_of(pairs) <= MAX_BYTES:
        return tuple(pairs)
    kept, omitted = list(pairs), []
    for name in OPTIONAL:
        without = [pair for pair in kept if plain(pair[0]) != name]
        if len(without) == len(kept):
            continue
        kept = without
        omitted.append(name)
        with_note = (*kept, (OMITTED, ",".join(omitted)))
        if len(with_note) <= MAX_ENTRIES and size_of(with_note) <= MAX_BYTES:
            return with_note
    return None


def user_json(user: Sequence[tuple[str, str]]) -> str:
    """The documented array of keys and values; control characters are escaped."""
    text = json.dumps([{"key": key, "value": value} for key, value in user], separators=(",", ":"), ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def read_user_json(text: str) -> Pairs:
    """The pairs in the documented array; ValueError with what is wrong with it."""
    if len(text.encode(errors="surrogatepass")) > MAX_USER_PROPERTY:
        raise ValueError(f"has more than {MAX_USER_PROPERTY} bytes")
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(found, list):
        raise ValueError('is not an array of {"key", "value"}')  # noqa: TRY004 - a value of the wrong form, not of the wrong type
    pairs = []
    for item in found:
        key, value = (item.get("key"), item.get("value")) if isinstance(item, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(value, str) or not is_mqtt_string(key) or not is_mqtt_string(value):
            raise ValueError('is not an array of {"key", "value"} of strings')
        pairs.append((key, value))
    return tuple(pairs)


def is_mqtt_string(text: str) -> bool:
    """What a string of MQTT can hold [MQTT-1.5.4-1] [MQTT-1.5.4-2]."""
    try:
        return "\x00" not in text and len(text.encode()) <= 65_535
    except UnicodeEncodeError:
        return False


def text_of(properties: Mapping[str, str], name: str) -> str | None:
    """A text that may have come as base64; ValueError where that is none."""
    encoded = properties.get(name + BASE64)
    if encoded is None:
        return properties.get(name)
    return read_base64(encoded).decode()


def read_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None


def trace_of(user: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The W3C trace context among user properties, where it is well formed."""
    found = dict(reversed([(key.lower(), value) for key, value in user]))
    parent, state = found.get(TRACE_PARENT, ""), found.get(TRACE_STATE, "")
    if not _TRACE_PARENT.fullmatch(parent):
        return []
    return [(TRACE_PARENT, parent), (TRACE_STATE, state)] if _TRACE_STATE.fullmatch(state) else [(TRACE_PARENT, parent)]
