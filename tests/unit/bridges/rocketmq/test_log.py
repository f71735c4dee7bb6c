"""The log over a fake broker, for what real ones don't show on demand: answers that leave open what was stored, retention, a broker that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from bridges.rocketmq import log_reader
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.frames import Command
from bridges.rocketmq.log import RocketmqLog, open_rocketmq_log
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.log_reader import HELD_MARKS, RocketmqReader
from schemas.connections import ConnectionSettings
from schemas.errors import LogDamaged, LogError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, FrameError, decode_frame, encode_frame
from tests.contract.log_traffic import BIG, Told, fill, numbers, record, take
from tests.support.fake_rocketmq import FakeRocketmq, Verdict

TOPIC = "sluiceway-publish"
SEND = RequestCode.SEND_MESSAGE_V2
Open = Callable[..., Awaitable[RocketmqLog]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("log", "log_reader"):
        monkeypatch.setattr(f"bridges.rocketmq.{module}.LISTED_WITHIN", 0.001)
    monkeypatch.setattr("bridges.rocketmq.peers.PAUSE_FIRST", 0.01)


@pytest.fixture
async def server() -> AsyncIterator[FakeRocketmq]:
    async with FakeRocketmq() as server:
        yield server


@pytest.fixture
async def opened(server: FakeRocketmq) -> AsyncIterator[Open]:
    logs: list[RocketmqLog] = []

    async def open_log(**options: Any) -> RocketmqLog:
        settings = ConnectionSettings(name="main", kind="rocketmq", address=(server.address,))
        defaults: dict[str, Any] = {"shards": 1, "backoff": 0.005, "longest_backoff": 0.01, "close_within": 0.1}
        log = await open_rocketmq_log(settings, node="n", epoch=7, options=RocketmqLogOptions(**{**defaults, **options}))
        logs.append(log)
        return log

    yield open_log
    for log in logs:
        await log.close()


def frames(server: FakeRocketmq, queue: int = 0) -> list[int]:
    """The numbers of the frames that are stored."""
    return [decode_frame(body).sequence for body in server.bodies(TOPIC, queue)]


def store_and_refuse(server: FakeRocketmq, code: ResponseCode, left: int) -> None:
    """The next so many sends."""

    def judge(command: Command) -> Verdict:
        nonlocal left
        if command.code != SEND or not left:
            return None
        left -= 1
        server.store(command)
        return code, ""

    server.judge = judge


@pytest.mark.parametrize("code", [ResponseCode.FLUSH_DISK_TIMEOUT, ResponseCode.FLUSH_SLAVE_TIMEOUT, ResponseCode.SLAVE_NOT_AVAILABLE])
async def test_only_send_ok_is_an_acknowledgement(server: FakeRocketmq, opened: Open, code: ResponseCode) -> None:
    """Stored and not safe: sent again, the same frame to the same queue, and read once."""
    log = await opened()
    store_and_refuse(server, code, 3)
    reader = log.open(PUBLISH_TOPIC, "earliest")
    told, _ = await fill(log, range(4), keys=["k"])
    assert told.order["k"] == [0, 1, 2, 3]
    assert frames(server)[:4] == [1, 1, 1, 1]
    assert log.sender.repeats == 3
    _, more = await fill(log, range(4, 6), keys=["k"])
    assert numbers(await take(reader, 6), "k") == [0, 1, 2, 3, 4, 5]
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 6), "k") == [0, 1, 2, 3, 4, 5]
    assert len(more) == 2


async def test_an_answer_that_is_lost_leaves_one_record(server: FakeRocketmq, opened: Open) -> None:
    verdicts: list[Verdict] = ["lost", "cut", None]
    log = await opened(deliver_within=0.05)
    server.judge = lambda command: verdicts.pop(0) if command.code == SEND and verdicts else None
    told, _ = await fill(log, range(2), keys=["k"])
    assert frames(server)[:3] == [1, 1, 1]
    assert told.order["k"] == [0, 1]
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 2), "k") == [0, 1]


async def test_a_frame_is_handed_out_once_it_is_acknowledged(server: FakeRocketmq, opened: Open) -> None:
    """The broker shows it before: what a power cut could take back is not delivered."""
    log = await opened()
    answer = asyncio.Event()
    reader = log.open(PUBLISH_TOPIC, "earliest")

    def judge(command: Command) -> Verdict:
        if command.code != SEND or answer.is_set():
            return None
        server.store(command)
        server.wake()
        return ResponseCode.FLUSH_DISK_TIMEOUT, ""

    server.judge = judge
    told = Told()
    told.append(log, record(1))
    waiting = asyncio.ensure_future(reader.next(1, BIG))
    async with asyncio.timeout(5):
        while len(server.bodies(TOPIC)) < 3:
            await asyncio.sleep(0.01)
    assert not waiting.done()
    answer.set()
    assert (await waiting).records[0].packet_id == 1
    await told.wait(1)


async def test_what_the_broker_calls_too_large_goes_in_halves(server: FakeRocketmq, opened: Open) -> None:
    log = await opened()

    def judge(command: Command) -> Verdict:
        if command.code != SEND or len(command.body) < 500:
            return None
        return (ResponseCode.SYSTEM_ERROR, "message body size exceeded") if len(command.body) % 2 else (ResponseCode.MESSAGE_ILLEGAL, "")

    server.judge = judge
    told = Told()
    for number in range(20):
        told.append(log, record(number, size=1000 if number == 7 else 20))
    await told.wait(20)
    assert told.order["k"] != []
    assert list(told.refusals) == [(7).to_bytes(16, "big")]
    assert "raise maxMessageSize of the brokers of topic sluiceway-publish" in str(next(iter(told.refusals.values())))


async def test_a_broker_that_comes_back_weaker_acknowledges_nothing(server: FakeRocketmq, opened: Open) -> None:
    log = await opened(refuse_after=0.05)
    await fill(log, range(2), keys=["k"])
    server.settings["flushDiskType"] = "ASYNC_FLUSH"
    server.cut()
    told = Told()
    told.append(log, record(2))
    async with asyncio.timeout(5):
        while 'or set log.durability = "as configured"' not in log.sender.trouble(TOPIC, 0):  # before that it says that the connection is cut
            await asyncio.sleep(0.01)
        number = 2
        while not told.refusals:
            number += 1
            told.append(log, record(number))
            await asyncio.sleep(0.05)
    assert not told.at
    assert "RocketMQ has not answered for 0.05 s: 127.0.0.1" in str(next(iter(told.refusals.values())))
    server.settings["flushDiskType"] = "SYNC_FLUSH"
    server.cut()
    async with asyncio.timeout(5):
        while not told.at:
            await asyncio.sleep(0.01)


async def test_what_retention_took_is_passed_over_and_said(server: FakeRocketmq, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    log = await opened(group_records=1)
    await fill(log, range(6), keys=["k"])
    topic = server.topics[TOPIC]
    topic.first, topic.queues[0] = 4, topic.queues[0][4:]
    reader = log.open(PUBLISH_TOPIC, {0: At(0, 1, 0)})
    assert numbers(await take(reader, 2), "k") == [4, 5]
    assert "log.reader_starts topic=sluiceway-publish shard=0 first=4 asked=1" in caplog.text
    # Also where the reader waits at the end meanwhile
    for number in range(6, 9):
        server.put(TOPIC, 0, encode_frame("other", 1, number, [record(number)]))
    topic.first, topic.queues[0] = 8, topic.queues[0][4:]
    assert numbers(await take(reader, 1), "k") == [8]
    assert "first=8 asked=6" in caplog.text


async def test_a_hole_in_what_a_broker_shows_is_said(
    server: FakeRocketmq, opened: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes over files that it removed meanwhile."""
    shown = log_reader.decode_stored
    monkeypatch.setattr(log_reader, "decode_stored", lambda body: [each for each in shown(body) if each.offset != 1])
    log = await opened(group_records=1)
    await fill(log, range(3), keys=["k"])
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 2), "k") == [0, 2]
    assert "log.reader_starts topic=sluiceway-publish shard=0 first=2 asked=1" in caplog.text


