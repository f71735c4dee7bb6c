"""F8 and I14: a full disk, input/output errors, short writes, failed and hanging syncs. What can't be made durable is not
acknowledged; when the medium is back, service goes on by itself; what was acknowledged stays.

SLUICEWAY_FAULTS multiplies the seeds.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from bridges.local.log import EmbeddedLog, open_log
from bridges.local.options import LogOptions
from schemas.errors import StartError
from tests.faults.log_load import Ledger, burst, read_all, reopen
from tests.support.disk import Disk, Fault, broken, full

SEEDS = range(1, 1 + 5 * int(os.environ.get("SLUICEWAY_FAULTS", "1")))


def on(operation: str, error: Callable[[], apsw.Error], suffix: str = "-wal") -> Fault:
    return lambda seen, name: error() if seen == operation and name.endswith(suffix) else None


FAULTS: dict[str, Fault] = {
    "full disk": on("write", full),
    "write error": on("write", lambda: broken(apsw.SQLITE_IOERR_WRITE)),
    "short write": on("write", full),
    "failed sync": on("sync", lambda: broken(apsw.SQLITE_IOERR_FSYNC)),
    "read-only files": on("write", apsw.ReadOnlyError, suffix=""),
}


@pytest.fixture
def disk() -> Disk:
    return Disk()


def options(disk: Disk, **more: float) -> LogOptions:
    return LogOptions(
        **{
            "vfs": disk.name,
            "segment_bytes": 60_000,
            "checkpoint_bytes": 50_000,
            "wal_bytes": 50_000,
            "group_records": 20,
            "tail_frames": 2,
            "backoff_first": 0.002,
            "backoff_longest": 0.01,
            "close_within": 0.2,
            **more,
        }
    )


@pytest.fixture
async def log(disk: Disk, tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk))
    yield log
    await log.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", FAULTS)
async def test_trouble_withholds_and_service_resumes_by_itself(log: EmbeddedLog, disk: Disk, kind: str) -> None:
    """Nothing is acknowledged while the medium fails, the stall shows, and afterwards all is there, once and in order."""
    ledger = Ledger()
    for _ in range(3):
        ledger.append(log)
    await ledger.wait()
    disk.short = kind == "short write"
    disk.fault = FAULTS[kind]
    for _ in range(30):
        ledger.append(log)
    await until(lambda: log.writer.retries >= 3)
    assert len(ledger.acknowledged) == 3
    assert log.pressure().records == 30
    assert log.pressure().stalled_since > 0
    assert log.writer.last_error
    disk.fault = lambda operation, name: None
    await ledger.wait()
    assert not ledger.refused_ids
    assert log.pressure().stalled_since == 0.0
    ledger.append(log)
    await ledger.wait()
    ledger.check(await read_all(log))


async def test_a_failed_sync_is_never_trusted_again(log: EmbeddedLog, disk: Disk, tmp_path: Path) -> None:
    """After one failed sync the group goes to a new segment: pages that the kernel gave up look clean."""
    ledger = Ledger()
    ledger.append(log)
    await ledger.wait()
    await log.ask(lambda: None)  # the spare is ready
    failures = iter([broken(apsw.SQLITE_IOERR_FSYNC)])
    disk.fault = lambda operation, name: next(failures, None) if operation == "sync" and name.endswith("-wal") else None
    old = log.keeper.segments[-1]
    ledger.append(log)
    await ledger.wait()
    assert log.writer.retries == 1
    assert log.keeper.segments[-1] is not old
    await log.ask(lambda: None)
    assert old.sealed
    assert old.end["publish"] == 1
    ledger.check(await read_all(log))


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_crash_after_a_failed_sync_brings_no_record_twice(disk: Disk, tmp_path: Path, seed: int) -> None:
    """The group was written, its sync failed, and the process dies before or after it is written anew."""
    chance = random.Random(seed)
    log = await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk))
    ledger = Ledger()
    for _ in range(chance.randint(0, 3)):
        ledger.append(log)
        await ledger.wait()
    await log.ask(lambda: None)  # the keeper has nothing to sync
    left = [chance.randint(1, 4)]

    def fail(operation: str, name: str) -> apsw.Error | None:
        if operation != "sync" or not name.endswith("-wal") or left[0] == 0:
            return None
        left[0] -= 1
        return broken(apsw.SQLITE_IOERR_FSYNC)

    disk.fault = fail
    for _ in range(5):
        ledger.append(log)
    await until(lambda: log.writer.retries >= 1)
    disk.dead = True
    await log.close()
    sound = Disk()
    log, found = await reopen(tmp_path / "log", 2, options(sound))
    await log.close()
    ledger.check(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_faults_that_come_and_go_lose_nothing(disk: Disk, tmp_path: Path, kind: str, seed: int) -> None:
    """Any write or sync of any file may fail at any time, in the writer, in checkpoints, while segments are sealed and made."""
    chance = random.Random(seed)
    disk.random.seed(seed)
    disk.short = chance.random() < 0.5
    ledger = Ledger()
    error = {"full disk": full, "failed sync": lambda: broken(apsw.SQLITE_IOERR_FSYNC)}.get(kind, lambda: broken(apsw.SQLITE_IOERR_WRITE))
    log = await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk, close_within=5.0))
    operation = "sync" if kind == "failed sync" else "write"
    share = 0.15 if kind == "failed sync" else 0.05
    disk.fault = lambda seen, name: error() if seen == operation and disk.random.random() < share else None
    for _ in range(15):
        await burst(log, ledger, chance, 20)
        await ledger.wait(20.0)
    disk.fault = lambda seen, name: None
    ledger.append(log)
    await ledger.wait()
    assert not ledger.refused_ids
    assert log.writer.retries > 0
    ledger.check(await read_all(log))
    await log.close()
    log, found = await reopen(tmp_path / "log", 2, options(disk))
    await log.close()
    ledger.check(found)


async def test_a_full_disk_keeps_the_segment_and_tries_the_same_group(log: EmbeddedLog, disk: Disk) -> None:
    ledger = Ledger()
    ledger.append(log)
    await ledger.wait()
    disk.fault = on("write", full)
    ledger.append(log)
    await until(lambda: log.writer.retries >= 2)
    disk.fault = lambda operation, name: None
    await ledger.wait()
    assert len(log.keeper.segments) == 1


async def test_without_room_for_a_new_segment_the_old_one_goes_on(log: EmbeddedLog, disk: Disk) -> None:
    """A roll that can't be made is no trouble for the records."""
    ledger = Ledger()
    ledger.append(log)
    await ledger.wait()
    disk.fault = on("write", full, suffix=".new")
    for _ in range(30):
        ledger.append(log, 9000)
        await ledger.wait()
    assert log.writer.retries == 0
    assert len(log.keeper.segments) <= 2
    disk.fault = lambda operation, name: None
    for _ in range(60):
        ledger.append(log, 9000)
        await ledger.wait()
        await asyncio.sleep(0.001)
    assert len(log.keeper.segments) > 2
    ledger.check(await read_all(log))


