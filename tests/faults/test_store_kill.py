"""The store's process is killed in mid-commit, again and again: what was acknowledged is there, and every commit is whole or absent.

Run as a program, this module is the process that is killed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.positions import At
from schemas.sessions import PutEntry, SessionState
from tests.contract.store_making import DATABASES, NOW, entry, opened, record

ROUNDS = 6
ENTRIES = 40
"""In each commit, beside the position that says which commit it was."""
AHEAD = 8
ROOT = Path(__file__).parents[2]


async def victim(kind: str, folder: Path) -> None:
    """Commits until it is killed, several ahead, and says how far it is acknowledged."""
    store = opened(kind, folder, asyncio.get_running_loop())
    session = await store.claim("c1", "p1", clean_start=False, expiry=3600, now=NOW, limit=10)
    assert isinstance(session, SessionState)
    turn = (await store.positions()).get("node", {0: At(0, -1, 0)})[0].offset + 1
    waiting = []
    while True:
        changes = [PutEntry(session.id, session.epoch, entry(turn * ENTRIES + number, at=At(0, turn, number))) for number in range(ENTRIES)]
        waiting.append((turn, store.commit(changes, {"node": At(0, turn, 0)})))
        turn += 1
        if len(waiting) > AHEAD:
            acknowledged, outcome = waiting.pop(0)
            await outcome
            os.write(1, b"%d\n" % acknowledged)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATABASES)
def test_what_was_acknowledged_survives_and_no_commit_is_half_there(kind: str, tmp_path: Path) -> None:
    asyncio.run(_make(kind, tmp_path))
    acknowledged = -1
    for kill in range(ROUNDS):
        with subprocess.Popen([sys.executable, "-m", __name__, kind, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3 + 17 * kill):
                acknowledged = int(process.stdout.readline())
            process.kill()
            acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split())])
        last = asyncio.run(_check(kind, tmp_path))
        assert last >= acknowledged


async def _make(kind: str, folder: Path) -> None:
    """The server is of this run; the victim finds it by what the folder says."""
    await opened(kind, folder, asyncio.get_running_loop()).close()


async def _check(kind: str, folder: Path) -> int:
    """The last commit that is there."""
    store = opened(kind, folder, asyncio.get_running_loop())
    last = (await store.positions())["node"][0].offset
    (session,) = await store.sessions(0, 10)
    found = []
    while page := await store.entries(session.id, found[-1].at if found else None, 1000):
        found += page
    await store.close()
    assert [each.at for each in found] == [At(0, turn, number) for turn in range(last + 1) for number in range(ENTRIES)]
    assert [each.record for each in found] == [record(number) for number in range((last + 1) * ENTRIES)]
    assert session.queued == len(found)
    return last


if __name__ == "__main__":
    asyncio.run(victim(sys.argv[1], Path(sys.argv[2])))
