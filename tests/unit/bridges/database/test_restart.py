"""All that was committed is there after the store was closed and opened again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridges.database.store import DatabaseStore
from schemas.identities import AccessKey
from schemas.positions import At
from schemas.presence import ClientStatus
from schemas.sessions import (
    BoxState,
    EndConnection,
    PutEntry,
    PutReceived,
    PutRetained,
    PutSubscription,
    ReserveBlock,
    Subscription,
)
from streams.store import OpenChannel, PutChannel, PutStatus
from tests.contract.store_making import NOW, claimed, entry, place, record


async def _everything(store: DatabaseStore, box: int, mailbox: int) -> list[object]:
    return [
        await store.sessions(0, 10),
        await store.entries(box, None, 10),
        await store.entries(mailbox, None, 10),
        await store.retained("#", "", 10),
        await store.positions(),
        await store.channels(),
        await store.statuses(["c1"]),
        await store.counts(),
        await store.keys(),
        await store.property("instance"),
        await store.mailboxes(),
    ]


async def test_nothing_is_lost_over_a_restart(tmp_path: Path) -> None:
    store = DatabaseStore.open(tmp_path / "store.db", asyncio.get_running_loop())
    epoch = await store.next_epoch()
    session, mailbox = await claimed(store), await store.mailbox("c9")
    fleeting = await claimed(store, "c2", expiry=0)
    retained = record(7, topic="plant/7")
    await store.commit(
        [
            PutSubscription(session.id, 1, Subscription("plant/#", 1, since=(At(0, 3, 0),))),
            PutEntry(session.id, 1, entry(1)),
            PutEntry(session.id, 1, entry(2, state=BoxState.IN_FLIGHT, packet_id=3)),
            PutEntry(mailbox, 0, entry(3)),
            PutReceived(session.id, 6),
            ReserveBlock(session.id, 1, 1025),
            PutRetained("plant/7", NOW, retained.id, retained),
            PutChannel(OpenChannel("a", "c1", session.id, "p1", "", epoch, NOW, 60, None)),
            PutStatus(ClientStatus("c1", True, "a", "", NOW), b"fold"),
        ],
        {"router": At(0, 8, 1)},
    )
    await store.put_key(AccessKey("k", "device", b"sealed", NOW))
    await store.property("instance", "mqtt-1")
    before = await _everything(store, session.id, mailbox)
    await store.close()

    again = DatabaseStore.open(tmp_path / "store.db", asyncio.get_running_loop())
    assert await _everything(again, session.id, mailbox) == before
    assert await again.next_epoch() == epoch + 1
    assert (await claimed(again, "c2", expiry=0)).epoch != fleeting.epoch
    state = await claimed(again)
    assert (state.id, state.epoch, state.present, state.queued) == (session.id, 2, True, 1)
    assert state.in_flight == (entry(2, state=BoxState.IN_FLIGHT, packet_id=3),)
    assert (await claimed(again, "c3")).id not in {session.id, mailbox}
    await again.commit([EndConnection(session.id, 2, 60, NOW), PutEntry(session.id, 2, entry(1))])
    assert [found.at for found in await again.entries(session.id, None, 10)] == [place(1)]
    await again.close()
