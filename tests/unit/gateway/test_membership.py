"""One gateway a database: who comes second is told, who died is followed, and who was overtaken neither sends nor writes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.flush import AGAIN, Flusher
from gateway.folder import folder_identity
from gateway.membership import LEASE, PATIENCE, RENEW, Membership
from schemas.errors import StartError, StoreError
from streams.cluster import NodeState
from streams.memory.store import MemoryStore


class Clock:
    """Time passes while somebody sleeps. ``meanwhile`` happens then, once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.meanwhile: list[object] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def made(store: MemoryStore, node: str, folder: str = "", clock: Clock | None = None, *, alone: bool = True) -> Membership:
    clock = clock or Clock()
    return Membership(store.cluster, node, await store.next_epoch(), folder or f"folder-of-{node}", alone=alone, clock=clock, sleep=clock.sleep)


async def living(store: MemoryStore) -> list[str]:
    return [node.node for node in await store.cluster.nodes() if node.alive]


async def test_a_second_gateway_is_refused_by_name_and_leaves_nothing_behind() -> None:
    store, clock = MemoryStore(), Clock()
    first = await made(store, "one")
    await first.join()
    assert first.holds()
    second = await made(store, "two", clock=clock)
    with pytest.raises(StartError, match=r"^store\.url: the gateway one uses this database already, on \S+; several gateways share a database "):
        await second.join()
    assert await living(store) == ["one"]
    assert PATIENCE <= clock.now - 100.0 < PATIENCE + 1  # longer than the lease of one that died
    assert first.fences
    assert (await store.commit([], fences=first.fences)).lost == ()


async def test_a_second_gateway_of_one_id_is_told_so() -> None:
    store = MemoryStore()
    await (await made(store, "one")).join()
    with pytest.raises(StartError, match=r"^node\.id: a gateway with the id one uses this database already, on \S+: give this one another node\.id"):
        await (await made(store, "one", "another folder")).join()


async def test_nodes_with_a_log_in_common_live_together_but_not_with_one_alone_or_of_one_id() -> None:
    store = MemoryStore()
    for name in ("one", "two"):
        await (await made(store, name, alone=False)).join()
    assert await living(store) == ["one", "two"]
    with pytest.raises(StartError, match=r"^store\.url: the gateway one uses this database already, on "):
        await (await made(store, "alone")).join()
    with pytest.raises(StartError, match=r"^node\.id: a gateway with the id two uses this database already, on "):
        await (await made(store, "two", "another folder", alone=False)).join()
    assert await living(store) == ["one", "two"]
    store = MemoryStore()
    await (await made(store, "alone")).join()
    with pytest.raises(StartError, match=r"^store\.url: the gateway alone uses this database already, on "):
        await (await made(store, "one", alone=False)).join()


async def test_a_duty_is_one_node_s_as_long_as_it_lives_and_its_writes_stand_on_it() -> None:
    store, clock = MemoryStore(), Clock()
    stood: list[object] = []
    first = Membership(store.cluster, "one", await store.next_epoch(), "a", alone=False, stand_on=stood.append, clock=clock, sleep=clock.sleep)
    await first.join()
    second = await made(store, "two", alone=False)
    await second.join()
    assert await first.take("presence")
    assert await first.take("presence")
    assert not await second.take("presence")
    assert len(first.fences) == 2
    assert stood[-1] == first.fences
    await store.cluster.leave(1)
    assert await second.take("presence")
    assert (await store.commit([], fences=first.fences)).lost == first.fences[1:]
    await store.cluster.renew(1)  # nobody has declared it dead
    await first.run()
    assert first.lost, "what it had to do is another's"


async def test_a_start_in_the_same_folder_follows_at_once_and_fences_the_one_before() -> None:
    """The folder's lock says that the one before is dead; a name that changed in between doesn't matter."""
    store, clock = MemoryStore(), Clock()
    before = await made(store, "one", "folder")
    await before.join()
    for name in ("one", "renamed"):
        after = await made(store, name, "folder", clock)
        await after.join()
        assert clock.slept == []
        assert (await store.commit([], fences=before.fences)).lost == before.fences
        assert await living(store) == [name]
        await before.run()
        assert before.lost
        assert not before.holds()
        before = after
    assert len(await store.cluster.nodes()) == 1, "those before are buried"


async def test_the_lease_of_one_that_died_elsewhere_is_waited_for() -> None:
    store, clock = MemoryStore(), Clock()
    dead = await made(store, "one")
    await dead.join()

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if clock.now - 100.0 > LEASE - 1:
            await store.cluster.leave(1)

    after = Membership(store.cluster, "two", await store.next_epoch(), "folder", clock=clock, sleep=sleep)
    await after.join()
    assert after.holds()
    assert [node.node for node in await store.cluster.nodes()] == ["two"]
    await dead.run()
    assert dead.lost, "its lease ran out, though nothing told it so"


async def test_a_stop_leaves_so_that_the_next_start_need_not_wait() -> None:
    store, clock = MemoryStore(), Clock()
    first = await made(store, "one")
    await first.join()
    await first.close()
    await (await made(store, "two", clock=clock)).join()
    assert clock.slept == []


