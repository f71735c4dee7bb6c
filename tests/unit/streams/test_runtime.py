"""The router's runs and folds, record by record, and the presence fold over a store that fails: no network, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from schemas.positions import At
from schemas.presence import Presence, Will, encode_presence
from schemas.records import PRESENCE_TOPIC, Flag, Kind, Record, Source
from schemas.sessions import DropReceived, PutReceived, PutRetained
from streams.log import Batch
from streams.memory.log import MemoryLog
from streams.memory.store import MemoryStore
from streams.presence import tcpclean_id
from streams.repeats import Repeats
from streams.runtime import PresenceFold, Router
from streams.store import Change, DropChannel, PutChannel


class Down:
    """A downlink that writes down what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def deliver(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        self.told.append(("deliver", [(r, at) for r, at in zip(records, ats, strict=True)]))

    def begin(self, records: Sequence[Record]) -> None:
        """Nothing follows from a batch as a whole."""

    def deliver_p2p(self, records: Sequence[Record], ats: Sequence[At]) -> None:
        self.told.append(("p2p", [(r, at) for r, at in zip(records, ats, strict=True)]))

    def change(self, change: Change) -> None:
        self.told.append(("change", change))

    async def settle(self, end: At) -> None:
        self.told.append(("settle", end))


class NoReader:
    async def next(self, max_records: int, max_bytes: int) -> Batch:
        raise AssertionError

    def release(self, upto: At) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def publish(topic: str = "t", *, qos: int = 1, flags: int = 0, session: int = 0, packet_id: int = 0, number: int = 0, source: int = 0) -> Record:
    record_id = number.to_bytes(16, "big")
    kind = int(Kind.PUBLISH)
    return Record(kind, record_id, number, "p", topic, b"x", qos=qos, flags=flags, packet_id=packet_id, session=session, source=source)


def step(*records: Record) -> list[tuple[str, object]]:
    down = Down()
    Router(NoReader(), down).step(Batch(At(0, 100, 7), records))
    return down.told


records = st.lists(
    st.builds(
        publish,
        topic=st.sampled_from("ab"),
        qos=st.integers(0, 2),
        flags=st.sampled_from((0, int(Flag.RETAIN), int(Flag.P2P), int(Flag.PERSISTENT), int(Flag.DUP))),
        session=st.sampled_from((0, 3)),
        packet_id=st.integers(1, 3),
        number=st.integers(0, 1_000),
    ),
    max_size=12,
)


@given(records)
def test_every_publish_is_delivered_once_in_order_at_its_position(batch: list[Record]) -> None:
    """Whatever runs it makes: of one topic, QoS and flags each, P2P apart, retained ones alone and stored first [MQTT-3.3.1-5]
    [MQTT-4.6.0-5] [MQTT-4.6.0-6]. What the log holds twice is left out, with all that would follow from it."""
    told = step(*batch)
    flat = [(kind, r, at) for kind, what in told if kind in ("deliver", "p2p") for r, at in what]  # type: ignore[attr-defined]
    placed = [(r, At(0, 100, 7 + index)) for index, r in enumerate(batch)]
    repeats = Repeats()
    passed = [(r, at) for r, at in placed if not (r.qos == 2 and r.session and repeats.is_repeat(r, at))]
    assert [(r, at) for _, r, at in flat] == passed
    assert all((kind == "p2p") is bool(r.flags & Flag.P2P) for kind, r, _ in flat)
    for index, (kind, what) in enumerate(told):
        if kind in ("deliver", "p2p"):
            run = [r for r, _ in what]  # type: ignore[attr-defined]
            assert len({(r.topic, r.qos, r.flags) for r in run}) == 1
            if run[0].flags & Flag.RETAIN:
                assert len(run) == 1
                before = told[index - 1][1]
                assert isinstance(before, PutRetained)
                assert before.record is run[0]
    folded = [what.packet_id for _, what in told if isinstance(what, PutReceived)]
    assert folded == [r.packet_id for r, _ in passed if r.qos == 2 and r.session]


def test_releases_are_folded_and_not_delivered() -> None:
    release = Record(int(Kind.RELEASE), bytes(16), 1, "p", qos=2, packet_id=4, session=3)
    told = step(publish(qos=2, session=3, packet_id=4), release, publish(qos=2, session=3, packet_id=4))
    changes = [what for kind, what in told if kind == "change"]
    assert changes == [PutReceived(session=3, packet_id=4), DropReceived(session=3, packet_id=4), PutReceived(session=3, packet_id=4)]
    assert [kind for kind, _ in told].count("deliver") == 2


def test_sessions_that_do_not_outlive_a_crash_fold_nothing() -> None:
    assert [kind for kind, _ in step(publish(qos=2, packet_id=4))] == ["deliver"]


def test_wills_and_the_newest_time_are_seen() -> None:
    router = Router(NoReader(), Down())
    will = publish(source=int(Source.WILL), number=9)
    router.step(Batch(At(0, 0, 0), [publish(number=5), will]))
    assert router.wills_seen == {will.id[6:]}
    assert router.newest == 9
    router.wills_seen = None
    router.step(Batch(At(0, 2, 0), [publish(number=12)]))
    assert router.newest == 12


class Sink:
    """Applies what the fold says to the store at once."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.settled: set[str] = set()
        self.changes: list[Change] = []

    async def presence_changes(self, changes: Sequence[Change], ends: Sequence[At]) -> None:
        self.changes += changes
        await self.store.commit(changes)

    def folded(self, records: Sequence[Record], events: Sequence[Presence]) -> None:
        """The trace is not looked at here."""

    def will_is_settled(self, channel: str) -> bool:
        return channel in self.settled


class Nobody:
    def appended(self, records: Sequence[Record], first: At) -> None:
        """Nothing."""

    def refused(self, records: Sequence[Record], error: Exception) -> None:
        raise AssertionError


def event(kind: Kind, channel: str, time: int, *, session: int = 1, will: Will | None = None, due: int = 0) -> Record:
    presence = Presence(channel, "10.0.0.1:1", session_expiry=600, will=will, will_due=due)
    record_id = tcpclean_id(channel) if kind == Kind.TCPCLEAN else time.to_bytes(16, "big")
    return Record(int(kind), record_id, time, "c", payload=encode_presence(presence), session=session, epoch=1)


async def fold(*events: Record, settled: str = "", failing: int = 0) -> Sink:
    store = MemoryStore()
    log = MemoryLog(asyncio.get_running_loop(), shards=1)
    sink = Sink(store)
    sink.settled.add(settled)
    for record in events:
        log.append(PRESENCE_TOPIC, "c", record, Nobody())  # type: ignore[arg-type]
    statuses = store.statuses
    left = failing

    async def sometimes(clients: Sequence[str]) -> object:
        nonlocal left
        store.failing = left > 0
        left -= 1
        try:
            return await statuses(clients)
        finally:
            store.failing = False

    store.statuses = sometimes  # type: ignore[method-assign, assignment]
    reader = log.open(PRESENCE_TOPIC, "earliest")
    presence = PresenceFold(reader, store, sink)
    await presence.once()
    await log.close()
    return sink


WILL = Will("w", b"gone", 1, False, delay=60)


async def test_a_channel_is_open_from_connect_to_tcpclean() -> None:
    assert [row.channel for row in await (await fold(event(Kind.CONNECT, "1", 10))).store.channels()] == ["1"]
    assert await (await fold(event(Kind.CONNECT, "1", 10), event(Kind.TCPCLEAN, "1", 20))).store.channels() == []


async def test_a_will_keeps_its_row_until_it_is_settled() -> None:
    ends = event(Kind.CONNECT, "1", 10, will=WILL), event(Kind.TCPCLEAN, "1", 20, due=60_020)
    rows = await (await fold(*ends)).store.channels()
    assert [(row.channel, row.will_due) for row in rows] == [("1", 60_020)]
    assert await (await fold(*ends, settled="1")).store.channels() == []


async def test_a_connect_that_goes_on_with_the_session_cancels_the_will() -> None:
    """[MQTT-3.1.3-9]: known from the log alone, so that a crash can't bring it back."""
    sink = await fold(event(Kind.CONNECT, "1", 10, will=WILL), event(Kind.TCPCLEAN, "1", 20, due=60_020), event(Kind.CONNECT, "2", 30, will=WILL))
    assert [row.channel for row in await sink.store.channels()] == ["2"]
    assert DropChannel("1") in sink.changes


async def test_a_connect_with_another_session_makes_the_will_due() -> None:
    sink = await fold(event(Kind.CONNECT, "1", 10, will=WILL), event(Kind.TCPCLEAN, "1", 20, due=60_020), event(Kind.CONNECT, "2", 30, session=2))
    assert [(row.channel, row.will_due) for row in await sink.store.channels()] == [("1", 30), ("2", 0)]
    assert any(isinstance(change, PutChannel) for change in sink.changes)


async def test_a_store_that_fails_is_asked_again() -> None:
    sink = await fold(event(Kind.CONNECT, "1", 10), failing=2)
    assert len(await sink.store.channels()) == 1
