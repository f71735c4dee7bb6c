"""What a rule receives: the port's Source. Each queue of the topic has a long poll under way, as a future with a callback.

pulling.py says what an answer means. One task opens connections, finds new queues and tries again what failed; the way of messages has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bridges.rocketmq import calls
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.connection import Connection
from bridges.rocketmq.errors import Refused, Unreachable
from bridges.rocketmq.frames import Command
from bridges.rocketmq.heartbeats import ALL, TAG, Subscription
from bridges.rocketmq.pulling import Pulling
from bridges.rocketmq.routes import Queue, Route, queue_named
from schemas.errors import BackendError
from streams.backend import Incoming

log = logging.getLogger(__name__)

FIND_EVERY = 10.0
"""Seconds between two looks for new queues; the client refreshes its routes as often."""

POLL_FOR = 10.0
"""Seconds for which a broker may hold a pull that finds nothing."""
POLL_GRACE = 10.0
"""It looks every 5 s which pulls it has held for long enough: an answer may be that late, and is no sign of trouble."""

PULL_MESSAGES = 256
"""Wanted at once; a broker gives 32 unless it is told otherwise."""

LISTED_WITHIN = 0.1
"""Seconds after which what a broker has acknowledged is in its queues: 4.9 counts it as an end no sooner."""

HURRIED = 0.1
"""A broker that finds nothing sooner than this doesn't hold pulls: it is asked after a pause."""

MAY_WAIT_WITH_SUBSCRIPTION = 6


