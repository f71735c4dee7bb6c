"""Rules between a gateway and real brokers, as one sets them up: connections in its settings, the rest by its commands.

`main` is the connection that a test uses, whichever broker it leads to.
"""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Gateway

WITHIN = 60.0
POLL = 0.05


def connection(broker: Kafka | RocketMQ, name: str = "main") -> str:
    """The section of a settings file; rules may write and read any topic."""
    kind = "kafka" if isinstance(broker, Kafka) else "rocketmq"
    return f'[connections.{name}]\nkind = "{kind}"\naddress = "{broker.address}"\nallow_outflow = ["*"]\nallow_inflow = ["*"]\n'


def create(gateway: Gateway, kind: str, rule: str, *arguments: str) -> None:
    """Makes a rule, and waits until it stands somewhere: what is published or sent from then on is its."""
    gateway.run("rule", "create", kind, rule, *arguments)
    deadline = time.monotonic() + WITHIN
    while not (status := show(gateway, rule)["status"])["position"]:
        assert time.monotonic() < deadline, f"rule {rule} does not start: {status}\n{gateway.tail()}"
        time.sleep(POLL)


def show(gateway: Gateway, rule: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.run("rule", "show", rule, "--json"))
    return found


def until_sent(gateway: Gateway, rule: str, count: int) -> None:
    """The backend has so many messages of the rule."""
    deadline = time.monotonic() + WITHIN
    while (status := show(gateway, rule)["status"])["counts"]["sent"] < count:
        assert time.monotonic() < deadline, f"rule {rule} does not send: {status}\n{gateway.tail()}"
        time.sleep(POLL)
