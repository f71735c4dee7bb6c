"""Tags: keys and values that somebody has put on the instance, on groups or on topics. They mean nothing to the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from gateway.auth.shelf import DocumentStore, Shelf

RESOURCE_TYPES: Final = ("INSTANCE", "GROUP", "TOPIC")
MAX_TAGS: Final = 20
"""Tags that one call may name."""
MAX_TAGGED: Final = 20_000
"""Resources with tags."""


class _Tags(msgspec.Struct, frozen=True):
    values: dict[str, str]


class Tags:
    """By resource; a resource without tags is not there."""

    def __init__(self, store: DocumentStore) -> None:
        self._shelf: Shelf[_Tags] = Shelf(store, "tags", _Tags, MAX_TAGGED)

    async def load(self) -> None:
        await self._shelf.load()

    def of(self, kind: str, resource: str) -> Iterator[tuple[str, str]]:
        found = self._shelf.get(_name(kind, resource))
        return iter(sorted(found.values.items()) if found is not None else ())

    def resources(self, kind: str) -> list[str]:
        return [name.partition("\x00")[2] for name, _ in self._shelf.page("", MAX_TAGGED, kind + "\x00")]

    async def put(self, kind: str, resources: Sequence[str], tags: Mapping[str, str]) -> None:
        """Add to each; past ``MAX_TAGS`` on one resource the newest stay."""
        changed = {}
        for resource in resources:
            merged = {**dict(self.of(kind, resource)), **tags}
            changed[_name(kind, resource)] = _Tags(dict(list(merged.items())[-MAX_TAGS:]))
        await self._shelf.change(changed)

    async def drop(self, kind: str, resources: Sequence[str], keys: Sequence[str] | None) -> None:
        """These keys, or with None all, from each."""
        changed, gone = {}, []
        for resource in resources:
            left = {} if keys is None else {key: value for key, value in self.of(kind, resource) if key not in keys}
            if left:
                changed[_name(kind, resource)] = _Tags(left)
            elif _name(kind, resource) in self._shelf:
                gone.append(_name(kind, resource))
        if changed or gone:
            await self._shelf.change(changed, gone)


def _name(kind: str, resource: str) -> str:
    return f"{kind}\x00{resource}"