async def test_while_the_store_does_not_answer_the_place_lasts_as_long_as_its_lease_and_is_had_again(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = MemoryStore(), Clock()
    node = await made(store, "one", clock=clock)
    await node.join()
    run = asyncio.ensure_future(node.run())
    try:
        assert not node.is_steady()
        while clock.now < 120.0:
            await asyncio.sleep(0)
            assert node.holds()
        assert node.is_steady()
        store.failing = True
        failed_at = clock.now
        while clock.now < failed_at + LEASE + RENEW:
            if clock.now < failed_at + LEASE - RENEW:
                assert node.holds()
            await asyncio.sleep(0)
        assert not node.holds()
        store.failing = False
        answers_at = clock.now
        while clock.now < answers_at + 1:
            await asyncio.sleep(0)
        assert node.holds()
        assert not node.lost
        assert "node-lost" not in caplog.text
        assert not node.is_steady(), "others may not have come back yet"
        while clock.now < answers_at + 2 * LEASE:
            await asyncio.sleep(0)
        assert node.is_steady()
    finally:
        run.cancel()


@pytest.mark.parametrize("seconds", [0.0, RENEW + 0.1])
async def test_after_a_store_that_was_away_or_late_others_are_given_the_time_of_a_lease(seconds: float) -> None:
    """``seconds``: for which it answers nothing, and then does; 0: it fails, for less than a lease."""
    store, clock = MemoryStore(), Clock()
    renew = store.cluster.renew
    troubled, since = False, 0.0

    async def renewed(epoch: int, lease_ms: int = 5_000) -> bool:
        nonlocal troubled, since
        if troubled:
            clock.now += seconds
            troubled, since = False, clock.now
            if not seconds:
                raise StoreError("the store failed: away")
        return await renew(epoch, lease_ms)

    store.cluster.renew = renewed  # type: ignore[method-assign]
    node = await made(store, "one", clock=clock)
    await node.join()
    run = asyncio.ensure_future(node.run())
    try:
        while clock.now < 120.0:
            await asyncio.sleep(0)
        assert node.is_steady()
        troubled = True
        while troubled:
            await asyncio.sleep(0)
        while node.is_steady():  # the answer is on its way to who has asked
            assert clock.now == since
            await asyncio.sleep(0)
        while clock.now < since + LEASE:
            assert node.holds()
            assert not node.is_steady()
            await asyncio.sleep(0)
        while clock.now < since + LEASE + 2 * RENEW:
            await asyncio.sleep(0)
        assert node.is_steady()
    finally:
        run.cancel()


async def test_a_question_that_took_long_counts_from_when_it_was_asked() -> None:
    store, clock = MemoryStore(), Clock()
    renew = store.cluster.renew

    async def slowly(epoch: int, lease_ms: int = 5_000) -> bool:
        clock.now += LEASE + 1
        return await renew(epoch, lease_ms)

    store.cluster.renew = slowly  # type: ignore[method-assign]
    node = await made(store, "one", clock=clock)
    await node.join()
    run = asyncio.ensure_future(node.run())
    while clock.now < 110.0:
        await asyncio.sleep(0)
        assert not (clock.now > 100.0 + LEASE and node.holds())
    run.cancel()


async def test_a_lease_that_another_had_in_between_is_lost_though_it_is_free_again(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    node = await made(store, "one")
    await node.join()
    await store.cluster.leave(1)
    other = await store.next_epoch()
    assert isinstance(await store.cluster.join("two", other, ""), NodeState)
    assert await store.cluster.acquire("gateway", other) is not None
    await store.cluster.leave(other)
    await node.run()
    assert node.lost
    assert re.search(r"node-lost node=one epoch=1: another gateway has taken this one's place", caplog.text)


async def test_closing_where_the_store_fails_is_no_error() -> None:
    store = MemoryStore()
    node = await made(store, "one")
    await node.join()
    store.failing = True
    await node.close()
    with pytest.raises(StoreError):
        await store.cluster.nodes()


def test_a_folder_keeps_its_identity_and_shares_it_with_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = folder_identity(tmp_path / "a")
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert folder_identity(tmp_path / "a") == first != folder_identity(tmp_path / "b")
    (tmp_path / "a" / "folder.id").write_text("")  # a start that was killed on the way
    assert re.fullmatch(r"[0-9a-f]{32}", folder_identity(tmp_path / "a"))


def test_a_folder_whose_identity_can_t_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.id").mkdir()
    with pytest.raises(StartError, match=rf"^{re.escape(str(tmp_path / 'folder.id'))} can't be used: .*; delete it, or mend its permissions$"):
        folder_identity(tmp_path)


class Written:
    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


async def test_nothing_is_flushed_while_the_place_is_not_held_and_all_of_it_afterwards() -> None:
    loop = asyncio.get_running_loop()
    flusher, written = Flusher(loop), [Written(), Written()]
    held = False
    flusher.may_send = lambda: held
    assert flusher.holds_back()
    flusher.add(written[0])
    await asyncio.sleep(AGAIN * 2)
    flusher.add(written[1])
    await asyncio.sleep(0)
    assert [each.flushed for each in written] == [0, 0]
    held = True
    await asyncio.sleep(AGAIN * 2)
    assert [each.flushed for each in written] == [1, 1]
    assert not flusher.holds_back()
