"""Where a rule sends to: the port's Target. Batches of one queue go one after the other, those of several queues at once.

outgoing.py makes bytes of messages, placing.py says where they go. Nothing is in flight when ``send`` returns or raises: what the caller sends
next, or again, can't be overtaken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import msgspec

from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.errors import Refused, Unreachable
from bridges.rocketmq.outgoing import encode, topic_fault
from bridges.rocketmq.placing import BATCH_BYTES, Item, Placing, batches
from bridges.rocketmq.routes import Queue, Route
from bridges.rocketmq.terms import Terms
from schemas.errors import BackendError
from streams.backend import Outgoing, Rejected

IN_FLIGHT = 32
"""Batches on their way at once, each to another queue."""

TRY_OTHERS_FOR = 6.0
"""Seconds after which a batch that may go anywhere is given up, with a last try under way at most."""

AVOID_FOR = 5.0
"""Seconds for which a broker that failed is the last choice."""

TOPICS_REMEMBERED = 1024

NO_DEFAULT_TOPIC = "SLUICEWAY_MAKES_NO_TOPICS"
"""A broker that makes topics on first use models them after the topic named here: none, so that it makes none."""

_ELSEWHERE = {
    ResponseCode.SYSTEM_ERROR,
    ResponseCode.SYSTEM_BUSY,
    ResponseCode.FLUSH_DISK_TIMEOUT,
    ResponseCode.SLAVE_NOT_AVAILABLE,
    ResponseCode.FLUSH_SLAVE_TIMEOUT,
    ResponseCode.SERVICE_NOT_AVAILABLE,
    ResponseCode.NO_PERMISSION,
    ResponseCode.TOPIC_NOT_EXIST,
    ResponseCode.INVALID_PARAMETER,
    215,  # flow control
}
"""Answers after which another broker may do better."""

ROUTE_IS_WRONG = {ResponseCode.NO_PERMISSION, ResponseCode.TOPIC_NOT_EXIST, ResponseCode.INVALID_PARAMETER}


class _Work(msgspec.Struct):
    """What of one call goes to one topic. ``name`` has the namespace."""

    name: str
    born: int
    route: Route = Route()
    laned: dict[Queue, list[Item]] = {}
    loose: list[Item] = []


class RocketmqTarget:
    """A producer. Its group makes it visible in RocketMQ's tools."""

    def __init__(self, client: Client, terms: Terms, group: str) -> None:
        self._client = client
        self._terms = terms
        self._group = group
        self._placings: dict[str, Placing] = {}
        self._avoided: dict[str, float] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._closed = False
        client.join_producers(group)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._client.leave_producers(self._group)

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[Rejected]:
        if self._closed:
            raise BackendError("the target is closed", retryable=False)
        rejected: list[Rejected] = []
        works = await self._sort(messages, rejected)
        jobs: list[Coroutine[None, None, None]] = []
        for work in works:
            jobs.extend(self._send_lanes(work, queue, items, rejected) for queue, items in work.laned.items())
            # How large a broker's messages may be is known once the broker is: batches are cut for the usual limit, and halved where it is lower.
            jobs.extend(self._send_loose(work, batch, rejected) for batch in batches(work.loose))
        if len(jobs) == 1:
            await jobs[0]
        elif jobs:
            # All are waited for, whatever happens to one.
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        return sorted(rejected, key=lambda entry: entry.index)

    async def _sort(self, messages: Sequence[Outgoing], rejected: list[Rejected]) -> list[_Work]:
        """Encode and place. The queues of a topic are looked up once: all of the call is placed by the same."""
        works: dict[str, _Work | str] = {}
        for index, message in enumerate(messages):
            work = works.get(message.topic)
            if work is None:
                work = works[message.topic] = topic_fault(self._client.named(message.topic)) or await self._begin(message)
            encoded = work if isinstance(work, str) else encode(message)
            if isinstance(encoded, str) or isinstance(work, str):
                rejected.append(Rejected(index, str(encoded)))
            elif message.lane is None:
                work.loose.append((index, encoded))
            else:
                queue = self._placings[work.name].of_lane(message.lane)
                items = work.laned.get(queue)
                if items is None:
                    items = work.laned[queue] = []
                items.append((index, encoded))
        return [work for work in works.values() if isinstance(work, _Work)]

    async def _begin(self, message: Outgoing) -> _Work:
        name = self._client.named(message.topic)
        route = await self._client.route(name)
        if route is None:
            raise BackendError(f"topic `{message.topic}` does not exist")
        if not route.writable:
            raise BackendError(f"topic `{message.topic}` has no queue that takes messages just now")
        placing = self._placings.get(name)
        if placing is None:
            if len(self._placings) >= TOPICS_REMEMBERED:
                self._placings.clear()
            placing = self._placings[name] = Placing()
        placing.use(route.writable)
        return _Work(name, message.time, route)

    async def _send_lanes(self, work: _Work, queue: Queue, items: list[Item], rejected: list[Rejected]) -> None:
        """In order; the first failure ends it."""
        async with self._slots:
            largest = (await self._terms.of(work.route.masters[queue.broker])).largest
            for batch in batches(items, min(BATCH_BYTES, largest or BATCH_BYTES)):
                await self._settle(work, queue, batch, rejected)

    async def _send_loose(self, work: _Work, batch: list[Item], rejected: list[Rejected]) -> None:
        """To the queue whose turn it is, or to one of another broker where that one's fails."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        failure: BackendError | None = None
        tried: set[str] = set()
        queues = self._placings[work.name].turns()
        queues.sort(key=lambda queue: self._avoided.get(queue.broker, 0.0) > started)
        for queue in queues:
            if queue.broker in tried:
                continue
            if loop.time() - started > TRY_OTHERS_FOR:
                break
            tried.add(queue.broker)
            try:
                async with self._slots:
                    await self._settle(work, queue, batch, rejected)
            except BackendError as error:
                if isinstance(error, Refused) and error.code not in _ELSEWHERE:
                    raise
                failure = error
                self._avoid(queue.broker, loop.time())
            else:
                return
        raise failure or Unreachable(f"no broker of topic `{work.name}` takes messages")

    def _avoid(self, broker: str, now: float) -> None:
        self._avoided = {name: until for name, until in self._avoided.items() if until > now}
        self._avoided[broker] = now + AVOID_FOR

    async def _settle(self, work: _Work, queue: Queue, batch: list[Item], rejected: list[Rejected]) -> None:
        """Store a batch. Where the broker refuses it as such, its halves are tried, in order, until the culprit stands alone."""
        address = work.route.masters[queue.broker]
        largest = (await self._terms.of(address)).largest
        fields = {
            "a": self._group,
            "b": work.name,
            "c": NO_DEFAULT_TOPIC,
            "d": "0",
            "e": str(queue.number),
            "f": "0",
            "g": str(work.born),
            "h": "0",
            "i": "",
            "j": "0",
            "k": "false",
            "m": "true",
        }
        done: list[Rejected] = []
        parts = [batch]
        while parts:
            part = parts.pop()
            answer = await self._client.ask(address, RequestCode.SEND_BATCH_MESSAGE, fields, b"".join([message for _, message in part]))
            if answer.code == ResponseCode.SUCCESS:
                continue
            if not _is_about_messages(answer.code, answer.remark):
                if answer.code in ROUTE_IS_WRONG:
                    self._client.doubt(work.name)
                raise Refused(address, answer.code, answer.remark or WORDS.get(answer.code, ""))
            if len(part) == 1:
                done.append(Rejected(part[0][0], _reason(len(part[0][1]), largest, answer.remark)))
            else:
                middle = len(part) // 2
                parts.extend((part[middle:], part[:middle]))
        rejected.extend(done)


WORDS: dict[int, str] = {
    ResponseCode.FLUSH_DISK_TIMEOUT: "the message is not on disk in time",
    ResponseCode.SLAVE_NOT_AVAILABLE: "no replica is there to take the message",
    ResponseCode.FLUSH_SLAVE_TIMEOUT: "no replica has the message in time",
}
"""Answers that brokers give without a word."""


def _reason(size: int, largest: int, remark: str) -> str:
    if 0 < largest < size:
        return f"body: {size} bytes with its properties are over the broker's maxMessageSize of {largest}"
    return remark or "RocketMQ calls the message illegal"


def _is_about_messages(code: int, remark: str) -> bool:
    """Whether it is the messages that the broker doesn't take, so that others pass. Brokers of 5.x throw for a batch that is too large."""
    return code == ResponseCode.MESSAGE_ILLEGAL or (code == ResponseCode.SYSTEM_ERROR and "size exceeded" in remark)
