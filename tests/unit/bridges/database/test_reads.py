"""Where a filter's matches can lie, and how much a page holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridges.database import reads
from bridges.database.reads import topic_ranges
from schemas.sessions import BoxEntry, PutEntry
from tests.contract.store_making import DATABASES, claimed, opened, place, record


@pytest.mark.parametrize(
    ("topic_filter", "ranges"),
    [
        ("#", [("", None)]),
        ("+/b", [("", None)]),
        ("a", [("a", "a\x01")]),
        ("a/b/", [("a/b/", "a/b/\x01")]),
        ("a/#", [("a", "a\x01"), ("a/", "a0")]),
        ("a/b/+/c", [("a/b/", "a/b0")]),
        ("a/+", [("a/", "a0")]),
        ("/#", [("", "\x01"), ("/", "0")]),
    ],
)
def test_a_filter_s_literal_levels_bound_the_topics_looked_at(topic_filter: str, ranges: list[tuple[str, str | None]]) -> None:
    """[MQTT-4.7.1-2]: `a/#` matches `a` too, but not `a!`, which lies between."""
    assert topic_ranges(topic_filter) == ranges


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("at_once", [1, 2, 64])
async def test_a_page_of_entries_ends_with_the_record_that_fills_it(kind: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few a server is asked for at a time."""
    monkeypatch.setattr(reads, "PAGE_BYTES", 3000)
    monkeypatch.setattr(reads, "AT_ONCE", at_once)
    store = opened(kind, tmp_path, asyncio.get_running_loop())
    session = await claimed(store)
    entries = [BoxEntry(place(number), record(number, payload=bytes(1000)), 1) for number in range(7)]
    await store.commit([PutEntry(session.id, session.epoch, entry) for entry in entries])
    pages = [await store.entries(session.id, None, 100)]
    while pages[-1]:
        pages.append(await store.entries(session.id, pages[-1][-1].at, 100))
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [entry for page in pages for entry in page] == entries
    await store.close()
