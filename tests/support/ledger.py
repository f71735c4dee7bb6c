"""The ledger of a run: what was published and when it was acknowledged, what each subscriber got, and when things broke.

It only records; checker.py judges. A payload carries its publisher and sequence number, so a receipt names its publish
without trusting topic or packet id, and its digest tells whether the rest is intact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_ENTRIES = 2_000_000
"""Of each list: a test that needs more has lost its way."""


@dataclass(slots=True)
class Sent:
    """A publish. ``acked_at`` is None while it is indeterminate: stored or not, both are right."""

    client: str
    seq: int
    topic: str
    qos: int
    digest: bytes
    sent_at: float
    acked_at: float | None = None
    resent: bool = False
    """The client itself sent it again (DUP): further copies under QoS 1 are its own doing."""


@dataclass(slots=True, frozen=True)
class Receipt:
    client: str
    seq: int
    topic: str
    qos: int
    digest: bytes
    at: float


@dataclass(slots=True)
class Subscriber:
    """``wants`` says which publishes must reach it; ``disruptions`` are the kills and takeovers that allow QoS 1 repeats."""

    name: str
    wants: Callable[[Sent], bool]
    qos: int
    receipts: list[Receipt] = field(default_factory=list)
    disruptions: list[float] = field(default_factory=list)
    foreign: int = 0
    """Payloads that no ledger wrote."""


def stamp(client: str, seq: int, size: int = 64) -> bytes:
    """A payload of the ledger. The filler depends on its name, so a mixed-up body shows."""
    head = f"{client}:{seq}:".encode()
    filler = hashlib.sha256(head).digest()
    return head + (filler * (size // len(filler) + 1))[: max(0, size - len(head))]


def read_stamp(payload: bytes) -> tuple[str, int] | None:
    client, _, rest = payload.partition(b":")
    seq, _, _ = rest.partition(b":")
    if not client or not seq.isdigit():
        return None
    return client.decode(errors="replace"), int(seq)


class Ledger:
    def __init__(self) -> None:
        self.sent: dict[tuple[str, int], Sent] = {}
        self.subscribers: dict[str, Subscriber] = {}

    def send(self, client: str, seq: int, topic: str, qos: int, payload: bytes, now: float) -> None:
        assert len(self.sent) < MAX_ENTRIES
        assert (client, seq) not in self.sent, f"{client} used {seq} twice"
        self.sent[client, seq] = Sent(client, seq, topic, qos, hashlib.sha256(payload).digest(), now)

    def resend(self, client: str, seq: int) -> None:
        self.sent[client, seq].resent = True

    def ack(self, client: str, seq: int, now: float) -> None:
        entry = self.sent[client, seq]
        if entry.acked_at is None:
            entry.acked_at = now

    def subscribe(self, name: str, wants: Callable[[Sent], bool], qos: int) -> Subscriber:
        self.subscribers[name] = Subscriber(name, wants, qos)
        return self.subscribers[name]

    def receive(self, subscriber: str, topic: str, qos: int, payload: bytes, now: float) -> None:
        entry = self.subscribers[subscriber]
        assert len(entry.receipts) < MAX_ENTRIES
        named = read_stamp(payload)
        if named is None:
            entry.foreign += 1
            return
        entry.receipts.append(Receipt(*named, topic, qos, hashlib.sha256(payload).digest(), now))

    def disrupt(self, now: float, *subscribers: str) -> None:
        """A kill (all subscribers) or a takeover (the ones named)."""
        for name in subscribers or tuple(self.subscribers):
            self.subscribers[name].disruptions.append(now)

    def acked(self) -> int:
        return sum(1 for entry in self.sent.values() if entry.acked_at is not None)
