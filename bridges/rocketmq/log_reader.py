"""A reader of the log on RocketMQ: a long poll per queue, frames decoded as they come; no shard waits for another's broker.

``next`` hands out what the shards' tasks have fetched; which frames are repeats is in bridges/framed/reading.py. Brokers show a message before
it is safe: a frame of this log's own is held until its lane has the acknowledgement, so that nothing is handed out that a power cut could
take back. Failures of RocketMQ are waited out; what can't be read, or is gone though a position says it was there, ends the reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from bridges.framed.lanes import Lane
from bridges.framed.outlet import Outlet
from bridges.framed.reading import EARLIEST, Fetch, places_of
from bridges.rocketmq import calls
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.errors import Refused, RemotingError
from bridges.rocketmq.frames import Command
from bridges.rocketmq.heartbeats import ALL, TAG
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.log_sending import address_of
from bridges.rocketmq.messages import StoredMessage, decode_stored
from bridges.rocketmq.routes import Queue
from bridges.rocketmq.source import HURRIED, LISTED_WITHIN, MAY_WAIT_WITH_SUBSCRIPTION, POLL_GRACE, PULL_MESSAGES
from bridges.rocketmq.target import ROUTE_IS_WRONG
from schemas.errors import BackendError, LogDamaged, LogError
from schemas.positions import At
from schemas.records import FrameError, decode_frame
from streams.log import Batch, Start

_log = logging.getLogger(__name__)

LOOKS: Final = 20
"""How often a queue is asked for its end, every ``LISTED_WITHIN``, before it counts as shorter than it was."""


class Surroundings(msgspec.Struct, frozen=True):
    """What all readers of one log share."""

    client: Client
    group: str
    node: str
    epoch: int
    options: RocketmqLogOptions


class Shards(msgspec.Struct, frozen=True):
    """A topic: its queues by shard, its lanes, and the log's own knowledge of its ends, which every fetch renews."""

    name: str
    queues: Sequence[Queue]
    lanes: Sequence[Lane]
    ends: dict[int, int]


class _Moved(Exception):
    """The queue has nothing where we are: it has forgotten that, or ends before."""


