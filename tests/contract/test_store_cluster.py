"""What many nodes need of a store: who they are, what each has leased, whose sessions are, and which filters each routes.

Nobody waits for a lease to run out here: one of no length has run out when it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.positions import At
from schemas.sessions import (
    BoxState,
    DropReceived,
    EndConnection,
    PutEntry,
    PutReceived,
    PutSubscription,
    RemoveSession,
    Resumed,
    SessionState,
    Subscription,
)
from streams.cluster import (
    LEASE_MS,
    NODES,
    POLL,
    ROUTES,
    SESSION,
    Lease,
    LeaseFence,
    NodeFence,
    NodeState,
    Notice,
    Owner,
    PutRoute,
    Route,
    Routes,
    Tell,
    TrimRoutes,
    routing_reader,
)
from streams.store import FinishReplayed, Refused, Stale, Store
from tests.contract.store_making import KINDS, MANY, NOW, entry, made, place, put, queued

GONE = 0
"""A lease that has run out."""


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


async def _join(store: Store, node: str, lease_ms: int = LEASE_MS) -> int:
    epoch = await store.next_epoch()
    state = await store.cluster.join(node, epoch, f"{node}:1883", lease_ms)
    assert state == NodeState(epoch, node, lease_ms > 0, f"{node}:1883", 0)
    return epoch


async def _claim(store: Store, owner: int, client: str = "c1", *, clean_start: bool = False, expiry: int = 3600, now: int = NOW) -> SessionState:
    state = await store.claim(client, "p1", clean_start=clean_start, expiry=expiry, now=now, limit=MANY, owner=owner)
    assert isinstance(state, SessionState)
    return state


async def test_nodes_are_listed_and_live_as_long_as_their_lease(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b", GONE)
    assert await store.cluster.nodes() == [NodeState(a, "a", True, "a:1883"), NodeState(b, "b", False, "b:1883")]
    assert await store.cluster.renew(b)
    assert [node.alive for node in await store.cluster.nodes()] == [True, True]
    await store.cluster.leave(a)
    assert [node.alive for node in await store.cluster.nodes()] == [False, True]
    assert not await store.cluster.renew(99)


async def test_two_starts_of_one_node_don_t_live_together(store: Store) -> None:
    first = await _join(store, "a")
    second = await store.next_epoch()
    assert isinstance(await store.cluster.join("a", second, ""), Refused)
    assert [node.epoch for node in await store.cluster.nodes()] == [first]
    await store.cluster.leave(first)
    assert isinstance(await store.cluster.join("a", second, ""), NodeState)


async def test_a_join_asked_for_twice_is_one(store: Store) -> None:
    """Its first answer may have been lost."""
    epoch = await _join(store, "a", GONE)
    assert await store.cluster.join("a", epoch, "elsewhere") == NodeState(epoch, "a", True, "elsewhere")
    assert len(await store.cluster.nodes()) == 1


async def test_a_lease_is_held_by_one_and_its_token_grows(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b")
    first = await store.cluster.acquire("shard/0", a)
    assert first == Lease("shard/0", first.token, a) if first else False
    assert await store.cluster.acquire("shard/0", b) is None
    assert await store.cluster.acquire("shard/0", a) == first
    await store.cluster.leave(a)
    second = await store.cluster.acquire("shard/0", b)
    assert first is not None and second is not None and second.token > first.token
    assert await store.cluster.acquire("shard/0", a) is None  # it has lost its life too
    await store.cluster.release("shard/0", a)
    assert await store.cluster.leases() == [second]
    await store.cluster.release("shard/0", b)
    (free,) = await store.cluster.leases()
    assert (free.epoch, free.token) == (0, second.token + 1)
    assert await store.cluster.acquire("shard/0", b) == Lease("shard/0", free.token + 1, b)


async def test_nothing_of_a_commit_under_a_lost_lease_is_applied(store: Store) -> None:
    a, b = await _join(store, "a", GONE), await _join(store, "b")
    await store.cluster.renew(a)
    lease = await store.cluster.acquire("rule/1", a)
    assert lease is not None
    fence = LeaseFence("rule/1", lease.token)
    assert (await store.commit([], {"rule/1": At(0, 1, 0)}, [fence])).lost == ()
    await store.cluster.renew(a, GONE)
    assert (await store.commit([], {"rule/1": At(0, 2, 0)}, [fence])).lost == ()  # nobody took it
    taken = await store.cluster.acquire("rule/1", b)
    assert taken is not None
    session = await _claim(store, b)
    result = await store.commit([PutEntry(session.id, session.epoch, entry(1))], {"rule/1": At(0, 3, 0)}, [NodeFence(b), fence])
    assert result.lost == (fence,)
    assert await store.positions() == {"rule/1": {0: At(0, 2, 0)}}
    assert await queued(store, session.id) == []
    assert (await store.commit([], {"rule/1": At(0, 9, 0)}, [NodeFence(b), LeaseFence("rule/1", taken.token)])).lost == ()
    assert (await store.commit([], {}, [LeaseFence("none", 1), NodeFence(98)])).lost == (LeaseFence("none", 1), NodeFence(98))


async def test_a_dead_node_stays_dead_and_writes_nothing_more(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b")
    session = await _claim(store, a)
    assert isinstance(await store.cluster.adopt(a, b, 10), Refused)
    await store.cluster.renew(a, GONE)
    assert (await store.commit([], {"a": At(0, 1, 0)}, [NodeFence(a)])).lost == ()
    adopted = await store.cluster.adopt(a, b, 10)
    assert not isinstance(adopted, Refused)
    assert [state.id for state in adopted] == [session.id]
    assert not await store.cluster.renew(a)
    assert (await store.commit([], {"a": At(0, 2, 0)}, [NodeFence(a)])).lost == (NodeFence(a),)
    assert (await store.commit([PutEntry(session.id, session.epoch, entry(1))])).stale == (Stale(session.id, session.epoch),)
    assert isinstance(await store.claim("c2", "p1", clean_start=True, expiry=9, now=NOW, limit=MANY, owner=a), Refused)
    assert isinstance(await store.cluster.join("a", a, ""), Refused)
    assert isinstance(await store.cluster.adopt(b, a, 10), Refused)
    assert await store.cluster.acquire("x", a) is None
    assert await store.positions() == {"a": {0: At(0, 1, 0)}}


async def test_a_session_belongs_to_the_node_that_claimed_it_last(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b")
    first = await _claim(store, a)
    assert (first.owner, (await store.sessions(0, 9))[0].owner) == (0, a)
    second = await _claim(store, b)
    assert (second.owner, second.epoch) == (a, first.epoch + 1)
    assert await store.cluster.owners(["c1", "unknown"]) == {"c1": Owner(first.id, second.epoch, b)}
    assert (await _claim(store, b)).owner == b
    third = await _claim(store, a, clean_start=True)
    assert (third.owner, third.present) == (b, False)
    assert await store.cluster.owners(["c1"]) == {"c1": Owner(third.id, third.epoch, a)}
    assert (await _claim(store, b, expiry=0, clean_start=True)).owner == a
    assert await store.cluster.owners(["c1"]) == {}


async def test_received_ids_are_those_of_the_node_that_has_the_session(store: Store) -> None:
    """What another folded before it lost the session may come when the id is free again: it would be taken for a repeat of what follows."""
    a, b = [await _join(store, name) for name in ("a", "b")]
    session = await _claim(store, a)
    await store.commit([PutReceived(session.id, 1, a), PutReceived(session.id, 2, b), PutReceived(session.id, 3)])
    assert (await _claim(store, b)).received == (1,)
    await store.commit([PutReceived(session.id, 4, b), PutReceived(session.id, 5, a), DropReceived(session.id, 4, a), DropReceived(session.id, 1, b)])
    assert (await _claim(store, a)).received == (4,)
    await store.commit([PutReceived(session.id, 6, a), DropReceived(session.id, 6, b), PutReceived(session.id, 7, b), DropReceived(session.id, 4, a)])
    assert (await _claim(store, a)).received == (6,)


async def test_a_session_says_before_which_epoch_what_lies_behind_is_late(store: Store) -> None:
    """That under which the node that it comes from had taken it, and not only claimed it again; one that was not brought up leaves as it came."""
    a, b, c = [await _join(store, name) for name in ("a", "b", "c")]
    assert (await _claim(store, a)).late_before == 0
    second = await _claim(store, b)
    assert second.late_before == 0
    await store.commit([Resumed(second.id, second.epoch)])
    again = await _claim(store, b)
    assert (again.late_before, again.resume) == (0, None)
    third = await _claim(store, c)
    assert (third.epoch, third.late_before) == (4, second.epoch)
    fourth = await _claim(store, a)
    assert fourth.late_before == second.epoch
    await store.commit([Resumed(fourth.id, fourth.epoch)])
    await store.cluster.renew(a, GONE)
    adopted = await store.cluster.adopt(a, b, 10)
    assert not isinstance(adopted, Refused)
    assert [(state.epoch, state.late_before) for state in adopted] == [(6, fourth.epoch)]


async def test_a_dead_node_s_sessions_are_taken_over_in_chunks(store: Store) -> None:
    dead, b, c = [await _join(store, name) for name in ("a", "b", "c")]
    sessions = [await _claim(store, dead, f"c{number}") for number in range(7)]
    kept = await _claim(store, b, "kept")
    full = sessions[2]
    await put(store, full, entry(1), entry(2, state=BoxState.IN_FLIGHT, packet_id=4))
    await store.commit([PutSubscription(full.id, full.epoch, Subscription("a/#", 1)), PutReceived(full.id, 8, dead)])
    await store.commit([EndConnection(full.id, full.epoch, 60, NOW + 60_000), RemoveSession(sessions[6].id, sessions[6].epoch)])
    await store.cluster.renew(dead, GONE)
    assert not await store.cluster.bury(dead)
    taken: list[tuple[int, SessionState]] = []
    for by, limit in ((b, 2), (c, 3), (b, 3), (c, 3)):
        states = await store.cluster.adopt(dead, by, limit)
        assert not isinstance(states, Refused)
        taken += [(by, state) for state in states]
    assert [(by, state.client) for by, state in taken] == [(b, "c0"), (b, "c1"), (c, "c2"), (c, "c3"), (c, "c4"), (b, "c5")]
    state = taken[2][1]
    assert (state.epoch, state.owner, state.subscriptions, state.received) == (full.epoch + 1, dead, (Subscription("a/#", 1),), (8,))
    assert (state.queued, state.in_flight, state.expires_at, state.present) == (1, (), NOW + 60_000, True)
    owners = await store.cluster.owners([f"c{number}" for number in range(7)])
    assert [owners[client].node for client in sorted(owners)] == [b, b, c, c, c, b]
    assert (await store.commit([PutEntry(kept.id, kept.epoch, entry(1))])).stale == ()
    assert await store.cluster.bury(dead)
    assert [node.epoch for node in await store.cluster.nodes()] == [b, c]
    assert await store.cluster.adopt(dead, b, 9) == []


async def test_a_node_that_restarts_takes_its_own_sessions_back(store: Store) -> None:
    before = await _join(store, "a")
    session = await _claim(store, before)
    await store.cluster.leave(before)
    after = await _join(store, "a")
    states = await store.cluster.adopt(before, after, 10)
    assert not isinstance(states, Refused)
    assert [(state.id, state.epoch) for state in states] == [(session.id, session.epoch + 1)]


async def test_finished_deliveries_go_by_the_position_of_their_own_node(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b")
    sessions = [await _claim(store, a, "c1"), await _claim(store, b, "c2")]
    for session in sessions:
        await put(store, session, entry(1, state=BoxState.DONE))
    await store.commit([FinishReplayed(At(0, 9, 0), owner=a)])
    for session in sessions:
        await put(store, session, entry(1))
    assert [await queued(store, session.id) for session in sessions] == [[place(1)], []]


async def test_finished_deliveries_of_a_session_that_is_being_brought_up_stay(store: Store) -> None:
    """It is brought up from before its new node's position, and finds by them what it has had."""
    a, b = await _join(store, "a"), await _join(store, "b")
    session = await _claim(store, a)
    await put(store, session, entry(1, state=BoxState.DONE))
    moved = await _claim(store, b)
    await store.commit([FinishReplayed(At(0, 9, 0), owner=b)])
    await put(store, moved, entry(1))
    assert await queued(store, session.id) == []
    await store.commit([Resumed(moved.id, moved.epoch), FinishReplayed(At(0, 9, 0), owner=b)])
    await put(store, moved, entry(1))
    assert await queued(store, session.id) == [place(1)]


