"""What is asked of brokers about one topic, queue or group, one function a question.

All raise BackendErrors. Messages go through target.py and source.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bridges.rocketmq.brokersettings import BrokerSettings, parse_settings
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import READABLE, WRITABLE, RequestCode, ResponseCode
from bridges.rocketmq.errors import Refused, RemotingError
from bridges.rocketmq.frames import Command
from bridges.rocketmq.heartbeats import ALL, TAG, Consumer, encode_check, encode_group
from bridges.rocketmq.messages import StoredMessage, decode_stored
from bridges.rocketmq.routes import Cluster, Queue, parse_cluster

DEFAULT_TOPIC = "TBW102"
"""The topic after which brokers that make topics by themselves model them."""


WITH_SUBSCRIPTION = 4
"""A pull's system flag: it carries what it wants, and isn't held where there is nothing."""


class _TopicSettings(msgspec.Struct):
    attributes: dict[str, str] | None = None


async def first_offset(client: Client, address: str, topic: str, queue: Queue) -> int:
    return await _offset(client, address, RequestCode.GET_MIN_OFFSET, _place(topic, queue))


async def next_offset(client: Client, address: str, topic: str, queue: Queue) -> int:
    """The offset behind the last message."""
    return await _offset(client, address, RequestCode.GET_MAX_OFFSET, _place(topic, queue))


async def offset_at(client: Client, address: str, topic: str, queue: Queue, time: int) -> int:
    """Of the first message that the broker stored at ``time`` (ms) or later, as exactly as the broker knows it."""
    fields = _place(topic, queue)
    fields["timestamp"] = str(time)
    return await _offset(client, address, RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, fields)


async def committed_offset(client: Client, address: str, group: str, topic: str, queue: Queue) -> int | None:
    """What the group told the broker last; None where it told nothing."""
    fields = {"consumerGroup": group, **_place(topic, queue)}
    answer = await client.ask(address, RequestCode.QUERY_CONSUMER_OFFSET, fields)
    if answer.code == ResponseCode.QUERY_NOT_FOUND:
        return None
    if answer.code != ResponseCode.SUCCESS:
        raise Refused(address, answer.code, answer.remark)
    return _number(address, answer.fields)


async def commit_offset(client: Client, address: str, group: str, topic: str, queue: Queue, offset: int) -> None:
    fields = {"consumerGroup": group, **_place(topic, queue), "commitOffset": str(offset)}
    await client.call(address, RequestCode.UPDATE_CONSUMER_OFFSET, fields)


async def create_topic(client: Client, address: str, topic: str, queues: int, kind: str) -> None:
    fields = {
        "topic": topic,
        "defaultTopic": DEFAULT_TOPIC,
        "readQueueNums": str(queues),
        "writeQueueNums": str(queues),
        "perm": str(READABLE | WRITABLE),
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": "0",
        "order": "false",
    }
    if kind:
        fields["attributes"] = f"+message.type={kind}"
    await client.call(address, RequestCode.UPDATE_AND_CREATE_TOPIC, fields)


async def check_subscription(client: Client, address: str, consumer: Consumer) -> None:
    """Refused where the broker can't filter by it. Pulls don't tell: they let all pass through an expression that can't be read."""
    answer = await client.ask(address, RequestCode.CHECK_CLIENT_CONFIG, {}, encode_check(client.id, consumer))
    if answer.code != ResponseCode.SUCCESS:
        hopeless = answer.code == ResponseCode.SUBSCRIPTION_PARSE_FAILED
        raise Refused(address, answer.code, answer.remark, retryable=not hopeless)


async def peek(client: Client, address: str, group: str, topic: str, queue: Queue, offset: int) -> StoredMessage | None:
    """The message at an offset; None where there is none, or it may not be read."""
    answer = await _pull_one(client, address, group, {**_place(topic, queue), "queueOffset": str(offset)})
    return next(iter(decode_stored(answer.body)), None) if answer.code == ResponseCode.SUCCESS else None


async def try_pull(client: Client, address: str, group: str, topic: str) -> Command:
    """What the broker says to a group that reads the topic's first queue."""
    return await _pull_one(client, address, group, {"topic": topic, "queueId": "0", "queueOffset": "0"})


async def _pull_one(client: Client, address: str, group: str, place: Mapping[str, str]) -> Command:
    fields = {
        "consumerGroup": group,
        **place,
        "maxMsgNums": "1",
        "sysFlag": str(WITH_SUBSCRIPTION),
        "commitOffset": "0",
        "suspendTimeoutMillis": "0",
        "subscription": ALL,
        "subVersion": "0",
        "expressionType": TAG,
    }
    return await client.ask(address, RequestCode.PULL_MESSAGE, fields)


async def create_group(client: Client, address: str, group: str) -> None:
    await client.call(address, RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, {}, encode_group(group))


async def broker_settings(client: Client, address: str) -> BrokerSettings:
    return parse_settings((await client.call(address, RequestCode.GET_BROKER_CONFIG, {})).body)


async def message_type(client: Client, address: str, topic: str) -> str | None:
    """The type that a topic of RocketMQ 5 was made with; empty where it has none or the broker may not tell, None for brokers that know no types."""
    attributes = await topic_attributes(client, address, topic)
    return None if attributes is None else attributes.get("message.type", "")


async def topic_attributes(client: Client, address: str, topic: str) -> Mapping[str, str] | None:
    """Of a topic of RocketMQ 5; empty where the broker may not tell, None for brokers that know none."""
    answer = await client.ask(address, RequestCode.GET_TOPIC_CONFIG, {"topic": topic, "lo": "false"})
    if answer.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED:
        return None
    if answer.code != ResponseCode.SUCCESS:
        return {}
    try:
        return msgspec.json.decode(answer.body, type=_TopicSettings).attributes or {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemotingError(f"{address}: a topic's settings can't be read: {error}") from error


async def cluster(client: Client) -> Cluster:
    answer = await client.ask_name_server(RequestCode.GET_BROKER_CLUSTER_INFO, {})
    if answer.code != ResponseCode.SUCCESS:
        raise Refused("the name server", answer.code, answer.remark)
    return parse_cluster(answer.body)


def _place(topic: str, queue: Queue) -> dict[str, str]:
    return {"topic": topic, "queueId": str(queue.number)}


async def _offset(client: Client, address: str, code: RequestCode, fields: Mapping[str, str]) -> int:
    return _number(address, (await client.call(address, code, fields)).fields)


def _number(address: str, fields: Mapping[str, str]) -> int:
    try:
        return int(fields["offset"])
    except (KeyError, ValueError) as error:
        raise RemotingError(f"{address} answers without an offset") from error
