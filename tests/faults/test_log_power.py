"""F25: the power goes. What was written after a file's last sync is lost, halved or reordered; what was acknowledged is not.

SLUICEWAY_POWER_CUTS sets the number of cuts, SLUICEWAY_SEED the first seed. Each log is cut several times in a row, also
while it starts.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bridges.local.log import EmbeddedLog, open_log
from bridges.local.options import LogOptions
from schemas.errors import StartError
from tests.faults.log_load import Ledger, burst, read_all
from tests.support.disk import Disk

CUTS = int(os.environ.get("SLUICEWAY_POWER_CUTS", "200"))
FIRST_SEED = int(os.environ.get("SLUICEWAY_SEED", "1"))
CUTS_A_LOG = 5


def options(disk: Disk) -> LogOptions:
    return LogOptions(
        vfs=disk.name,
        segment_bytes=60_000,
        checkpoint_bytes=50_000,
        wal_bytes=100_000,
        group_records=30,
        tail_frames=2,
        backoff_first=0.0005,
        backoff_longest=0.001,
        close_within=0.01,
    )


async def run_until_cut(folder: Path, epoch: int, seed: int, ledger: Ledger) -> bool:
    """One life of the log, ended by a cut; false where it was too short for the cut to come."""
    chance = random.Random(seed)
    disk = Disk(seed)
    # Some come during the start, some in the first groups, some anywhere.
    disk.cut_at = chance.choice((chance.randint(1, 12), chance.randint(5, 60), chance.randint(30, 600)))
    log: EmbeddedLog | None = None
    try:
        log = await open_log(folder, node="node", epoch=epoch, options=options(disk))
        ledger.check(await read_all(log))
        for _ in range(60):
            if disk.dead:
                break
            await burst(log, ledger, chance, chance.randint(1, 40))
            if chance.random() < 0.7:
                await wait_or_dead(ledger, disk)
    except StartError:
        assert disk.dead, "the start failed before the power went"
    finally:
        if log is not None:
            await log.close()
    came = disk.dead
    disk.cut()
    return came


async def wait_or_dead(ledger: Ledger, disk: Disk) -> None:
    for _ in range(20):
        if disk.dead or ledger.settled == len(ledger.sent):
            return
        try:
            await ledger.wait(0.2)
        except TimeoutError:
            continue


@pytest.mark.slow
@pytest.mark.timeout(60 + CUTS)
async def test_no_acknowledged_record_is_lost_when_the_power_goes(tmp_path: Path) -> None:
    """Acknowledged and lost 0, phantoms 0, each record at the place that was told."""
    cuts = came = 0
    while cuts < CUTS:
        seed = FIRST_SEED + cuts
        folder = tmp_path / str(seed)
        ledger = Ledger()
        for turn in range(CUTS_A_LOG):
            print(f"seed {seed + turn}")
            came += await run_until_cut(folder, turn + 1, seed + turn, ledger)
        cuts += CUTS_A_LOG
        log = await open_log(folder, node="node", epoch=CUTS_A_LOG + 1)
        ledger.check(await read_all(log))
        await log.close()
    assert came > CUTS * 0.6, "too few cuts came while the log was busy"


async def test_the_check_finds_a_log_that_does_not_sync(tmp_path: Path) -> None:
    """The simulated disk loses what is not synced: with syncs that do nothing, acknowledged records are gone."""
    disk = Disk(3)
    log = await open_log(tmp_path, node="node", epoch=1, options=options(disk))
    ledger = Ledger()
    ledger.append(log)
    await ledger.wait()
    disk.lies = True
    for _ in range(30):
        ledger.append(log)
        await ledger.wait()
    disk.dead = True
    await log.close()
    disk.cut("none")
    log = await open_log(tmp_path, node="node", epoch=2)
    found = await read_all(log)
    await log.close()
    assert len(found) == 1 < len(ledger.acknowledged)
