"""A bench for the figures of rules: real brokers beside the gateway and the load generator, rules made and watched over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bridges.kafka.backend import KafkaBackend
from bridges.rocketmq.backend import RocketmqBackend
from gateway.commands.client import call
from gateway.commands.endpoint import find
from schemas.connections import ConnectionSettings
from streams.backend import Backend
from tests.load.broker import Bench
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import V5, RocketMQ
from tests.support.gateway import Gateway

QUEUES = 8
KINDS = ("rocketmq", "kafka")


class Watch:
    """A rule's status, read again and again while a load runs. ``rows`` are (monotonic seconds, sent, lag in records)."""

    def __init__(self, bench: RuleBench, gateway: Gateway, rule: str) -> None:
        self.rows: list[tuple[float, int, int]] = []
        self._over = threading.Event()
        self._look = lambda: bench.rule(gateway, rule)["status"]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            status = self._look()
            self.rows.append((time.monotonic(), status["counts"]["sent"], status["lagRecords"]))


class RuleBench(Bench):
    """Brokers are started when first asked for, and once."""

    def __init__(self, folder: Path, mqload: Path, rounds: int, seconds: float) -> None:
        super().__init__(folder, mqload, rounds, seconds)
        self._brokers: dict[str, Kafka | RocketMQ] = {}

    def broker(self, kind: str) -> Kafka | RocketMQ:
        if kind not in self._brokers:
            folder = self.folder / kind
            folder.mkdir(parents=True)
            self._brokers[kind] = Kafka(folder, measured=True).start() if kind == "kafka" else RocketMQ(folder, V5, measured=True).start()
        return self._brokers[kind]

    @property
    def kafka(self) -> Kafka:
        broker = self.broker("kafka")
        assert isinstance(broker, Kafka)
        return broker

    @property
    def rocketmq(self) -> RocketMQ:
        broker = self.broker("rocketmq")
        assert isinstance(broker, RocketMQ)
        return broker

    def topic(self, kind: str, *, ordered: bool = False) -> str:
        """A topic of its own at the broker."""
        name = unique("load")
        if kind == "kafka":
            self.kafka.create_topic(name, queues=QUEUES)
        else:
            self.rocketmq.create_topic(name, queues=QUEUES, kind="FIFO" if ordered else "NORMAL")
        return name

    def backend(self, kind: str) -> Backend:
        """The broker by the program's own bridge; inside a running loop."""
        settings = ConnectionSettings(name="backend", kind=kind, address=(self.broker(kind).address,))  # type: ignore[arg-type]
        return KafkaBackend(settings) if kind == "kafka" else RocketmqBackend(settings)

    def with_connection(self, kind: str, address: str = "") -> Gateway:
        """A gateway with a connection named `backend`, by default to the broker of that kind."""
        address = address or self.broker(kind).address
        allowed = 'allow_outflow = ["*"]\nallow_inflow = ["*"]\n'
        return self.gateway(config=f'[connections.backend]\nkind = "{kind}"\naddress = "{address}"\n{allowed}')

    def create_rule(self, gateway: Gateway, **fields: Any) -> str:
        """Its id, once it runs or says why it waits."""
        rule = unique("rule")
        call(self._endpoint(gateway), "POST", "/api/v1/rules", {"id": rule, "connection": "backend", **fields})
        return rule

    def rule(self, gateway: Gateway, rule: str) -> dict[str, Any]:
        found: dict[str, Any] = call(self._endpoint(gateway), "GET", f"/api/v1/rules/{rule}")
        return found

    def until(self, gateway: Gateway, rule: str, reached: Callable[[Mapping[str, Any]], bool], within: float = 30.0) -> Mapping[str, Any]:
        """The rule's status once it is as wanted."""
        end = time.monotonic() + within
        while not reached(status := self.rule(gateway, rule)["status"]):
            if time.monotonic() > end:
                raise TimeoutError(f"after {within} s the rule is still {json.dumps(status)}")
            time.sleep(0.1)
        return status

    @staticmethod
    def _endpoint(gateway: Gateway) -> Any:
        return find(gateway.data, None, None, {})

    def close(self) -> None:
        super().close()
        for broker in self._brokers.values():
            broker.kill()


def send_async_rate(bench: RuleBench, topic: str, seconds: float) -> float:
    """Messages a second that the official Python client's ``send_async`` gets acknowledged, alone, in a process of its own."""
    script = Path(__file__).with_name("official_producer.py")
    command = [sys.executable, str(script), bench.rocketmq.grpc, topic, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return float(done.stdout.strip().splitlines()[-1])
