"""The contract between the matrix and the client programs in clients/: a job goes in, lines come out.

A program takes its job as JSON in the first argument. ``publish`` sends all payloads in order, waits for their
acknowledgements and ends with 0. ``subscribe`` prints ``ready`` once its SUBACK is there, then a JSON object a message
(topic, payload as hex, qos, retain) and ends, with DISCONNECT, after ``count`` messages; with count 0 at once. ``hold``
subscribes and stays, to be killed. Whatever goes wrong ends the program with another code and a word on standard error.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class Will:
    topic: str
    payload: str
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """``role`` is publish, subscribe or hold; ``transport`` tcp or ws; ``version`` 4 or 5; payloads are hex."""

    role: str
    host: str
    port: int
    topic: str
    client_id: str
    transport: str = "tcp"
    version: int = 4
    qos: int = 0
    retain: bool = False
    clean: bool = True
    payloads: list[str] = field(default_factory=list)
    count: int = 0
    will: Will | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool

    @classmethod
    def parse(cls, line: str) -> Message:
        fields = json.loads(line)
        return cls(fields["topic"], bytes.fromhex(fields["payload"]), int(fields["qos"]), bool(fields["retain"]))
