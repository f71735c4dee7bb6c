"""The topics of the log: made where they are missing, checked where they are there. What is wrong is one line with the command that mends it.

A topic keeps what it acknowledged (design: promise 1) where three brokers have it, two of them before the acknowledgement, and none that
lacks it may become leader. Knows Kafka's names of settings; log.py asks once, at start.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest

from bridges.kafka.connection import PAUSE
from bridges.kafka.log_options import KafkaLogOptions
from schemas.errors import StartError

DENIED: Final = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
FOREVER: Final = str(2**63 - 1)
NEWER: Final = frozenset({"message.timestamp.after.max.ms", "message.timestamp.before.max.ms"})
"""Settings that a Kafka before 3.6 doesn't know, nor the bounds that they set."""
CLOCKS_APART: Final = 86_400_000
"""Milliseconds by which a node's clock may be ahead of a broker's, at least."""
ENOUGH_REPLICAS: Final = 3
ENOUGH_IN_SYNC: Final = 2
DEFAULT_MESSAGE_BYTES: Final = 1_048_588
"""What a broker takes where nobody has said otherwise and we may not ask."""


class Found(msgspec.Struct, frozen=True):
    """``largest``: bytes of a message that every topic of the log takes. ``weaknesses``: why an acknowledged record could be lost after all."""

    largest: int
    weaknesses: tuple[str, ...]


