"""A reader of the log on RocketMQ: a long poll per queue, frames decoded as they come; no shard waits for another's broker.

``next`` hands out what the shards' tasks have fetched; which frames are repeats is in bridges/framed/reading.py. Brokers show a message before
it is safe: it is held until that is known, so that nothing is handed out that a power cut could take back (``_release``). Failures of RocketMQ
are waited out; what can't be read, or is gone though a position says it was there, ends the reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from bridges.framed.lanes import Lane
from bridges.framed.outlet import Outlet
from bridges.framed.reading import EARLIEST, Fetch, Repeated, places_of
from bridges.rocketmq import calls
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.connection import Connection
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
from schemas.records import Frame, FrameError, decode_frame
from streams.log import Batch, Start

_log = logging.getLogger(__name__)

HELD_MARKS: Final = 64
"""Other nodes' empty frames that are held before they are worth a mark of our own. Were each worth one, marks would never end."""
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
    """A topic: its queues by shard, its lanes, the log's own knowledge of its ends, which every fetch renews, and its repeats."""

    name: str
    queues: Sequence[Queue]
    lanes: Sequence[Lane]
    ends: dict[int, int]
    repeated: Repeated


class Held(NamedTuple):
    """A frame that was fetched."""

    offset: int
    frame: Frame
    size: int


