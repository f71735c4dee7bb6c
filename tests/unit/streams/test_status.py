"""The status of a client comes out the same for every order, repeat and harmless loss of its events."""

from __future__ import annotations

import itertools
from functools import reduce
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.presence import ClientStatus
from schemas.records import Kind
from streams.status import MAX_TOMBSTONES, TOMBSTONE_TTL, StatusState, decode_status, encode_status, fold, is_closed, status

START = 1_700_000_000_000


class Event(NamedTuple):
    kind: Kind
    channel: str
    time: int


def folded(events: list[Event] | tuple[Event, ...], state: StatusState | None = None) -> StatusState:
    return reduce(lambda before, event: fold(before, event.kind, event.channel, f"{event.channel}:1", event.time), events, state) or StatusState()


def connect(channel: str, time: int) -> Event:
    return Event(Kind.CONNECT, channel, START + time)


def disconnect(channel: str, time: int) -> Event:
    return Event(Kind.DISCONNECT, channel, START + time)


def tcpclean(channel: str, time: int) -> Event:
    return Event(Kind.TCPCLEAN, channel, START + time)


TAKEOVER = [connect("a", 1), connect("b", 5), tcpclean("a", 6), disconnect("b", 8), tcpclean("b", 9), connect("c", 9)]


def online(events: list[Event]) -> str:
    """The channel that is online, empty for none."""
    state = status("client", folded(events))
    return state.channel if state.online else ""


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([connect("a", 1)], "a"),
        ([connect("a", 1), disconnect("a", 2)], "a"),
        ([connect("a", 1), tcpclean("a", 2)], ""),
        ([connect("a", 1), tcpclean("b", 2)], "a"),
        ([connect("a", 1), connect("b", 2), tcpclean("a", 3)], "b"),
        ([connect("a", 1), connect("b", 2), tcpclean("b", 3)], ""),
        ([connect("a", 1), tcpclean("a", 1)], ""),
        ([tcpclean("a", 1)], ""),
        ([disconnect("a", 1)], ""),
        (TAKEOVER, "c"),
        (TAKEOVER[:-1], ""),
        # A clean event with a time before its connect's, as another node's clock may have it.
        ([connect("a", 5), tcpclean("a", 2)], ""),
    ],
)
def test_the_last_word(events: list[Event], expected: str) -> None:
    for order in itertools.permutations(events):
        assert online(list(order)) == expected


def test_every_order_and_every_repeat_of_a_takeover() -> None:
    expected = folded(TAKEOVER)
    for order in itertools.permutations(TAKEOVER):
        state = folded(order)
        assert state == expected
        for repeated in TAKEOVER:
            assert folded([repeated], state) is state


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        (connect("a", 1), "c"),
        (connect("b", 5), "c"),
        (tcpclean("a", 6), "c"),
        (tcpclean("b", 9), "c"),
        (disconnect("b", 8), "c"),
        (connect("c", 9), ""),
    ],
)
def test_a_loss_changes_only_what_nobody_else_tells(lost: Event, expected: str) -> None:
    left = [event for event in TAKEOVER if event != lost]
    for order in itertools.permutations(left):
        assert online(list(order)) == expected


def test_a_lost_tcpclean_of_an_older_connection_keeps_nobody_online() -> None:
    for order in itertools.permutations([connect("a", 1), connect("b", 5), tcpclean("b", 9)]):
        assert online(list(order)) == ""


events = st.lists(
    st.builds(Event, st.sampled_from([Kind.CONNECT, Kind.DISCONNECT, Kind.TCPCLEAN]), st.sampled_from("abcde"), st.integers(0, 20)), max_size=12
)


def definition(of: list[Event]) -> ClientStatus:
    """The newest connect counts; its channel is open unless any tcpclean names it."""
    newest = max(((event.time, event.channel) for event in of if event.kind == Kind.CONNECT), default=(0, ""))
    closed = any(event.kind == Kind.TCPCLEAN and event.channel == newest[1] for event in of)
    address = f"{newest[1]}:1" if newest[1] else ""
    return ClientStatus("client", bool(newest[1]) and not closed, newest[1], address, max((event.time for event in of), default=0))


@given(events, st.randoms(use_true_random=False), st.lists(st.integers(0, 11), max_size=6))
def test_the_fold_equals_its_definition_for_any_order_and_repeats(of: list[Event], chance: object, repeats: list[int]) -> None:
    state = folded(of)
    assert status("client", state) == definition(of)
    shuffled = of + [of[index] for index in repeats if index < len(of)]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folded(shuffled) == state


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1, max_size=6), st.randoms(use_true_random=False), st.sets(st.integers(0, 40)))
def test_a_client_that_comes_and_goes(connections: list[tuple[bool, int]], chance: object, lost: set[int]) -> None:
    """Connections in turn, each taken over or closed; whatever is lost of the older ones, the newest decides."""
    told: list[Event] = []
    clock = 0
    for number, (says_goodbye, length) in enumerate(connections):
        clock += 1
        told.append(connect(f"c{number}", clock))
        clock += length
        told += [disconnect(f"c{number}", clock)] if says_goodbye else []
        told.append(tcpclean(f"c{number}", clock + 2))  # after the next one's connect, as in a takeover
    last = f"c{len(connections) - 1}"
    is_over = chance.random() < 0.5  # type: ignore[attr-defined]
    told = [event for event in told if event != tcpclean(last, clock + 2) or is_over]
    left = [event for number, event in enumerate(told) if number not in lost or (event.channel == last and event.kind != Kind.DISCONNECT)]
    chance.shuffle(left)  # type: ignore[attr-defined]
    assert online(left) == ("" if is_over else last)


def test_tombstones_are_bounded_and_the_newest_stay() -> None:
    state = folded([tcpclean(f"c{number}", number) for number in range(50)])
    assert [tombstone.channel for tombstone in state.closed] == [f"c{number}" for number in range(50 - MAX_TOMBSTONES, 50)]
    state = folded([connect("mine", 100), tcpclean("mine", 101), *(tcpclean(f"d{number}", 200 + number) for number in range(50))])
    assert len(state.closed) == MAX_TOMBSTONES + 1
    assert is_closed(state, "mine")
    assert not status("client", state).online


def test_tombstones_expire_by_the_events_times() -> None:
    old = folded([connect("a", 0), tcpclean("a", 0), tcpclean("b", 0)])
    assert is_closed(folded([disconnect("z", TOMBSTONE_TTL)], old), "b")
    later = folded([disconnect("z", TOMBSTONE_TTL + 1)], old)
    assert not is_closed(later, "b")
    assert is_closed(later, "a")  # it is what says that the client is offline
    assert not is_closed(folded([connect("n", TOMBSTONE_TTL + 1)], old), "a")


@given(events)
def test_the_state_survives_the_store(of: list[Event]) -> None:
    state = folded(of)
    assert decode_status(encode_status(state)) == state
    assert len(encode_status(folded([tcpclean("f" * 32, n) for n in range(50)]))) < 1024