async def test_a_position_behind_what_the_broker_has_ends_the_reader(server: FakeRocketmq, opened: Open) -> None:
    log = await opened()
    await fill(log, range(3), keys=["k"])
    del server.topics[TOPIC].queues[0][:]
    with pytest.raises(LogDamaged, match="ends at record 0:0 of shard 0 .* a position says 1:0"):
        await log.open(PUBLISH_TOPIC, {0: At(0, 1, 0)}).next(1, 1)


async def test_what_others_write_into_the_topic_stops_the_reader(server: FakeRocketmq, opened: Open) -> None:
    log = await opened()
    server.put(TOPIC, 0, b"hello")
    with pytest.raises(FrameError, match="publish shard 0 offset 0: .* not a frame"):
        await log.open(PUBLISH_TOPIC, "earliest").next(1, 1)


async def test_frames_that_come_again_are_passed_over_by_readers_old_and_new(server: FakeRocketmq, opened: Open) -> None:
    """Also late, behind what was sent after them; also where a reader begins between a frame and its repeat."""
    log = await opened()
    for sequence, first in ((1, 0), (2, 2), (1, 0), (2, 2), (3, 4), (2, 2), (4, 6)):
        server.put(TOPIC, 0, encode_frame("other", 1, sequence, [record(first), record(first + 1)]))
    server.put(TOPIC, 0, encode_frame("other", 0, 9, [record(90)]))
    server.put(TOPIC, 0, encode_frame("another", 1, 1, [record(8)]))
    for start, wanted in ((None, 0), (2, 4), (3, 4), (5, 6)):
        reader = log.open(PUBLISH_TOPIC, "earliest" if start is None else {0: At(0, start, 0)})
        assert numbers(await take(reader, 9 - wanted), "k") == list(range(wanted, 9))


