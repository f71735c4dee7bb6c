"""What the HTTP API is told of the gateway."""

from __future__ import annotations

from types import SimpleNamespace

from gateway.services import Services
from streams.memory.store import MemoryStore


async def test_a_store_that_does_not_answer_leaves_the_counts_as_they_were() -> None:
    """The process goes on: it is counted again soon."""
    services, store = Services.__new__(Services), MemoryStore()
    services._node = SimpleNamespace(store=store)  # type: ignore[assignment]
    services._stored = (3, 4)
    store.failing = True
    await services.refresh()
    assert services._stored == (3, 4)
    store.failing = False
    await services.refresh()
    assert services._stored == (0, 0)