async def test_closing_on_a_dead_medium_refuses_what_waits(disk: Disk, tmp_path: Path) -> None:
    """Bounded by ``close_within``; what was acknowledged is there at the next start."""
    log = await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk))
    ledger = Ledger()
    ledger.append(log)
    await ledger.wait()
    disk.fault = on("write", full, suffix="")
    for _ in range(50):
        ledger.append(log)
    async with asyncio.timeout(3):
        await log.close()
    assert len(ledger.refused_ids) == 50
    disk.fault = lambda operation, name: None
    log, found = await reopen(tmp_path / "log", 2, options(disk))
    await log.close()
    ledger.check(found)
    assert len(found) == 1


async def test_a_sync_that_hangs_is_a_stall_and_does_not_hold_the_close(disk: Disk, tmp_path: Path) -> None:
    log = await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk, hang_after=0.05, close_within=0.05))
    ledger = Ledger()
    ledger.append(log)
    await ledger.wait()
    release = threading.Event()

    def hang(operation: str, name: str) -> None:
        if operation == "sync" and name.endswith("-wal"):
            release.wait(10)

    disk.fault = hang
    ledger.append(log)
    await until(lambda: log.pressure().stalled_since > 0)
    ledger.append(log)
    async with asyncio.timeout(3):
        await log.close()
    assert len(ledger.refused_ids) == 2
    release.set()
    log.writer.join(5)
    log.keeper.join(5)
    assert len(ledger.acknowledged) == 1


async def test_a_full_disk_at_the_start_is_one_line(disk: Disk, tmp_path: Path) -> None:
    disk.fault = on("write", full, suffix="")
    with pytest.raises(StartError, match="can't write to its folder"):
        await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk))
    disk.fault = lambda operation, name: None
    log = await open_log(tmp_path / "log", node="node", epoch=1, options=options(disk))
    await log.close()
