"""What a start finds wrong with topics and brokers, and the words and commands that it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.frames import Command
from bridges.rocketmq.log import open_rocketmq_log
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.log_topics import check_queues, create_command, shares
from bridges.rocketmq.routes import Queue, Route
from schemas.connections import ConnectionSettings
from schemas.errors import StartError
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic


@pytest.fixture
async def server() -> AsyncIterator[FakeRocketmq]:
    async with FakeRocketmq() as server:
        yield server


async def refusal(server: FakeRocketmq, **options: Any) -> str:
    """Why a start is refused."""
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(server.address,), namespace=options.pop("namespace", ""))
    with pytest.raises(StartError) as refused:
        await open_rocketmq_log(settings, node="n", epoch=1, options=RocketmqLogOptions(**{"shards": 2, **options}))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_shards_are_all_queues_by_broker_and_number() -> None:
    queues = (Queue("a", 0), Queue("a", 1), Queue("b", 0))
    assert check_queues("T", Route(queues, queues), 3) == queues
    with pytest.raises(StartError, match=r"topic T has 3 queues \(brokers: a, b\) and log.shards says 6: start the brokers that are away"):
        check_queues("T", Route(queues, queues), 6)
    with pytest.raises(StartError, match="permission 6"):
        check_queues("T", Route(queues, queues[:2]), 3)


def test_queues_of_a_new_topic_are_spread_over_the_brokers() -> None:
    masters = {"b": "2:2", "a": "1:1", "c": "3:3"}
    assert shares(masters, 7) == {"1:1": 3, "2:2": 2, "3:3": 2}
    assert shares(masters, 2) == {"1:1": 1, "2:2": 1}
    assert create_command("'x;y'", "T", shares(masters, 2)) == (
        "mqadmin updateTopic -n 'x;y' -b 1:1 -t T -r 1 -w 1 && mqadmin updateTopic -n 'x;y' -b 2:2 -t T -r 1 -w 1"
    )


async def test_who_may_not_create_topics_is_told_the_command(server: FakeRocketmq) -> None:
    server.judge = lambda command: (ResponseCode.NO_PERMISSION, "no") if command.code == RequestCode.UPDATE_AND_CREATE_TOPIC else None
    said = await refusal(server, namespace="space")
    at = server.address
    assert said.endswith(f"have it created: mqadmin updateTopic -n {at} -b {at} -t space%sluiceway-publish -r 2 -w 2")


async def test_who_may_not_make_the_group_is_told_the_command(server: FakeRocketmq) -> None:
    server.groups = {"other": True}
    server.judge = lambda command: (ResponseCode.NO_PERMISSION, "no") if command.code == RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP else None
    said = await refusal(server)
    assert said.endswith(f"have it created: mqadmin updateSubGroup -n {server.address} -b {server.address} -g sluiceway-log")


async def test_who_may_not_read_is_told_so(server: FakeRocketmq) -> None:
    server.judge = lambda command: (ResponseCode.NO_PERMISSION, "no") if command.code == RequestCode.PULL_MESSAGE else None
    assert "may not read topic sluiceway-publish" in await refusal(server)


async def test_another_number_of_queues_is_refused(server: FakeRocketmq) -> None:
    server.topics["sluiceway-publish"] = FakeTopic([[], [], []])
    assert "topic sluiceway-publish has 3 queues (brokers: broker-a) and log.shards says 2" in await refusal(server)


async def test_a_compacted_topic_is_refused(server: FakeRocketmq) -> None:
    server.attributes = {"cleanup.policy": "COMPACTION"}
    assert "topic sluiceway-publish is compacted" in await refusal(server)


async def test_a_prefix_that_names_no_topic_is_refused(server: FakeRocketmq) -> None:
    assert "log.prefix: topic: `a.b-publish` has characters" in await refusal(server, prefix="a.b-")


async def test_a_broker_that_could_lose_what_it_acknowledged(server: FakeRocketmq) -> None:
    server.settings |= {"flushDiskType": "ASYNC_FLUSH", "brokerRole": "ASYNC_MASTER"}
    said = await refusal(server)
    assert f"{server.address} may lose what it acknowledged: flushDiskType is ASYNC_FLUSH and brokerRole ASYNC_MASTER" in said
    assert said.endswith('log.durability = "as configured"')
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(server.address,))
    log = await open_rocketmq_log(settings, node="n", epoch=1, options=RocketmqLogOptions(shards=2, checked=False))
    assert len(log.weaknesses) == 1
    await log.close()


async def test_a_broker_whose_settings_may_not_be_read_is_not_believed(server: FakeRocketmq) -> None:
    server.judge = lambda command: (ResponseCode.NO_PERMISSION, "no") if command.code == RequestCode.GET_BROKER_CONFIG else None
    said = await refusal(server)
    assert "its settings can't be read" in said
    assert "allow this principal to read them" in said


async def test_messages_that_are_too_small_for_a_packet_are_refused(server: FakeRocketmq) -> None:
    server.settings["maxMessageSize"] = "1048576"
    assert "set maxMessageSize=2097152 at each broker, or lower limits.packet" in await refusal(server)
    server.settings["maxMessageSize"] = str(64 << 20)
    assert "limits.packet = 16777216 is more than RocketMQ carries: lower it to 14680064" in await refusal(server, packet=16 << 20)


async def test_brokers_that_forget_sooner_than_asked_are_named(server: FakeRocketmq, caplog: pytest.LogCaptureFixture) -> None:
    server.settings["fileReservedTime"] = "12"
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(server.address,))
    log = await open_rocketmq_log(settings, node="n", epoch=1, options=RocketmqLogOptions(shards=2))
    await log.close()
    assert f"log.retention_shorter broker={server.address} fileReservedTime=12" in caplog.text


async def test_a_broker_that_does_not_answer_is_named(server: FakeRocketmq) -> None:
    server.judge = lambda command: "silent"
    said = await refusal(server, answer_within=0.1)
    assert f"the log's RocketMQ at {server.address} does not answer within 0.1 s" in said
    await server.stop()
    said = await refusal(server)
    assert f"the log's RocketMQ at {server.address} can't be used: no name server answers" in said
    await server.start()


async def test_a_topic_that_another_node_is_making_is_waited_for(server: FakeRocketmq) -> None:
    """It asks one broker after the other."""
    server.topics["sluiceway-publish"] = FakeTopic([[]])

    def judge(command: Command) -> None:
        if len(server.seen(RequestCode.GET_ROUTEINFO_BY_TOPIC)) == 3:
            server.topics["sluiceway-publish"] = FakeTopic([[], []])

    server.judge = judge
    settings = ConnectionSettings(name="main", kind="rocketmq", address=(server.address,))
    log = await open_rocketmq_log(settings, node="n", epoch=1, options=RocketmqLogOptions(shards=2))
    await log.close()
    assert not [made for made in server.seen(RequestCode.UPDATE_AND_CREATE_TOPIC) if made.fields["topic"] == "sluiceway-publish"]
