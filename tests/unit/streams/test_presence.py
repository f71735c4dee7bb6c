"""Presence records to JSON and to changes of the store: one row a channel while anything of it is open, whatever the order and repeats."""

from __future__ import annotations

import itertools
import json

import pytest
from msgspec.structs import replace

from schemas.presence import ClientStatus, Presence, Will, decode_presence, encode_presence
from schemas.records import Kind, Record
from streams.presence import event_json, fold_presence, put_status, tcpclean_id, will_id, will_mark
from streams.status import StatusState, decode_status
from streams.store import Change, DropChannel, OpenChannel, PutChannel, PutStatus

WILL = Will("a/will", b"gone", 1, retain=False, delay=10)
START = 1_700_000_000_000


def record(kind: Kind, time: int = 0, *, channel: str = "f" * 32, will: Will | None = None, due: int = 0, session: int = 7) -> Record:
    presence = Presence(channel, "192.0.2.1:13300", session_expiry=60 if will else 0, will=will, will_due=due)
    return Record(int(kind), b"i" * 16, START + time, "GID_x@@@1", payload=encode_presence(presence), session=session, epoch=3, principal="key")


class World:
    """The rows and the status of one client, as the store has them."""

    def __init__(self) -> None:
        self.rows: dict[str, OpenChannel] = {}
        self.state: StatusState | None = None
        self.status: ClientStatus | None = None
        self.settled: set[str] = set()

    def take(self, *records: Record, channel: str = "f" * 32) -> list[Change]:
        changes: list[Change] = []
        for one in records:
            others = [row for name, row in self.rows.items() if name != channel and row.will_due]
            event, before = decode_presence(one.payload), self.state
            self.state, made = fold_presence(before, one, event, self.rows.get(channel), others=others, will_settled=channel in self.settled)
            if self.state is not before:
                made.append(put_status(one.client, self.state))
            self.apply(made)
            changes += made
        return changes

    def settle(self, channel: str = "f" * 32) -> None:
        self.settled.add(channel)
        if channel in self.rows and self.rows[channel].will_due:  # before that the tcpclean takes it along
            del self.rows[channel]

    def apply(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, PutChannel):
                self.rows[change.channel.channel] = change.channel
            elif isinstance(change, DropChannel):
                del self.rows[change.channel]
            else:
                assert isinstance(change, PutStatus)
                self.status = change.status
                assert decode_status(change.state) == self.state


def test_the_json_has_the_documented_keys_in_their_order() -> None:
    body = event_json(record(Kind.TCPCLEAN, 5))
    assert body == (
        b'{"clientId":"GID_x@@@1","time":1700000000005,"eventType":"tcpclean",'
        b'"channelId":"ffffffffffffffffffffffffffffffff","clientIp":"192.0.2.1:13300"}'
    )


@pytest.mark.parametrize(("kind", "word"), [(Kind.CONNECT, "connect"), (Kind.DISCONNECT, "disconnect"), (Kind.TCPCLEAN, "tcpclean")])
def test_the_words_of_events(kind: Kind, word: str) -> None:
    assert json.loads(event_json(record(kind)))["eventType"] == word


def test_client_ids_with_quotes_stay_json() -> None:
    odd = replace(record(Kind.CONNECT), client='a"\\\n\u2028\u00e9')
    assert json.loads(event_json(odd))["clientId"] == odd.client


def test_only_presence_has_a_json() -> None:
    with pytest.raises(ValueError, match="kind 0"):
        event_json(record(Kind.PUBLISH))


def test_ids_are_derived_from_the_channel() -> None:
    assert tcpclean_id("a") == tcpclean_id("a")
    assert len({tcpclean_id("a"), tcpclean_id("b"), will_id("a", 5), will_id("b", 5)}) == 4
    assert len(tcpclean_id("a")) == len(will_id("a", 5)) == 16


def test_a_wills_id_begins_with_its_time_and_ends_with_its_channels_mark() -> None:
    """Stores tell a record's age by its id: one that began with a hash was taken for decades old."""
    assert will_id("a", 1_795_000_000_000)[:6] == (1_795_000_000_000).to_bytes(6, "big")
    assert will_id("a", 7)[6:] == will_id("a", 8)[6:] == will_mark("a") != will_mark("b")


