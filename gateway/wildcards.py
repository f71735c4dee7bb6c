"""How many different filters with wildcards there are under a parent topic: the model product takes 100, and `limits.wildcards_per_parent` says.

Different ones: a thousand clients with the same filter are one. Kept only where there is a limit. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable

Holders = dict[str, set[Hashable]]


def _is_wild(topic_filter: str) -> bool:
    return topic_filter.endswith("#") or "+" in topic_filter


class Wildcards:
    """``limit`` 0: none. Bounded by the subscriptions that there are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parents: dict[str, Holders] = {}

    def admits(self, topic_filter: str) -> bool:
        """Whether a filter is there already, or one more may be."""
        if not self._limit or not _is_wild(topic_filter):
            return True
        holders = self._parents.get(topic_filter.partition("/")[0], {})
        return topic_filter in holders or len(holders) < self._limit

    def add(self, topic_filter: str, holder: Hashable) -> None:
        """A holder has the filter; again, where it has it already."""
        if self._limit and _is_wild(topic_filter):
            self._parents.setdefault(topic_filter.partition("/")[0], {}).setdefault(topic_filter, set()).add(holder)

    def remove(self, topic_filter: str, holder: Hashable) -> None:
        parent = topic_filter.partition("/")[0]
        holders = self._parents.get(parent, {})
        if topic_filter in holders:
            holders[topic_filter].discard(holder)
            if not holders[topic_filter]:
                del holders[topic_filter]
            if not holders:
                del self._parents[parent]
