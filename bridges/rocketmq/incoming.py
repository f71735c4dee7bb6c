"""From stored messages to the port's: RocketMQ's own properties find their places, users' properties stay. Without I/O."""

from __future__ import annotations

from bridges.rocketmq.codes import EMPTY_BODY, KEYS, RESERVED, TAGS, UNIQ_KEY
from bridges.rocketmq.messages import StoredMessage
from streams.backend import Incoming


def incoming(message: StoredMessage, topic: str, queue: str) -> Incoming:
    """``topic`` is the name without the connection's namespace, ``queue`` the queue's. The key is RocketMQ's keys, if it has any."""
    body, id_, tag, key = message.body, "", "", None
    properties: list[tuple[str, str]] = []
    for pair in message.properties:
        name, value = pair
        if name not in RESERVED:
            properties.append(pair)
        elif name == UNIQ_KEY:
            id_ = value
        elif name == TAGS:
            tag = value
        elif name == KEYS:
            key = value
        elif name == EMPTY_BODY and value == "true" and len(body) == 1:
            body = b""
    return Incoming(topic, queue, message.offset, body, tuple(properties), id_, message.born, key, tag)