def wanted(options: KafkaLogOptions) -> dict[str, str]:
    """The settings that our topics are made with."""
    share = max(options.retention_bytes // options.shards, 1)
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(int(options.retention_age * 1000)),
        "retention.bytes": str(share),
        "segment.bytes": str(min(max(share // 4, 16 * 1024 * 1024), 1024 * 1024 * 1024)),
        "max.message.bytes": str(options.message_bytes),
        "min.insync.replicas": str(min(ENOUGH_IN_SYNC, options.replication)),
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "CreateTime",
        # A node's clock may run ahead; what it was allowed to accept must be storable
        "message.timestamp.after.max.ms": FOREVER,
        "message.timestamp.before.max.ms": FOREVER,
    }


def create_command(address: str, name: str, options: KafkaLogOptions) -> str:
    """What somebody who may can type instead of us."""
    settings = " ".join(f"--config {key}={value}" for key, value in wanted(options).items())
    return (
        f"kafka-topics.sh --bootstrap-server {address} --create --topic {shlex.quote(name)} "
        f"--partitions {options.shards} --replication-factor {options.replication} {settings}"
    )


def alter_command(address: str, name: str, **settings: str) -> str:
    """Likewise, for settings of a topic that is there."""
    words = ",".join(f"{key.replace('_', '.')}={value}" for key, value in settings.items())
    return f"kafka-configs.sh --bootstrap-server {address} --alter --entity-type topics --entity-name {shlex.quote(name)} --add-config {words}"


async def prepare(admin: AIOKafkaAdminClient, names: list[str], address: str, options: KafkaLogOptions) -> Found:
    """Topics that the log can use. StartError where they can't be had, or could lose what was acknowledged though that was to be checked."""
    largest, weaknesses = options.message_bytes, []
    for name in names:
        topic = await _describe(admin, name)
        if topic is None:
            await _create(admin, name, address, options)
            topic = await _described_soon(admin, name)
        count = len(topic["partitions"])
        if count != options.shards:
            raise StartError(
                f"topic {name} has {count} partitions and log.shards says {options.shards}: set log.shards = {count} (a key's shard follows from it, "
                "so partitions are not to be added to a log in use)"
            )
        settings = await _settings(admin, name)
        largest = min(largest, int(settings.get("max.message.bytes", DEFAULT_MESSAGE_BYTES)))
        check_usable(name, settings, address)
        weaknesses += weaknesses_of(name, topic, settings, address)
    if weaknesses and options.checked:
        raise StartError(f'{weaknesses[0]}; or accept that acknowledged messages can be lost: log.durability = "as configured"')
    return Found(largest, tuple(weaknesses))


def check_usable(name: str, settings: Mapping[str, str], address: str) -> None:
    """Settings under which it would be no log at all."""
    if "compact" in settings.get("cleanup.policy", ""):
        raise StartError(f"topic {name} is compacted, so it forgets records: {alter_command(address, name, cleanup_policy='delete')}")
    if settings.get("message.timestamp.type", "CreateTime") != "CreateTime":
        command = alter_command(address, name, message_timestamp_type="CreateTime")
        raise StartError(f"topic {name} keeps its own times instead of the records', by which readers start: {command}")
    if int(settings.get("message.timestamp.after.max.ms", FOREVER)) < CLOCKS_APART:
        command = alter_command(address, name, message_timestamp_after_max_ms=FOREVER)
        raise StartError(f"topic {name} takes nothing from a node whose clock is a little ahead: {command}")


def weaknesses_of(name: str, topic: Mapping[str, Any], settings: Mapping[str, str], address: str) -> list[str]:
    """Each with its cure."""
    found = []
    replicas = min((len(partition["replicas"]) for partition in topic["partitions"]), default=0)
    if replicas < ENOUGH_REPLICAS:
        found.append(f"topic {name} has {replicas} of {ENOUGH_REPLICAS} replicas: kafka-reassign-partitions.sh gives it more")
    if not settings:
        found.append(f"the settings of topic {name} may not be read: allow this principal DescribeConfigs on it")
        return found
    in_sync = int(settings.get("min.insync.replicas", "1"))
    if in_sync < ENOUGH_IN_SYNC:
        command = alter_command(address, name, min_insync_replicas=str(ENOUGH_IN_SYNC))
        found.append(f"topic {name} acknowledges with min.insync.replicas = {in_sync}, {ENOUGH_IN_SYNC} are needed: {command}")
    if settings.get("unclean.leader.election.enable") == "true":
        command = alter_command(address, name, unclean_leader_election_enable="false")
        found.append(f"topic {name} may be led by a broker that lacks records: {command}")
    return found


async def _describe(admin: AIOKafkaAdminClient, name: str) -> dict[str, Any] | None:
    """Without making it, which Kafka does for those who ask by name."""
    answer = await admin._send_request(MetadataRequest([name], allow_auto_topic_creation=False))  # noqa: SLF001 - describe_topics would make it
    topic: dict[str, Any] = answer.to_object()["topics"][0]
    error = for_code(topic["error_code"])
    if error is UnknownTopicOrPartitionError:
        return None
    if error in DENIED:
        raise StartError(f"topic {name} may not be described by this principal: allow it Describe, DescribeConfigs, Read and Write on the topic")
    if error is not NoError and not topic["partitions"]:
        raise error(name)
    return topic


async def _described_soon(admin: AIOKafkaAdminClient, name: str) -> dict[str, Any]:
    """Brokers learn of a new topic one after the other. The caller's deadline ends this."""
    while True:
        topic = await _describe(admin, name)
        if topic is not None and topic["partitions"] and all(partition["leader"] >= 0 for partition in topic["partitions"]):
            return topic
        await asyncio.sleep(PAUSE)


async def _create(admin: AIOKafkaAdminClient, name: str, address: str, options: KafkaLogOptions) -> None:
    settings = wanted(options)
    while True:
        topic = NewTopic(name, options.shards, options.replication, topic_configs=settings)
        answer = (await admin.create_topics([topic])).to_object()["topic_errors"][0]
        error = for_code(answer["error_code"])
        if error in (NoError, TopicAlreadyExistsError):
            return
        if error is not InvalidConfigurationError or not NEWER.intersection(settings):
            break
        settings = {key: value for key, value in settings.items() if key not in NEWER}
    command = create_command(address, name, options)
    if error in DENIED:
        raise StartError(f"topic {name} is missing and this principal may not create it; have it created: {command}")
    if error is InvalidReplicationFactorError:
        words = answer.get("error_message") or "too few brokers are there"
        raise StartError(
            f"topic {name} can't be created with log.replication = {options.replication}: {words}; "
            'start more brokers, or lower log.replication and set log.durability = "as configured"'
        )
    raise StartError(f"topic {name} can't be created ({answer.get('error_message') or error.__name__}): {command}")


async def _settings(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    """Empty where they are not for us to see. A broker that hasn't heard of a new topic yet is asked again."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    while True:
        (answer,) = await admin.describe_configs([resource])
        code, _, _, _, entries = answer.resources[0]
        error = for_code(code)
        if error is NoError:
            return {entry[0]: entry[1] for entry in entries}
        if error in DENIED:
            return {}
        if error is not UnknownTopicOrPartitionError:
            raise error(name)
        await asyncio.sleep(PAUSE)
