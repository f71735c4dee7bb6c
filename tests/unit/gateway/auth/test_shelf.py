"""A shelf: in memory what is in the store, a change seen once it is durable, a limit, and no name twice."""

import asyncio

import msgspec
import pytest

from gateway.auth.shelf import Shelf, ShelfFull
from schemas.errors import StartError, StoreError
from streams.memory.store import MemoryStore
from streams.store import Document, PutDocument


class Thing(msgspec.Struct, frozen=True):
    value: int


def shelf(store, limit=10):
    return Shelf(store, "thing", Thing, limit)


async def test_what_was_put_is_there_after_a_restart():
    store = MemoryStore()
    first = shelf(store)
    await first.put("a", Thing(1))
    await first.put("b", Thing(2), expires_at=5)
    await first.drop("a")
    again = shelf(store)
    await again.load()
    assert dict(again.items()) == {"b": Thing(2)}
    assert await store.documents("thing", "", 9) == [Document("thing", "b", msgspec.msgpack.encode(Thing(2)), 5)]


async def test_loading_goes_over_all_pages(monkeypatch):
    monkeypatch.setattr("gateway.auth.shelf.PAGE", 3)
    store = MemoryStore()
    for number in range(8):
        await shelf(store).put(str(number), Thing(number))
    again = shelf(store)
    await again.load()
    assert len(again) == 8


async def test_a_change_that_was_not_stored_is_not_seen():
    store = MemoryStore()
    things = shelf(store)
    await things.put("a", Thing(1))
    version = things.version
    store.failing = True
    for change in (things.put("b", Thing(2)), things.drop("a"), things.add("c", Thing(3))):
        with pytest.raises(StoreError):
            await change
    assert dict(things.items()) == {"a": Thing(1)}
    assert things.version == version
    store.failing = False
    assert await things.add("c", Thing(3))


async def test_every_change_is_a_new_version():
    things = shelf(MemoryStore())
    seen = {things.version}
    for change in (things.put("a", Thing(1)), things.put("a", Thing(2)), things.add("b", Thing(1)), things.drop("a")):
        await change
        seen.add(things.version)
    assert len(seen) == 5


async def test_of_two_that_add_one_name_at_once_one_succeeds():
    things = shelf(MemoryStore())
    assert sorted(await asyncio.gather(*(things.add("a", Thing(n)) for n in range(5)))) == [False] * 4 + [True]


async def test_the_limit_is_of_names_not_of_changes():
    things = shelf(MemoryStore(), limit=2)
    await things.put("a", Thing(1))
    await things.put("b", Thing(1))
    await things.put("a", Thing(2))
    with pytest.raises(ShelfFull, match="2 entries of kind thing"):
        await things.put("c", Thing(1))
    await things.change({"c": Thing(3)}, ["a"])
    assert set(things.items()) == {"b", "c"}


async def test_pages_go_by_name_and_prefix():
    things = shelf(MemoryStore())
    for name in ("b1", "a2", "a1", "a3"):
        await things.put(name, Thing(1))
    assert [name for name, _ in things.page("", 2, "a")] == ["a1", "a2"]
    assert [name for name, _ in things.page("a2", 9)] == ["a3", "b1"]


async def test_what_cant_be_read_stops_the_start():
    store = MemoryStore()
    await store.commit([PutDocument(Document("thing", "a", b"\xc1"))])
    with pytest.raises(StartError, match="thing that can't be read"):
        await shelf(store).load()


async def test_pages_are_in_order_and_sorted_once(monkeypatch):
    """However often a page is wanted and whatever changes in between."""
    sortings = []
    monkeypatch.setattr("gateway.auth.shelf.sorted", lambda names: sortings.append(1) or sorted(names), raising=False)
    store = MemoryStore()
    things = shelf(store, 100)
    for number in (5, 1, 9):
        await things.put(f"a{number}", Thing(number))
    await things.put("b", Thing(0))
    assert [name for name, _ in things.page("", 9)] == ["a1", "a5", "a9", "b"]
    await things.change({"a3": Thing(3), "a5": Thing(50), "A": Thing(0)}, ["a1"])
    things.forget(["b", "not there"])
    assert list(things.page("", 9)) == [("A", Thing(0)), ("a3", Thing(3)), ("a5", Thing(50)), ("a9", Thing(9))]
    assert (things.names("", 9, "a"), things.count("a")) == (["a3", "a5", "a9"], 3)
    assert (things.names("a3", 1, "a"), things.names("", 1, "a", 2), things.names("b", 9, "a"), things.names("", 9, "a", 3)) == (
        ["a5"], ["a9"], [], [],
    )  # fmt: skip
    assert len(sortings) == 1
    await things.load()
    assert [name for name, _ in things.page("", 9)] == ["A", "a3", "a5", "a9", "b"]
