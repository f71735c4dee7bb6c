"""What is the embedded log's own: groups, live feed, segments, retention, the start's checks. The rest is in tests/contract."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import apsw
import pytest

from bridges.local import segment as segments
from bridges.local.log import EmbeddedLog, open_log
from bridges.local.options import LogOptions
from schemas.errors import LogDamaged, LogError, StartError
from schemas.positions import At
from schemas.records import Kind, Record, decode_frame
from streams.log import Log

HOUR = 3_600_000
WAL_BYTES = 100_000


class Clock:
    """Monotonic seconds and wall milliseconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> int:
        return int(self.now * 1000)


class Sink:
    def __init__(self) -> None:
        self.calls: list[tuple[list[Record], At | LogError]] = []
        self.count = 0

    def appended(self, records: Sequence[Record], first: At) -> None:
        self.calls.append((list(records), first))
        self.count += len(records)

    refused = appended  # type: ignore[assignment]


class Opened:
    """Opens logs of one folder under growing epochs, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.epoch = 0
        self.logs: list[EmbeddedLog] = []

    async def __call__(self, **options: float) -> EmbeddedLog:
        self.epoch += 1
        made = LogOptions(**{"wal_bytes": WAL_BYTES, "housekeeping": 60, **options})
        log = await open_log(self.folder, node="node", epoch=self.epoch, options=made, monotonic=self.clock.monotonic, wall=self.clock.wall)
        self.logs.append(log)
        return log


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    opened = Opened(tmp_path / "log")
    yield opened
    for log in opened.logs:
        await log.close()


def record(number: int, size: int = 10, time: int = 0) -> Record:
    return Record(Kind.PUBLISH, b"%016d" % number, time or number, "client", "topic", bytes(size))


async def append(log: Log, numbers: Sequence[int], size: int = 10, topic: str = "publish") -> Sink:
    sink = Sink()
    for number in numbers:
        log.append(topic, "k", record(number, size), sink)
    await until(lambda: sink.count == len(numbers))
    return sink


async def one_by_one(log: Log, numbers: Sequence[int], size: int = 10) -> None:
    for number in numbers:
        await append(log, [number], size)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_the_log_is_a_log(opened: Opened) -> None:
    log: Log = await opened()
    assert log.pressure().records == 0


# Groups


async def test_records_of_one_round_are_one_group_and_one_call(opened: Opened) -> None:
    log = await opened()
    sink = await append(log, range(1000))
    assert log.writer.groups == 1
    assert log.writer.records == 1000
    assert [len(records) for records, _ in sink.calls] == [1000]


@pytest.mark.parametrize(("limits", "groups"), [({"group_records": 100}, 10), ({"group_bytes": 7900}, 10), ({"group_bytes": 1}, 1000)])
async def test_groups_keep_to_their_limits(opened: Opened, limits: dict[str, int], groups: int) -> None:
    log = await opened(**limits)
    sink = await append(log, range(1000))
    assert log.writer.groups == groups
    assert [record.id for records, _ in sink.calls for record in records] == [record(number).id for number in range(1000)]


async def test_the_loop_hears_of_a_group_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened(group_records=50)
    calls: list[object] = []
    loop = asyncio.get_running_loop()
    told = loop.call_soon_threadsafe

    def count(callback: Callable[..., object], *args: object) -> asyncio.Handle:
        calls.append(callback)
        return told(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    await append(log, range(500))
    monkeypatch.undo()
    assert calls.count(log._told) == log.writer.groups == 10


async def test_a_sink_that_fails_keeps_no_other_from_its_answer(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Sink):
        def appended(self, records: Sequence[Record], first: At) -> None:
            raise ZeroDivisionError

    log = await opened()
    good = Sink()
    log.append("publish", "k", record(1), Failing())
    log.append("publish", "k", record(2), good)
    await until(lambda: good.count == 1)
    assert "log.sink_failed" in caplog.text


async def test_past_its_limit_the_log_refuses(opened: Opened) -> None:
    log = await opened(pending_records=10)
    sink, refused = Sink(), Sink()
    for number in range(10):
        log.append("publish", "k", record(number), sink)
    log.append("publish", "k", record(10), refused)
    await until(lambda: sink.count == 10 and refused.count == 1)
    assert isinstance(refused.calls[0][1], LogError)
    assert await append(log, [11])


async def test_a_writer_that_dies_refuses_everything_loudly(
    opened: Opened, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await opened()
    monkeypatch.setattr(log.writer, "_commit", lambda rows: 1 / 0)
    sink = Sink()
    log.append("publish", "k", record(1), sink)
    await until(lambda: sink.count == 1)
    log.append("publish", "k", record(2), sink)
    await until(lambda: sink.count == 2)
    assert all(isinstance(error, LogError) for _, error in sink.calls)
    assert "log.writer_died" in caplog.text
    assert log.pressure().records == 0


# Readers


async def test_live_readers_get_the_very_objects(opened: Opened) -> None:
    log = await opened()
    readers = [log.open("publish", "latest") for _ in range(2)]
    sink = await append(log, range(10))
    for reader in readers:
        batch = await reader.next(4096, 1 << 20)
        assert all(got is sent for got, sent in zip(batch.records, sink.calls[0][0], strict=True))


async def test_prompt_readers_cause_no_disk_read(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened()
    reader = log.open("publish", "latest")
    monkeypatch.setattr(log.keeper, "read", lambda *args: pytest.fail("read from disk"))
    for number in range(20):
        await append(log, [number])
        assert len((await reader.next(10, 1000)).records) == 1


async def test_a_reader_reports_a_damaged_frame(opened: Opened) -> None:
    log = await opened(tail_frames=1)
    await one_by_one(log, range(3))
    database = segments.connect(log.keeper.segments[-1].path, "")
    database.execute("UPDATE publish SET body = x'00' WHERE first = 1")
    database.close()
    reader = log.open("publish", "earliest")
    with pytest.raises(LogDamaged, match="frame 1 of topic publish is damaged"):
        await reader.next(10, 1000)
        await reader.next(10, 1000)


async def test_a_repeated_frame_is_dropped(opened: Opened) -> None:
    """(node, epoch, sequence) names a frame; a reader takes it once."""
    log = await opened(tail_frames=1)
    await one_by_one(log, range(3))
    database = segments.connect(log.keeper.segments[-1].path, "")
    bodies = [row.body for row in reversed(segments.last_rows(database, "publish", 3))]
    assert [decode_frame(body).sequence for body in bodies] == [0, 1, 2]
    database.execute("DELETE FROM publish WHERE first >= 1")
    rows = [segments.make_row("publish", 1, 1, 1, bodies[0]), segments.make_row("publish", 2, 1, 2, bodies[2])]
    segments.write(database.cursor(), rows, None)
    database.close()
    reader = log.open("publish", {0: At(0, 0, 0)})
    assert [(await reader.next(10, 1000)).first.offset for _ in range(2)] == [0, 2]


# Segments and retention


async def test_segments_end_by_size_and_by_age(opened: Opened) -> None:
    log = await opened(segment_bytes=5000, segment_age=3600)
    await append(log, [0])
    await log.ask(lambda: None)
    await one_by_one(log, range(1, 3), size=3000)
    await log.ask(lambda: None)
    await append(log, [3])
    assert len(log.keeper.segments) == 2
    opened.clock.now += 3600
    await append(log, [4])
    await append(log, [5])
    assert [segment.base["publish"] for segment in log.keeper.segments] == [0, 3, 5]


async def fill_segments(log: EmbeddedLog, count: int) -> None:
    number = 0
    while len(log.keeper.segments) < count:
        await append(log, [number], size=3000)
        await log.ask(lambda: None)
        number += 1


async def test_retention_takes_released_segments_only(opened: Opened) -> None:
    log = await opened(segment_bytes=5000, retention_bytes=0, tail_frames=1)
    readers = [log.open("publish", "earliest"), log.open("publish", "earliest")]
    await fill_segments(log, 5)
    second, third = log.keeper.segments[1:3]
    readers[0].release(At(0, third.base["publish"], 0))
    await log.ask(log.keeper._keep_house)
    assert log.keeper.first("publish") == 0
    readers[1].release(At(0, second.base["publish"], 1))
    await log.ask(log.keeper._keep_house)
    assert log.keeper.segments[0] is second
    readers[1].close()
    await log.ask(log.keeper._keep_house)
    assert log.keeper.segments[0] is third
    assert not second.path.exists()
    assert (await log.ends("publish"))[0][0] == At(0, third.base["publish"], 0)


async def test_without_a_reader_nothing_is_taken(opened: Opened) -> None:
    """Between a start and the first reader nobody has said what is needed."""
    log = await opened(segment_bytes=5000, retention_bytes=0)
    await fill_segments(log, 3)
    await log.ask(log.keeper._keep_house)
    assert log.keeper.first("publish") == 0


async def test_retention_by_age_goes_by_the_newest_record(opened: Opened) -> None:
    opened.clock.now = 10.0
    log = await opened(segment_bytes=5000, retention_age=3600)
    reader = log.open("publish", "earliest")
    await fill_segments(log, 3)
    reader.release((await log.ends("publish"))[0][1])
    await log.ask(log.keeper._keep_house)
    assert len(log.keeper.segments) == 3
    opened.clock.now += 2 * 3600
    await log.ask(log.keeper._keep_house)
    assert len(log.keeper.segments) == 1


async def test_the_next_offset_outlives_its_segments(opened: Opened) -> None:
    log = await opened(segment_bytes=5000, retention_bytes=0)
    reader = log.open("publish", "earliest")
    await append(log, [1], topic="presence")
    await fill_segments(log, 4)
    end = (await log.ends("publish"))[0][1]
    reader.release(end)
    presence = log.open("presence", "earliest")
    presence.release(At(0, 1, 0))
    await log.ask(log.keeper._keep_house)
    assert len(log.keeper.segments) == 1
    await log.close()
    log = await opened()
    assert (await log.ends("publish"))[0][1] == end
    assert (await log.ends("presence"))[0] == (At(0, 1, 0), At(0, 1, 0))


async def test_a_position_that_retention_has_passed_starts_at_the_oldest_left(opened: Opened) -> None:
    log = await opened(segment_bytes=5000, retention_bytes=0, tail_frames=1)
    reader = log.open("publish", "earliest")
    await fill_segments(log, 4)
    reader.release(At(0, log.keeper.segments[2].base["publish"], 0))
    late = log.open("publish", {0: At(0, 0, 0)})
    late.close()
    await log.ask(log.keeper._keep_house)
    first = (await log.ends("publish"))[0][0]
    assert first.offset > 0
    assert (await log.open("publish", {0: At(0, 0, 0)}).next(1, 1)).first == first


async def test_the_write_ahead_log_stays_bounded(opened: Opened) -> None:
    """Under a load without pauses too: where the keeper can't catch up the writer helps."""
    log = await opened(checkpoint_bytes=WAL_BYTES // 4)
    wal = Path(f"{opened.folder}/0000000001.segment-wal")
    sink = Sink()
    for number in range(3000):
        log.append("publish", "k", record(number, size=500), sink)
        if number % 3 == 2:
            await until(lambda: sink.count > number - 6)  # noqa: B023
    await until(lambda: sink.count == 3000)
    assert log.writer.bytes > 10 * WAL_BYTES
    assert wal.stat().st_size < 6 * WAL_BYTES


# The start


async def test_a_folder_is_held_by_one_log(opened: Opened) -> None:
    await opened()
    with pytest.raises(StartError, match=f"{opened.folder} is in use by another process"):
        await opened()


async def test_a_folder_is_free_after_close(opened: Opened) -> None:
    for _ in range(3):
        log = await opened()
        await append(log, [1])
        await log.close()
        assert not list(opened.folder.glob("*-wal"))


async def test_a_folder_of_a_newer_format_is_left_alone(opened: Opened) -> None:
    log = await opened()
    await append(log, [1])
    await log.close()
    path = next(opened.folder.glob("*.segment"))
    database = apsw.Connection(str(path))
    database.pragma("user_version", segments.FORMAT + 1)
    database.close()
    before = path.read_bytes()
    with pytest.raises(StartError, match="run a newer program"):
        await opened()
    assert path.read_bytes() == before
    assert [each.name for each in opened.folder.glob("*.segment")] == [path.name]


async def test_a_start_under_an_epoch_that_was_used_is_refused(opened: Opened) -> None:
    """Its frames would be taken for repeats."""
    log = await opened()
    await append(log, [1])
    await log.close()
    opened.epoch = 0
    with pytest.raises(LogDamaged, match="was written under epoch 1"):
        await opened()


async def test_a_file_that_is_no_segment_is_named(opened: Opened) -> None:
    opened.folder.mkdir()
    (opened.folder / "0000000001.segment").write_bytes(b"something else")
    with pytest.raises(LogDamaged, match=r"0000000001.segment is not a segment"):
        await opened()


async def test_a_folder_that_cannot_be_made_is_named(opened: Opened) -> None:
    opened.folder.write_bytes(b"a file")
    with pytest.raises(StartError, match=f"{opened.folder} can't be used"):
        await opened()


async def test_unused_segments_leave_nothing_behind(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await (await opened()).close()
    assert [each.name for each in opened.folder.iterdir()] == ["lock"]
    assert not caplog.records
