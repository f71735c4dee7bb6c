"""A small seeded load on the embedded log for the fault tests, and what must hold of what it finds afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

from bridges.local.log import EmbeddedLog, open_log
from bridges.local.options import LogOptions
from schemas.errors import LogError
from schemas.positions import At
from schemas.records import PUBLISH_TOPIC, Kind, Record
from streams.log import Reader

TOPIC = PUBLISH_TOPIC


class Ledger:
    """A sink that knows what was appended, acknowledged and refused."""

    def __init__(self) -> None:
        self.sent: dict[bytes, Record] = {}
        self.acknowledged: dict[bytes, At] = {}
        self.refused_ids: set[bytes] = set()

    def appended(self, records: Sequence[Record], first: At) -> None:
        for index, record in enumerate(records):
            assert record.id not in self.acknowledged
            assert record.id not in self.refused_ids
            self.acknowledged[record.id] = At(first.shard, first.offset, first.index + index)

    def refused(self, records: Sequence[Record], error: LogError) -> None:
        for record in records:
            assert record.id not in self.acknowledged
            self.refused_ids.add(record.id)

    def append(self, log: EmbeddedLog, size: int = 40) -> Record:
        number = len(self.sent)
        payload = random.Random(number).randbytes(size)
        record = Record(Kind.PUBLISH, number.to_bytes(16, "big"), 1000 + number, "client", "t", payload)
        self.sent[record.id] = record
        log.append(TOPIC, "client", record, self)
        return record

    @property
    def settled(self) -> int:
        return len(self.acknowledged) + len(self.refused_ids)

    async def wait(self, patience: float = 10.0) -> None:
        """Until every record has its outcome."""
        async with asyncio.timeout(patience):
            while self.settled < len(self.sent):
                await asyncio.sleep(0.001)

    def check(self, found: Sequence[tuple[At, Record]], *, lost: int = 0) -> None:
        """Acknowledged and lost 0; nothing that was not sent, nothing twice, nothing out of order, all at its place."""
        by_id = {record.id: (at, record) for at, record in found}
        assert len(by_id) == len(found), "a record is there twice"
        assert all(self.sent.get(record.id) == record for _, record in found), "a record that nobody sent"
        assert sorted(by_id) == [record.id for _, record in found], "out of order"
        missing = [id for id in self.acknowledged if id not in by_id]
        assert len(missing) <= lost, f"acknowledged and lost: {len(missing)}"
        assert all(by_id[id][0] == at for id, at in self.acknowledged.items() if id in by_id), "a record has moved"


async def burst(log: EmbeddedLog, ledger: Ledger, chance: random.Random, records: int) -> None:
    """Append records in groups of all sizes."""
    while records > 0:
        group = min(records, chance.choice((1, 1, 3, 20)))
        for _ in range(group):
            ledger.append(log, chance.choice((10, 40, 400, 9000)))
        records -= group
        for _ in range(chance.randint(0, 4)):
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            await asyncio.sleep(0.0005)


async def read_all(log: EmbeddedLog) -> list[tuple[At, Record]]:
    """Everything from the oldest to the end, from disk."""
    reader: Reader = log.open(TOPIC, "earliest")
    first, end = (await log.ends(TOPIC))[0]
    found: list[tuple[At, Record]] = []
    while len(found) < end.offset - first.offset:
        batch = await reader.next(1000, 1 << 20)
        found += [(At(0, batch.first.offset, batch.first.index + index), record) for index, record in enumerate(batch.records)]
    reader.close()
    return found


async def reopen(folder: Path, epoch: int, options: LogOptions) -> tuple[EmbeddedLog, list[tuple[At, Record]]]:
    """The log started again, and all that is in it."""
    log = await open_log(folder, node="node", epoch=epoch, options=options)
    try:
        return log, await read_all(log)
    except BaseException:
        await log.close()
        raise
