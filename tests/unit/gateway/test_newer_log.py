"""A database that has not seen what the log has: a new one, another one, or one from a backup that is older."""

from __future__ import annotations

import pytest

from gateway.recovery import refuse_newer_log
from schemas.errors import StartError
from schemas.settings import LogSettings, NodeSettings, Settings
from streams.memory.store import MemoryStore


def settings(prefix: str = "sluiceway-", *, many: bool = True) -> Settings:
    return Settings(log=LogSettings(kind="kafka", prefix=prefix), node=NodeSettings(many=many))


async def at_epoch(epoch: int) -> MemoryStore:
    store = MemoryStore()
    for _ in range(epoch):
        await store.next_epoch()
    return store


async def test_what_earlier_starts_have_written_is_read() -> None:
    store = await at_epoch(5)
    for many in (True, False):
        for newest in range(5):
            await refuse_newer_log(store, settings(many=many), 5, newest)
    assert await store.next_epoch() == 6


async def test_of_many_nodes_others_may_have_started_since_and_written() -> None:
    store = await at_epoch(7)
    await refuse_newer_log(store, settings(), 5, 7)
    await refuse_newer_log(store, settings(), 5, 4)


@pytest.mark.parametrize(("many", "newest"), [(True, 5), (True, 9), (False, 5), (False, 6), (False, 9)])
async def test_what_no_start_of_this_database_has_written_is_refused_at_each_start(many: bool, newest: int) -> None:
    store = await at_epoch(6)
    with pytest.raises(StartError, match=f"log.prefix: the log sluiceway- has messages of start {newest}, which this database has not seen"):
        await refuse_newer_log(store, settings(many=many), 5, newest)
    for _ in range(10):
        epoch = await store.next_epoch()
        with pytest.raises(StartError, match=f"of start {newest}, which"):
            await refuse_newer_log(store, settings(many=many), epoch, newest)
    await refuse_newer_log(store, settings("other-", many=many), epoch, 0)