def test_connect_opens_a_row_with_all_that_a_start_needs() -> None:
    world = World()
    world.take(record(Kind.CONNECT, will=WILL))
    assert world.rows == {"f" * 32: OpenChannel("f" * 32, "GID_x@@@1", 7, "key", "192.0.2.1:13300", 3, START, 60, WILL)}
    assert world.status == ClientStatus("GID_x@@@1", online=True, channel="f" * 32, address="192.0.2.1:13300", time=START)


def test_disconnect_changes_no_row_and_tcpclean_ends_it() -> None:
    world = World()
    world.take(record(Kind.CONNECT), record(Kind.DISCONNECT, 1))
    assert world.rows
    assert world.status is not None
    assert world.status.online
    world.take(record(Kind.TCPCLEAN, 2))
    assert not world.rows
    assert not world.status.online


def test_a_will_that_waits_keeps_the_row_until_it_is_settled() -> None:
    world = World()
    world.take(record(Kind.CONNECT, will=WILL), record(Kind.TCPCLEAN, 2, due=START + 10_002))
    assert world.rows["f" * 32].will_due == START + 10_002
    assert world.rows["f" * 32].will == WILL
    assert world.status is not None
    assert not world.status.online
    world.settle()
    assert not world.rows


def test_a_disconnect_without_will_ends_the_row_at_tcpclean() -> None:
    world = World()
    world.take(record(Kind.CONNECT, will=WILL), record(Kind.DISCONNECT, 1), record(Kind.TCPCLEAN, 1))
    assert not world.rows


def test_a_will_published_before_its_tcpclean_is_folded_leaves_no_row() -> None:
    world = World()
    world.take(record(Kind.CONNECT, will=WILL))
    world.settle()
    assert world.rows  # a crash now must still find the channel open
    world.take(record(Kind.TCPCLEAN, 2, due=START + 2))
    assert not world.rows
    world.take(record(Kind.TCPCLEAN, 2, due=START + 2))
    assert not world.rows


@pytest.mark.parametrize("will", [None, WILL])
@pytest.mark.parametrize("due", [0, START + 50])
def test_any_order_and_repeats_leave_the_same_row(will: Will | None, due: int) -> None:
    """All orders of the three events, each up to twice."""
    events = [record(Kind.CONNECT, 1, will=will), record(Kind.DISCONNECT, 2), record(Kind.TCPCLEAN, 3, due=due)]
    expected = {"f" * 32: START + 50} if will and due else {}
    for order in set(itertools.permutations(range(6))):
        world = World()
        for index in order:
            world.take(events[index % 3])
        assert {name: row.will_due for name, row in world.rows.items()} == expected
        assert [row.will for row in world.rows.values()] == ([will] if expected else [])
        if expected:
            assert world.rows["f" * 32].connected == START + 1
            world.settle()
        for event in events:
            world.take(event)
        assert not world.rows
        assert world.status is not None
        assert not world.status.online


def test_a_repeat_changes_nothing_at_all() -> None:
    world = World()
    for event in (record(Kind.CONNECT, will=WILL), record(Kind.DISCONNECT, 1), record(Kind.TCPCLEAN, 2, due=START + 9)):
        assert world.take(event)
        assert not world.take(event)


def test_a_session_that_goes_on_drops_its_waiting_will() -> None:
    """[MQTT-3.1.3-9]"""
    world = World()
    world.take(record(Kind.CONNECT, will=WILL), record(Kind.TCPCLEAN, 2, due=START + 10_000))
    world.take(record(Kind.CONNECT, 5_000, channel="e" * 32), channel="e" * 32)
    assert list(world.rows) == ["e" * 32]


@pytest.mark.parametrize(
    ("session", "time", "due"), [(8, 5_000, START + 5_000), (0, 5_000, START + 5_000), (7, 10_000, START + 10_000), (7, 11_000, START + 10_000)]
)
def test_a_new_session_makes_the_waiting_will_due_and_a_late_one_leaves_it(session: int, time: int, due: int) -> None:
    world = World()
    world.take(record(Kind.CONNECT, will=WILL), record(Kind.TCPCLEAN, 2, due=START + 10_000))
    world.take(record(Kind.CONNECT, time, channel="e" * 32, session=session), channel="e" * 32)
    assert world.rows["f" * 32].will_due == due