async def test_a_time_looks_back_for_clocks_that_are_ahead(server: FakeRocketmq, opened: Open) -> None:
    """The broker finds by the time at which it stored a frame."""
    log = await opened(clocks_apart=1.0)
    for sequence, (made, stored) in enumerate(((1500, 900), (1600, 1200), (2400, 1700), (2100, 2500), (2600, 2600))):
        server.put(TOPIC, 0, encode_frame("other", 1, sequence, [record(made - 1000)]), stored=stored)
    await log.ends(PUBLISH_TOPIC)
    got = await take(log.open(PUBLISH_TOPIC, 2200), 3)
    assert numbers(got, "k") == [1400, 1100, 1600], "from the first that is not older"


async def test_a_broker_that_is_away_holds_up_its_own_shards_and_moves_none(server: FakeRocketmq, opened: Open) -> None:
    """Shards are the queues of all brokers, by name and number."""
    async with FakeRocketmq() as second:
        server.names, server.elsewhere = ("broker-b", "broker-a"), {"broker-a": second.address}
        log = await opened(shards=4)
        assert [len(each.topics[TOPIC].queues) for each in (second, server)] == [2, 2]
        keys = [f"key-{number}" for number in range(9)]
        told, _ = await fill(log, range(9), keys=keys)
        homes = {key: told.at[number.to_bytes(16, "big")].shard for number, key in enumerate(keys)}
        assert set(homes.values()) == {0, 1, 2, 3}
        await second.stop()
        more = Told()
        for number in range(9, 18):
            more.append(log, record(number, keys[number - 9]))
        await more.wait(sum(home >= 2 for home in homes.values()))
        await asyncio.sleep(0.05)
        assert {at.shard for at in more.at.values()} == {2, 3}
        await second.start()
        await more.wait(9)
        assert {key: more.at[number.to_bytes(16, "big")].shard for number, key in enumerate(keys, 9)} == homes


async def test_a_close_while_nobody_answers_says_what_may_be_in_the_log(server: FakeRocketmq, opened: Open) -> None:
    log = await opened(group_records=1)
    server.judge = lambda command: "silent" if command.code == SEND else None
    told = Told()
    for number in range(2):
        told.append(log, record(number))
    await asyncio.sleep(0.05)
    await log.close()
    first, second = (str(told.refusals[number.to_bytes(16, "big")]) for number in range(2))
    assert "may be in the log all the same" in first
    assert second == "the log closed before the record was sent: RocketMQ does not answer"


async def test_a_group_that_is_gone_is_made_again(server: FakeRocketmq, opened: Open) -> None:
    server.groups = {"other": True}
    log = await opened()
    assert "sluiceway-log" in server.groups
    await fill(log, range(2), keys=["k"])
    del server.groups["sluiceway-log"]
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 2), "k") == [0, 1]


def marks(server: FakeRocketmq) -> int:
    """Frames of this log that are empty."""
    return sum(1 for body in server.bodies(TOPIC, 0) if (frame := decode_frame(body)).node == "n" and not frame.records)


def put_by_other(server: FakeRocketmq, sequence: int, *numbers_: int) -> None:
    server.put(TOPIC, 0, encode_frame("other", 1, sequence, [record(number) for number in numbers_]))


async def test_ends_of_a_shared_log_are_behind_what_a_broker_does_not_count_yet(server: FakeRocketmq, opened: Open) -> None:
    """Or never will, where it isn't the master any more: such a one acknowledges no mark."""
    log = await opened(shared=True, answer_within=0.2)
    put_by_other(server, 1, 0)
    offset, stale = FakeRocketmq._offset, {RequestCode.GET_MAX_OFFSET: "0"}

    def count_late(fake: FakeRocketmq, command: Command) -> Command:
        answer = offset(fake, command)
        return Command(0, answer.opaque, answer.flag, "", {"offset": stale.get(RequestCode(command.code), answer.fields["offset"])})

    server.handlers[RequestCode.GET_MAX_OFFSET] = count_late
    placed = [decode_frame(body).node for body in server.bodies(TOPIC, 0)].index("other")
    assert (await log.ends(PUBLISH_TOPIC))[0][1] > At(0, placed, 0)
    server.judge = lambda command: (ResponseCode.SLAVE_NOT_AVAILABLE, "") if command.code == SEND else None
    with pytest.raises(LogError, match="no answer in time"):
        await log.ends(PUBLISH_TOPIC)


