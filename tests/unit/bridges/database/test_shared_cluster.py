"""Two nodes on one PostgreSQL database at the same moment: who takes over from whom, and that it is one of them."""

from __future__ import annotations

import asyncio

import pytest

from bridges.database import adopting, asking, membership
from bridges.database.changes import Outcome
from bridges.database.claims import Connections, claim
from bridges.database.locks import learn_epochs
from bridges.database.store import DatabaseStore
from bridges.database.worker import Transaction
from schemas.errors import StoreBusy, StoreError
from schemas.identities import AccessKey
from schemas.positions import At
from schemas.sessions import BoxState, DropEntry, PutEntry, SessionState
from streams.cluster import KEPT_MS, Answer, Lease, LeaseFence, NodeFence, NodeState, Question, routing_reader
from streams.store import FinishReplayed, Refused
from tests.contract.store_making import MANY, NOW, entry, put, queued
from tests.unit.bridges.database.test_shared import Held, UntilWaiting, one, two, until_waiting, url

__all__ = ["one", "two", "until_waiting", "url"]  # fixtures

GONE = 0
KEY = AccessKey("id", "device", b"sealed", 0)


async def _join(store: DatabaseStore, node: str, lease_ms: int = 60_000) -> int:
    epoch = await store.next_epoch()
    assert isinstance(await store.cluster.join(node, epoch, "", lease_ms), NodeState)
    return epoch


async def _claim(store: DatabaseStore, owner: int, client: str) -> object:
    return await store.claim(client, "p1", clean_start=False, expiry=3600, now=NOW, limit=MANY, owner=owner)


