"""The logs that the contract suite runs on. A driver starts a log, and starts it again over what it kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bridges.local.log import open_log
from bridges.local.options import LogOptions
from streams.log import Log
from streams.memory.log import MemoryLog, Seeded, Shard


class Driver(Protocol):
    exact: bool
    """A sink hears the very position under which readers see the record; else a frame may lie there twice."""
    refuses: bool
    """Some records are refused though nothing is wrong."""

    encodes: bool
    """Records are written as bytes, which some strings can't be."""

    async def start(self) -> Log:
        """The log; after ``close``, the same again under a higher epoch."""


class MemoryDriver:
    encodes = False

    def __init__(self, folder: Path, seed: int | None = None, refuse: float = 0.0) -> None:
        self.exact = seed is None
        self.refuses = refuse > 0
        self._seeded = None if seed is None else Seeded(random.Random(seed).random, refuse=refuse)
        self._shards: Mapping[str, Sequence[Shard]] | int = 4
        self._epoch = 0

    async def start(self) -> Log:
        self._epoch += 1
        log = MemoryLog(asyncio.get_running_loop(), adversary=self._seeded, shards=self._shards, epoch=self._epoch)
        self._shards = log.shards
        return log


class EmbeddedDriver:
    exact = True
    refuses = False
    encodes = True

    def __init__(self, folder: Path, **options: int) -> None:
        self._folder = folder
        self._options = LogOptions(**{"wal_bytes": 65536, **options})
        self._epoch = 0

    async def start(self) -> Log:
        self._epoch += 1
        return await open_log(self._folder, node="node", epoch=self._epoch, options=self._options)


DRIVERS = {
    "memory": MemoryDriver,
    **{f"memory-seed-{seed}": (lambda folder, seed=seed: MemoryDriver(folder, seed)) for seed in range(5)},
    **{f"memory-refusing-{seed}": (lambda folder, seed=seed: MemoryDriver(folder, seed, refuse=0.2)) for seed in range(3)},
    "embedded": EmbeddedDriver,
    "embedded-small": lambda folder: EmbeddedDriver(
        folder, group_records=7, group_bytes=900, segment_bytes=4000, tail_frames=2, read_ahead_bytes=1, checkpoint_bytes=40000
    ),
}
