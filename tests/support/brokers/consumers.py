"""Java programs that nobody here wrote, as readers of what a rule sends: RocketMQ's own examples and tools, Kafka's console consumer.

They print messages as their authors chose to; here that is read back. A program that runs until it is ended is a child of the test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.brokers import java
from tests.support.brokers.kafka import TOOLS, Kafka
from tests.support.brokers.rocketmq import V5, RocketMQ

EXAMPLES = f"{V5.endpoint}+org.apache.rocketmq:rocketmq-example:{V5.number}"
ANY_GROUP_CONSUMER = "org.apache.rocketmq.example.operation.Consumer"
"""Takes group, topic and tags as arguments; reads with many threads, in no order."""
ORDERED_CONSUMER = "org.apache.rocketmq.example.ordermessage.Consumer"
"""Reads each queue in order, now and then twice. Its topic, tag and group are in its source:"""
ORDERED_TOPIC, ORDERED_TAG = "TopicTest", "TagA"

_MESSAGE = re.compile(r"queueId=(?P<queue>\d+), .*?properties=\{(?P<properties>.*?)\}, body=\[(?P<body>[-\d, ]*)\]")
_RECORD = re.compile(rb"^Partition:(?P<partition>\d+)\tOffset:\d+\t(?P<headers>[^\t]*)\t(?P<key>[^\t]*)\t(?P<body>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """A message as a reader printed it. ``id``: the gateway's, which RocketMQ's tools find it by."""

    queue: int
    id: str
    properties: dict[str, str]
    body: bytes
    key: str = ""
    tag: str = ""


def read_messages(text: str) -> list[Seen]:
    """From what prints Java's MessageExt; values without `, ` and `}` alone."""
    seen = []
    for found in _MESSAGE.finditer(text):
        properties = dict(pair.partition("=")[::2] for pair in found["properties"].split(", "))
        body = bytes(int(number) & 0xFF for number in found["body"].split(",") if number.strip())
        number, key, tag = (properties.get(name, "") for name in ("UNIQ_KEY", "KEYS", "TAGS"))
        seen.append(Seen(int(found["queue"]), number, properties, body, key, tag))
    return seen


class Reader(java.Jvm):
    """A RocketMQ example program that reads until the test ends."""

    lasting = False

    def __init__(self, folder: Path, broker: RocketMQ, main: str, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = (*java.QUICK, "-Xmx128m", f"-Drocketmq.namesrv.addr={broker.address}")
        line = java.command(java.classpath(EXAMPLES), main, arguments, folder, options)
        super().__init__(main.rsplit(".", 1)[-1].lower(), folder, line, java.environment(folder), ready=b"Consumer Started.")

    def messages(self) -> list[Seen]:
        return read_messages(self.out.read_text("utf-8"))


def console(kafka: Kafka, topic: str, count: int) -> list[Seen]:
    """What Kafka's console consumer prints of so many messages."""
    shown = [option for name in ("partition", "offset", "headers", "key") for option in ("--formatter-property", f"print.{name}=true")]
    where = ("--bootstrap-server", kafka.address, "--topic", topic, "--from-beginning")
    said = kafka.run(f"{TOOLS}consumer.ConsoleConsumer", *where, "--max-messages", str(count), "--timeout-ms", "30000", *shown)
    seen = []
    for found in _RECORD.finditer(said.encode()):
        headers = dict(pair.partition(":")[::2] for pair in found["headers"].decode().split(","))
        seen.append(Seen(int(found["partition"]), headers.get("mqttMessageId", ""), headers, found["body"], found["key"].decode()))
    return seen
