"""What Kafka alone can do to a rule, and the ways to log in, on a real broker."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from bridges.kafka.backend import KafkaBackend
from schemas.connections import Secret
from schemas.errors import BackendError
from streams.backend import Backend
from tests.contract.backend_drivers import kafka_settings
from tests.contract.test_backend import NOW, numbers, outgoing, sent, take
from tests.support.brokers.fixtures import unique
from tests.support.brokers.kafka import PASSWORD, USER, Kafka

pytestmark = pytest.mark.slow


@pytest.fixture
async def backend(kafka: Kafka) -> AsyncIterator[Backend]:
    backend = KafkaBackend(kafka_settings(kafka.address))
    yield backend
    await backend.close()


@pytest.fixture
async def topic(backend: Backend) -> str:
    name = unique("kafka")
    await backend.create_topic(name, 1)
    return name


# Records that others wrote


async def test_a_tombstone_and_a_record_without_anything_of_ours(kafka: Kafka, backend: Backend, topic: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.address) as producer:
        await producer.send_and_wait(topic, None, key=b"gone", timestamp_ms=NOW)
    (got,) = await take(backend.source("rule", topic, {}), 1)
    assert (got.body, got.key, got.id, got.properties, got.time) == (b"", "gone", "", (), NOW)


async def test_only_what_is_committed_is_received(kafka: Kafka, backend: Backend, topic: str) -> None:
    source = backend.source("rule", topic, {})
    async with AIOKafkaProducer(bootstrap_servers=kafka.address, transactional_id=unique("id")) as producer:
        with pytest.raises(ZeroDivisionError):
            async with producer.transaction():
                await producer.send_and_wait(topic, b"aborted")
                raise ZeroDivisionError
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed")
    assert [message.body for message in await take(source, 1)] == [b"committed"]


# What a topic's settings make of messages


async def test_a_compacted_topic_refuses_messages_without_a_key(kafka: Kafka, backend: Backend) -> None:
    name = unique("compacted")
    await asyncio.to_thread(kafka.create_topic, name, 1, cleanup_policy="compact")
    target = backend.target("rule", ordered=True)
    (rejected,) = await target.send([outgoing(name, 0, key="k"), outgoing(name, 1), outgoing(name, 2, key="k")])
    assert rejected.index == 1
    assert "key" in rejected.reason
    assert numbers(await take(backend.source("rule", name, {}), 2)) == [0, 2]


async def test_a_topic_with_small_messages_gets_small_batches(kafka: Kafka, backend: Backend) -> None:
    name = unique("small")
    await asyncio.to_thread(kafka.create_topic, name, 1, max_message_bytes="2000")
    target = backend.target("rule", ordered=True)
    description = await backend.describe(name)
    assert description is not None
    assert description.largest == 2000
    messages = [outgoing(name, number, lane="l", body=bytes(2500 if number == 50 else 300)) for number in range(100)]
    (rejected,) = await target.send(messages)
    assert rejected.index == 50
    assert "2000" in rejected.reason
    assert numbers(await take(backend.source("rule", name, {}), 99)) == [number for number in range(100) if number != 50]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_broker_that_says_no_is_believed_message_by_message(kafka: Kafka, codec: str) -> None:
    """Compressed, nobody but the broker knows what is too large."""
    backend, name = KafkaBackend(kafka_settings(kafka.address, compression=codec)), unique("refused")
    await asyncio.to_thread(kafka.create_topic, name, 1, max_message_bytes="2000")
    bodies = {3: random.Random(1).randbytes(5000), 20: bytes(3000)}
    target = backend.target("rule", ordered=True)
    messages = [outgoing(name, number, lane="l", body=bodies.get(number, b"x" * 100)) for number in range(32)]
    (rejected,) = await target.send(messages)
    assert rejected.index == 3
    assert list(await target.send([outgoing(name, 32, lane="l")])) == []
    assert numbers(await take(backend.source("rule", name, {}), 32)) == [number for number in range(33) if number != 3]
    await backend.close()


async def test_a_timestamp_that_the_topic_does_not_take_is_refused(kafka: Kafka, backend: Backend) -> None:
    """By the broker, batch by batch: the others are found out of it."""
    name = unique("timed")
    await asyncio.to_thread(kafka.create_topic, name, 1, message_timestamp_before_max_ms="3600000")
    target = backend.target("rule", ordered=True)
    old = NOW - 7_200_000
    messages = [outgoing(name, number, lane="l", time=old if number in (0, 17) else int(time.time() * 1000)) for number in range(32)]
    assert [each.index for each in await target.send(messages)] == [0, 17]
    assert numbers(await take(backend.source("rule", name, {}), 30)) == [number for number in range(32) if number not in (0, 17)]


async def test_the_lag_shows_in_the_brokers_own_tool(kafka: Kafka, backend: Backend, topic: str) -> None:
    rule = unique("rule")
    await sent(backend, [outgoing(topic, number) for number in range(10)])
    source = backend.source(rule, topic, {})
    await take(source, 4, max_messages=4)
    await source.commit({"0": 4})
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    arguments = ("--bootstrap-server", kafka.address, "--describe", "--group", f"sluiceway.{rule}")
    said = await asyncio.to_thread(kafka.run, tool, *arguments)
    (row,) = [line.split() for line in said.splitlines() if topic in line]
    assert row[3:6] == ["4", "10", "6"]


# Logging in


def unsigned_token() -> str:
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": "device", "iat": now, "exp": now + 600})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


async def goes_through(backend: Backend) -> None:
    name = unique("secured")
    await backend.create_topic(name, 1)
    await sent(backend, [outgoing(name, 1)])
    assert numbers(await take(backend.source("rule", name, await backend.resolve(name, "earliest")), 1)) == [1]
    await backend.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_each_mechanism_over_tls(mortal_kafka: Kafka, mechanism: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(unsigned_token(), "utf-8")
    address = f"127.0.0.1:{mortal_kafka.node.ports.sasl}"
    login = {"mechanism": mechanism, "user": USER, "password": Secret(PASSWORD), "token_file": token}
    await goes_through(KafkaBackend(kafka_settings(address, tls=True, ca=mortal_kafka.authority.path, **login)))


async def test_a_certificate_of_our_own(mortal_kafka: Kafka) -> None:
    pair = mortal_kafka.authority.issue("client", client=True)
    address = f"127.0.0.1:{mortal_kafka.node.ports.tls}"
    ours = {"certificate": pair.certificate, "key": pair.key}
    await goes_through(KafkaBackend(kafka_settings(address, tls=True, ca=mortal_kafka.authority.path, **ours)))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_wrong_password_is_named_and_not_shown(mortal_kafka: Kafka, mechanism: str) -> None:
    address = f"127.0.0.1:{mortal_kafka.node.ports.sasl}"
    login = {"mechanism": mechanism, "user": USER, "password": Secret("wrong-secret")}
    backend = KafkaBackend(kafka_settings(address, tls=True, ca=mortal_kafka.authority.path, **login))
    with pytest.raises(BackendError, match="(?i)authentication failed"):
        await backend.describe("topic")
    assert "authentication" in backend.trouble.lower()
    assert "wrong-secret" not in backend.trouble
    await backend.close()
    # The broker holds a refused connection for 0.1 s, and TLS waits for its last word
    await asyncio.sleep(0.3)


async def test_a_broker_that_nobody_vouches_for_is_not_spoken_to(mortal_kafka: Kafka) -> None:
    backend = KafkaBackend(
        kafka_settings(f"127.0.0.1:{mortal_kafka.node.ports.sasl}", tls=True, mechanism="PLAIN", user=USER, password=Secret(PASSWORD))
    )
    with pytest.raises(BackendError, match="certificate"):
        await backend.describe("topic")
    await backend.close()
