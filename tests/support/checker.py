"""Judges a ledger: lost, undelivered, duplicated, reordered, phantom, corrupted. Pure; no clock, no network.

lost: acknowledged, and in the hands of nobody who should have it. undelivered: acknowledged, and one subscriber lacks it.
duplicated: a copy more than the promise allows. reordered: first copies of one publisher, topic and QoS out of order, or
repeats out of order among themselves. phantom: never sent, or sent to another topic. corrupted: bytes differ.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.support.ledger import Ledger, Receipt, Sent, Subscriber

REPEAT_WINDOW = 1.0
"""After a crash a QoS 1 session may see the last second again."""
SHOWN = 5


@dataclass
class Verdict:
    """Each fault is (subscriber, publisher, sequence number, why)."""

    lost: list[tuple[str, str, int, str]] = field(default_factory=list)
    undelivered: list[tuple[str, str, int, str]] = field(default_factory=list)
    duplicated: list[tuple[str, str, int, str]] = field(default_factory=list)
    reordered: list[tuple[str, str, int, str]] = field(default_factory=list)
    phantom: list[tuple[str, str, int, str]] = field(default_factory=list)
    corrupted: list[tuple[str, str, int, str]] = field(default_factory=list)
    repeats: int = 0
    """Extra copies that the promise allows."""
    oldest_repeat: float = 0.0
    """Seconds between a copy and the disruption that brought it again: the longest of all, allowed or not."""

    @property
    def ok(self) -> bool:
        return not (self.lost or self.undelivered or self.duplicated or self.reordered or self.phantom or self.corrupted)

    def __str__(self) -> str:
        parts = []
        for name in ("lost", "undelivered", "duplicated", "reordered", "phantom", "corrupted"):
            faults = getattr(self, name)
            if faults:
                parts.append(f"{name} {len(faults)}: " + "; ".join(f"{s} <- {c}/{n} ({why})" for s, c, n, why in faults[:SHOWN]))
        return "\n".join([*parts, f"allowed repeats {self.repeats}, the oldest {self.oldest_repeat:.2f} s before its disruption"])


@dataclass
class _Stream:
    """One publisher, topic and QoS as one subscriber saw it."""

    newest: int = -1
    newest_at: float = 0.0
    repeated: int = -1
    repeated_after: float = 0.0
    """The disruption that the repeats up to ``repeated`` follow."""


def check(ledger: Ledger, *, repeat_window: float = REPEAT_WINDOW) -> Verdict:
    verdict = Verdict()
    held = {subscriber.name: _Receipts(ledger, subscriber, verdict, repeat_window).check() for subscriber in ledger.subscribers.values()}
    for key, sent in ledger.sent.items():
        if sent.acked_at is None:
            continue
        wanting = [subscriber for subscriber in ledger.subscribers.values() if subscriber.wants(sent)]
        missing = [subscriber for subscriber in wanting if key not in held[subscriber.name]]
        if missing and len(missing) == len(wanting):
            verdict.lost.append(("all", *key, f"acknowledged at {sent.acked_at:.3f} on {sent.topic}"))
        else:
            verdict.undelivered.extend((subscriber.name, *key, f"acknowledged at {sent.acked_at:.3f}") for subscriber in missing)
    return verdict


class _Receipts:
    """One subscriber's receipts, in the order they came."""

    def __init__(self, ledger: Ledger, subscriber: Subscriber, verdict: Verdict, window: float) -> None:
        self._ledger = ledger
        self._subscriber = subscriber
        self._verdict = verdict
        self._window = window
        self._last_copy: dict[tuple[str, int], float] = {}
        self._streams: dict[tuple[str, str, int], _Stream] = defaultdict(_Stream)

    def check(self) -> set[tuple[str, int]]:
        """What the subscriber holds, intact."""
        name, verdict = self._subscriber.name, self._verdict
        if self._subscriber.foreign:
            verdict.phantom.append((name, "?", self._subscriber.foreign, "payloads that no ledger wrote"))
        for receipt in self._subscriber.receipts:
            key = (receipt.client, receipt.seq)
            sent = self._ledger.sent.get(key)
            if sent is None or not self._subscriber.wants(sent) or receipt.topic != sent.topic:
                verdict.phantom.append((name, *key, f"on {receipt.topic}"))
            elif receipt.digest != sent.digest:
                verdict.corrupted.append((name, *key, f"on {receipt.topic}"))
            elif key in self._last_copy:
                self._repeat(sent, receipt, self._streams[sent.client, sent.topic, sent.qos])
                self._last_copy[key] = receipt.at
            else:
                self._first(sent, receipt, self._streams[sent.client, sent.topic, sent.qos])
                self._last_copy[key] = receipt.at
        return set(self._last_copy)

    def _first(self, sent: Sent, receipt: Receipt, stream: _Stream) -> None:
        if sent.seq < stream.newest:
            self._verdict.reordered.append((self._subscriber.name, sent.client, sent.seq, f"after {stream.newest} on {sent.topic}"))
        stream.newest = max(stream.newest, sent.seq)
        stream.newest_at = receipt.at

    def _repeat(self, sent: Sent, receipt: Receipt, stream: _Stream) -> None:
        """Allowed under effective QoS 1 alone: the publisher's own, or what came within the window before a disruption, in order,
        and before anything new of its stream."""
        fault = (self._subscriber.name, sent.client, sent.seq)
        qos = min(sent.qos, self._subscriber.qos)
        if qos != 1:
            self._verdict.duplicated.append((*fault, f"a second copy under QoS {qos}"))
            return
        if sent.resent:
            self._verdict.repeats += 1
            return
        earlier = self._last_copy[receipt.client, receipt.seq]
        cause = next((at for at in self._subscriber.disruptions if max(earlier, stream.newest_at) <= at <= receipt.at), None)
        if cause is not None:
            self._verdict.oldest_repeat = max(self._verdict.oldest_repeat, cause - earlier)
        if cause is None or cause - earlier > self._window:
            why = "no disruption before it" if cause is None else f"the copy before came {cause - earlier:.2f} s before the disruption"
            self._verdict.duplicated.append((*fault, why))
            return
        self._verdict.repeats += 1
        # A takeover and then a kill are two runs of repeats, even where nothing new came between them
        latest = max(at for at in self._subscriber.disruptions if at <= receipt.at)
        if latest == stream.repeated_after and sent.seq < stream.repeated:
            self._verdict.reordered.append((*fault, f"repeat after the repeat of {stream.repeated}"))
        stream.repeated, stream.repeated_after = sent.seq, latest
