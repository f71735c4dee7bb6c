"""What is in the queues comes, in order and once, whatever happens to brokers on the way; and what doesn't come is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from bridges.rocketmq import client as clients
from bridges.rocketmq import source as sources
from bridges.rocketmq.backend import RocketmqBackend
from bridges.rocketmq.codes import RequestCode
from bridges.rocketmq.connection import Connection
from bridges.rocketmq.errors import Refused
from bridges.rocketmq.frames import RESPONSE, Command
from bridges.rocketmq.peers import Peers
from schemas.errors import BackendError
from streams.backend import Incoming
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic, Verdict

PULL = RequestCode.PULL_MESSAGE


def judge(fake: FakeRocketmq, *verdicts: Verdict) -> None:
    """Of pulls, in turn; the usual afterwards."""
    rest = list(verdicts)
    fake.judge = lambda command: rest.pop(0) if command.code == PULL and rest else None


async def take(source: sources.RocketmqSource, count: int, *, errors: bool = False) -> list[Incoming]:
    got: list[Incoming] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            try:
                got += await source.next(100, 1 << 20)
            except BackendError:
                assert errors
    return got


def fill(fake: FakeRocketmq, count: int = 100, topic: str = "T") -> None:
    queues = len(fake.topics[topic].queues)
    for n in range(count):
        fake.put(topic, n % queues, b"%d" % n, ("UNIQ_KEY", f"{n:032X}"), ("TAGS", "even" if n % 2 == 0 else "odd"), ("k", "v"))


def check(got: list[Incoming], count: int = 100, queues: int = 4) -> None:
    assert sorted(int(each.body) for each in got) == list(range(count))
    for queue in range(queues):
        assert [int(each.body) for each in got if each.queue == f"broker-a:{queue}"] == list(range(queue, count, queues))


async def test_all_queues_come_each_in_order(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fill(fake)
    got = await take(backend.source("rule", "T", {}), 100)
    check(got)
    first = next(each for each in got if each.body == b"5")
    assert (first.topic, first.queue, first.offset) == ("T", "broker-a:1", 1)
    assert (first.id, first.tag, first.properties) == (f"{5:032X}", "odd", (("k", "v"),))
    assert [pull.fields["consumerGroup"] for pull in fake.seen(PULL)][0] == "sluiceway_rule"


async def test_an_idle_queue_costs_one_pull(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    source = backend.source("rule", "T", {})
    waiting = asyncio.create_task(take(source, 1))
    async with asyncio.timeout(5):
        while len(fake.seen(PULL)) < 4:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(fake.seen(PULL)) == 4
    assert all(pull.fields["suspendTimeoutMillis"] == "10000" for pull in fake.seen(PULL))
    assert sources.POLL_GRACE > 5  # the broker looks that seldom which pulls it held for long enough
    fake.put("T", 2, b"woken")
    assert [each.body for each in await waiting] == [b"woken"]


async def test_a_queue_has_one_pull_at_a_time_even_while_a_connection_is_made(
    fake: FakeRocketmq, backend: RocketmqBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would be answered in any order, and the later answer could lead back to what came already."""
    connection = Peers.connection

    async def slow(peers: Peers, address: str) -> Connection:
        made = await connection(peers, address)
        await asyncio.sleep(0.05)
        return made

    monkeypatch.setattr(Peers, "connection", slow)
    source = backend.source("rule", "T", {f"broker-a:{queue}": 0 for queue in range(4)})
    for _ in range(30):  # a reader that looks often finds the connection before who has made it goes on
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await source.next(1, 1)
    asked = [pull.fields["queueId"] for pull in fake.seen(PULL)]
    assert sorted(asked) == ["0", "1", "2", "3"]


