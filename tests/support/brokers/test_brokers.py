"""The brokers serve, before anything of ours speaks to them: foreign clients and their own tools send and receive."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.support.brokers import java
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


async def produce(address: str, topic: str, *bodies: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True) as producer:
        for body in bodies:
            await producer.send_and_wait(topic, body)


async def consume(address: str, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


async def test_kafka_serves(kafka: Kafka) -> None:
    topic = unique("smoke")
    kafka.create_topic(topic, max_message_bytes="2000")
    await produce(kafka.address, topic, b"one", b"two")
    assert await consume(kafka.address, topic, 2) == [b"one", b"two"]
    said = kafka.run("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.address, "--describe", "--topic", topic)
    assert "max.message.bytes=2000" in said


async def test_kafka_keeps_port_and_data_over_a_kill(mortal_kafka: Kafka) -> None:
    topic = unique("killed")
    mortal_kafka.create_topic(topic)
    await produce(mortal_kafka.address, topic, b"before")
    mortal_kafka.restart()
    await produce(mortal_kafka.address, topic, b"after")
    assert await consume(mortal_kafka.address, topic, 2) == [b"before", b"after"]


@pytest.mark.parametrize("name", ["rocketmq", "rocketmq4"])
@pytest.mark.timeout(300)
def test_rocketmq_serves(name: str, request: pytest.FixtureRequest) -> None:
    broker: RocketMQ = request.getfixturevalue(name)
    topic = unique("smoke")
    broker.create_topic(topic, 1)
    assert "SEND_OK" in broker.admin("sendMessage", "-t", topic, "-p", "smoke-body")
    assert "smoke-body" in broker.admin("consumeMessage", "-t", topic)


def test_rocketmq_keeps_ports_and_data_over_a_kill(mortal_rocketmq4: RocketMQ) -> None:
    broker = mortal_rocketmq4
    topic = unique("killed")
    broker.create_topic(topic, 1)
    broker.admin("sendMessage", "-t", topic, "-p", "before")
    broker.restart()
    assert "before" in broker.admin("consumeMessage", "-t", topic)


def test_the_proxy_serves_the_official_client(rocketmq: RocketMQ) -> None:
    """In a process of its own: it leaves threads behind."""
    topic, group = unique("smoke"), unique("group")
    rocketmq.create_topic(topic, 1)
    rocketmq.create_group(group)
    program = textwrap.dedent("""
        import sys
        from rocketmq import ClientConfiguration, Credentials, FilterExpression, Message, Producer, SimpleConsumer
        address, topic, group = sys.argv[1:]
        settings = ClientConfiguration(address, Credentials())
        consumer = SimpleConsumer(settings, group, {topic: FilterExpression()})
        consumer.startup()
        producer = Producer(settings, (topic,))
        producer.startup()
        message = Message()
        message.topic, message.body = topic, b"smoke"
        producer.send(message)
        got = []
        while not got:
            got = consumer.receive(1, 15)
        consumer.ack(got[0])
        print("received", got[0].body)
        producer.shutdown()
        consumer.shutdown()
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, rocketmq.grpc, topic, group],
        capture_output=True, text=True, timeout=60, cwd=rocketmq.folder, env=java.environment(rocketmq.folder),
    )  # fmt: skip
    assert "received b'smoke'" in done.stdout, done.stdout + done.stderr


def test_nothing_outlives_a_run_that_is_killed() -> None:
    """The guard ends what was started when its parent has no chance to."""
    program = textwrap.dedent("""
        import os, subprocess, sys
        from tests.support.brokers import guard
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        guard.watch(child.pid)
        print(child.pid, flush=True)
        sys.stdin.read()
    """)
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
