"""Messages from outside of the gateway: with aiokafka, and with the official RocketMQ client in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.support.brokers import java
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ

SENDER = Path(__file__).parent / "rocketmq_sender.py"


def to_kafka(kafka: Kafka, topic: str, messages: Iterable[tuple[str, bytes]]) -> None:
    """``messages``: key and body."""
    asyncio.run(_produce(kafka, topic, [{"key": key.encode(), "value": body} for key, body in messages]))


def to_kafka_with_headers(kafka: Kafka, topic: str, messages: Iterable[dict[str, Any]]) -> None:
    """``messages``: body and properties, which go as headers."""
    given = [{"value": message["body"].encode(), "headers": _headers(message.get("properties", {}))} for message in messages]
    asyncio.run(_produce(kafka, topic, given))


def _headers(properties: dict[str, str]) -> list[tuple[str, bytes]]:
    return [(name, value.encode()) for name, value in properties.items()]


async def _produce(kafka: Kafka, topic: str, records: list[dict[str, Any]]) -> None:
    """All of them are on the broker when this has ended."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.address, acks="all", enable_idempotence=True) as producer:
        await asyncio.gather(*[await producer.send(topic, **record) for record in records])


def to_rocketmq(rocketmq: RocketMQ, topic: str, messages: Iterable[dict[str, Any]]) -> list[str]:
    """``messages``: body, tag, properties, group (rocketmq_sender.py). Their ids."""
    done = subprocess.run(
        [sys.executable, str(SENDER), rocketmq.grpc, topic],
        input="".join(f"{json.dumps(message)}\n" for message in messages),
        capture_output=True, text=True, timeout=60, cwd=rocketmq.folder, env=java.environment(rocketmq.folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()