async def test_what_is_written_twice_at_the_start_is_of_no_earlier_one(server: FakeRocketmq, opened: Open) -> None:
    """The replicas are slower than the broker: what it had stored it is sent again."""
    store_and_refuse(server, ResponseCode.FLUSH_SLAVE_TIMEOUT, 3)
    log = await opened(shared=True)
    _, end = (await log.ends(PUBLISH_TOPIC))[0]
    assert end.offset > 2
    await fill(log, range(3), keys=["k"])
    assert numbers(await take(log.open(PUBLISH_TOPIC, "earliest"), 3), "k") == [0, 1, 2]


async def test_frames_of_other_nodes_are_handed_out_once_a_mark_behind_them_is_acknowledged(server: FakeRocketmq, opened: Open) -> None:
    """A broker shows them before it is known to have them for good."""
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    safe = asyncio.Event()
    server.judge = lambda command: (ResponseCode.FLUSH_DISK_TIMEOUT, "") if command.code == SEND and not safe.is_set() else None
    waiting = asyncio.ensure_future(take(reader, 3))
    put_by_other(server, 1, 0, 1)
    put_by_other(server, 2, 2)
    async with asyncio.timeout(5):
        while not log.sender.repeats:
            await asyncio.sleep(0.01)
    assert not waiting.done()
    safe.set()
    assert numbers(await waiting, "k") == [0, 1, 2]


async def test_marks_of_other_nodes_are_worth_no_mark_each(server: FakeRocketmq, opened: Open) -> None:
    """Else two idle nodes would go on for ever. Unread they are no lag."""
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    before = marks(server)
    waiting = asyncio.ensure_future(reader.next(1, BIG))
    for sequence in range(HELD_MARKS - 1):
        put_by_other(server, sequence)
    put_by_other(server, HELD_MARKS)  # the last one that is held
    async with asyncio.timeout(5):
        while marks(server) == before:
            await asyncio.sleep(0.01)
    assert not (await waiting).records
    assert marks(server) == before + 1
    async with asyncio.timeout(5):
        while reader.lag() > HELD_MARKS:
            await reader.next(1, BIG)


async def test_an_acknowledgement_hands_out_what_was_pulled_before_it(server: FakeRocketmq, opened: Open) -> None:
    """A mark of ours is shown before it is acknowledged, and then the shard is quiet: no further pull brings anything to look at."""
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    assert isinstance(reader, RocketmqReader)
    answer = asyncio.Event()
    server.judge = lambda command: answer if command.code == SEND else None
    for sequence in range(3):
        put_by_other(server, sequence)
    ends = asyncio.ensure_future(log.ends(PUBLISH_TOPIC))
    async with asyncio.timeout(5):
        while len(reader._held[0]) < 4:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        answer.set()
        end = (await ends)[0][1]
        while (await reader.next(1, BIG)).end < end:
            pass


async def test_an_end_is_no_further_than_readers_come(server: FakeRocketmq, opened: Open) -> None:
    """Another node's mark behind ours is in the queue when the broker is asked, and held for as long as the shard is quiet."""
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    offset, sequences = FakeRocketmq._offset, iter(range(100))

    def after_another(fake: FakeRocketmq, command: Command) -> Command:
        put_by_other(server, next(sequences))
        return offset(fake, command)

    for code in (RequestCode.GET_MIN_OFFSET, RequestCode.GET_MAX_OFFSET):
        server.handlers[code] = after_another
    end = (await log.ends(PUBLISH_TOPIC))[0][1]
    async with asyncio.timeout(5):
        while (await reader.next(1, BIG)).end < end:
            pass


async def test_what_a_broker_lost_while_it_was_away_is_not_handed_out(server: FakeRocketmq, opened: Open) -> None:
    """A power cut took a frame that was shown and not acknowledged; what came into its place is read."""
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    away = asyncio.Event()
    server.judge = lambda command: "silent" if command.code == SEND and not away.is_set() else None
    waiting = asyncio.ensure_future(take(reader, 2))
    put_by_other(server, 1, 0)
    async with asyncio.timeout(5):
        while server.requests[-1].code != SEND:
            await asyncio.sleep(0.01)
    server.topics[TOPIC].queues[0].pop()
    server.put(TOPIC, 0, encode_frame("third", 1, 1, [record(7)]))
    server.put(TOPIC, 0, encode_frame("other", 1, 1, [record(0)]))
    away.set()
    server.cut()
    assert numbers(await waiting, "k") == [7, 0]


