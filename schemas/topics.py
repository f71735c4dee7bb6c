"""Topic names and filters: what is well formed, what matches, and the forms `$share/<group>/<filter>` and `<parent>/p2p/<client id>`.

Strings are checked once, where they enter; everything behind trusts them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_TOPIC_BYTES: Final = 65535
"""A UTF-8 string's limit on the wire [MQTT-4.7.3-3]; settings may ask for less."""


class SharedFilter(NamedTuple):
    """A filter as subscribed: ``group`` is empty for a subscription that is not shared."""

    group: str
    filter: str


class P2PTopic(NamedTuple):
    """``<parent>/p2p/<client id>``; the client id is all that follows, slashes included."""

    parent: str
    client: str


def is_topic_name(topic: str) -> bool:
    """At least one character, no wildcard, no NUL [MQTT-4.7.3-1] [MQTT-3.3.2-2] [MQTT-4.7.3-2]."""
    return bool(topic) and "+" not in topic and "#" not in topic and "\x00" not in topic


def is_topic_filter(topic_filter: str) -> bool:
    """Wildcards stand alone in their level and `#` only at the end [MQTT-4.7.1-1] [MQTT-4.7.1-2]; not empty, no NUL."""
    if not topic_filter or "\x00" in topic_filter:
        return False
    if "#" not in topic_filter and "+" not in topic_filter:
        return True
    levels = topic_filter.split("/")
    last = len(levels) - 1
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != last):
            return False
        if "+" in level and level != "+":
            return False
    return True


def parse_subscription(subscribed: str) -> SharedFilter | None:
    """The parts of a SUBSCRIBE's filter; None where it is not well formed.

    A share name has at least one character and no `/`, `+`, `#` [MQTT-4.8.2-1] [MQTT-4.8.2-2].
    """
    if not subscribed.startswith("$share/"):
        if subscribed == "$share" or not is_topic_filter(subscribed):
            return None
        return SharedFilter("", subscribed)
    group, slash, inner = subscribed[7:].partition("/")
    if not slash or not group or "+" in group or "#" in group or not is_topic_filter(inner):
        return None
    return SharedFilter(group, inner)


def parse_p2p(topic: str) -> P2PTopic | None:
    """The parent and the target of a P2P topic; None for any other topic."""
    parent, slash, rest = topic.partition("/")
    if not slash or not parent or not rest.startswith("p2p/") or len(rest) == 4:
        return None
    return P2PTopic(parent, rest[4:])


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter matches a topic name, character by character [MQTT-4.7.3-4]: the plain definition, which the routes are tested against.

    A filter that begins with a wildcard does not match a topic that begins with `$` [MQTT-4.7.2-1].
    """
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(filter_levels) == len(levels)