async def test_a_broker_that_holds_no_pulls_is_not_asked_without_pause(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.judge = lambda command: (19, "nothing") if command.code == PULL else None
    source = backend.source("rule", "T", {})
    with pytest.raises(BackendError, match="nextBeginOffset"):
        await source.next(1, 1)
    assert len(fake.seen(PULL)) <= 8


async def test_a_reader_that_takes_nothing_stops_the_pulls(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.topics["T"].queues = [[]]
    fill(fake, 2000)
    source = backend.source("rule", "T", {})
    got = list(await source.next(10, 1 << 20))
    async with asyncio.timeout(5):
        while len(fake.seen(PULL)) < 8:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(fake.seen(PULL)) <= 10
    check(got + await take(source, 2000 - len(got)), 2000, 1)


@pytest.mark.parametrize("verdict", ["garbage", "cut", (1, "system error"), (2, "busy"), (16, "forbidden"), (14, "not available")])
async def test_a_fault_is_told_and_what_comes_next_is_what_was_next(fake: FakeRocketmq, backend: RocketmqBackend, verdict: Verdict) -> None:
    fill(fake)
    judge(fake, None, None, verdict, verdict, None, verdict)
    source = backend.source("rule", "T", {})
    check(await take(source, 100, errors=True))
    assert source.skipped == 0


@pytest.mark.parametrize("verdict", ["silent", "lost", "stranger"])
async def test_a_pull_that_is_never_answered_is_made_again(
    fake: FakeRocketmq, backend: RocketmqBackend, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "POLL_FOR", 0.1)
    monkeypatch.setattr(sources, "POLL_GRACE", 0.1)
    fill(fake)
    judge(fake, verdict)
    check(await take(backend.source("rule", "T", {}), 100, errors=True))


async def test_a_broker_that_went_away_is_told_once_each_try(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fill(fake, 40)
    source = backend.source("rule", "T", {})
    got = await take(source, 40)
    await fake.stop()
    for _ in range(2):
        with pytest.raises(BackendError) as raised:
            async with asyncio.timeout(5):
                await source.next(1, 1)
        assert raised.value.retryable
    assert backend.trouble
    await fake.start()
    for n in range(40, 100):
        fake.put("T", n % 4, b"%d" % n)
    check(got + await take(source, 60, errors=True))
    assert backend.trouble == ""


async def test_what_was_removed_is_counted(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.topics["T"].queues = [[]]
    fill(fake, 20)
    fake.topics["T"].first = 100
    source = backend.source("rule", "T", {"broker-a:0": 90})
    got = await take(source, 20)
    assert [each.offset for each in got] == list(range(100, 120))
    assert source.skipped == 10


async def test_a_queue_that_was_made_anew_is_read_from_its_first(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.topics["T"].queues = [[]]
    fill(fake, 5)
    source = backend.source("rule", "T", {"broker-a:0": 1000})
    assert [each.offset for each in await take(source, 5)] == [0, 1, 2, 3, 4]
    assert source.skipped == 0


async def test_an_operator_resets_the_group(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    """The broker then says the same words, with an offset before the one that was asked for."""
    fake.topics["T"].queues = [[]]
    fill(fake, 10)
    source = backend.source("rule", "T", {"broker-a:0": 8})
    usual = fake.answer

    async def reset(request: Command) -> Command:
        if request.code != PULL:
            return await usual(request)
        fake.answer = usual  # type: ignore[method-assign]
        return Command(21, request.opaque, RESPONSE, "", {"nextBeginOffset": "3", "minOffset": "0", "maxOffset": "10"})

    fake.answer = reset  # type: ignore[method-assign]
    assert [each.offset for each in await take(source, 7)] == list(range(3, 10))
    assert source.skipped == 0


async def test_a_group_that_the_broker_wants_made_is_made(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.groups = {"other": True}
    fill(fake)
    check(await take(backend.source("rule", "T", {}), 100))
    assert "sluiceway_rule" in fake.groups


async def test_a_group_that_may_not_be_made_is_told(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.groups = {"other": True}
    fake.judge = lambda command: (16, "no right") if command.code == RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP else None
    with pytest.raises(Refused, match="no right"):
        await backend.source("rule", "T", {}).next(1, 1)


async def test_tags_are_compared_whole(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    """The fake filters nothing, as a broker doesn't where the hashes of two tags are one."""
    fill(fake, 40)
    fake.put("T", 0, b"untagged")
    source = backend.source("rule", "T", {}, tags="odd || third")
    got = await take(source, 20)
    assert {each.tag for each in got} == {"odd"}
    assert {pull.fields["subscription"] for pull in fake.seen(PULL)} == {"odd || third"}


async def test_an_expression_is_checked_before_anything_is_pulled(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fill(fake)
    fake.judge = lambda command: (23, "a parse\n  error") if command.code == RequestCode.CHECK_CLIENT_CONFIG else None
    source = backend.source("rule", "T", {}, sql="a = = 1")
    for _ in range(2):
        with pytest.raises(BackendError, match="a parse error") as raised:
            await source.next(1, 1)
        assert not raised.value.retryable
    assert fake.seen(PULL) == []


async def test_an_expression_that_is_fine_filters_at_the_broker(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fill(fake)
    fake.judge = lambda command: (0, "") if command.code == RequestCode.CHECK_CLIENT_CONFIG else None
    await take(backend.source("rule", "T", {}, sql="k = 'v'"), 100)
    assert {(pull.fields["subscription"], pull.fields["expressionType"]) for pull in fake.seen(PULL)} == {("k = 'v'", "SQL92")}


async def test_new_queues_are_found(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FIND_EVERY", 0.05)
    monkeypatch.setattr(clients, "REFRESH_EVERY", 0.05)
    source = make_backend(fake.address).source("rule", "T", {})
    fill(fake, 4)
    assert len(await take(source, 4)) == 4
    fake.topics["T"].queues.append([])
    fake.put("T", 4, b"in the new one")
    assert [each.queue for each in await take(source, 1)] == ["broker-a:4"]
    fake.topics["T"].queues.pop()
    fake.put("T", 0, b"still")
    assert [each.body for each in await take(source, 1, errors=True)] == [b"still"]


async def test_positions_are_told_to_the_broker(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fill(fake, 8)
    source = backend.source("rule", "T", {})
    await take(source, 8)
    await source.commit({"broker-a:0": 2, "broker-a:3": 1, "broker-z:0": 5, "nonsense": 1})
    assert fake.committed == {("sluiceway_rule", "T", 0): 2, ("sluiceway_rule", "T", 3): 1}
    fake.judge = lambda command: (1, "no") if command.code == RequestCode.UPDATE_CONSUMER_OFFSET else None
    await source.commit({"broker-a:0": 3})


async def test_the_group_is_told_and_taken_back(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fill(fake, 8)
    source = backend.source("rule", "T", {}, tags="even")
    await take(source, 4)
    (consumer,) = fake.heartbeats[-1]["consumerDataSet"]  # type: ignore[misc, attr-defined]
    assert consumer["groupName"] == "sluiceway_rule"
    assert consumer["subscriptionDataSet"][0]["tagsSet"] == ["even"]
    await source.close()
    await source.close()
    await backend.describe("T")
    assert [c.fields["consumerGroup"] for c in fake.seen(RequestCode.UNREGISTER_CLIENT)] == ["sluiceway_rule"]
    with pytest.raises(BackendError, match="closed"):
        await source.next(1, 1)


async def test_names_with_a_namespace(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend]) -> None:
    fake.topics["INST%T"] = FakeTopic([[]])
    fake.put("INST%T", 0, b"0")
    (got,) = await take(make_backend(fake.address, namespace="INST").source("rule", "T", {}), 1)
    assert got.topic == "T"
    assert {(pull.fields["topic"], pull.fields["consumerGroup"]) for pull in fake.seen(PULL)} == {("INST%T", "INST%sluiceway_rule")}