class RocketmqReader:
    """Reads ``shards`` of a topic from ``start``. ``closed`` is told once."""

    def __init__(self, around: Surroundings, topic: Shards, start: Start, shards: Sequence[int], closed: Callable[[RocketmqReader], None]) -> None:
        self._around = around
        self._client = around.client
        self._options = around.options
        self._topic = topic
        self._closed_by = closed
        self._start = start
        self._tails = {shard: topic.ends[shard] for shard in shards}
        """Where each shard ended when the reader was opened: "latest"."""
        self._fetched = Fetch()
        self._fetched.places = places_of(start, self._tails)
        self._following: dict[int, int] = {}
        """By shard the offset of the next pull, where it was begun."""
        self._confirmed = {shard: asyncio.Event() for shard in shards}
        self._outlet = Outlet(self._fetched)
        self._ill: set[int] = set()
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self._run(shard)) for shard in shards]

    # The port

    async def next(self, max_records: int, max_bytes: int) -> Batch:
        """As the port says."""
        return await self._outlet.next(max_records, max_bytes)

    def lag(self) -> int:
        """As the port says."""
        return self._fetched.lag(self._topic.ends)

    def release(self, upto: At) -> None:
        """RocketMQ forgets by age, whoever reads."""

    def close(self) -> None:
        """As the port says."""
        for task in self.tasks:
            task.cancel()
        self._outlet.close()
        self._closed_by(self)

    def confirm(self, shard: int) -> None:
        """The lane of the shard has an acknowledgement."""
        if shard in self._confirmed:
            self._confirmed[shard].set()

    # One shard

    async def _run(self, shard: int) -> None:
        while True:
            try:
                await self._begin(shard)
                while True:
                    await self._pull(shard)
            except (LogDamaged, FrameError) as error:
                self._outlet.fail(error)
                return
            except _Moved:
                await asyncio.sleep(LISTED_WITHIN)
            except BackendError as error:
                if shard not in self._ill:
                    _log.warning("log.read_failed topic=%s shard=%d error=%s", self._topic.name, shard, error)
                self._ill.add(shard)
                await asyncio.sleep(self._options.backoff)
            except Exception as error:  # noqa: BLE001 - whoever reads must hear of it
                _log.exception("log.reader_died")
                self._outlet.fail(LogError(f"the reader of the log died: {error}"))
                return

    async def _begin(self, shard: int) -> None:
        """Look up where to read from, refuse what lies behind the end, and go some frames back."""
        name, queue = self._topic.name, self._topic.queues[shard]
        address = await address_of(self._client, name, queue)
        places = self._fetched.places
        if shard not in places:
            places[shard] = await self._at_time(address, shard)
        offset, index = places[shard]
        first = await calls.first_offset(self._client, address, name, queue)
        end = await self._end(address, queue, offset + (index > 0))
        if end < offset + (index > 0):
            raise LogDamaged(
                f"the log ends at record {end}:0 of shard {shard} of topic {name}, a position says {offset}:{index}: "
                "log and store are not of one moment, or RocketMQ has lost what it acknowledged"
            )
        self._topic.ends[shard] = max(self._topic.ends[shard], end)
        if offset < first:
            self._skip(shard, first)
        self._following[shard] = max(first, places[shard][0] - self._options.look_back)

    async def _end(self, address: str, queue: Queue, wanted: int) -> int:
        """What was acknowledged a moment ago isn't counted yet: an end before ``wanted`` is asked for again."""
        for _ in range(LOOKS):
            end = await calls.next_offset(self._client, address, self._topic.name, queue)
            if end >= wanted:
                break
            await asyncio.sleep(LISTED_WITHIN)
        return end

    async def _at_time(self, address: str, shard: int) -> tuple[int, int]:
        since = self._start
        assert isinstance(since, int)  # noqa: S101 - all other starts are known without asking
        self._fetched.times[shard] = (since, self._tails[shard])
        stored = max(0, since - int(self._options.clocks_apart * 1000))
        offset = await calls.offset_at(self._client, address, self._topic.name, self._topic.queues[shard], stored)
        return min(offset, self._tails[shard]), 0

    def _skip(self, shard: int, first: int) -> None:
        """What the place asks for is gone."""
        asked = self._fetched.places[shard][0]
        level = logging.INFO if asked == EARLIEST else logging.WARNING
        _log.log(level, "log.reader_starts topic=%s shard=%d first=%d asked=%d", self._topic.name, shard, first, asked)
        self._fetched.places[shard] = (first, 0)

    async def _pull(self, shard: int) -> None:
        await self._outlet.room(self._options.read_ahead_bytes)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        answer = await self._ask(shard)
        self._ill.discard(shard)
        if "maxOffset" in answer.fields:
            self._topic.ends[shard] = max(self._topic.ends[shard], _number(answer, "maxOffset"))
        if answer.code == ResponseCode.SUCCESS:
            for message in decode_stored(answer.body):
                await self._take(shard, message)
            self._following[shard] = _number(answer, "nextBeginOffset")
        elif answer.code in (ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY):
            following = _number(answer, "nextBeginOffset")
            if following > self._fetched.places[shard][0]:
                self._skip(shard, following)
            if following == self._following[shard] and loop.time() - asked < HURRIED:
                await asyncio.sleep(HURRIED)
            self._following[shard] = following
        elif answer.code == ResponseCode.PULL_OFFSET_MOVED:
            raise _Moved
        else:
            await self._refused(shard, answer)

    async def _ask(self, shard: int) -> Command:
        topic, options = self._topic, self._options
        address = await address_of(self._client, topic.name, topic.queues[shard])
        fields = {
            "consumerGroup": self._around.group,
            "topic": topic.name,
            "queueId": str(topic.queues[shard].number),
            "queueOffset": str(self._following[shard]),
            "maxMsgNums": str(PULL_MESSAGES),
            "sysFlag": str(MAY_WAIT_WITH_SUBSCRIPTION),
            "commitOffset": "0",
            "suspendTimeoutMillis": str(int(options.poll_for * 1000)),
            "subscription": ALL,
            "subVersion": "0",
            "expressionType": TAG,
        }
        return await self._client.ask(address, RequestCode.PULL_MESSAGE, fields, within=options.poll_for + POLL_GRACE)

    async def _refused(self, shard: int, answer: Command) -> None:
        queue = self._topic.queues[shard]
        if answer.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST:
            await calls.create_group(self._client, await address_of(self._client, self._topic.name, queue), self._around.group)
            return
        if answer.code in ROUTE_IS_WRONG:
            self._client.doubt(self._topic.name)
        raise Refused(queue.broker, answer.code, answer.remark)

    async def _take(self, shard: int, message: StoredMessage) -> None:
        topic, around = self._topic, self._around
        try:
            frame = decode_frame(message.body)
        except FrameError as error:
            raise FrameError(f"{topic.name} shard {shard} offset {message.offset}: {error}") from error
        if (frame.node, frame.epoch) == (around.node, around.epoch):
            confirmed, lane = self._confirmed[shard], topic.lanes[shard]
            while lane.acknowledged < frame.sequence:
                confirmed.clear()
                await confirmed.wait()
        if message.offset > self._fetched.places[shard][0]:
            self._skip(shard, message.offset)
        self._fetched.take(shard, message.offset, frame, len(message.body))
        if self._fetched:
            self._outlet.wake()


def _number(answer: Command, field: str) -> int:
    try:
        return int(answer.fields[field])
    except (KeyError, ValueError) as error:
        raise RemotingError(f"a pull's answer has no {field}") from error
