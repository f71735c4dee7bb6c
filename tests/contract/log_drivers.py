"""The logs that the contract suite runs on. A driver starts a log, and starts it again over what it kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bridges.kafka.connection import Connection
from bridges.kafka.log import open_kafka_log
from bridges.kafka.log_options import KafkaLogOptions
from bridges.local.log import open_log
from bridges.local.options import LogOptions
from bridges.rocketmq.log import open_rocketmq_log
from bridges.rocketmq.log_options import RocketmqLogOptions
from schemas.connections import ConnectionSettings
from streams.log import Log
from streams.memory.log import MemoryLog, Seeded, Shard


class Driver(Protocol):
    exact: bool
    """A sink hears the very position under which readers see the record; else a frame may lie there twice."""
    refuses: bool
    """Some records are refused though nothing is wrong."""

    encodes: bool
    """Records are written as bytes, which some strings can't be."""

    counts: bool
    """Offsets are record numbers; else they number frames."""

    async def start(self) -> Log:
        """The log; after ``close``, the same again under a higher epoch."""


class MemoryDriver:
    encodes = False
    counts = True

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
    counts = True

    def __init__(self, folder: Path, **options: int) -> None:
        self._folder = folder
        self._options = LogOptions(**{"wal_bytes": 65536, **options})
        self._epoch = 0

    async def start(self) -> Log:
        self._epoch += 1
        return await open_log(self._folder, node="node", epoch=self._epoch, options=self._options)


class KafkaDriver:
    """``prefix`` names topics that nobody else uses. Records of the suite are from 1970: retention must not take them."""

    exact = True
    refuses = False
    encodes = True
    counts = False

    def __init__(self, address: str, prefix: str, **options: float) -> None:
        self._connection = Connection(ConnectionSettings(name="test", kind="kafka", address=tuple(address.split(","))))
        defaults = {"shards": 3, "replication": 1, "retention_age": 100 * 365 * 86400.0, "close_within": 30.0}
        self.options = KafkaLogOptions(prefix=prefix, checked=False, **{**defaults, **options})  # type: ignore[arg-type]
        self._epoch = 0

    async def start(self) -> Log:
        self._epoch += 1
        return await open_kafka_log(self._connection, node="node", epoch=self._epoch, options=self.options)


class RocketmqDriver:
    """``prefix`` names topics that nobody else uses. The brokers of the tests sync no disk."""

    exact = True
    refuses = False
    encodes = True
    counts = False

    def __init__(self, address: str, prefix: str, **options: float) -> None:
        self.connection = ConnectionSettings(name="test", kind="rocketmq", address=(address,))
        defaults = {"shards": 3, "checked": False, "close_within": 30.0}
        self.options = RocketmqLogOptions(prefix=prefix, **{**defaults, **options})  # type: ignore[arg-type]
        self._epoch = 0

    async def start(self) -> Log:
        self._epoch += 1
        return await open_rocketmq_log(self.connection, node="node", epoch=self._epoch, options=self.options)


SMALL = {"shards": 1, "group_records": 7, "group_bytes": 900, "read_ahead_bytes": 1, "look_back": 2}
BROKER_DRIVERS: Mapping[str, tuple[str, Callable[[str, str], Driver]]] = {
    "kafka": ("kafka", KafkaDriver),
    "kafka-small": ("kafka", lambda address, prefix: KafkaDriver(address, prefix, **SMALL)),
    "rocketmq": ("rocketmq", RocketmqDriver),
    "rocketmq-small": ("rocketmq", lambda address, prefix: RocketmqDriver(address, prefix, **SMALL)),
    "rocketmq4": ("rocketmq4", RocketmqDriver),
}
"""By name the fixture of the broker, and the driver over it."""

DRIVERS = {
    "memory": MemoryDriver,
    **{f"memory-seed-{seed}": (lambda folder, seed=seed: MemoryDriver(folder, seed)) for seed in range(5)},
    **{f"memory-refusing-{seed}": (lambda folder, seed=seed: MemoryDriver(folder, seed, refuse=0.2)) for seed in range(3)},
    "embedded": EmbeddedDriver,
    "embedded-small": lambda folder: EmbeddedDriver(
        folder, group_records=7, group_bytes=900, segment_bytes=4000, tail_frames=2, read_ahead_bytes=1, checkpoint_bytes=40000
    ),
}
