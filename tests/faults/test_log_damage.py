"""F9: torn tails, flipped bits and cut files. The log starts with what is whole, or says in one line that it is damaged.

SLUICEWAY_DAMAGES sets the number of positions, SLUICEWAY_SEED the seed. Never is a record delivered that nobody sent, or at
another place than it was written to.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from bridges.local.keeper import WAL_STEP
from bridges.local.log import open_log
from bridges.local.options import LogOptions
from schemas.errors import LogDamaged, StartError
from tests.faults.log_load import Ledger, burst, reopen

DAMAGES = int(os.environ.get("SLUICEWAY_DAMAGES", "200"))
SEED = int(os.environ.get("SLUICEWAY_SEED", "1"))
OPTIONS = LogOptions(segment_bytes=60_000, checkpoint_bytes=60_000, wal_bytes=120_000, group_records=10)
UNCHECKED = LogOptions(segment_bytes=60_000, checkpoint_bytes=1 << 30, wal_bytes=120_000, group_records=10)
"""No checkpoint: the write-ahead log holds all groups of its segment."""
LAST_GROUPS = 2 * OPTIONS.group_records
"""Damage to the WAL's last group, or to the mark that ends the one before, looks like a torn write."""


async def crashed_log(folder: Path, aside: Path, options: LogOptions = OPTIONS) -> Ledger:
    """A folder as a kill leaves it: sealed segments, and one with a write-ahead log."""
    log = await open_log(folder, node="node", epoch=1, options=options)
    ledger = Ledger()
    chance = random.Random(5)
    while len(log.keeper.segments) < 4:
        await burst(log, ledger, chance, 20)
        await ledger.wait()
    for _ in range(40):
        ledger.append(log)
        await ledger.wait()
    await log.ask(lambda: None)
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("lock", "*-shm"))
    await log.close()
    return ledger


def active_wal(folder: Path) -> Path:
    """Of the segment that was written; the newest file is the spare."""
    return sorted(folder.glob("*.segment-wal"))[-2]


def group_marks(wal: Path) -> list[int]:
    """Where the frames lie that end a transaction of the log's current round."""
    data = wal.read_bytes()
    frames = range(32, len(data) - WAL_STEP + 1, WAL_STEP)
    return [place for place in frames if data[place + 8 : place + 16] == data[16:24] and data[place + 4 : place + 8] != bytes(4)]


async def outcome(folder: Path, ledger: Ledger, lost: int) -> str:
    """``damaged``, or ``whole`` after everything that is there was checked."""
    try:
        log, found = await reopen(folder, 2, OPTIONS)
    except StartError as error:
        assert "\n" not in str(error)
        return "damaged"
    await log.close()
    ledger.check(found, lost=lost)
    return "whole"


def flip(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return f"flip {path.name} at {place}"


def cut_short(path: Path, chance: random.Random) -> str:
    size = chance.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"cut {path.name} to {size}"


@pytest.mark.slow
@pytest.mark.timeout(60 + DAMAGES)
async def test_damage_is_found_or_harmless(tmp_path: Path) -> None:
    ledger = await crashed_log(tmp_path / "live", tmp_path / "crashed")
    chance = random.Random(SEED)
    seen = {"damaged": 0, "whole": 0}
    for number in range(DAMAGES):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(tmp_path / "crashed", folder)
        path = chance.choice(sorted(path for path in folder.iterdir() if path.suffix.startswith(".segment") and path.stat().st_size))
        is_wal = path.name.endswith("-wal")
        what = chance.choice((flip, flip, cut_short))
        print(f"seed {SEED} number {number}:", what(path, chance))
        lost = 0
        if is_wal:
            lost = LAST_GROUPS if what is flip else len(ledger.sent)
        seen[await outcome(folder, ledger, lost)] += 1
        shutil.rmtree(folder)
    assert seen["damaged"] > DAMAGES // 4, seen
    assert seen["whole"] > DAMAGES // 20, seen


async def test_the_folder_of_a_kill_is_whole(tmp_path: Path) -> None:
    ledger = await crashed_log(tmp_path / "live", tmp_path / "crashed")
    assert await outcome(tmp_path / "crashed", ledger, 0) == "whole"


async def test_a_torn_tail_is_cut_to_the_last_whole_group(tmp_path: Path) -> None:
    """The last group was half written when the power went: it goes, all before it stays, and the next takes its place."""
    ledger = await crashed_log(tmp_path / "live", tmp_path / "crashed", UNCHECKED)
    wal = active_wal(tmp_path / "crashed")
    os.truncate(wal, group_marks(wal)[-1] + 4000)
    log, found = await reopen(tmp_path / "crashed", 2, OPTIONS)
    ledger.check(found, lost=1)
    assert len(found) == len(ledger.sent) - 1
    ledger.append(log)
    await log.close()
    assert max(at.offset for at in ledger.acknowledged.values()) == len(found)


async def test_what_two_starts_left_that_were_cut_off_is_no_damage(tmp_path: Path) -> None:
    """A group of two frames was half written when the power went, and at the next start one of one frame in its place."""
    ledger = await crashed_log(tmp_path / "live", tmp_path / "crashed", UNCHECKED)
    wal = active_wal(tmp_path / "crashed")
    data = bytearray(wal.read_bytes())
    *_, first, second = group_marks(wal)
    assert second == first + WAL_STEP
    data[first + 16] ^= 1  # its checksum: neither is it whole, nor does the second one go on from it
    wal.write_bytes(data)
    log, found = await reopen(tmp_path / "crashed", 2, OPTIONS)
    await log.close()
    ledger.check(found, lost=2)
    assert len(found) == len(ledger.sent) - 2


async def test_a_refused_start_changes_nothing(tmp_path: Path) -> None:
    ledger = await crashed_log(tmp_path / "live", tmp_path / "crashed", UNCHECKED)
    folder = tmp_path / "crashed"
    wal = active_wal(folder)
    data = bytearray(wal.read_bytes())
    data[group_marks(wal)[2] + 100] ^= 1
    wal.write_bytes(data)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(LogDamaged, match="damaged before its end"):
        await open_log(folder, node="node", epoch=2, options=OPTIONS)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock" and not path.name.endswith("-shm")}
    assert after == before
    assert ledger.acknowledged


async def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    await crashed_log(tmp_path / "live", tmp_path / "crashed")
    paths = sorted((tmp_path / "crashed").glob("*.segment"))
    paths[1].unlink()
    with pytest.raises(LogDamaged, match=f"{paths[0].name} ends at record"):
        await open_log(tmp_path / "crashed", node="node", epoch=2, options=OPTIONS)
