"""What a topic has to be for the log: said in one line with the command that mends it."""

from __future__ import annotations

from typing import Any

import pytest

from bridges.kafka.log_options import KafkaLogOptions
from bridges.kafka.log_topics import check_usable, create_command, wanted, weaknesses_of
from schemas.errors import StartError

SAFE = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "cleanup.policy": "delete"}
AT = "broker:9092"


def topic(replicas: int = 3, partitions: int = 2) -> dict[str, Any]:
    return {"partitions": [{"replicas": list(range(replicas))} for _ in range(partitions)]}


def test_a_topic_that_keeps_what_it_acknowledged_has_no_weakness() -> None:
    assert weaknesses_of("t", topic(), SAFE, AT) == []
    assert weaknesses_of("t", topic(), wanted(KafkaLogOptions()), AT) == []


@pytest.mark.parametrize(
    ("found", "settings", "words"),
    [
        (topic(2), SAFE, "topic t has 2 of 3 replicas: kafka-reassign-partitions.sh"),
        ({"partitions": [{"replicas": [1, 2, 3]}, {"replicas": [1]}]}, SAFE, "topic t has 1 of 3 replicas"),
        (topic(), SAFE | {"min.insync.replicas": "1"}, "= 1, 2 are needed: kafka-configs.sh --bootstrap-server broker:9092 --alter"),
        (topic(), SAFE | {"unclean.leader.election.enable": "true"}, "--add-config unclean.leader.election.enable=false"),
        (topic(), {}, "may not be read: allow this principal DescribeConfigs"),
    ],
)
def test_each_weakness_is_named_with_its_cure(found: dict[str, Any], settings: dict[str, str], words: str) -> None:
    assert any(words in weakness for weakness in weaknesses_of("t", found, settings, AT))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cleanup.policy": "compact"}, "is compacted, so it forgets records: kafka-configs.sh"),
        ({"cleanup.policy": "compact,delete"}, "is compacted"),
        ({"message.timestamp.after.max.ms": "3600000"}, "a little ahead: kafka-configs.sh .* message.timestamp.after.max.ms=9223372036854775807"),
        ({"message.timestamp.type": "LogAppendTime"}, "--add-config message.timestamp.type=CreateTime"),
    ],
)
def test_what_is_no_log_at_all_is_refused_whatever_the_durability(settings: dict[str, str], words: str) -> None:
    with pytest.raises(StartError, match=words):
        check_usable("t", settings, AT)


def test_the_command_makes_the_topic_that_we_would_make() -> None:
    command = create_command(AT, "sluiceway-publish", KafkaLogOptions(shards=5, retention_age=60.0, retention_bytes=5 * 2**30))
    assert command.startswith("kafka-topics.sh --bootstrap-server broker:9092 --create --topic sluiceway-publish --partitions 5 ")
    assert "--replication-factor 3" in command
    for setting in ("retention.ms=60000", "retention.bytes=1073741824", "min.insync.replicas=2", "unclean.leader.election.enable=false"):
        assert f"--config {setting}" in command


def test_one_replica_is_not_asked_to_wait_for_another() -> None:
    assert wanted(KafkaLogOptions(replication=1))["min.insync.replicas"] == "1"
