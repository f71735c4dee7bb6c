"""What a start of the log on Kafka makes, checks and says; and what only this log promises its readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from bridges.kafka.connection import Connection
from bridges.kafka.log import open_kafka_log
from bridges.kafka.log_options import KafkaLogOptions
from schemas.connections import ConnectionSettings, Secret
from schemas.errors import StartError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, FrameError, encode_frame
from tests.contract.log_drivers import KafkaDriver
from tests.contract.log_traffic import BIG, fill, numbers, record, take
from tests.support.brokers.fixtures import FIRST_START, unique
from tests.support.brokers.java import free_ports
from tests.support.brokers.kafka import PASSWORD, TOOLS, USER, Kafka

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FIRST_START)]


async def refusal(address: str, prefix: str = "", **options: Any) -> str:
    """Why a start is refused."""
    settings: dict[str, Any] = {"name": "main", "kind": "kafka", "address": (address,), **options.pop("connection", {})}
    connection = Connection(ConnectionSettings(**settings))
    with pytest.raises(StartError) as refused:
        await open_kafka_log(connection, node="n", epoch=1, options=KafkaLogOptions(prefix=prefix or f"{unique('log')}-", **options))
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_topics_are_made_as_asked(kafka: Kafka) -> None:
    driver = KafkaDriver(kafka.address, f"{unique('log')}-", shards=2, retention_age=3600.0, retention_bytes=1 << 30)
    await (await driver.start()).close()
    said = kafka.run(f"{TOOLS}TopicCommand", "--bootstrap-server", kafka.address, "--describe", "--topic", f"{driver.options.prefix}publish")
    for setting in ("PartitionCount: 2", "retention.ms=3600000", "retention.bytes=536870912", "unclean.leader.election.enable=false"):
        assert setting in said


async def test_a_start_says_what_is_wrong_with_the_topics(kafka: Kafka) -> None:
    prefix = f"{unique('log')}-"
    await (await KafkaDriver(kafka.address, prefix, shards=2).start()).close()
    assert "has 2 partitions and log.shards says 3: set log.shards = 2" in await refusal(kafka.address, prefix, shards=3, replication=1)
    said = await refusal(kafka.address, prefix, shards=2, replication=1)
    assert f"topic {prefix}publish has 1 of 3 replicas" in said
    assert 'log.durability = "as configured"' in said
    assert "can't be created with log.replication = 3" in await refusal(kafka.address, replication=3)


async def test_a_kafka_that_does_not_answer_is_named() -> None:
    (port,) = free_ports(1)
    said = await refusal(f"127.0.0.1:{port}", answer_within=3.0)
    assert f"the log's Kafka at 127.0.0.1:{port}" in said


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """It asks who one is: the brokers may all, alice nothing."""
    settings = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS"}
    broker = Kafka(tmp_path_factory.mktemp("guarded"), settings=settings).start()
    try:
        yield broker
    finally:
        broker.node.kill()


async def test_who_may_not_create_topics_is_told_the_command(guarded: Kafka, tmp_path: Path) -> None:
    login = {"tls": True, "ca": guarded.authority.path, "mechanism": "PLAIN", "user": USER, "password": Secret(PASSWORD)}
    prefix = f"{unique('log')}-"
    address = f"127.0.0.1:{guarded.node.ports.sasl}"
    assert f"topic {prefix}publish may not be described by this principal" in await refusal(address, prefix, connection=login, replication=1)
    allowed = ("--add", "--allow-principal", f"User:{USER}", "--operation", "Describe", "--topic", prefix, "--resource-pattern-type", "prefixed")
    guarded.run(f"{TOOLS}AclCommand", "--bootstrap-server", guarded.address, *allowed)
    said = await refusal(address, prefix, connection=login, replication=1)
    assert f"this principal may not create it; have it created: kafka-topics.sh --bootstrap-server {address} --create --topic {prefix}publish" in said
    assert PASSWORD not in said


async def test_what_others_write_into_the_topic_stops_the_reader(kafka: Kafka) -> None:
    driver = KafkaDriver(kafka.address, f"{unique('log')}-", shards=1)
    log = await driver.start()
    async with AIOKafkaProducer(bootstrap_servers=kafka.address) as stranger:
        await stranger.send_and_wait(f"{driver.options.prefix}publish", b"hello")
    with pytest.raises(FrameError, match="publish shard 0 offset 0: .* not a frame"):
        await log.open(PUBLISH_TOPIC, "earliest").next(1, 1)
    await log.close()


async def test_frames_that_come_again_are_passed_over_by_readers_old_and_new(kafka: Kafka) -> None:
    """Also late, behind what was sent after them; also where a reader begins between a frame and its repeat."""
    driver = KafkaDriver(kafka.address, f"{unique('log')}-", shards=1)
    log = await driver.start()
    topic = f"{driver.options.prefix}publish"
    async with AIOKafkaProducer(bootstrap_servers=kafka.address) as other:
        for sequence, first in ((1, 0), (2, 2), (1, 0), (2, 2), (3, 4), (2, 2), (4, 6)):
            await other.send_and_wait(topic, encode_frame("other", 1, sequence, [record(first), record(first + 1)]), partition=0)
        await other.send_and_wait(topic, encode_frame("other", 0, 9, [record(90)]), partition=0)
        await other.send_and_wait(topic, encode_frame("another", 1, 1, [record(8)]), partition=0)
    for start, wanted in ((None, 0), (2, 4), (3, 4), (5, 6)):
        reader = log.open(PUBLISH_TOPIC, "earliest" if start is None else {0: At(0, start, 0)})
        assert numbers(await take(reader, 9 - wanted), "k") == list(range(wanted, 9))
        reader.close()
    await log.close()


async def test_a_reader_that_retention_has_passed_begins_at_the_oldest_that_is_left(kafka: Kafka, tmp_path: Path) -> None:
    driver = KafkaDriver(kafka.address, f"{unique('log')}-", shards=1, group_records=1)
    log = await driver.start()
    first, _ = (await log.ends(PUBLISH_TOPIC))[0]
    await fill(log, range(10), keys=["a"])
    cut = tmp_path / "cut.json"
    cut.write_text(f'{{"partitions": [{{"topic": "{driver.options.prefix}publish", "partition": 0, "offset": 4}}], "version": 1}}', "utf-8")
    kafka.run(f"{TOOLS}DeleteRecordsCommand", "--bootstrap-server", kafka.address, "--offset-json-file", str(cut))
    assert (await log.ends(PUBLISH_TOPIC))[0][0].offset == 4
    reader = log.open(PUBLISH_TOPIC, {0: first})
    assert (await reader.next(1, BIG)).first.offset == 4
    await log.close()
