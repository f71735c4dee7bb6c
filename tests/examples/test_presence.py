"""The decision of who is online, without a broker: order and copies of events make no difference, a crash undoes nothing."""

from __future__ import annotations

import importlib.util
import itertools
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.examples.programs import EXAMPLES
from tests.examples.status_events import tell


@pytest.fixture(scope="module")
def presence() -> ModuleType:
    spec = importlib.util.spec_from_file_location("presence", EXAMPLES / "presence.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event(kind: str, channel: str, time: int) -> dict[str, Any]:
    return {"eventType": kind, "clientId": "GID_a@@@1", "channelId": channel, "time": time}


def test_every_order_of_two_connections_gives_the_same(presence: ModuleType) -> None:
    """Domain rule: an end cancels the beginning of its own channel only."""
    events = [event("connect", "a", 1), event("tcpclean", "a", 5), event("connect", "b", 3), event("disconnect", "a", 4)]
    for order in itertools.permutations(events):
        state = presence.Presence(":memory:")
        state.take(order)
        assert state.online() == ["GID_a@@@1"], order


def test_copies_and_disorder_change_nothing(presence: ModuleType) -> None:
    for seed in range(20):
        story = tell(seed, 1_700_000_000_000)
        state = presence.Presence(":memory:")
        state.take(story.events)
        assert state.online() == sorted(story.online), seed
        assert set(state.database.execute("SELECT * FROM channel")) == story.rows, seed


def test_changes_are_told_once(presence: ModuleType) -> None:
    state = presence.Presence(":memory:")
    told = state.take([event("connect", "a", 1), event("connect", "a", 1), event("connect", "b", 3), event("tcpclean", "a", 5)])
    assert told == [("GID_a@@@1", True)]
    assert state.take([event("tcpclean", "b", 6), event("tcpclean", "b", 6)]) == [("GID_a@@@1", False)]


def test_a_late_copy_of_a_connect_brings_nobody_back(presence: ModuleType) -> None:
    state = presence.Presence(":memory:")
    state.take([event("connect", "a", 1), event("tcpclean", "a", 5)])
    assert state.take([event("connect", "a", 1)]) == []
    assert state.online() == []


def test_tombstones_go_when_their_time_is_over(presence: ModuleType) -> None:
    """By the events' own time: a program that was away for weeks does not drop the tombstones that it still needs."""
    state = presence.Presence(":memory:")
    state.take([event("connect", "a", 1), event("tcpclean", "a", 5), event("connect", "b", presence.KEEP_MS)])
    assert [row[1] for row in state.database.execute("SELECT * FROM channel ORDER BY id")] == ["a", "b"]
    state.take([event("tcpclean", "b", presence.KEEP_MS + 6)])
    assert [row[1] for row in state.database.execute("SELECT * FROM channel ORDER BY id")] == ["b"]


def test_an_event_that_is_none_takes_back_its_whole_batch(presence: ModuleType, tmp_path: Path) -> None:
    """Nothing is on disk of what is not acknowledged: the broker gives the batch again."""
    path = str(tmp_path / "state")
    state = presence.Presence(path)
    with pytest.raises(KeyError):
        state.take([event("connect", "a", 1), {"eventType": "connect"}])
    state.database.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM channel").fetchone() == (0,)