async def test_what_lay_where_our_own_frame_is_acknowledged_is_not_handed_out(server: FakeRocketmq, opened: Open) -> None:
    """Another broker has become the master, behind the same connection."""
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    away = asyncio.Event()
    server.judge = lambda command: (ResponseCode.SLAVE_NOT_AVAILABLE, "") if command.code == SEND and not away.is_set() else None
    waiting, before = asyncio.ensure_future(take(reader, 2)), marks(server)
    put_by_other(server, 1, 0)
    async with asyncio.timeout(5):
        while server.requests[-1].code != SEND:
            await asyncio.sleep(0.01)
        server.topics[TOPIC].queues[0].pop()
        away.set()
        while marks(server) == before:
            await asyncio.sleep(0.01)
    server.put(TOPIC, 0, encode_frame("third", 1, 1, [record(7)]))
    server.put(TOPIC, 0, encode_frame("other", 1, 1, [record(0)]))
    assert numbers(await waiting, "k") == [7, 0]


async def test_an_empty_frame_that_was_lost_moves_no_reader_past_what_came_into_its_place(server: FakeRocketmq, opened: Open) -> None:
    log = await opened(shared=True)
    reader = log.open(PUBLISH_TOPIC, "latest")
    waiting = asyncio.ensure_future(take(reader, 1))
    pulls = len(server.seen(RequestCode.PULL_MESSAGE))
    put_by_other(server, 1)
    async with asyncio.timeout(5):
        while len(server.seen(RequestCode.PULL_MESSAGE)) < pulls + 2:
            await asyncio.sleep(0.01)
    server.topics[TOPIC].queues[0].pop()
    server.put(TOPIC, 0, encode_frame("third", 1, 1, [record(7)]))
    server.cut()
    assert numbers(await waiting, "k") == [7]


async def test_a_connection_that_is_lost_while_nothing_is_asked_is_noticed(server: FakeRocketmq, opened: Open) -> None:
    """The reader waits for room; meanwhile the broker loses what is held."""
    log = await opened(shared=True, read_ahead_bytes=1)
    await fill(log, [0], keys=["k"])
    put_by_other(server, 1)
    reader = log.open(PUBLISH_TOPIC, "earliest")
    assert isinstance(reader, RocketmqReader)
    async with asyncio.timeout(5):
        while not reader._held[0]:
            await asyncio.sleep(0.01)
        server.topics[TOPIC].queues[0].pop()
        server.put(TOPIC, 0, encode_frame("third", 1, 1, [record(7)]))
        server.cut()
        while not reader._link[0].closed:
            await asyncio.sleep(0.01)
    assert numbers(await take(reader, 2), "k") == [0, 7]


async def test_an_end_that_stays_behind_a_position_is_asked_of_a_mark(server: FakeRocketmq, opened: Open) -> None:
    """The broker is slow to count, and nothing is lost."""
    log = await opened(shared=True)
    put_by_other(server, 1, 0)
    end = len(server.bodies(TOPIC, 0))
    offset, looks = FakeRocketmq._offset, iter([0] * (2 * log_reader.LOOKS))

    def count_late(fake: FakeRocketmq, command: Command) -> Command:
        answer = offset(fake, command)
        return Command(0, answer.opaque, answer.flag, "", {"offset": str(next(looks, answer.fields["offset"]))})

    server.handlers[RequestCode.GET_MAX_OFFSET] = count_late
    reader = log.open(PUBLISH_TOPIC, {0: At(0, end, 0)})
    waiting = asyncio.ensure_future(take(reader, 1))
    put_by_other(server, 2, 1)
    assert numbers(await waiting, "k") == [1]


async def test_nothing_leaves_while_another_may_have_this_node_s_place(server: FakeRocketmq, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridges.framed.lanes.ASK_AGAIN", 0.001)
    log = await opened()
    await fill(log, range(1), keys=["k"])
    asked = asyncio.Event()
    allowed = False

    def may_write() -> bool:
        asked.set()
        return allowed

    log.sender._may_write = may_write
    filling = asyncio.ensure_future(fill(log, range(1, 3), keys=["k"]))
    await asked.wait()
    await asyncio.sleep(0.01)
    assert frames(server) == [1]
    allowed = True
    await filling
    assert len(frames(server)) > 1
