"""Targets in trouble, each in a process of its own: what it costs the gateway is measured, not what it costs to play it."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from bridges.rocketmq.codes import RequestCode, ResponseCode
from tests.support.chaos_proxy import ChaosProxy, Latency
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic

QUEUES = 8
WITHIN = 20.0


@contextmanager
def late(listens: int, sent_to: int, seconds: float) -> Iterator[str]:
    """A proxy at ``sent_to`` in front of ``listens``, whose answers come that much later."""
    with _aside(Late, listens, sent_to, seconds) as address:
        yield address


@contextmanager
def half_hearted(topic: str) -> Iterator[str]:
    """A RocketMQ that is busy at every other send."""
    with _aside(HalfHearted, topic) as address:
        yield address


@contextmanager
def _aside(make: Callable[..., AbstractAsyncContextManager[str]], *arguments: Any) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(theirs, make, arguments), daemon=True)
    process.start()
    try:
        if not ours.poll(WITHIN):
            raise TimeoutError(f"{make.__name__} did not begin within {WITHIN} s")
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _hold(ready: Connection, make: Callable[..., AbstractAsyncContextManager[str]], arguments: tuple[Any, ...]) -> None:
    async def hold() -> None:
        async with make(*arguments) as address:
            ready.send(address)
            await asyncio.Event().wait()

    asyncio.run(hold())


class Late(AbstractAsyncContextManager[str]):
    def __init__(self, listens: int, sent_to: int, seconds: float) -> None:
        self._proxy = ChaosProxy("127.0.0.1", listens, at=sent_to)
        self._proxy.add(Latency(seconds), "down")

    async def __aenter__(self) -> str:
        await self._proxy.__aenter__()
        return f"{self._proxy.host}:{self._proxy.port}"

    async def __aexit__(self, *error: object) -> None:
        await self._proxy.__aexit__(*error)


class HalfHearted(AbstractAsyncContextManager[str]):
    def __init__(self, topic: str) -> None:
        count = itertools.count()

        def judge(command: Any) -> tuple[int, str] | None:
            busy = command.code == RequestCode.SEND_BATCH_MESSAGE and next(count) % 2
            return (ResponseCode.SYSTEM_BUSY, "busy") if busy else None

        self._fake = FakeRocketmq(judge=judge, topics={topic: FakeTopic([[] for _ in range(QUEUES)])})

    async def __aenter__(self) -> str:
        await self._fake.start()
        return self._fake.address

    async def __aexit__(self, *error: object) -> None:
        await self._fake.stop()
