"""What is sent arrives, or is rejected with a reason, or the caller is told that it doesn't know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridges.rocketmq import client as clients
from bridges.rocketmq.backend import RocketmqBackend
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.errors import Refused, Unreachable
from bridges.rocketmq.frames import Command
from schemas.errors import BackendError
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic, Verdict
from tests.unit.bridges.rocketmq.conftest import message

SEND = RequestCode.SEND_BATCH_MESSAGE


def judge(fake: FakeRocketmq, *verdicts: Verdict) -> None:
    """Of sends, in turn; the usual afterwards."""
    rest = list(verdicts)
    fake.judge = lambda command: rest.pop(0) if command.code == SEND and rest else None


def refuse_poison(fake: FakeRocketmq) -> None:
    def judged(command: Command) -> Verdict:
        return (ResponseCode.MESSAGE_ILLEGAL, "illegal") if command.code == SEND and b"poison" in command.body else None

    fake.judge = judged


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 0.1)


async def test_a_call_makes_few_batches_and_each_tells_who_sends_where(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    target = backend.target("rule", ordered=False)
    assert await target.send([message(b"%d" % n, n) for n in range(600)]) == []
    sends = fake.seen(SEND)
    assert sorted(command.body.count(b"UNIQ_KEY") for command in sends) == [88, 256, 256]
    assert {(c.fields["a"], c.fields["b"], c.fields["m"], c.fields["g"]) for c in sends} == {("sluiceway_rule", "T", "true", "1000")}
    assert len({c.fields["e"] for c in sends}) == 3
    # A broker that makes topics by itself must find nothing to model them after.
    assert {c.fields["c"] for c in sends}.isdisjoint({"TBW102", ""})
    assert sorted(fake.bodies("T"), key=int) == [b"%d" % n for n in range(600)]


async def test_a_lane_has_one_queue_and_its_order_over_calls(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    target = backend.target("rule", ordered=True)
    for start in (0, 500):
        await target.send([message(b"%d" % n, n, lane=f"client {n % 7}") for n in range(start, start + 500)])
    homes: dict[int, set[int]] = {}
    for queue in range(4):
        bodies = [int(body) for body in fake.bodies("T", queue)]
        for lane in range(7):
            assert [n for n in bodies if n % 7 == lane] == sorted(n for n in bodies if n % 7 == lane)
        for n in bodies:
            homes.setdefault(n % 7, set()).add(queue)
    assert all(len(queues) == 1 for queues in homes.values())
    assert len(fake.bodies("T")) == 1000


async def test_one_queue_has_one_batch_in_flight_and_others_go_beside_it(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    target = backend.target("rule", ordered=True)
    await target.send([message(lane="a"), message(lane="f"), message(lane="c"), message(lane="d")])
    fake.requests.clear()
    under_way: dict[str, int] = {}
    most: list[int] = []

    def judged(command: Command) -> Verdict:
        if command.code != SEND:
            return None
        queue = command.fields["e"]
        under_way[queue] = under_way.get(queue, 0) + 1
        assert under_way[queue] == 1
        most.append(len(under_way))
        asyncio.get_running_loop().call_later(0.02, under_way.pop, queue)
        return 0.03

    fake.judge = judged
    await target.send([message(b"%d" % n, n, lane=f"lane {n % 40}") for n in range(2400)])
    assert max(most) > 1
    assert len(fake.seen(SEND)) > 8


@pytest.mark.parametrize("place", [0, 1, 15, 30, 31])
@pytest.mark.parametrize("lane", [None, "lane"])
async def test_the_culprit_stands_alone_and_the_others_arrive_in_order(
    fake: FakeRocketmq, backend: RocketmqBackend, place: int, lane: str | None
) -> None:
    refuse_poison(fake)
    target = backend.target("rule", ordered=True)
    (rejected,) = await target.send([message(b"poison" if n == place else b"%d" % n, n, lane=lane) for n in range(32)])
    assert (rejected.index, rejected.reason) == (place, "illegal")
    assert fake.bodies("T") == [b"%d" % n for n in range(32) if n != place]


async def test_all_may_be_culprits(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    refuse_poison(fake)
    rejected = await backend.target("rule", ordered=True).send([message(b"poison %d" % n, n, lane=str(n)) for n in range(9)])
    assert [each.index for each in rejected] == list(range(9))
    assert fake.bodies("T") == []


async def test_a_broker_that_throws_for_a_large_batch_refuses_it_as_such(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.settings["maxMessageSize"] = "1000"
    judge(fake, (ResponseCode.SYSTEM_ERROR, "RuntimeException: message body size exceeded"))
    (rejected,) = await backend.target("rule", ordered=True).send([message(bytes(2000), lane="l")])
    assert "maxMessageSize of 1000" in rejected.reason


async def test_batches_of_lanes_are_cut_for_brokers_that_take_less(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    fake.settings["maxMessageSize"] = "1000"
    await backend.target("rule", ordered=True).send([message(bytes(300), n, lane="l") for n in range(6)])
    assert [len(command.body) <= 1000 for command in fake.seen(SEND)] == [True] * 3


async def test_what_no_broker_could_take_is_rejected_and_never_sent(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    bad = [message(properties=(("a\x01b", "c"),)), message(properties=(("WAIT", "false"),)), message(topic="no topic"), message(topic="")]
    rejected = await backend.target("rule", ordered=False).send([message(b"fine"), *bad])
    assert [each.index for each in rejected] == [1, 2, 3, 4]
    assert fake.bodies("T") == [b"fine"]
    assert all(each.reason for each in rejected)


@pytest.mark.parametrize("code", [10, 11, 12])
@pytest.mark.parametrize("durability", ["checked", "as configured"])
async def test_stored_but_not_safely_is_not_sent(
    fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend], code: int, durability: str
) -> None:
    backend = make_backend(fake.address, durability=durability)
    judge(fake, (code, ""))
    with pytest.raises(Refused, match="in time|no replica") as raised:
        await backend.target("rule", ordered=True).send([message(lane="l")])
    assert raised.value.retryable


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flushDiskType": "ASYNC_FLUSH", "brokerRole": "ASYNC_MASTER"}, "flushDiskType is ASYNC_FLUSH"),
        ({"flushDiskType": "ASYNC_FLUSH", "brokerRole": "SYNC_MASTER", "inSyncReplicas": "1"}, "no replica is waited for"),
        ({}, "not told"),
    ],
)
async def test_a_broker_that_may_lose_messages_is_refused(
    fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend], settings: dict[str, str], words: str
) -> None:
    fake.settings = settings
    strict = make_backend(fake.address, durability="checked")
    for lane in ("l", None):
        with pytest.raises(BackendError, match=words) as raised:
            await strict.target("rule", ordered=True).send([message(lane=lane)])
        assert "connections.main.durability" in str(raised.value)
    assert fake.seen(SEND) == []
    assert await make_backend(fake.address, durability="as configured").target("rule", ordered=True).send([message(lane="l")]) == []


async def test_a_broker_that_does_not_tell_its_settings_is_refused_too(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend]) -> None:
    fake.judge = lambda command: (16, "no permission") if command.code == RequestCode.GET_BROKER_CONFIG else None
    with pytest.raises(BackendError, match="can't be read"):
        await make_backend(fake.address, durability="checked").target("rule", ordered=True).send([message(lane="l")])
    assert await make_backend(fake.address).target("rule", ordered=True).send([message(lane="l")]) == []


async def test_settings_are_read_again_on_a_new_connection(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend]) -> None:
    target = make_backend(fake.address, durability="checked").target("rule", ordered=True)
    assert await target.send([message(lane="l")]) == []
    fake.settings = {"flushDiskType": "ASYNC_FLUSH"}
    assert await target.send([message(lane="l")]) == []
    await fake.stop()
    await fake.start()
    with pytest.raises(BackendError, match="ASYNC_FLUSH"):
        await _until_reached(target.send, [message(lane="l")])


async def _until_reached(send: Callable[..., object], messages: object) -> None:
    """A connection that was lost is told of once, at most."""
    for _ in range(100):
        try:
            await send(messages)  # type: ignore[misc]
        except Unreachable:
            await asyncio.sleep(0.02)
        else:
            return


async def test_an_answer_that_is_lost_leaves_the_caller_to_send_again(fake: FakeRocketmq, backend: RocketmqBackend, quick: None) -> None:
    target = backend.target("rule", ordered=True)
    await target.send([message(b"0", lane="l")])
    judge(fake, "lost")
    with pytest.raises(Unreachable, match="did not answer"):
        await target.send([message(b"1", lane="l"), message(b"2", lane="l")])
    await _until_reached(target.send, [message(b"1", lane="l"), message(b"2", lane="l")])
    assert fake.bodies("T") == [b"0", b"1", b"2", b"1", b"2"]


@pytest.mark.parametrize("verdict", ["garbage", "cut", "stranger", "silent", (2, "busy"), (1, "system error"), (14, "disk full")])
async def test_every_fault_is_a_backend_error_that_passes(fake: FakeRocketmq, backend: RocketmqBackend, quick: None, verdict: Verdict) -> None:
    target = backend.target("rule", ordered=True)
    await target.send([message(b"0", lane="l")])
    judge(fake, verdict)
    with pytest.raises(BackendError) as raised:
        await target.send([message(b"1", lane="l")])
    assert raised.value.retryable
    await _until_reached(target.send, [message(b"1", lane="l")])
    assert fake.bodies("T")[-1] == b"1"
    assert backend.trouble == ""


async def test_nothing_is_in_flight_when_a_call_has_failed(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    target = backend.target("rule", ordered=True)
    finished: list[str] = []

    def judged(command: Command) -> Verdict:
        if command.code != SEND:
            return None
        if b"first" in command.body:
            return (2, "busy")
        asyncio.get_running_loop().call_later(0.05, finished.append, command.fields["e"])
        return 0.1

    fake.judge = judged
    with pytest.raises(Refused, match="busy"):
        await target.send([message(b"first", lane="a"), *(message(b"other", lane=f"lane {n}") for n in range(20))])
    assert len(finished) >= 2
    assert len(finished) == len(fake.seen(SEND)) - 1


async def test_messages_without_a_lane_go_to_another_broker(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    async with FakeRocketmq(topics={"T": FakeTopic([[], [], [], []])}) as other:
        fake.names, fake.elsewhere = ("broker-a", "broker-b"), {"broker-b": other.address}
        target = backend.target("rule", ordered=False)
        for n in range(8):
            assert await target.send([message(b"%d" % n, n)]) == []
        assert fake.bodies("T")
        assert other.bodies("T")
        await other.stop()
        for n in range(8, 24):
            assert await target.send([message(b"%d" % n, n)]) == []
        assert "can't be reached" in backend.trouble or "closed by the peer" in backend.trouble
        assert sorted({int(body) for body in fake.bodies("T") + other.bodies("T")}) == list(range(24))
        await other.start()


async def test_a_broker_that_is_busy_or_silent_is_the_last_choice_for_a_while(fake: FakeRocketmq, backend: RocketmqBackend, quick: None) -> None:
    async with FakeRocketmq(topics={"T": FakeTopic([[], [], [], []])}, judge=lambda c: "silent" if c.code == SEND else None) as other:
        fake.names, fake.elsewhere = ("broker-a", "broker-b"), {"broker-b": other.address}
        target = backend.target("rule", ordered=False)
        for n in range(16):
            assert await target.send([message(b"%d" % n, n)]) == []
        assert len(other.seen(SEND)) == 1
        assert len(fake.bodies("T")) == 16


async def test_a_lane_waits_for_its_broker_and_never_goes_elsewhere(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    async with FakeRocketmq(topics={"T": FakeTopic([[], [], [], []])}, judge=lambda c: (2, "busy") if c.code == SEND else None) as other:
        fake.names, fake.elsewhere = ("broker-a", "broker-b"), {"broker-b": other.address}
        target = backend.target("rule", ordered=True)
        outcomes = set()
        for n in range(20):
            try:
                await target.send([message(b"%d" % n, n, lane=f"lane {n}")])
            except Refused:
                outcomes.add("busy")
            else:
                outcomes.add("stored")
        assert outcomes == {"busy", "stored"}
        assert len(fake.bodies("T")) + len(other.seen(SEND)) == 20


async def test_a_topic_that_is_missing_is_named(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    with pytest.raises(BackendError, match="topic `missing` does not exist"):
        await backend.target("rule", ordered=False).send([message(topic="missing")])


async def test_a_route_that_was_wrong_is_asked_for_again(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    target = backend.target("rule", ordered=True)
    await target.send([message(lane="l")])
    fake.topics["T"].queues = [[]]
    with pytest.raises(Refused, match="illegal"):
        for n in range(10):
            await target.send([message(lane=f"lane {n}")])
    for n in range(10):
        assert await target.send([message(lane=f"lane {n}")]) == []


async def test_groups_are_told_to_brokers_and_taken_back(fake: FakeRocketmq, backend: RocketmqBackend) -> None:
    target, second = backend.target("rule", ordered=True), backend.target("rule", ordered=True)
    await target.send([message(lane="l")])
    assert fake.heartbeats[-1]["producerDataSet"] == [{"groupName": "sluiceway_rule"}]
    await second.close()
    await target.send([message(lane="l")])
    assert fake.seen(RequestCode.UNREGISTER_CLIENT) == []
    await target.close()
    await target.close()
    await backend.describe("T")
    assert [c.fields["producerGroup"] for c in fake.seen(RequestCode.UNREGISTER_CLIENT)] == ["sluiceway_rule"]
    with pytest.raises(BackendError, match="closed"):
        await target.send([message(lane="l")])
