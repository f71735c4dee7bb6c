"""The words of the trace: what happened to a client and to a message, in what form it is asked for and answered.

A row is what the hot path makes: a plain tuple in the order of the table's columns (bridges/trace/segment.py). An event is what a reader gets.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec


class TraceAction(IntEnum):
    """What happened. From ``FIRST_OF_MESSAGES`` on it happened to a message."""

    CONNECT = 1
    DISCONNECT = 2
    CLOSE = 3
    PUBLISH = 10
    PUBLISH_BACKEND = 11
    PUBLISH_API = 12
    RULE = 13
    PUSH = 14
    PUSH_OFFLINE = 15
    ACKNOWLEDGE = 16


FIRST_OF_MESSAGES: Final = 10

WORDS: Final = {
    TraceAction.CONNECT: "connect",
    TraceAction.DISCONNECT: "disconnect",
    TraceAction.CLOSE: "close",
    TraceAction.PUBLISH: "pub_mqtt",
    TraceAction.PUBLISH_BACKEND: "pub_mq",
    TraceAction.PUBLISH_API: "pub_api",
    TraceAction.RULE: "rule",
    TraceAction.PUSH: "sub",
    TraceAction.PUSH_OFFLINE: "push_offline",
    TraceAction.ACKNOWLEDGE: "ack",
}
"""An action's word; those of the product where it has one."""

OF_DEVICE: Final = (TraceAction.CONNECT, TraceAction.DISCONNECT, TraceAction.CLOSE)
OF_MESSAGE: Final = tuple(action for action in TraceAction if action >= FIRST_OF_MESSAGES)
OF_PUBLISHING: Final = (TraceAction.PUBLISH, TraceAction.PUBLISH_BACKEND, TraceAction.PUBLISH_API, TraceAction.RULE)
OF_PUSHING: Final = (TraceAction.PUSH, TraceAction.PUSH_OFFLINE, TraceAction.ACKNOWLEDGE)

Row = tuple[int, int, str, bytes, str, str]
"""Time in ms, action, client, message id (empty for an event of a device), channel, detail."""


class TraceEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``message_id`` is 32 hex digits in upper case. ``detail``: the topic, the reason of a close, what a rule did."""

    time: int
    action: str
    client_id: str
    message_id: str = ""
    channel_id: str = ""
    detail: str = ""


class TraceGap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is not in the trace between two times, ms: messages that were not picked, since there were too many, and events that were lost.

    Both 0: nobody knows. ``node``: of many nodes, the one whose gap it is.
    """

    begin: int
    end: int
    messages: int
    events: int
    node: str = ""


class TraceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Events from ``begin`` up to ``end``, ms, both inclusive. Empty ``client``, ``message`` or ``actions``: any."""

    begin: int
    end: int
    client: str = ""
    message: bytes = b""
    actions: tuple[TraceAction, ...] = ()
    page: int = 1
    size: int = 100
    newest_first: bool = False


class TracePage(msgspec.Struct, frozen=True):
    """``total``: events on all pages. ``gaps``: what the answer can't know of."""

    total: int
    events: list[TraceEvent]
    gaps: list[TraceGap]
