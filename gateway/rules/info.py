"""What is shown of rules and dead letters, over HTTP, by commands and as metrics."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from schemas.rules import Rule, RuleCounts, written
from streams.backend import Incoming, Outgoing
from streams.store import DeadLetter

PREVIEW: Final = 256
"""Bytes of a body that are shown."""


class RuleStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``lag_records`` are the rule's own that wait, ``lag_age`` seconds since the oldest of them. ``alarm``: retention will soon cut them."""

    state: str
    reason: str = ""
    lag_records: int = 0
    lag_age: float = 0.0
    rate: float = 0.0
    last_error: str = ""
    last_error_at: int = 0
    last_sent_at: int = 0
    alarm: bool = False
    counts: RuleCounts = RuleCounts()
    position: dict[str, int] = {}


def rule_json(rule: Rule, status: RuleStatus) -> dict[str, Any]:
    shown = msgspec.to_builtins(status)
    counts = status.counts
    shown["counts"] = {
        "sent": counts.sent,
        "filtered": counts.filtered,
        "deadLetters": counts.dead,
        "looped": counts.looped,
        "lostByRetention": counts.lost,
        "skipped": counts.skipped,
        "deadLettersDropped": counts.letters_dropped,
    }
    definition = written(rule)
    return {**definition, "sources": list(definition["sources"])} | {"status": shown} if "sources" in definition else {**definition, "status": shown}


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    shown: dict[str, Any] = {"number": letter.number, "time": letter.time, "reason": letter.reason}
    if letter.record is not None:
        record = letter.record
        shown |= {"messageId": record.id.hex().upper(), "topic": record.topic, "clientId": record.client, "bytes": len(record.payload)}
        shown["previewBase64"] = base64.b64encode(record.payload[:PREVIEW]).decode()
    if letter.message is not None:
        shown |= incoming_json(letter.message)
    return shown


def incoming_json(message: Incoming) -> dict[str, Any]:
    return {
        "backendTopic": message.topic,
        "queue": message.queue,
        "offset": message.offset,
        "properties": [list(pair) for pair in message.properties],
        "bytes": len(message.body),
        "previewBase64": base64.b64encode(message.body[:PREVIEW]).decode(),
    }


def outgoing_json(message: Outgoing) -> dict[str, Any]:
    return {
        "backendTopic": message.topic,
        "messageId": message.id,
        "key": message.key,
        "lane": message.lane,
        "tag": message.tag,
        "properties": [list(pair) for pair in message.properties],
        "bytes": len(message.body),
        "previewBase64": base64.b64encode(message.body[:PREVIEW]).decode(),
    }