async def test_of_two_that_take_a_lease_at_once_one_has_it(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    a, b = await _join(one, "a"), await _join(two, "b")
    taking = await Held(one, lambda t: membership.acquire(t.connection, t.told, "shard/0", a)).begun()
    other = await until_waiting(two.cluster.acquire("shard/0", b))
    assert await taking.go() == Lease("shard/0", 1, a)
    assert await other is None
    assert await one.cluster.leases() == [Lease("shard/0", 1, a)]


async def test_a_commit_under_a_lease_is_over_before_the_lease_is_another_s(
    one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting
) -> None:
    a, b = await _join(one, "a"), await _join(two, "b")
    lease = await one.cluster.acquire("rule/1", a)
    assert lease is not None
    await one.cluster.renew(a, GONE)
    fence = LeaseFence("rule/1", lease.token)
    committing = await Held(one, lambda t: membership.holds(t.connection, fence)).begun()
    taking = await until_waiting(two.cluster.acquire("rule/1", b))
    assert await committing.go()
    assert (await taking) == Lease("rule/1", lease.token + 1, b)
    assert (await one.commit([], {"rule/1": At(0, 1, 0)}, [fence])).lost == (fence,)


async def test_a_node_s_commit_is_over_before_it_is_dead(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    """Who takes over reads its positions after that, and nothing changes them any more."""
    a, b = await _join(one, "a", GONE), await _join(two, "b")
    committing = await Held(one, lambda t: membership.holds(t.connection, NodeFence(a))).begun()
    adopting_all = await until_waiting(two.cluster.adopt(a, b, 10))
    assert await committing.go()
    assert await adopting_all == []
    assert (await one.commit([], {"a": At(0, 1, 0)}, [NodeFence(a)])).lost == (NodeFence(a),)


async def test_a_dead_node_s_transaction_is_ended(one: DatabaseStore, two: DatabaseStore) -> None:
    """It stands still, and no timeout of the server counts: in the middle of a pipeline a backend isn't idle."""
    a, b = await _join(one, "a", GONE), await _join(two, "b")
    one.stand_on((NodeFence(a),))
    await one._worker.call(lambda transaction: transaction.connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 0"))
    standing = await Held(one, lambda t: membership.holds(t.connection, NodeFence(a))).begun()
    assert await two.cluster.adopt(a, b, 10) == []
    with pytest.raises(StoreError):
        await standing.go()


async def test_rows_of_a_node_that_stands_still_are_had_by_who_asks_again(one: DatabaseStore, two: DatabaseStore) -> None:
    """Nobody needs to declare it dead for that, which would wait behind those who wait for the rows."""
    a, b = await _join(one, "a"), await _join(two, "b")
    session = await _claim(one, a, "c1")
    assert isinstance(session, SessionState)
    one.stand_on((NodeFence(a),))
    await one._worker.call(lambda transaction: transaction.connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 0"))
    standing = await Held(one, lambda t: learn_epochs(t.connection, t.epochs, [session.id])).begun()
    for lease_ms in (60_000, GONE):  # it keeps them for as long as it lives
        assert await two.cluster.renew(a, lease_ms)
        await two._worker.call(lambda transaction: transaction.connection.exec_driver_sql("SET lock_timeout = 50"))
        with pytest.raises(StoreBusy):
            await _claim(two, b, "c1")
    claimed = await _claim(two, b, "c1")
    assert isinstance(claimed, SessionState)
    assert claimed.epoch == session.epoch + 1
    with pytest.raises(StoreError):
        await standing.go()


async def test_a_node_that_lives_keeps_its_transactions(one: DatabaseStore, two: DatabaseStore) -> None:
    a, b = await _join(one, "a"), await _join(two, "b")
    one.stand_on((NodeFence(a),))
    standing = await Held(one, lambda t: membership.holds(t.connection, NodeFence(a))).begun()
    assert isinstance(await two.cluster.adopt(a, b, 10), Refused)
    assert not await two.cluster.bury(a)
    assert await standing.go()


async def test_a_renewal_passes_a_commit_that_stands_on_the_node(one: DatabaseStore, two: DatabaseStore) -> None:
    a = await _join(one, "a")
    committing = await Held(one, lambda t: membership.holds(t.connection, NodeFence(a))).begun()
    assert await two.cluster.renew(a)
    assert await committing.go()


async def test_two_that_take_over_at_once_share_and_none_is_taken_twice(one: DatabaseStore, two: DatabaseStore) -> None:
    dead, b, c = await _join(one, "a"), await _join(one, "b"), await _join(two, "c")
    for number in range(6):
        await _claim(one, dead, f"c{number}")
    await one.cluster.renew(dead, GONE)
    assert await one.cluster.adopt(dead, b, 0) == []
    taking = await Held(one, lambda t: adopting.adopt(t.connection, t.epochs, dead, b, 4)).begun()
    second = await two.cluster.adopt(dead, c, 4)  # without waiting for the other
    first = await taking.go()
    assert not isinstance(second, Refused)
    taken = [state.client for state in (*first, *second)]
    assert sorted(taken) == [f"c{number}" for number in range(6)]
    owners = await one.cluster.owners(taken)
    assert [owners[state.client].node for state in first] == [b] * 4
    assert await two.cluster.bury(dead)


async def test_a_session_that_is_claimed_while_it_is_taken_over_is_not_taken(one: DatabaseStore, two: DatabaseStore) -> None:
    dead, b, c = await _join(one, "a"), await _join(one, "b"), await _join(two, "c")
    for client in ("c1", "c2"):
        await _claim(one, dead, client)
    await one.cluster.renew(dead, GONE)
    claiming = await Held(
        two,
        lambda t: membership.holds(t.connection, NodeFence(c)) and adopting._SET_EPOCH.run(t.connection, the_id=1, epoch=2),
    ).begun()
    states = await one.cluster.adopt(dead, b, 10)
    assert not isinstance(states, Refused)
    assert [state.client for state in states] == ["c2"]
    await claiming.go()
    assert not await one.cluster.bury(dead)


async def test_two_starts_of_one_node_at_once_are_one(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    first, second = await one.next_epoch(), await two.next_epoch()
    joining = await Held(one, lambda t: membership.join(t.connection, t.told, "a", first, "", 60_000)).begun()
    other = await until_waiting(two.cluster.join("a", second, ""))
    assert isinstance(await joining.go(), NodeState)
    assert isinstance(await other, Refused)


async def test_only_the_newer_owner_s_writes_apply(one: DatabaseStore, two: DatabaseStore) -> None:
    """Both write as fast as they can while the session goes to and fro; each write is under the epoch of its claim."""
    nodes = [(one, await _join(one, "a")), (two, await _join(two, "b"))]
    epochs: list[int] = []
    late = []
    for turn in range(20):
        store, owner = nodes[turn % 2]
        session = await store.claim("c1", "p1", clean_start=False, expiry=3600, now=NOW, limit=MANY, owner=owner)
        assert not isinstance(session, Refused)
        epochs.append(session.epoch)
        await put(store, session, entry(turn))
        other, _ = nodes[(turn + 1) % 2]
        if turn:
            late.append(other.commit([DropEntry(session.id, epochs[-2], entry(turn - 1).at), PutEntry(session.id, epochs[-2], entry(500 + turn))]))
    assert [len((await each).stale) for each in late] == [1] * 19
    assert epochs == list(range(1, 21))
    assert await queued(one, 1) == [entry(turn).at for turn in range(20)]


async def test_one_whose_place_is_another_s_can_do_nothing_but_ask_about_nodes(one: DatabaseStore, two: DatabaseStore) -> None:
    """Commits that wait together with such questions fail alone, claims and reads too."""
    a, b = await _join(one, "a"), await _join(two, "b")
    lease = await one.cluster.acquire("gateway", a)
    assert lease is not None
    one.stand_on([LeaseFence("gateway", lease.token)])
    await one.put_key(KEY)
    await one.cluster.leave(a)
    assert await two.cluster.acquire("gateway", b) == Lease("gateway", lease.token + 1, b)
    commit, nodes, claim = (
        asyncio.ensure_future(asked) for asked in (one.commit([], {"late": At(0, 1, 0)}), one.cluster.nodes(), _claim(one, 0, "c1"))
    )
    assert [node.alive for node in await nodes] == [False, True]
    for refused in (commit, claim, one.keys(), one.put_key(KEY)):
        with pytest.raises(StoreError, match="another gateway has taken this one's place in the database"):
            await refused
    assert await one.cluster.renew(a), "it isn't dead, and may ask"
    assert await two.positions() == {}
    assert await two.sessions(0, 10) == []
    assert len(await two.keys()) == 1


def _finish(transaction: Transaction, owner: int) -> None:
    transaction.changes.take([FinishReplayed(At(0, 9, 0), owner)], {routing_reader(owner): At(0, 9, 0)}, Outcome())
    transaction.changes.flush()


async def test_a_claim_reads_how_far_the_old_node_has_come_when_what_that_finished_is_gone(
    one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting
) -> None:
    a, b = await _join(one, "a"), await _join(two, "b")
    session = await _claim(one, a, "c1")
    assert isinstance(session, SessionState)
    await put(one, session, entry(1, state=BoxState.DONE))
    finishing = await Held(one, lambda t: _finish(t, a)).begun()
    claiming = await until_waiting(_claim(two, b, "c1"))
    await finishing.go()
    moved = await claiming
    assert isinstance(moved, SessionState)
    assert moved.resume == (At(0, 9, 0),)


async def test_what_is_finished_stays_where_a_claim_came_first(one: DatabaseStore, two: DatabaseStore, until_waiting: UntilWaiting) -> None:
    a, b = await _join(one, "a"), await _join(two, "b")
    session = await _claim(one, a, "c1")
    assert isinstance(session, SessionState)
    await put(one, session, entry(1, state=BoxState.DONE))

    def take(transaction: Transaction) -> SessionState | Refused:
        told, numbers = transaction.told, Connections()
        options = {"clean_start": False, "expiry": 3600, "now": NOW, "limit": MANY, "owner": b, "told": told}
        return claim(transaction.connection, transaction.epochs, numbers, "c1", "p1", **options)  # type: ignore[arg-type]

    claiming = await Held(two, take).begun()
    finishing = await until_waiting(one.commit([FinishReplayed(At(0, 9, 0), a)], {routing_reader(a): At(0, 9, 0)}))
    moved = await claiming.go()
    await finishing
    assert moved.resume == ()
    await put(two, moved, entry(1))
    assert await queued(two, moved.id) == [], "it is known that it was delivered"


async def test_questions_make_nobody_wait(one: DatabaseStore, two: DatabaseStore) -> None:
    """Not even for who is in the midst of sweeping, answering or withdrawing: their transactions may have sessions, too."""
    a, b = await _join(one, "a"), await _join(two, "b")
    old, question = Question(a, 1, "x"), Question(a, 2, "x")
    for asked, within in ((old, -2 * KEPT_MS), (question, 60_000)):
        assert isinstance(await one.cluster.ask(asked, within), list)
    sweeping = await Held(two, lambda t: asking.ask(t.connection, t.told, Question(b, 1, "y"), 60_000)).begun()
    await one.cluster.withdraw(old)
    assert isinstance(await one.cluster.ask(Question(a, 3, "x"), 60_000), list)
    await sweeping.go()
    answering = await Held(two, lambda t: asking.answer(t.connection, t.told, question, Answer(b, b"1"))).begun()
    await one.cluster.withdraw(question)
    assert await answering.go()
    withdrawing = await Held(one, lambda t: asking.withdraw(t.connection, Question(a, 3, "x"))).begun()
    assert await two.cluster.answer(Question(a, 3, "x"), Answer(b, b"2"))
    await withdrawing.go()
    assert await two.cluster.asked(b) == []
