"""Documents of one kind: stored, and in memory by name. Reading is a dict look-up; a change is durable before it can be seen.

What stands on a shelf is small and wanted often: groups, policies, identities. Each shelf has a limit, and a version that grows with
every change, so that what was derived from it can be dropped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from schemas.errors import SluicewayError, StartError
from schemas.reasons import ReasonCode
from streams.store import Change, CommitResult, Document, DropDocument, PutDocument

PAGE: Final = 1000

T = TypeVar("T", bound=msgspec.Struct)


class DocumentStore(Protocol):
    """What a shelf needs of the store (streams/store.py)."""

    def commit(self, changes: Sequence[Change]) -> Awaitable[CommitResult]: ...

    async def documents(self, kind: str, after: str, limit: int) -> list[Document]: ...


class ShelfFull(SluicewayError):
    """There are as many of a kind as there may be; nothing was changed."""

    reason_code = ReasonCode.QUOTA_EXCEEDED


class Shelf(Generic[T]):
    """``kind`` names it in the store. Names come in the order of code points once ``load`` is done, later ones behind."""

    def __init__(self, store: DocumentStore, kind: str, form: type[T], limit: int) -> None:
        self._store = store
        self._kind = kind
        self._decode = msgspec.msgpack.Decoder(form).decode
        self._limit = limit
        self._items: dict[str, T] = {}
        self._order: list[str] | None = None
        """All names in order, from the first time that a page is wanted."""
        self._adding: set[str] = set()
        self.version = 0
        self._changes = 0
        """Grows with each change that is made here."""

    async def load(self) -> None:
        """What the store holds of this kind, at a start and whenever another node may have changed it."""
        while True:
            before = self._changes
            found = await self._read()
            if before == self._changes:  # else what was read may be older than what was changed here meanwhile
                break
        if found != self._items or not self.version:
            self._items.clear()
            self._items.update(found)
            self._order = None
            self.version += 1

    async def _read(self) -> dict[str, T]:
        found: dict[str, T] = {}
        after = ""
        while page := await self._store.documents(self._kind, after, PAGE):
            for document in page:
                try:
                    found[document.name] = self._decode(document.body)
                except msgspec.MsgspecError as error:
                    raise StartError(f"the database holds a {self._kind} that can't be read ({document.name!r}): {error}") from None
            after = page[-1].name
        return found

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def get(self, name: str) -> T | None:
        return self._items.get(name)

    def items(self) -> Mapping[str, T]:
        """A view, not to be changed."""
        return self._items

    def page(self, after: str, limit: int, prefix: str = "") -> Iterator[tuple[str, T]]:
        """By name behind ``after``, at most ``limit``."""
        return ((name, self._items[name]) for name in self.names(after, limit, prefix))

    def names(self, after: str, limit: int, prefix: str = "", skipped: int = 0) -> list[str]:
        """Of such a page, without so many at its beginning."""
        order, start, end = self._range(prefix)
        start = max(start, bisect_right(order, after)) + skipped
        return order[start : min(start + limit, end)]

    def count(self, prefix: str) -> int:
        _, start, end = self._range(prefix)
        return end - start

    def _range(self, prefix: str) -> tuple[list[str], int, int]:
        """All names in order, and which of them begin with this. They are sorted once, since the event loop waits for it."""
        if self._order is None:
            self._order = sorted(self._items)
        start = bisect_left(self._order, prefix)
        return self._order, start, bisect_right(self._order, prefix, start, key=lambda name: name[: len(prefix)])

    def _leave(self, name: str) -> None:
        if self._items.pop(name, None) is not None and self._order is not None:
            del self._order[bisect_left(self._order, name)]

    async def add(self, name: str, item: T, *, expires_at: int = 0) -> bool:
        """Insert; False where there is one of that name, or one is on its way."""
        if name in self._items or name in self._adding:
            return False
        self._adding.add(name)
        try:
            await self.change({name: item}, expires_at=expires_at)
        finally:
            self._adding.discard(name)
        return True

    async def put(self, name: str, item: T, *, expires_at: int = 0) -> None:
        """Insert or replace."""
        await self.change({name: item}, expires_at=expires_at)

    async def drop(self, *names: str) -> bool:
        """Whether any of them was there."""
        there = [name for name in names if name in self._items]
        if there:
            await self.change({}, there)
        return bool(there)

    async def change(self, put: Mapping[str, T], dropped: Sequence[str] = (), *, expires_at: int = 0) -> None:
        """Several at once, durable together. ShelfFull where they don't fit."""
        more = sum(name not in self._items for name in put) - len(set(dropped) & self._items.keys())
        if put and len(self._items) + more > self._limit:
            raise ShelfFull(f"there are {self._limit} entries of kind {self._kind} already: remove some")
        changes: list[Change] = [DropDocument(self._kind, name) for name in dropped]
        changes += [PutDocument(Document(self._kind, name, msgspec.msgpack.encode(item), expires_at)) for name, item in put.items()]
        await self._store.commit(changes)
        for name in dropped:
            self._leave(name)
        for name in put:
            if self._order is not None and name not in self._items:
                insort(self._order, name)
        self._items.update(put)
        self._changes += 1
        self.version += 1

    async def replace_all(self, items: Mapping[str, T]) -> None:
        """Other contents for what is there, some at a time; what is the same is not written. Not for entries that expire."""
        changed = [(name, item) for name, item in items.items() if item != self._items.get(name)]
        for start in range(0, len(changed), PAGE):
            await self.change(dict(changed[start : start + PAGE]))

    def forget(self, names: Sequence[str]) -> None:
        """Out of memory only: the store's sweep takes what is past its time by itself."""
        for name in names:
            self._leave(name)
