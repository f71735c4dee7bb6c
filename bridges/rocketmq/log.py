"""The log on RocketMQ 4.9 and 5: the port ``streams.log.Log`` over two topics, whose queues are the shards. A message of RocketMQ is a frame.

Durable means SEND_OK from a broker that syncs its disk or waits for a replica. What is promised where RocketMQ doesn't answer is in
bridges/framed/writing.py; log_sending.py sends. RocketMQ forgets by its brokers' age, never by need. Reading is in log_reader.py, the topics
in log_topics.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from bridges.framed.lanes import Lane, always
from bridges.framed.options import LOOK_BACK_SHARED
from bridges.framed.reading import TAIL, Repeated, place
from bridges.framed.writing import Writing
from bridges.rocketmq import calls
from bridges.rocketmq.client import Client
from bridges.rocketmq.log_options import RocketmqLogOptions
from bridges.rocketmq.log_reader import RocketmqReader, Shards, Surroundings
from bridges.rocketmq.log_sending import Sender, address_of
from bridges.rocketmq.log_topics import Found, prepare
from bridges.rocketmq.routes import Queue
from bridges.rocketmq.source import LISTED_WITHIN
from bridges.rocketmq.terms import Terms
from schemas.connections import ConnectionSettings
from schemas.errors import BackendError, LogError, SluicewayError, StartError
from schemas.positions import At
from schemas.records import PRESENCE_TOPIC, PUBLISH_TOPIC, Record, decode_frame
from schemas.settings import Settings
from streams.log import Pressure, Reader, Sink, Start

TOPICS = (PUBLISH_TOPIC, PRESENCE_TOPIC)


async def open_rocketmq_log(
    settings: ConnectionSettings,
    *,
    node: str,
    epoch: int,
    options: RocketmqLogOptions = RocketmqLogOptions(),  # noqa: B008 - frozen
    monotonic: Callable[[], float] = time.monotonic,
    may_write: Callable[[], bool] = always,
) -> RocketmqLog:
    """The log, its topics made or checked. StartError with one line where it can't be had.

    ``epoch`` is higher than at any earlier start of ``node``; no two running nodes have one name. While ``may_write`` says no, frames wait.
    """
    client = Client(settings)
    group = client.named(f"{options.prefix}log")
    names = {topic: client.named(options.prefix + topic) for topic in TOPICS}
    try:
        found = await _prepare(client, list(names.values()), group, settings, options)
    except BaseException:
        await client.close()
        raise
    log = RocketmqLog(client, names, group, (node, epoch), found, options, monotonic, may_write)
    try:
        await log.begin()
    except LogError as error:
        await log.close()
        raise StartError(str(error)) from error
    return log


async def _prepare(client: Client, names: list[str], group: str, settings: ConnectionSettings, options: RocketmqLogOptions) -> Found:
    address = ";".join(settings.address)
    try:
        async with asyncio.timeout(options.answer_within):
            return await prepare(client, names, group, settings.address, options)
    except TimeoutError:
        words = f"does not answer within {options.answer_within:g} s: start it, or correct the connection's address"
        raise StartError(f"the log's RocketMQ at {address} {words}{f' ({client.trouble})' if client.trouble else ''}") from None
    except BackendError as error:
        raise StartError(f"the log's RocketMQ at {address} can't be used: {error}") from error


async def open_configured(connection: ConnectionSettings, settings: Settings, epoch: int, may_write: Callable[[], bool]) -> RocketmqLog:
    """As the settings say. While ``may_write`` says no, frames wait."""
    wanted, many = settings.log, settings.node.many
    options = RocketmqLogOptions(
        prefix=wanted.prefix,
        shards=wanted.shards,
        retention_age=wanted.retention_age,
        packet=settings.limits.packet,
        checked=wanted.durability == "checked",
        shared=many,
        look_back_first=LOOK_BACK_SHARED if many else RocketmqLogOptions().look_back_first,
    )
    return await open_rocketmq_log(connection, node=settings.node.id, epoch=epoch, options=options, may_write=may_write)


class RocketmqLog:
    """Made by ``open_rocketmq_log``. ``weaknesses``: what its brokers don't promise, for readiness, metrics and the start line. ``newest_epoch``: the
    highest one in the newest frames of its shards, before this process wrote."""

    def __init__(
        self,
        client: Client,
        names: Mapping[str, str],
        group: str,
        identity: tuple[str, int],
        found: Found,
        options: RocketmqLogOptions,
        clock: Callable[[], float],
        may_write: Callable[[], bool],
    ) -> None:
        terms = Terms(client, "log.durability", checked=options.checked)
        self.sender = Sender(client, terms, group, found.queues, options, may_write)
        self.weaknesses = found.weaknesses
        self.newest_epoch = 0
        self._client = client
        self._group = group
        self._options = options
        self._writing = writing = Writing(
            self.sender, names, options.shards, identity, largest=found.largest, limits=options, clock=clock, durable=self._durable
        )
        self._around = Surroundings(client, group, *identity, options)
        self._topics = {
            topic: Shards(name, found.queues[name], writing.lanes[topic], writing.ends[topic], Repeated(options, identity))
            for topic, name in names.items()
        }
        self._readers: dict[str, set[RocketmqReader]] = {topic: set() for topic in names}
        client.join_producers(group)

    # The port

    def append(self, topic: str, key: str, record: Record, sink: Sink) -> None:
        """As the port says."""
        self._writing.append(topic, key, record, sink)

    def open(self, topic: str, start: Start, shards: Sequence[int] | None = None) -> Reader:
        """As the port says."""
        known, readers = self._topics[topic], self._readers[topic]
        if shards is not None and not known.ends.keys() >= set(shards):
            raise ValueError(f"topic {topic} has shards 0 to {len(known.ends) - 1}, not {list(shards)}")
        reader = RocketmqReader(self._around, known, start, list(known.ends) if shards is None else list(shards), readers.discard)
        readers.add(reader)
        return reader

    async def begin(self) -> None:
        """Before anything is written: where the topics end, and who wrote there last. LogError where a broker doesn't answer.

        Not by a mark as below: the log may have that twice, and the first copy would lie before the end that the second one shows.
        """
        for known in self._topics.values():
            pairs = await self._counted(known)
            known.repeated.began = {shard: end for shard, (_, end) in enumerate(pairs)}
            async with self._asked(known):
                newest = await asyncio.gather(*(self._newest_epoch(known.name, *each) for each in zip(known.queues, pairs, strict=True)))
            self.newest_epoch = max(self.newest_epoch, *newest)

    async def _newest_epoch(self, name: str, queue: Queue, ends: tuple[int, int]) -> int:
        newest, address = 0, await address_of(self._client, name, queue)
        for offset in range(max(ends[0], ends[1] - TAIL), ends[1]):
            message = await calls.peek(self._client, address, self._group, name, queue, offset)
            if message is not None:
                newest = max(newest, decode_frame(message.body).epoch)
        return newest

    def place(self, at: At) -> int:
        """As the port says."""
        return place(at)

    async def ends(self, topic: str) -> Mapping[int, tuple[At, At]]:
        """As the port says. LogError where a broker doesn't answer.

        A broker counts late what it acknowledged, and one that isn't the master any more not at all. Where other nodes write, what they were told
        must be in: so the end is behind a mark, which a broker acknowledges as it does any frame; and no further, since readers hold what comes
        behind until it is safe, an empty frame for as long as nobody asks.
        """
        known = self._topics[topic]
        if self._options.shared:
            async with self._asked(known):
                marks = await asyncio.gather(*(lane.mark() for lane in known.lanes))
                firsts = await asyncio.gather(*(self._first_of(known.name, queue) for queue in known.queues))
            return {shard: (At(shard, firsts[shard], 0), At(shard, mark + 1, 0)) for shard, mark in enumerate(marks)}
        pairs = await self._counted(known)
        for shard, (_, end) in enumerate(pairs):
            known.ends[shard] = max(known.ends[shard], end)
        return {shard: (At(shard, first, 0), At(shard, known.ends[shard], 0)) for shard, (first, _) in enumerate(pairs)}

    async def _counted(self, known: Shards) -> list[tuple[int, int]]:
        """By shard the first offset and the one behind the last, as the brokers count."""
        async with self._asked(known):
            await asyncio.sleep(LISTED_WITHIN)
            return await asyncio.gather(*(self._ends_of(known.name, queue) for queue in known.queues))

    @asynccontextmanager
    async def _asked(self, known: Shards) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._options.answer_within):
                yield
        except (SluicewayError, TimeoutError) as error:
            raise LogError(f"the ends of topic {known.name} can't be had: {str(error) or 'no answer in time'}") from error

    async def _first_of(self, name: str, queue: Queue) -> int:
        return await calls.first_offset(self._client, await address_of(self._client, name, queue), name, queue)

    async def _ends_of(self, name: str, queue: Queue) -> tuple[int, int]:
        first = await self._first_of(name, queue)
        return first, await calls.next_offset(self._client, await address_of(self._client, name, queue), name, queue)

    def pressure(self) -> Pressure:
        """As the port says."""
        return self._writing.pressure()

    async def close(self) -> None:
        """As the port says; what RocketMQ does not acknowledge within ``close_within`` is refused."""
        if self._writing.refusal is not None:
            return
        await self._writing.close()
        open_readers = [reader for readers in self._readers.values() for reader in readers]
        for reader in open_readers:
            reader.close()
        await asyncio.gather(*(task for reader in open_readers for task in reader.tasks), return_exceptions=True)
        self._client.leave_producers(self._group)
        await self._client.close()

    def _durable(self, lane: Lane) -> None:
        """A frame of the lane is acknowledged: readers that hold it may hand it out."""
        for reader in self._readers[lane.topic]:
            reader.confirm(lane.shard)
