"""Documents: put, added once, dropped, paged by kind and name, swept when their time is over; alike in every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.store import Document, DropDocument, PutDocument, Store, Swept
from tests.contract.store_making import KINDS, NOW, made


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with made(request.param, tmp_path) as opened:
        yield opened


async def _names(store: Store, kind: str) -> list[str]:
    return [document.name for document in await store.documents(kind, "", 100)]


async def test_a_document_is_what_was_put_last(store: Store) -> None:
    await store.commit([PutDocument(Document("group", "a", b"1")), PutDocument(Document("group", "a", b"2", NOW))])
    assert await store.documents("group", "", 10) == [Document("group", "a", b"2", NOW)]
    await store.commit([PutDocument(Document("group", "a", b"3"))])
    assert await store.documents("group", "", 10) == [Document("group", "a", b"3")]


async def test_a_document_is_added_once(store: Store) -> None:
    assert await store.add_document(Document("nonce", "a", b"1"))
    assert not await store.add_document(Document("nonce", "a", b"2"))
    assert not await store.add_document(Document("nonce", "a", b"1"))
    assert await store.add_document(Document("other", "a", b"3"))
    assert await store.documents("nonce", "", 10) == [Document("nonce", "a", b"1")]


async def test_an_added_document_is_seen_by_what_was_asked_before_in_order(store: Store) -> None:
    dropped = store.commit([PutDocument(Document("k", "a")), DropDocument("k", "a")])
    assert await store.add_document(Document("k", "a", b"new"))
    await dropped
    assert await store.documents("k", "", 10) == [Document("k", "a", b"new")]


async def test_dropping_is_of_one_kind_and_name_and_may_be_repeated(store: Store) -> None:
    await store.commit([PutDocument(Document(kind, name)) for kind in ("k", "l") for name in ("a", "b")])
    await store.commit([DropDocument("k", "a"), DropDocument("k", "missing")])
    assert await _names(store, "k") == ["b"]
    assert await _names(store, "l") == ["a", "b"]


async def test_documents_come_by_code_point_a_page_at_a_time(store: Store) -> None:
    names = ["", "B", "a", "a\x01b", "a b", "é", "\U0001f600"]
    names += ["a\x00", "a\x00\x00b", "a\x00\x01", "a\x00b", "a\x01", "a\x01\x00", "a\x01\x01", "a\x01\x02", "a\x02"]
    await store.commit([PutDocument(Document("k", name)) for name in reversed(names) if name])
    found: list[str] = []
    while page := await store.documents("k", found[-1] if found else "", 2):
        assert len(page) <= 2
        found += [document.name for document in page]
    assert found == sorted(names[1:])
    await store.commit([DropDocument("k", name) for name in names if "\x00" in name])
    assert await _names(store, "k") == [name for name in sorted(names[1:]) if "\x00" not in name]
    assert await store.add_document(Document("k", "a\x00b", b"1"))
    assert not await store.add_document(Document("k", "a\x00b", b"2"))


async def test_a_sweep_takes_documents_past_their_time_a_limit_at_a_time(store: Store) -> None:
    documents = [Document("k", name, b"", expires_at) for name, expires_at in (("a", NOW + 2), ("b", NOW), ("c", 0), ("d", NOW + 1), ("e", NOW))]
    await store.commit([PutDocument(document) for document in documents])

    async def sweep(now: int, limit: int) -> Swept:
        return await store.sweep(now, entries_per_box=10, entries_total=10, entry_age=10, limit=limit)

    assert await sweep(NOW - 1, 10) == Swept()
    assert await sweep(NOW + 1, 2) == Swept(expired_documents=2)
    assert await _names(store, "k") == ["a", "c", "d"]
    assert await sweep(NOW + 1, 2) == Swept(expired_documents=1)
    assert await _names(store, "k") == ["a", "c"]
