"""What the Python client programs share: reading the job and printing lines that arrive at once."""

from __future__ import annotations

import json
import sys
from typing import Any

SESSION_EXPIRY = 3600
"""Seconds that an MQTT 5 session of a job without ``clean`` lives."""
WEBSOCKET_PATH = "/mqtt"


def read_job() -> dict[str, Any]:
    job: dict[str, Any] = json.loads(sys.argv[1])
    return job


def say_ready() -> None:
    print("ready", flush=True)


def say(topic: str, payload: bytes, qos: int, retain: bool) -> None:
    print(json.dumps({"topic": topic, "payload": payload.hex(), "qos": qos, "retain": retain}), flush=True)
