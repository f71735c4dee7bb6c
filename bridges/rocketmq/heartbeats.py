"""What a client tells brokers of itself, so that they know its groups and RocketMQ's own tools show them: values to JSON, without I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

TAG = "TAG"
SQL92 = "SQL92"
ALL = "*"


class Subscription(msgspec.Struct, frozen=True):
    """What a consumer group takes of a topic: tags (`a || b`, `*` for all) or an SQL92 expression."""

    topic: str
    expression: str = ALL
    kind: str = TAG

    @property
    def tags(self) -> frozenset[str]:
        """The tags wanted; none means that tags don't matter."""
        if self.kind != TAG or self.expression == ALL:
            return frozenset()
        return frozenset(tag.strip() for tag in self.expression.split("||")) - {""}


class Consumer(msgspec.Struct, frozen=True):
    group: str
    subscription: Subscription
    version: int
    """Grows with each subscription of the group; the time it was made does."""


def java_hash(text: str) -> int:
    """The hash that Java gives a string: brokers compare tags by it."""
    value = 0
    units = text.encode("utf-16-be")
    for at in range(0, len(units), 2):
        value = (value * 31 + (units[at] << 8 | units[at + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def encode_heartbeat(client_id: str, producers: Iterable[str], consumers: Iterable[Consumer]) -> bytes:
    return msgspec.json.encode(
        {
            "clientID": client_id,
            "producerDataSet": [{"groupName": group} for group in producers],
            "consumerDataSet": [_consumer(consumer) for consumer in consumers],
        }
    )


def _consumer(consumer: Consumer) -> dict[str, object]:
    return {
        "groupName": consumer.group,
        "consumeType": "CONSUME_ACTIVELY",
        "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
        "unitMode": False,
        "subscriptionDataSet": [_subscription(consumer)],
    }


def _subscription(consumer: Consumer) -> dict[str, object]:
    subscription = consumer.subscription
    tags = sorted(subscription.tags)
    return {
        "classFilterMode": False,
        "topic": subscription.topic,
        "subString": subscription.expression,
        "tagsSet": tags,
        "codeSet": [java_hash(tag) for tag in tags],
        "subVersion": consumer.version,
        "expressionType": subscription.kind,
    }


def encode_check(client_id: str, consumer: Consumer) -> bytes:
    """The question whether a broker can filter by this subscription."""
    return msgspec.json.encode({"clientId": client_id, "group": consumer.group, "subscriptionData": _subscription(consumer)})


def encode_group(group: str) -> bytes:
    """A subscription group with a broker's usual settings."""
    return msgspec.json.encode(
        {
            "groupName": group,
            "consumeEnable": True,
            "consumeFromMinEnable": True,
            "consumeBroadcastEnable": False,
            "retryQueueNums": 1,
            "retryMaxTimes": 16,
            "brokerId": 0,
            "whichBrokerWhenConsumeSlowly": 0,
            "notifyConsumerIdsChangedEnable": False,
        }
    )
