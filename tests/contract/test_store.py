"""Claims, fences and commits: what every store does alike. Entries, retained messages and sweeps have files of their own beside this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus, Will
from schemas.sessions import (
    BoxState,
    DropEntry,
    DropReceived,
    DropSubscription,
    EndConnection,
    PutEntry,
    PutReceived,
    PutSubscription,
    RemoveSession,
    ReserveBlock,
    SessionState,
    SetEntry,
    Subscription,
    TrimBox,
)
from streams.store import Change, Counts, DropChannel, OpenChannel, PutChannel, PutStatus, Refused, Stale, Store
from tests.contract.store_making import KINDS, MANY, NOW, claimed, entry, made, place, put, queued, record

SUBSCRIPTION = Subscription("plant/#", 2, True, True, 1, 7, (At(0, 5, 1), At(3, 2, 0)))


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


async def test_a_first_claim_creates_a_session(store: Store) -> None:
    """[MQTT-3.1.2-6]"""
    first, second = await claimed(store, "c1"), await claimed(store, "c2")
    assert (first.present, first.client, first.principal, first.expiry, first.expires_at, first.next_block) == (False, "c1", "p1", 3600, 0, 1)
    assert first.id > 0 and first.epoch > 0
    assert first.id != second.id


async def test_a_second_claim_resumes_under_the_next_epoch(store: Store) -> None:
    """[MQTT-3.1.2-5]"""
    first = await claimed(store)
    box = await store.mailbox("c1")
    await put(store, first, entry(1), entry(2, state=BoxState.IN_FLIGHT, packet_id=4), entry(3), entry(4, state=BoxState.DONE))
    await put(store, first, entry(0, qos=2, state=BoxState.RELEASED, packet_id=9))
    await store.commit(
        [
            PutSubscription(first.id, first.epoch, SUBSCRIPTION),
            ReserveBlock(first.id, first.epoch, 1025),
            PutReceived(first.id, 12),
            PutReceived(first.id, 3),
            EndConnection(first.id, first.epoch, 60, NOW + 60_000),
        ]
    )
    again = await claimed(store, expiry=90)
    assert again == SessionState(
        id=first.id,
        epoch=first.epoch + 1,
        client="c1",
        principal="p1",
        present=True,
        expiry=90,
        subscriptions=(SUBSCRIPTION,),
        next_block=1025,
        in_flight=(entry(0, qos=2, state=BoxState.RELEASED, packet_id=9), entry(2, state=BoxState.IN_FLIGHT, packet_id=4)),
        queued=2,
        mailbox=box,
        received=(3, 12),
        expires_at=0,
    )


async def test_a_clean_start_ends_the_stored_session_with_all_that_belongs_to_it(store: Store) -> None:
    """[MQTT-3.1.2-4]"""
    old = await claimed(store)
    box = await store.mailbox("c1")
    await store.commit([PutSubscription(old.id, old.epoch, SUBSCRIPTION), PutReceived(old.id, 1)])
    await put(store, old, entry(1), entry(2, state=BoxState.IN_FLIGHT))
    await store.commit([PutEntry(box, 0, entry(3))])
    new = await claimed(store, clean_start=True)
    assert (new.present, new.subscriptions, new.in_flight, new.queued, new.received) == (False, (), (), 0, ())
    assert new.id != old.id
    assert await store.entries(old.id, None, 10) == []
    assert [each.at for each in await store.entries(box, None, 10)] == [place(3)]  # the mailbox isn't part of the session
    assert new.mailbox == box
    assert (await store.commit([DropEntry(old.id, old.epoch, place(1))])).stale == (Stale(old.id, old.epoch),)


async def test_expiry_0_keeps_no_session(store: Store) -> None:
    """[MQTT-3.1.2-23] is for intervals above 0."""
    box = await store.mailbox("c1")
    states = [await claimed(store, expiry=0, clean_start=clean) for clean in (True, False, True)]
    assert [(state.id, state.present, state.mailbox) for state in states] == [(0, False, box)] * 3
    assert len({state.epoch for state in states}) == 3
    assert (await store.counts()).sessions == 0


async def test_expiry_0_and_clean_start_end_a_stored_session(store: Store) -> None:
    await claimed(store)
    state = await claimed(store, expiry=0, clean_start=True)
    assert (state.id, state.present) == (0, False)
    assert await store.sessions(0, 10) == []


async def test_expiry_0_without_clean_start_resumes_a_stored_session(store: Store) -> None:
    first = await claimed(store)
    state = await claimed(store, expiry=0)
    assert (state.id, state.present, state.epoch, state.expiry) == (first.id, True, first.epoch + 1, 0)
    assert [(kept.id, kept.expiry) for kept in await store.sessions(0, 10)] == [(first.id, 0)]


@pytest.mark.parametrize("clean_start", [False, True])
async def test_a_session_of_another_principal_is_refused_and_stays(store: Store, clean_start: bool) -> None:
    first = await claimed(store)
    refused = await store.claim("c1", "p2", clean_start=clean_start, expiry=0, now=NOW, limit=MANY)
    assert isinstance(refused, Refused)
    assert refused.principal == "p1"
    assert not (await store.commit([PutEntry(first.id, first.epoch, entry(1))])).stale


@pytest.mark.parametrize("principal", ["p1", "p2"])
async def test_a_session_past_its_time_is_gone(store: Store, principal: str) -> None:
    first = await claimed(store)
    await store.commit([EndConnection(first.id, first.epoch, 60, NOW + 60_000)])
    assert (await claimed(store, now=NOW + 59_999)).present
    first = (await store.sessions(0, 1))[0]
    await store.commit([EndConnection(first.id, first.epoch, 60, NOW + 60_000)])
    second = await claimed(store, principal=principal, now=NOW + 60_000)
    assert not second.present
    assert second.id != first.id


async def test_a_connected_session_never_expires(store: Store) -> None:
    """[MQTT-4.1.0-1]"""
    await claimed(store)
    assert (await claimed(store, now=NOW * 2)).present


async def test_the_limit_refuses_new_sessions_only(store: Store) -> None:
    first = await claimed(store, "c1")
    for expiry, clean_start, client in ((10, False, "c2"), (10, True, "c2")):
        refused = await store.claim(client, "p1", clean_start=clean_start, expiry=expiry, now=NOW, limit=1)
        assert isinstance(refused, Refused)
        assert refused.principal == ""
    assert isinstance(await store.claim("c2", "p1", clean_start=True, expiry=0, now=NOW, limit=1), SessionState)
    for clean_start in (False, True):
        assert isinstance(await store.claim("c1", "p1", clean_start=clean_start, expiry=10, now=NOW, limit=1), SessionState)
    assert (await store.counts()).sessions == 1
    now = (await store.sessions(0, 1))[0]
    assert now.id != first.id
    await store.commit([RemoveSession(now.id, now.epoch)])
    assert isinstance(await store.claim("c2", "p1", clean_start=True, expiry=10, now=NOW, limit=1), SessionState)


async def test_boxes_of_both_kinds_draw_from_one_sequence(store: Store) -> None:
    numbers = [(await claimed(store, "c1")).id, await store.mailbox("c1"), (await claimed(store, "c2")).id, await store.mailbox("c2")]
    assert len(set(numbers)) == 4
    assert await store.mailbox("c1") == numbers[1]
    assert await store.mailboxes() == {"c1": numbers[1], "c2": numbers[3]}


GUARDED = {
    "put subscription": lambda number, epoch: PutSubscription(number, epoch, Subscription("new", 0)),
    "drop subscription": lambda number, epoch: DropSubscription(number, epoch, "plant/#"),
    "put entry": lambda number, epoch: PutEntry(number, epoch, entry(5)),
    "set entry": lambda number, epoch: SetEntry(number, epoch, place(1), BoxState.IN_FLIGHT, 8),
    "drop entry": lambda number, epoch: DropEntry(number, epoch, place(1)),
    "trim": lambda number, epoch: TrimBox(number, epoch, 0),
    "end": lambda number, epoch: EndConnection(number, epoch, 1, NOW),
    "remove": lambda number, epoch: RemoveSession(number, epoch),
    "block": lambda number, epoch: ReserveBlock(number, epoch, 2049),
}


async def _everything(store: Store, session: SessionState) -> object:
    return await store.sessions(0, 10), await store.entries(session.id, None, 10), await store.counts()


@pytest.mark.parametrize("what", GUARDED)
async def test_a_change_under_an_old_epoch_is_reported_and_not_applied(store: Store, what: str) -> None:
    old = await claimed(store)
    await put(store, old, entry(1), entry(2))
    await store.commit([PutSubscription(old.id, old.epoch, SUBSCRIPTION)])
    new = await claimed(store)
    before = await _everything(store, new)
    stale = Stale(old.id, old.epoch)
    assert (await store.commit([GUARDED[what](old.id, old.epoch), GUARDED[what](old.id, old.epoch)])).stale == (stale,)
    assert await _everything(store, new) == before
    assert (await store.commit([GUARDED[what](new.id, new.epoch)])).stale == ()
    assert await _everything(store, new) != before


@pytest.mark.parametrize("what", GUARDED)
async def test_a_change_of_what_is_not_there_is_reported(store: Store, what: str) -> None:
    gone = await claimed(store)
    await store.commit([RemoveSession(gone.id, gone.epoch)])
    for epoch in (0, gone.epoch):
        assert (await store.commit([GUARDED[what](gone.id, epoch)])).stale == (Stale(gone.id, epoch),)
    assert await store.counts() == Counts(0, 0, 0, 0)


@pytest.mark.parametrize("what", ["put subscription", "end", "remove", "block"])
async def test_a_mailbox_is_not_a_session(store: Store, what: str) -> None:
    box = await store.mailbox("c1")
    assert (await store.commit([GUARDED[what](box, 0)])).stale == (Stale(box, 0),)
    assert (await store.commit([PutEntry(box, 1, entry(1))])).stale == (Stale(box, 1),)


async def test_what_is_stale_does_not_hold_back_the_rest_of_its_commit(store: Store) -> None:
    old = await claimed(store)
    new = await claimed(store)
    result = await store.commit([PutEntry(old.id, old.epoch, entry(1)), PutEntry(new.id, new.epoch, entry(2))], {"node": At(0, 1, 0)})
    assert result.stale == (Stale(old.id, old.epoch),)
    assert await queued(store, new.id) == [place(2)]
    assert await store.positions() == {"node": {0: At(0, 1, 0)}}


async def test_calls_take_effect_in_the_order_in_which_they_were_made(store: Store) -> None:
    """A claim fences what is asked for after it and nothing that was asked for before, though all share a transaction."""
    session = await claimed(store)
    before = store.commit([PutEntry(session.id, session.epoch, entry(1))])
    read = asyncio.ensure_future(store.entries(session.id, None, 10))
    await asyncio.sleep(0)
    claim = asyncio.ensure_future(claimed(store))
    await asyncio.sleep(0)
    after = store.commit([PutEntry(session.id, session.epoch, entry(2))])
    removal = store.commit([RemoveSession(session.id, session.epoch + 1), PutEntry(session.id, session.epoch + 1, entry(3))])
    assert (await before).stale == ()
    assert [each.at for each in await read] == [place(1)]
    assert (await claim).queued == 1
    assert (await after).stale == (Stale(session.id, session.epoch),)
    assert (await removal).stale == (Stale(session.id, session.epoch + 1),)
    assert await store.sessions(0, 10) == []


async def test_a_commit_needs_nobody_who_waits(store: Store) -> None:
    session = await claimed(store)
    for number in range(20):
        store.commit([PutEntry(session.id, session.epoch, entry(number))])
    assert await queued(store, session.id) == [place(number) for number in range(20)]


async def test_subscriptions_are_replaced_and_dropped_by_filter(store: Store) -> None:
    """[MQTT-3.8.4-3] [MQTT-3.10.4-3]"""
    session = await claimed(store)
    shared = Subscription("$share/g/plant/+", 1)
    await store.commit([PutSubscription(session.id, session.epoch, each) for each in (SUBSCRIPTION, Subscription("plant/#", 0), shared)])
    assert (await store.sessions(0, 10))[0].subscriptions == (shared, Subscription("plant/#", 0))
    await store.commit([DropSubscription(session.id, session.epoch, "plant/#"), DropSubscription(session.id, session.epoch, "none")])
    assert (await store.sessions(0, 10))[0].subscriptions == (shared,)


async def test_received_ids_are_a_fold_that_no_session_epoch_guards(store: Store) -> None:
    """[MQTT-4.3.3-10]"""
    session = await claimed(store)
    await store.commit([PutReceived(session.id, 1), PutReceived(session.id, 1), PutReceived(session.id, 2), DropReceived(session.id, 1)])
    await store.commit([DropReceived(session.id, 9), PutReceived(session.id, 3), DropReceived(session.id, 3), PutReceived(session.id, 3)])
    await store.commit([PutReceived(0, 5), PutReceived(99, 5), DropReceived(99, 6)])
    assert (await claimed(store)).received == (2, 3)
    assert (await store.commit([PutReceived(99, 7)])).stale == ()


async def test_sessions_come_by_number_in_pages(store: Store) -> None:
    made_sessions = [await claimed(store, f"c{number}") for number in range(5)]
    box = await store.mailbox("c1")
    await put(store, made_sessions[1], entry(1), entry(2, state=BoxState.IN_FLIGHT))
    await store.commit([PutReceived(made_sessions[1].id, 8), EndConnection(made_sessions[1].id, 1, 5, NOW + 5)])
    page = await store.sessions(0, 2)
    assert [state.client for state in page] == ["c0", "c1"]
    assert (page[1].present, page[1].in_flight, page[1].queued, page[1].received, page[1].mailbox) == (True, (), 1, (8,), box)
    assert (page[1].expiry, page[1].expires_at, page[1].epoch) == (5, NOW + 5, 1)
    assert [state.client for state in await store.sessions(page[1].id, 10)] == ["c2", "c3", "c4"]


async def test_positions_are_kept_by_reader_and_shard(store: Store) -> None:
    await store.commit([], {"router": At(0, 5, 2), "node": At(0, 1, 1)})
    await store.commit([], {"router": At(1, 7, 0)})
    await store.commit([], {"router": At(0, 6, 0)})
    assert await store.positions() == {"router": {0: At(0, 6, 0), 1: At(1, 7, 0)}, "node": {0: At(0, 1, 1)}}


def _channel(name: str, will_due: int = 0) -> OpenChannel:
    will = Will("plant/1/will", b"gone", 1, True, 30, b"\x26\x00\x01a\x00\x01b", 60)
    return OpenChannel(name, "c1", 4, "p1", "127.0.0.1:5000", 2, NOW, 3600, will, will_due)


async def test_channels_are_open_until_they_are_dropped(store: Store) -> None:
    await store.commit([PutChannel(_channel("a")), PutChannel(_channel("b")), PutChannel(_channel("c")), DropChannel("c")])
    await store.commit([PutChannel(_channel("a", NOW)), DropChannel("none")])
    assert await store.channels() == [_channel("a", NOW), _channel("b")]
    assert (await store.counts()).open_channels == 2
    await store.commit([DropChannel("a"), DropChannel("b")])
    assert await store.channels() == []


async def test_statuses_are_replaced_and_found_by_client(store: Store) -> None:
    clients = [f"c{number}" for number in range(1200)]
    await store.commit([PutStatus(ClientStatus(client, True, "f" * 32, "127.0.0.1:1", NOW), client.encode()) for client in clients])
    await store.commit([PutStatus(ClientStatus("c7", False, "", "", NOW + 1), b"later")])
    found = await store.statuses(["unknown", *clients])
    assert set(found) == set(clients)
    assert found["c7"] == (ClientStatus("c7", False, "", "", NOW + 1), b"later")
    assert found["c8"] == (ClientStatus("c8", True, "f" * 32, "127.0.0.1:1", NOW), b"c8")
    assert await store.statuses([]) == {}
    assert set(await store.statuses(["c1", "c\x001"])) == {"c1"}
    assert await store.statuses(["\x00"]) == {}
    assert await store.statuses_of("\x00", "", 10) == await store.statuses_of("c", "c\x00", 0) == []
    assert await store.cluster.owners(["\x00"]) == {}


async def test_statuses_by_prefix_come_in_pages(store: Store) -> None:
    clients = ["GID_a", "GID_a@@", "GID_a@@@", "GID_a@@@1", "GID_a@@@10", "GID_a@@@9", "GID_a@@@é", "GID_a@@A", "GID_ab@@@1", "gid_a@@@1", "Z"]
    await store.commit([PutStatus(ClientStatus(client, True, "", "", NOW), b"") for client in clients])
    first = await store.statuses_of("GID_a@@@", "", 3)
    assert [status.client for status in first] == ["GID_a@@@", "GID_a@@@1", "GID_a@@@10"]
    assert [status.client for status in await store.statuses_of("GID_a@@@", "GID_a@@@10", 3)] == ["GID_a@@@9", "GID_a@@@é"]
    assert first[0] == ClientStatus("GID_a@@@", True, "", "", NOW)
    assert await store.statuses_of("GID_a@@@", "GID_a@@@é", 3) == []
    assert await store.statuses_of("GID_b@@@", "", 3) == []


async def test_keys_and_properties(store: Store) -> None:
    device, administrator = AccessKey("k2", "device", b"\x00sealed", NOW), AccessKey("k1", "administrator", b"", NOW)
    await store.put_key(device)
    await store.put_key(administrator)
    assert await store.keys() == [administrator, device]
    revoked = AccessKey("k2", "device", b"\x00sealed", NOW, True)
    await store.put_key(revoked)
    assert await store.keys() == [administrator, revoked]
    assert await store.property("instance") is None
    assert await store.property("instance", "mqtt-1") == "mqtt-1"
    assert await store.property("instance", "mqtt-2") == "mqtt-1"
    assert await store.property("instance") == "mqtt-1"
    await store.put_property("instance", "mqtt-3")
    await store.put_property("other", "new")
    assert await store.property("instance", "mqtt-2") == "mqtt-3"
    assert await store.property("other") == "new"


async def test_node_epochs_grow(store: Store) -> None:
    first = await store.next_epoch()
    connection = await claimed(store, expiry=0)
    assert await store.next_epoch() == first + 1
    assert (await claimed(store, expiry=0)).epoch != connection.epoch


async def test_counts(store: Store) -> None:
    session = await claimed(store)
    box = await store.mailbox("c2")
    await put(store, session, entry(1), entry(2), entry(3, state=BoxState.IN_FLIGHT))
    changes: list[Change] = [PutEntry(box, 0, entry(1)), SetEntry(session.id, 0, place(1), BoxState.IN_FLIGHT, 1), PutChannel(_channel("a"))]
    await store.commit(changes)
    assert await store.counts() == Counts(sessions=1, entries=2, retained=0, open_channels=1)
    await store.commit([SetEntry(session.id, 0, place(1), BoxState.QUEUED, 0), DropEntry(session.id, 0, place(3))])
    assert (await store.counts()).entries == 3
    await store.commit([RemoveSession(session.id, session.epoch)])
    assert await store.counts() == Counts(sessions=0, entries=1, retained=0, open_channels=1)
    assert (await store.entries(box, None, 1))[0].record == record(1)
