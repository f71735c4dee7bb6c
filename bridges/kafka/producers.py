"""The producer of the log: idempotent, acks=all, one in use at a time, replaced as soon as anything fails.

aiokafka's idempotent producer counts a failed batch as sent, so that Kafka takes none of that partition after it; and it tries for
ever, so that what was given up could still arrive behind what was sent instead. Hence a producer that failed is buried: it begins no
request any more, what it has under way may still be answered for a moment, and the rest is sent again, in order, by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerClosed, RecordListTooLargeError

from bridges.framed.lanes import Group, always, permitted
from schemas.errors import SluicewayError

_log = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds for which requests under way at a replaced producer may still be answered."""
BURIAL: Final = 20.0
"""Seconds until a producer whose broker hangs is left behind."""
BURIED: Final = 8
"""Producers on their way out, past which no new one is made."""
SLACK: Final = 4096
"""Bytes around a frame: the batch's and the request's own."""
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
"""Verdicts on a frame because of its size: the same each time, so nothing of it is or comes into the log."""


class Clients(Protocol):
    """A named connection (connection.py)."""

    def options(self) -> dict[str, Any]:
        """Keywords for any client of aiokafka."""


async def undisturbed(start: Coroutine[Any, Any, None]) -> None:
    """Await the start of a client. One that is under way is waited for though whoever asked is cancelled: aiokafka leaves open what connects then."""
    starting = asyncio.get_running_loop().create_task(start)
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting], timeout=BURIAL)
        if starting.done() and not starting.cancelled():
            starting.exception()
        raise


class Unsettled(Exception):
    """No failure: the frame may lie in the log or not: it is to be sent again."""


class Sending:
    """One producer, while it is in use."""

    def __init__(self, producer: AIOKafkaProducer, clock: Callable[[], float]) -> None:
        self.producer = producer
        self._clock = clock
        self._answers: dict[asyncio.Future[Any], float] = {}

    async def send(self, topic: str, shard: int, body: bytes, time: int) -> int:
        """Kafka's offset of the frame. KafkaError or Unsettled: it is to be sent again."""
        answer: asyncio.Future[Any] = await self.producer.send(topic, body, partition=shard, timestamp_ms=time)
        self._answers[answer] = self._clock()
        try:
            offset: int = (await answer).offset
        finally:
            del self._answers[answer]
        if offset < 0:
            raise Unsettled("the broker has it already and forgot where")
        return offset

    @property
    def oldest(self) -> float:
        """When the oldest frame that is not answered was sent, 0.0 for none."""
        return next(iter(self._answers.values()), 0.0)

    async def bury(self) -> None:
        """From the first step on nothing more is begun; returns when all is answered or given up, and the connections are closed."""
        sender = self.producer._sender.sender_task  # noqa: SLF001 - see above; there is no public way
        sender.cancel()
        if self._answers:
            await asyncio.wait(list(self._answers), timeout=GRACE)
        for answer in list(self._answers):
            if not answer.done():
                answer.set_exception(Unsettled("its producer was replaced"))
        await asyncio.wait([sender], timeout=BURIAL)
        # stop() would wait for what is never sent, and what went back to its queue can't be failed
        accumulator = self.producer._message_accumulator  # noqa: SLF001
        accumulator._batches.clear()  # noqa: SLF001
        accumulator.fail_all(ProducerClosed())
        with contextlib.suppress(KafkaError, OSError):
            await self.producer.stop()


class Producers:
    """The producer in use, for all lanes: see ``framed.lanes.Medium``."""

    title = "Kafka"

    def __init__(self, clients: Clients, *, largest: int, backoff: float, clock: Callable[[], float], may_write: Callable[[], bool] = always) -> None:
        self._clients = clients
        self._may_write = may_write
        self._largest = largest + SLACK
        self._backoff = backoff
        self._clock = clock
        self._current: Sending | None = None
        self._lock = asyncio.Lock()
        self._burials: set[asyncio.Task[None]] = set()
        self.replaced = 0
        self.last_error = ""

    async def deliver(self, group: Group, name: str, shard: int, body: bytes) -> int:
        """See ``framed.lanes.Medium``."""
        time = max(record.time for record in group.records)
        while True:
            await permitted(self._may_write)
            sending = await self.current()
            if not self._may_write():
                continue
            group.sent = True
            try:
                return await sending.send(name, shard, body, time)
            except TOO_LARGE as error:
                self.replace(sending, str(error))
                return -1
            except Exception as error:  # noqa: BLE001 - whatever it is, a new producer is the way on, and a lane that dies is none
                self.replace(sending, f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._backoff)

    def trouble(self, name: str, shard: int) -> str:
        """See ``framed.lanes.Medium``: the producer's, which all shards share."""
        return self.last_error

    def recovered(self, name: str, shard: int) -> bool:
        """See ``framed.lanes.Medium``."""
        had, self.last_error = self.last_error, ""
        return bool(had)

    def larger(self, name: str) -> str:
        """See ``framed.lanes.Medium``."""
        return f"max.message.bytes of topic {name}"

    async def current(self) -> Sending:
        """The one in use; waits for Kafka where it can't be reached."""
        while (sending := self._current) is None:
            async with self._lock:
                if self._current is None:
                    await self._make()
        return sending

    async def _make(self) -> None:
        while len(self._burials) >= BURIED:
            await asyncio.wait(self._burials, return_when=asyncio.FIRST_COMPLETED)
        try:
            producer = AIOKafkaProducer(
                **self._clients.options(), acks="all", enable_idempotence=True, max_request_size=self._largest, max_batch_size=self._largest
            )
        except SluicewayError as error:
            self._note(error)
            await asyncio.sleep(self._backoff)
            return
        try:
            await undisturbed(producer.start())
        except (KafkaError, OSError, TimeoutError) as error:
            self._note(error)
            await producer.stop()
            await asyncio.sleep(self._backoff)
            return
        except BaseException:
            await producer.stop()
            raise
        self._current = Sending(producer, self._clock)

    def _note(self, error: Exception) -> None:
        if not self.last_error:
            _log.error("log.kafka_unreachable error=%s", error)
        self.last_error = str(error) or type(error).__name__

    def replace(self, sending: Sending, why: str) -> None:
        """Something that it sent has failed or hangs."""
        if sending is self._current:
            self._current = None
            self.replaced += 1
            self.last_error = why
            _log.warning("log.producer_replaced error=%s", why)
            task = asyncio.get_running_loop().create_task(sending.bury())
            self._burials.add(task)
            task.add_done_callback(self._burials.discard)

    def check(self, within: float) -> None:
        """Replace the producer if a frame is not answered for so many seconds."""
        sending = self._current
        if sending is not None and sending.oldest and self._clock() - sending.oldest > within:
            self.replace(sending, f"no answer within {within:g} s")

    async def close(self) -> None:
        """Waits for requests under way, whose time is limited: a producer that is left behind would be left open."""
        if self._current is not None:
            sending, self._current = self._current, None
            self._burials.add(asyncio.get_running_loop().create_task(sending.bury()))
        if self._burials:
            await asyncio.wait(self._burials, timeout=BURIAL)
        for task in self._burials:
            task.cancel()
        await asyncio.gather(*self._burials, return_exceptions=True)