class _Moved(Exception):
    """The queue has nothing where we are: it has forgotten that, or ends before. Or it may have gone back behind what we hold."""


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
        self._look_back = dict.fromkeys(shards, topic.repeated.look_back())
        """By shard, where it was not begun yet: what the reader has seen it knows."""
        self._fetched = Fetch(topic.repeated)
        self._fetched.places = places_of(start, self._tails)
        self._link: dict[int, Connection] = {}
        """By shard where what is held came from."""
        self._following: dict[int, int] = {}
        """By shard the offset of the next pull, where it was begun."""
        self._held: dict[int, deque[Held]] = {shard: deque() for shard in shards}
        """By shard what was fetched and may not be handed out yet."""
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
        ends = self._topic.ends
        return self._fetched.lag({shard: end - len(self._held.get(shard, ())) for shard, end in ends.items()} if self._options.shared else ends)

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
            self._hand_out(shard)

    # One shard

    async def _run(self, shard: int) -> None:
        while True:
            try:
                await self._follow(shard)
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

    async def _follow(self, shard: int) -> None:
        """From where the reader is, until something is in the way."""
        try:
            await self._begin(shard)
            while True:
                await self._pull(shard)
        finally:
            self._held[shard].clear()  # what was shown may be gone, and no acknowledgement must hand it out

    async def _begin(self, shard: int) -> None:
        """Look up where to read from, refuse what lies behind the end, and go some frames back."""
        name, queue = self._topic.name, self._topic.queues[shard]
        address = await address_of(self._client, name, queue)
        places = self._fetched.places
        if shard not in places:
            places[shard] = await self._at_time(address, shard)
        offset, index = places[shard]
        first = await calls.first_offset(self._client, address, name, queue)
        end = await self._end(address, shard, offset + (index > 0))
        if end < offset + (index > 0):
            raise LogDamaged(
                f"the log ends at record {end}:0 of shard {shard} of topic {name}, a position says {offset}:{index}: "
                "log and store are not of one moment, or RocketMQ has lost what it acknowledged"
            )
        self._topic.ends[shard] = max(self._topic.ends[shard], end)
        if offset < first:
            self._skip(shard, first)
        self._following[shard] = max(first, places[shard][0] - self._look_back.pop(shard, self._options.look_back))

    async def _end(self, address: str, shard: int, wanted: int) -> int:
        """What was acknowledged a moment ago isn't counted yet: an end before ``wanted`` is asked for again, and where it stays, a mark tells."""
        for _ in range(LOOKS):
            end = await calls.next_offset(self._client, address, self._topic.name, self._topic.queues[shard])
            if end >= wanted:
                return end
            await asyncio.sleep(LISTED_WITHIN)
        return await self._topic.lanes[shard].mark()

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
        link, answer = await self._ask(shard)
        self._ill.discard(shard)
        if "maxOffset" in answer.fields:
            self._topic.ends[shard] = max(self._topic.ends[shard], _number(answer, "maxOffset"))
        if answer.code == ResponseCode.SUCCESS:
            await self._take(shard, decode_stored(answer.body), link)
            self._following[shard] = _number(answer, "nextBeginOffset")
        elif answer.code in (ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY):
            following, before = _number(answer, "nextBeginOffset"), self._following[shard]
            if following > max(before, self._fetched.places[shard][0]):
                self._held[shard].clear()
                self._skip(shard, following)
            if following == before and loop.time() - asked < HURRIED:
                await asyncio.sleep(HURRIED)
            self._following[shard] = following
        elif answer.code == ResponseCode.PULL_OFFSET_MOVED:
            raise _Moved
        else:
            await self._refused(shard, answer)

    async def _ask(self, shard: int) -> tuple[Connection, Command]:
        topic, options = self._topic, self._options
        address = await address_of(self._client, topic.name, topic.queues[shard])
        link = await self._client.peers.connection(address)
        if self._held[shard] and link is not self._link[shard]:
            raise _Moved
        self._link[shard] = link
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
        return link, await self._client.ask(address, RequestCode.PULL_MESSAGE, fields, within=options.poll_for + POLL_GRACE)

    async def _refused(self, shard: int, answer: Command) -> None:
        queue = self._topic.queues[shard]
        if answer.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST:
            await calls.create_group(self._client, await address_of(self._client, self._topic.name, queue), self._around.group)
            return
        if answer.code in ROUTE_IS_WRONG:
            self._client.doubt(self._topic.name)
        raise Refused(queue.broker, answer.code, answer.remark)

    async def _take(self, shard: int, messages: Iterable[StoredMessage], link: Connection) -> None:
        """Hold what was fetched, and hand out what is safe."""
        held = self._held[shard]
        try:
            for message in messages:
                frame = decode_frame(message.body)
                self._topic.repeated.check(shard, message.offset, frame)
                held.append(Held(message.offset, frame, len(message.body)))
        except FrameError as error:
            await self._release(shard, link)
            raise FrameError(f"{self._topic.name} shard {shard} offset {message.offset}: {error}") from error
        await self._release(shard, link)

    async def _release(self, shard: int, link: Connection) -> None:
        """Hand out what is safe: our own frames when they are acknowledged, those of other nodes when one of ours behind them is.

        What a broker lost while it was away is not what we hold: then the connection by which it came is no more, and all is fetched anew.
        """
        held, lane = self._held[shard], self._topic.lanes[shard]
        while True:
            self._hand_out(shard)
            if not held:
                return
            if self._options.shared and (link.closed or self._went_back(shard)):
                raise _Moved
            frame, last = held[0].frame, held[-1].offset
            if self._is_ours(frame):
                await self._acknowledged(lane, frame.sequence)
            elif len(held) < HELD_MARKS and not any(each.frame.records for each in held):
                return  # an acknowledgement hands them out, or what is pulled next
            elif await lane.mark() <= last:
                raise _Moved

    def _hand_out(self, shard: int) -> None:
        """What is known to be safe by now. Called for what was pulled and for each acknowledgement, since either may be the later one."""
        held, lane, shared = self._held[shard], self._topic.lanes[shard], self._options.shared
        while held and not (shared and (self._link[shard].closed or self._went_back(shard))):
            offset, frame, size = held[0]
            if lane.acknowledged < frame.sequence if self._is_ours(frame) else shared and lane.end <= offset:
                return
            held.popleft()
            if offset > self._fetched.places[shard][0]:
                self._skip(shard, offset)
            self._fetched.take(shard, offset, frame, size)
            self._outlet.wake()

    def _went_back(self, shard: int) -> bool:
        """Our newest frame lies where we hold another: the queue has lost that."""
        held, lane = self._held[shard], self._topic.lanes[shard]
        place = lane.end - 1 - held[0].offset
        if not 0 <= place < len(held) or held[place].offset != lane.end - 1:
            return False
        frame = held[place].frame
        return not self._is_ours(frame) or frame.sequence > lane.acknowledged

    def _is_ours(self, frame: Frame) -> bool:
        return (frame.node, frame.epoch) == (self._around.node, self._around.epoch)

    async def _acknowledged(self, lane: Lane, sequence: int) -> None:
        confirmed = self._confirmed[lane.shard]
        while lane.acknowledged < sequence:
            confirmed.clear()
            await confirmed.wait()


def _number(answer: Command, field: str) -> int:
    try:
        return int(answer.fields[field])
    except (KeyError, ValueError) as error:
        raise RemotingError(f"a pull's answer has no {field}") from error
