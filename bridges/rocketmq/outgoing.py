"""From the port's messages to a batch's: bytes, or the reason for which RocketMQ can't take this one. Without I/O.

target.py sends what comes out. The way back is incoming.py.
"""

from __future__ import annotations

import re
from hashlib import sha256

from bridges.rocketmq.codes import EMPTY_BODY, KEYS, RESERVED, SHARDING_KEY, TAGS, UNIQ_KEY
from bridges.rocketmq.messages import PROPERTIES_LIMIT, encode_batched, encode_properties
from streams.backend import Outgoing

SHARDING_KEY_LIMIT = 63
"""Bytes of a sharding key: RocketMQ's proxy refuses 64."""

TOPIC_LIMIT = 127
MESSAGE_LIMIT = 15 * 1024 * 1024
"""Bytes of a message whatever the broker's own limit: a frame may have 16 MiB, and a longer one would cost the connection."""

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_NO_KEY = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_TOPIC = re.compile(r"[%|a-zA-Z0-9_-]+")
_CONTROL_BYTES = bytes((*range(0x20), 0x7F))


def topic_fault(topic: str) -> str:
    """Why no RocketMQ topic can have this name; empty where one can."""
    if not topic or len(topic) > TOPIC_LIMIT:
        return f"topic: a RocketMQ topic has 1 to {TOPIC_LIMIT} characters, this one {len(topic)}"
    return "" if _TOPIC.fullmatch(topic) else f"topic: `{topic}` has characters other than letters, digits, `_`, `-`, `|` and `%`"


def encode(message: Outgoing) -> bytes | str:
    """The message as part of a batch, or why it can't be one."""
    body, given = message.body, message.properties
    own = f"{UNIQ_KEY}\x01{message.id}\x02{KEYS}\x01{message.id}\x02"
    ends = 2 * len(given) + 4
    if message.tag:
        own += f"{TAGS}\x01{message.tag}\x02"
        ends += 2
    if message.lane is not None:
        own += f"{SHARDING_KEY}\x01{sharding_key(message.lane)}\x02"
        ends += 2
    if not body:
        body = b"\x00"
        own += f"{EMPTY_BODY}\x01true\x02"
        ends += 2
    try:
        properties = own.encode() + encode_properties(given)
    except UnicodeEncodeError:
        return "properties: one is no valid text"
    if len(properties) - len(properties.translate(None, _CONTROL_BYTES)) != ends:
        return f"properties: {_control_fault(message)} has control characters, which RocketMQ takes for separators"
    for name, _ in given:
        if name in RESERVED or not name:
            return f"properties: the name `{name}` is RocketMQ's own" if name else "properties: one has no name"
    if len(properties) > PROPERTIES_LIMIT:
        return f"properties: {len(properties)} bytes are over RocketMQ's limit of {PROPERTIES_LIMIT}"
    if len(body) + len(properties) > MESSAGE_LIMIT:
        return f"body: a message of {len(body) + len(properties)} bytes is over RocketMQ's limit"
    return encode_batched(body, properties)


def sharding_key(lane: str) -> str:
    """The lane itself where it may be a sharding key, else a stand-in that is as much its own."""
    fits = not _NO_KEY.search(lane) and lane.strip() and len(lane.encode()) <= SHARDING_KEY_LIMIT
    return lane if fits else f"#{sha256(lane.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _control_fault(message: Outgoing) -> str:
    """Which of the message's strings has control characters."""
    if _CONTROL.search(message.tag):
        return "the tag"
    if _CONTROL.search(message.id):
        return "the id"
    return next((f"`{_CONTROL.sub('?', name)}`" for name, value in message.properties if _CONTROL.search(name) or _CONTROL.search(value)), "one")
