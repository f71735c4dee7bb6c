"""What is asked about topics, against a fake cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridges.rocketmq.backend import RocketmqBackend
from bridges.rocketmq.codes import RequestCode
from bridges.rocketmq.frames import RESPONSE, Command
from schemas.errors import BackendError, SettingsError
from streams.backend import TopicDescription
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic


async def test_a_topic_is_described(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.topics["ordered"] = FakeTopic([[]], "FIFO")
    assert await backend.describe("T") == TopicDescription(4, "", 4_194_304)
    assert await backend.describe("ordered") == TopicDescription(1, "FIFO", 4_194_304)
    assert await backend.describe("missing") is None


async def test_the_largest_message_is_what_all_brokers_take(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    async with FakeRocketmq(topics=fake.topics, settings={"maxMessageSize": "1000"}) as other:
        fake.names, fake.elsewhere = ("broker-a", "broker-b"), {"broker-b": other.address}
        assert await backend.describe("T") == TopicDescription(8, "", 1000)
        other.judge = lambda command: (16, "no") if command.code == RequestCode.GET_BROKER_CONFIG else None
        assert await backend.describe("T") == TopicDescription(8, "", 4_194_304)


async def test_the_hint_is_the_exact_command(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend]) -> None:
    backend = make_backend(fake.address, "127.0.0.1:2", namespace="INST")
    await backend.describe("missing")
    start = f"mqadmin updateTopic -n '{fake.address};127.0.0.1:2' -c Fakes -t INST%missing -r 8 -w 8"
    assert backend.creation_hint("missing") == f"{start} -a +message.type=NORMAL"
    assert backend.creation_hint("missing", ordered=True) == f"{start} -a +message.type=FIFO"
    # 4.9 knows no types.
    fake.judge = lambda command: (3, "not supported") if command.code == RequestCode.GET_TOPIC_CONFIG else None
    await backend.describe("missing")
    assert backend.creation_hint("missing", ordered=True) == start


async def test_a_topic_is_made_over_all_brokers(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    async with FakeRocketmq() as other:
        fake.names, fake.elsewhere = ("broker-a", "broker-b"), {"broker-b": other.address}
        await backend.create_topic("new", 5, "FIFO")
        assert [(len(server.topics["new"].queues), server.topics["new"].kind) for server in (fake, other)] == [(3, "FIFO"), (2, "FIFO")]
        await backend.create_topic("small", 1)
        assert "small" not in other.topics


@pytest.mark.parametrize(
    ("topic", "queues", "kind", "words"),
    [
        ("", 1, "", "topic: a RocketMQ topic has 1 to 127 characters, this one 0"),
        ("x" * 128, 1, "", "this one 128"),
        ("a/b", 1, "", "`a/b` has characters"),
        ("new", 0, "", "queues"),
        ("new", 1, "fifo", "kind: `fifo`"),
        ("T", 4, "", "exists already"),
    ],
)
async def test_a_topic_that_can_not_be_made(fake: FakeRocketmq, backend: RocketmqBackend, topic: str, queues: int, kind: str, words: str) -> None:
    with pytest.raises(BackendError, match=words) as raised:
        await backend.create_topic(topic, queues, kind)
    assert not raised.value.retryable
    assert fake.seen(RequestCode.UPDATE_AND_CREATE_TOPIC) == []


async def test_nobody_could_have_the_topic(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.names = ()
    with pytest.raises(BackendError, match="know no broker"):
        await backend.create_topic("new", 1)


async def test_compression_is_refused(make_backend: Callable[..., RocketmqBackend]) -> None:
    with pytest.raises(SettingsError, match=r"connections\.main\.compression"):
        make_backend("127.0.0.1:1", compression="zstd")


async def test_starts_are_resolved(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.topics["T"].queues = [[], []]
    fake.topics["T"].first = 10
    for n in range(6):
        fake.put("T", 0, b"%d" % n, stored=1000 + 100 * n)
    assert await backend.resolve("T", "earliest") == {"broker-a:0": 10, "broker-a:1": 10}
    assert await backend.resolve("T", "now") == {"broker-a:0": 16, "broker-a:1": 10}
    assert await backend.resolve("T", 1250) == {"broker-a:0": 13, "broker-a:1": 10}
    assert await backend.resolve("T", {"broker-a:0": 12, "broker-a:9": 3}) == {"broker-a:0": 12, "broker-a:1": 10, "broker-a:9": 3}
    with pytest.raises(BackendError, match="missing"):
        await backend.resolve("missing", 1)


async def test_a_broker_that_answers_with_the_message_before_the_time(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    """As 4.9 does for a time behind the last message."""
    fake.topics["T"].queues = [[]]
    for n in range(3):
        fake.put("T", 0, b"%d" % n, stored=1000 + 100 * n)
    usual = fake.answer

    async def early(request: Command) -> Command:
        if request.code == RequestCode.SEARCH_OFFSET_BY_TIMESTAMP:
            return Command(0, request.opaque, RESPONSE, "", {"offset": "2"})
        return await usual(request)

    fake.answer = early  # type: ignore[method-assign]
    assert await backend.resolve("T", 1250) == {"broker-a:0": 3}
    assert await backend.resolve("T", 1200) == {"broker-a:0": 2}
    fake.judge = lambda command: (16, "no permission") if command.code == RequestCode.PULL_MESSAGE else None
    assert await backend.resolve("T", 1250) == {"broker-a:0": 2}