async def test_routes_are_read_by_what_changed(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b")
    await store.commit([PutRoute(a, "x/#", 1, 1), PutRoute(a, "y", 2, 2), PutRoute(b, "x/#", 1, 1)])
    assert await store.cluster.routes({}, 2) == Routes((Route(a, "x/#", 1, 1), Route(a, "y", 2, 2)))
    assert await store.cluster.routes({a: 2}, 2) == Routes((Route(b, "x/#", 1, 1),))
    assert [node.routes for node in await store.cluster.nodes()] == [2, 1]
    await store.commit([PutRoute(a, "x/#", 5, 3), PutRoute(a, "x/#", 0, 4), PutRoute(b, "z", 1, 2)])
    assert await store.cluster.routes({a: 2, b: 1}, 9) == Routes((Route(a, "x/#", 0, 4), Route(b, "z", 1, 2)))
    await store.commit([PutRoute(a, "x/#", 7, 3)])  # told again, late
    assert await store.cluster.routes({a: 4, b: 2}, 9) == Routes()
    await store.commit([TrimRoutes(a, 3)])
    assert Route(a, "x/#", 0, 4) in (await store.cluster.routes({}, 9)).routes
    await store.commit([PutRoute(a, "w", 1, 5), TrimRoutes(a, 4)])
    assert await store.cluster.routes({}, 9) == Routes((Route(a, "y", 2, 2), Route(a, "w", 1, 5), Route(b, "x/#", 1, 1), Route(b, "z", 1, 2)))


async def test_a_dead_node_s_routes_stay_until_it_is_buried(store: Store) -> None:
    a, b = await _join(store, "a"), await _join(store, "b")
    await store.commit([PutRoute(a, "x/#", 1, 1)])
    await store.cluster.acquire("shard/0", a)
    await store.cluster.leave(a)
    assert await store.cluster.adopt(a, b, 9) == []
    assert (await store.commit([PutRoute(a, "late", 1, 2), TrimRoutes(a, 1), PutRoute(99, "x", 1, 1)])).stale == (Stale(0, a), Stale(0, 99))
    assert (await store.cluster.routes({}, 9)).routes == (Route(a, "x/#", 1, 1),)
    assert await store.cluster.bury(a)
    assert await store.cluster.routes({a: 1, b: 0}, 9) == Routes((), (a,))
    assert [lease.epoch for lease in await store.cluster.leases()] == [0]
    assert await store.cluster.bury(a)


class Heard:
    def __init__(self, store: Store) -> None:
        self.notices: list[Notice] = []
        self._more = asyncio.Event()
        self.stop = store.cluster.listen(self._hear)

    def _hear(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._more.set()

    async def until(self, notice: Notice) -> None:
        async with asyncio.timeout(10):
            while notice not in self.notices:
                self._more.clear()
                await self._more.wait()


async def _listening(store: Store, kind: str) -> Heard:
    heard = Heard(store)
    if kind == "postgresql":
        await heard.until(POLL)
    return heard


@pytest.mark.parametrize("kind", KINDS)
async def test_notices_tell_of_what_has_happened(kind: str, tmp_path: Path) -> None:
    async with made(kind, tmp_path) as store:
        heard = await _listening(store, kind)
        a, b = await _join(store, "a"), await _join(store, "b")
        session = await _claim(store, a)
        assert (await _claim(store, b)).owner == a
        again = await _claim(store, a, clean_start=True)
        await store.commit([EndConnection(again.id, again.epoch, 1, NOW), PutRoute(a, "x", 1, 1), Tell(Notice("rules", "r1 changed"))])
        await store.sweep(NOW, entries_per_box=1, entries_total=1, entry_age=1, limit=9)
        await store.commit([Tell(Notice("last"))], None, [NodeFence(99)])
        await store.commit([Tell(Notice("last", "of all"))])
        await heard.until(Notice("last", "of all"))
        told = [notice for notice in heard.notices if notice != POLL]
        assert told[:2] == [Notice(NODES)] * 2
        assert told[2:4] == [Notice(SESSION, f"{a} {session.id} 2"), Notice(SESSION, f"{b} {session.id} 0")]
        assert set(told[4:6]) == {Notice(ROUTES, str(a)), Notice("rules", "r1 changed")}
        assert told[6:] == [Notice(SESSION, f"{a} {again.id} 0"), Notice("last", "of all")]
        heard.stop()
        await store.commit([Tell(Notice("unheard"))])
        await store.counts()
        assert Notice("unheard") not in heard.notices


async def test_a_session_of_another_node_says_how_far_that_had_routed_until_it_is_resumed(store: Store) -> None:
    a, b, c = [await _join(store, name) for name in ("a", "b", "c")]
    assert (await _claim(store, a)).resume is None
    reader = routing_reader(a)
    await store.commit([], {reader: At(0, 7, 1), f"{reader}:2": At(2, 9, 0), f"{reader}0:1": At(1, 1, 1), routing_reader(b): At(0, 50, 0)})
    assert (await _claim(store, a)).resume is None
    moved = await _claim(store, b)
    assert sorted(moved.resume or ()) == [At(0, 7, 1), At(2, 9, 0)]
    again = await _claim(store, c)
    assert again.resume == moved.resume, "what was not brought up there either"
    assert (await store.sessions(0, 9))[0].resume == moved.resume
    late = await store.commit([Resumed(moved.id, moved.epoch)])
    assert late.stale == (Stale(moved.id, moved.epoch),)
    assert (await _claim(store, c)).resume == moved.resume
    (state,) = await store.sessions(0, 9)
    assert (await store.commit([Resumed(state.id, state.epoch)])).stale == ()
    assert (await _claim(store, c)).resume is None
    assert (await _claim(store, b)).resume == (At(0, 7, 1), At(2, 9, 0)), "it had come that far, whoever has it now"
    (state,) = await store.sessions(0, 9)
    await store.commit([Resumed(state.id, state.epoch)], {f"{routing_reader(b)}:1": At(1, 3, 0)})
    assert (await _claim(store, c)).resume == (At(0, 50, 0), At(1, 3, 0), At(2, 9, 0))
    assert (await _claim(store, b, clean_start=True)).resume is None


async def test_adopted_sessions_say_so_too_and_a_burial_takes_the_positions(store: Store) -> None:
    dead, b = await _join(store, "a"), await _join(store, "b")
    moved, own = await _claim(store, b, "moved"), await _claim(store, dead, "own")
    await store.commit([], {routing_reader(b): At(0, 3, 0), routing_reader(dead): At(0, 7, 1), f"{routing_reader(dead)}:1": At(1, 2, 0)})
    assert (await _claim(store, dead, "moved")).resume == (At(0, 3, 0),)
    await store.cluster.leave(dead)
    states = await store.cluster.adopt(dead, b, 9)
    assert not isinstance(states, Refused)
    found = {state.id: sorted(state.resume or ()) for state in states}
    assert found == {moved.id: [At(0, 3, 0)], own.id: [At(0, 7, 1), At(1, 2, 0)]}
    assert await store.cluster.bury(dead)
    assert await store.positions() == {routing_reader(b): {0: At(0, 3, 0)}}


async def test_the_sessions_of_a_node_alone_are_taken_over_like_those_of_a_dead_one(store: Store) -> None:
    before = await store.claim("c1", "p1", clean_start=False, expiry=3600, now=NOW, limit=MANY)
    assert isinstance(before, SessionState)
    await store.commit([], {routing_reader(0): At(0, 4, 0)})
    a = await _join(store, "a")
    states = await store.cluster.adopt(0, a, 9)
    assert not isinstance(states, Refused)
    assert [(state.id, state.epoch, state.resume) for state in states] == [(before.id, before.epoch + 1, (At(0, 4, 0),))]
    assert await store.cluster.adopt(0, a, 9) == []
