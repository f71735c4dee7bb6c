"""Where messages go and what records become, without a broker."""

from __future__ import annotations

import pytest
from aiokafka import ConsumerRecord

from bridges.kafka.connection import Connection, Topic
from bridges.kafka.source import KafkaSource, _incoming
from bridges.kafka.target import LANES, KafkaTarget
from schemas.connections import ConnectionSettings
from streams.backend import Outgoing


@pytest.fixture
async def connection() -> Connection:
    return Connection(ConnectionSettings(name="test", kind="kafka", address=("127.0.0.1:1",)))


def outgoing(lane: str | None = None, key: str | None = None) -> Outgoing:
    return Outgoing("t", b"", (), "0" * 32, 1, key=key, lane=lane)


@pytest.mark.parametrize(
    ("lane", "hashed"),
    # Signed 32-bit values of Kafka's own hash
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("abc", 479470107),
    ],
)
async def test_lanes_go_where_other_clients_put_that_key(connection: Connection, lane: str, hashed: int) -> None:
    target = KafkaTarget(connection)
    for partitions in (1, 3, 8, 12):
        topic = Topic(tuple(range(partitions)), ())
        for message in (outgoing(lane), outgoing(lane, key="other"), outgoing(key=lane)):
            assert target._partition(topic, message) == (hashed & 0x7FFFFFFF) % partitions


async def test_the_remembered_hashes_are_bounded(connection: Connection) -> None:
    target = KafkaTarget(connection)
    for number in range(LANES + 10):
        target._hash(str(number))
    assert len(target._hashes) <= LANES


async def test_without_a_lane_calls_take_turns_among_partitions_that_have_a_leader(connection: Connection) -> None:
    target = KafkaTarget(connection)
    used = set()
    for target._turn in range(10):
        used.add(target._partition(Topic((0, 1, 2, 3), (1, 3)), outgoing()))
    assert used == {1, 3}
    assert target._partition(Topic((0, 1), ()), outgoing()) in (0, 1)


def record(value: bytes | None = b"body", key: bytes | None = b"key", headers: tuple[tuple[str, bytes | None], ...] = ()) -> ConsumerRecord:
    return ConsumerRecord("t", 3, 7, 1234, 0, key, value, None, 0, 0, headers)


def test_a_record_as_a_message() -> None:
    got = _incoming(record(headers=(("a", b"1"), ("mqttMessageId", b"0AF"), ("a", b"2"))), "3")
    assert (got.topic, got.queue, got.offset, got.time, got.body, got.key, got.id) == ("t", "3", 7, 1234, b"body", "key", "0AF")
    assert got.properties == (("a", "1"), ("a", "2"))


def test_a_tombstone_is_an_empty_body() -> None:
    got = _incoming(record(None, None), "3")
    assert (got.body, got.key, got.id) == (b"", None, "")


def test_bytes_that_are_no_text_do_no_harm() -> None:
    got = _incoming(record(key=b"\xff", headers=(("h", b"a\xffb"), ("none", None), ("mqttMessageId", b"\xfe"))), "0")
    assert got.properties == (("h", "a\ufffdb"), ("none", ""))
    assert (got.key, got.id) == ("\ufffd", "\ufffd")


async def test_what_is_returned_moves_the_position(connection: Connection) -> None:
    source = KafkaSource(connection, "rule", "t", {"3": 7})
    source._held.extend(_incoming(_at(offset), "3") for offset in (7, 8, 9))
    assert [message.offset for message in source._take(2, 1000)] == [7, 8]
    assert source._positions == {3: 9}
    assert [message.offset for message in source._take(2, 1)] == [9]
    assert source._positions == {3: 10}


def _at(offset: int) -> ConsumerRecord:
    return ConsumerRecord("t", 3, offset, 1234, 0, None, bytes(10), None, 0, 10, ())