class RocketmqSource:
    """A consumer that assigns itself all queues. Its group makes it visible in RocketMQ's tools, and is told where it stands."""

    def __init__(
        self,
        client: Client,
        group: str,
        topic: str,
        positions: Mapping[str, int],
        subscription: Subscription,
        closed: Callable[[RocketmqSource], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._tell_closed = closed
        self._topic = topic
        self._name = client.named(topic)
        self._group = group
        self._subscription = subscription
        self._tags = subscription.tags
        self._consumer = client.join_consumers(group, subscription)
        self._positions = dict(positions)
        self._queues: dict[str, Pulling] = {}
        self._checked: set[str | None] = set()
        self._turn = 0
        self._route = Route()
        self._current: frozenset[str] = frozenset()
        self._error: BackendError | None = None
        self._fatal: BackendError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._tender = asyncio.create_task(self._tend())

    # The port

    @property
    def skipped(self) -> int:
        return sum(pulling.skipped for pulling in self._queues.values())

    async def next(self, max_messages: int, max_bytes: int) -> Sequence[Incoming]:
        while True:
            if self._closed:
                raise BackendError("the source is closed", retryable=False)
            taken = self._take(max_messages, max_bytes)
            if taken:
                return taken
            if self._fatal is not None:
                raise BackendError(str(self._fatal), retryable=False)
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            self._waiter = self._loop.create_future()
            await self._waiter

    async def commit(self, positions: Mapping[str, int]) -> None:
        told = [self._commit(queue, offset) for name, offset in positions.items() if (queue := queue_named(name)) is not None]
        await asyncio.gather(*told)

    async def ends(self) -> Mapping[str, tuple[int, int]]:
        return await ends(self._client, self._name, self._topic)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._waiter is not None:
            self._waiter.cancel()
        self._tender.cancel()
        await asyncio.gather(self._tender, return_exceptions=True)
        for pulling in self._queues.values():
            if pulling.asked is not None:
                pulling.asked.cancel()
        self._client.leave_consumers(self._consumer)
        self._tell_closed(self)

    # What waits

    def _take(self, max_messages: int, max_bytes: int) -> list[Incoming]:
        """Queues take turns, and each queue's messages stay in order."""
        taken: list[Incoming] = []
        pullings = list(self._queues.values())
        room = max_bytes
        for step in range(len(pullings)):
            pulling = pullings[(self._turn + step) % len(pullings)]
            waiting = pulling.waiting
            while waiting and len(taken) < max_messages:
                size, message = waiting[0]
                if taken and size > room:
                    break
                room -= size
                pulling.bytes -= size
                waiting.popleft()
                taken.append(message)
            if pulling.wants:
                self._pull(pulling)
        self._turn += 1
        return taken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _failed(self, pulling: Pulling | None, error: BackendError) -> None:
        """Told to the reader once; tried again after a pause, unless it can't get better."""
        if pulling is not None:
            pulling.fail(self._loop.time())
        if error.retryable:
            self._error = error
        else:
            self._fatal = error
        self._wake()
        self._work.set()

    # Pulling

    def _pull(self, pulling: Pulling) -> None:
        """Ask for what comes next, where that needs no waiting; else the tender does it."""
        address = self._route.masters.get(pulling.queue.broker)
        connection = self._client.peers.ready(address) if address is not None else None
        now = self._loop.time()
        if self._closed or pulling.asked is not None or pulling.name not in self._current:
            return  # two at a time would answer in any order, and lead back
        if connection is None or pulling.retry_at > now or (self._subscription.kind != TAG and address not in self._checked):
            self._work.set()
            return
        fields = {
            "consumerGroup": self._group,
            "topic": self._name,
            "queueId": str(pulling.queue.number),
            "queueOffset": str(pulling.offset),
            "maxMsgNums": str(PULL_MESSAGES),
            "sysFlag": str(MAY_WAIT_WITH_SUBSCRIPTION),
            "commitOffset": "0",
            "suspendTimeoutMillis": str(int(POLL_FOR * 1000)),
            "subscription": self._subscription.expression,
            "subVersion": str(self._consumer.version),
            "expressionType": self._subscription.kind,
        }
        pulling.at = now
        pulling.asked = connection.request(RequestCode.PULL_MESSAGE, fields, within=POLL_FOR + POLL_GRACE)
        pulling.asked.add_done_callback(partial(self._pulled, pulling, connection))

    def _pulled(self, pulling: Pulling, connection: Connection, future: asyncio.Future[Command]) -> None:
        pulling.asked = None
        if future.cancelled() or self._closed:
            return
        failure = future.exception()
        if failure is not None:
            self._client.peers.suspect(connection, str(failure))
            self._failed(pulling, failure if isinstance(failure, BackendError) else Unreachable(str(failure)))
            return
        answer = future.result()
        try:
            pulling.answered(answer, self._topic, self._tags)
        except Refused as error:
            if error.code in (ResponseCode.TOPIC_NOT_EXIST, ResponseCode.INVALID_PARAMETER, ResponseCode.NO_PERMISSION):
                self._client.doubt(self._name)
            if error.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST:
                # The tender makes the group; the reader is told if it can't.
                pulling.offset, self._positions[pulling.name] = None, pulling.offset or 0
                self._work.set()
                return
            self._failed(pulling, error)
            return
        except BackendError as error:
            self._failed(pulling, error)
            return
        if pulling.waiting:
            self._wake()
        elif self._loop.time() - pulling.at < HURRIED and answer.code == ResponseCode.PULL_NOT_FOUND:
            pulling.retry_at = self._loop.time() + HURRIED
        if pulling.wants:
            self._pull(pulling)

    # What needs waiting

    async def _tend(self) -> None:
        find_at = 0.0
        while True:
            self._work.clear()
            now = self._loop.time()
            if now >= find_at:
                find_at = now + (FIND_EVERY if await self._find() else 1.0)
            pauses = [find_at]
            for pulling in list(self._queues.values()):
                if pulling.retry_at > now:
                    pauses.append(pulling.retry_at)
                elif pulling.name in self._current and (pulling.offset is None or pulling.wants):
                    await self._start(pulling)
            # Two rounds are never closer than this: what can't be done now is no reason to spin.
            await asyncio.sleep(0.01)
            try:
                async with asyncio.timeout_at(max(min(pauses), now)):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def _find(self) -> bool:
        """Look the topic up. Queues that are gone are no longer received; where we stood in them is kept."""
        try:
            route = await self._client.route(self._name)
            if route is None:
                raise BackendError(f"topic `{self._topic}` does not exist")  # noqa: TRY301 (the reader is told like of other failures)
        except BackendError as error:
            self._failed(None, error)
            return False
        self._route = route
        self._current = frozenset(queue.name for queue in route.readable)
        for queue in route.readable:
            if queue.name not in self._queues:
                self._queues[queue.name] = Pulling(queue, self._positions.get(queue.name))
        return True

    async def _start(self, pulling: Pulling) -> None:
        address = self._route.masters.get(pulling.queue.broker)
        if address is None:
            self._failed(pulling, Unreachable(f"broker {pulling.queue.broker} of topic `{self._topic}` is away"))
            return
        try:
            await self._client.peers.connection(address)
            if self._subscription.kind != TAG and address not in self._checked:
                await calls.check_subscription(self._client, address, self._consumer)
                self._checked.add(address)
            if pulling.offset is None:
                await self._place(pulling, address)
        except BackendError as error:
            self._failed(pulling, error)
            return
        self._pull(pulling)

    async def _place(self, pulling: Pulling, address: str) -> None:
        """A queue without a position is read from its first message; a group that the broker doesn't know is made, where we may."""
        if pulling.name in self._positions:
            await calls.create_group(self._client, address, self._group)
            pulling.offset = self._positions[pulling.name]
        else:
            pulling.offset = await calls.first_offset(self._client, address, self._name, pulling.queue)

    async def _commit(self, queue: Queue, offset: int) -> None:
        address = self._route.masters.get(queue.broker)
        if address is None or self._client.peers.ready(address) is None:
            return
        try:
            await calls.commit_offset(self._client, address, self._group, self._name, queue, offset)
        except BackendError as error:
            log.debug("rocketmq_offset_untold group=%s queue=%s error=%s", self._group, queue.name, error)


def subscription_of(topic: str, tags: str, sql: str) -> Subscription:
    """``topic`` has its namespace. A rule has tags or an expression, or neither."""
    if sql:
        return Subscription(topic, sql, "SQL92")
    return Subscription(topic, tags.strip() or ALL, TAG)


async def ends(client: Client, name: str, topic: str) -> dict[str, tuple[int, int]]:
    """Of all queues that can be received: the first offset kept, and the one behind the last message."""
    route = await client.route(name)
    if route is None:
        raise BackendError(f"topic `{topic}` does not exist")
    await asyncio.sleep(LISTED_WITHIN)
    pairs = await asyncio.gather(
        *(
            asyncio.gather(
                calls.first_offset(client, route.masters[queue.broker], name, queue),
                calls.next_offset(client, route.masters[queue.broker], name, queue),
            )
            for queue in route.readable
        )
    )
    return {queue.name: (first, following) for queue, (first, following) in zip(route.readable, pairs, strict=True)}
