"""What becomes of a frame that Kafka does not take: the same bytes again by another producer, or the verdict that it is too large."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from bridges.framed.lanes import Group
from bridges.kafka.producers import Producers
from schemas.records import Kind, Record


class Scripted(Producers):
    """``outcomes`` are met in order; then everything is taken, at offset 9."""

    def __init__(self, *outcomes: Exception) -> None:
        super().__init__(None, largest=1, backoff=0.0, clock=lambda: 1.0, may_write=lambda: self.allowed)  # type: ignore[arg-type]
        self.allowed = True
        self.outcomes = list(outcomes)
        self.sent: list[tuple[str, int, bytes, int]] = []
        self.buried: list[str] = []

    async def current(self) -> Any:
        return self

    async def send(self, *frame: Any) -> int:
        self.sent.append(frame)
        if self.outcomes:
            raise self.outcomes.pop(0)
        return 9

    def replace(self, sending: Any, why: str) -> None:
        self.buried.append(why)


def group() -> Group:
    return Group([Record(Kind.PUBLISH, b"", time, "c") for time in (3, 7, 5)], [], 0)


async def test_a_frame_that_failed_is_sent_again_as_it_was() -> None:
    producers, sent = Scripted(KafkaConnectionError(), KafkaConnectionError()), group()
    assert await producers.deliver(sent, "p-publish", 2, b"frame") == 9
    assert producers.sent == [("p-publish", 2, b"frame", 7)] * 3
    assert sent.sent
    assert len(producers.buried) == 2


async def test_a_frame_that_is_too_large_is_told_and_its_producer_replaced() -> None:
    producers = Scripted(MessageSizeTooLargeError())
    assert await producers.deliver(group(), "p-publish", 2, b"frame") == -1
    assert len(producers.sent) == len(producers.buried) == 1


async def test_nothing_leaves_while_another_may_have_this_node_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the first time nor again; what never left counts as not sent."""
    monkeypatch.setattr("bridges.framed.lanes.ASK_AGAIN", 0.0)
    producers, first = Scripted(), group()
    producers.allowed = False
    waiting = asyncio.ensure_future(producers.deliver(first, "p-publish", 2, b"frame"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not producers.sent
    assert not first.sent
    producers.outcomes = [KafkaConnectionError()]
    producers.allowed = True
    while not producers.sent:
        await asyncio.sleep(0)
    producers.allowed = False
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(producers.sent) == 1
    producers.allowed = True
    assert await waiting == 9
