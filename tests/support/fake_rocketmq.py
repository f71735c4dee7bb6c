"""A name server and broker in one, on a loopback port, for faults that real ones don't show on demand. It keeps messages in memory.

It reads and writes frames with the client's own code, which vectors of bytes hold to RocketMQ's form (tests/unit/bridges/rocketmq).
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, cast

from bridges.rocketmq.codes import RequestCode, ResponseCode
from bridges.rocketmq.frames import RESPONSE, Command, FrameReader, encode_frame
from bridges.rocketmq.messages import decode_batch, encode_properties

Verdict = str | tuple[int, str] | float | asyncio.Event | None
"""What becomes of a request. None: the usual. A code and a remark: that answer. Seconds: the usual after a wait. An event: done, answered once
that is set. `lost`: done, never answered. `silent`: neither. `cut`: done, then half of the answer and the end of the connection. `garbage`: bytes
that are no frame. `stranger`: done, answered under another number."""


@dataclass
class Stored:
    body: bytes
    properties: tuple[tuple[str, str], ...]
    born: int
    stored: int

    def encode(self, topic: str, queue: int, offset: int) -> bytes:
        properties, name = encode_properties(self.properties), topic.encode()
        host = bytes((127, 0, 0, 1)) + struct.pack(">i", 10911)
        rest = b"".join(
            (
                struct.pack(">IIiiqqiq", 0xDAA320A7, 0, queue, 0, offset, 0, 0, self.born),
                host + struct.pack(">q", self.stored) + host + struct.pack(">iqi", 0, 0, len(self.body)),
                self.body + bytes((len(name),)) + name + struct.pack(">h", len(properties)) + properties,
            )
        )
        return struct.pack(">I", len(rest) + 4) + rest


@dataclass
class FakeTopic:
    queues: list[list[Stored]]
    kind: str = ""
    first: int = 0
    """The offset of the first message kept, in each queue."""


@dataclass
class FakeRocketmq:
    """``judge`` decides each request's fate. ``names`` are the brokers that routes tell of, at this address unless ``elsewhere`` says another."""

    judge: Callable[[Command], Verdict] = lambda _: None
    topics: dict[str, FakeTopic] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=lambda: {"flushDiskType": "SYNC_FLUSH", "maxMessageSize": "4194304"})
    names: tuple[str, ...] = ("broker-a",)
    elsewhere: dict[str, str] = field(default_factory=dict)
    bare_keys: bool = False
    groups: dict[str, bool] = field(default_factory=dict)
    """Subscription groups that exist; empty: all do."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Of every topic, beside its kind."""
    requests: list[Command] = field(default_factory=list)
    answers: list[Command] = field(default_factory=list)
    committed: dict[tuple[str, str, int], int] = field(default_factory=dict)
    heartbeats: list[dict[str, object]] = field(default_factory=list)
    handlers: dict[int, Callable[[FakeRocketmq, Command], Command]] = field(default_factory=dict)
    """In place of the usual ones."""
    context: ssl.SSLContext | None = None
    address: str = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        port = int(self.address.rpartition(":")[2] or 0)
        self._links: set[_Link] = set()
        self._arrived = asyncio.Event()
        self._server = await asyncio.get_running_loop().create_server(lambda: _Link(self), "127.0.0.1", port, ssl=self.context)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        for link in list(self._links):
            link.cut()

    def ask_clients(self, code: int) -> None:
        """A request from the broker's side, over every connection."""
        for link in list(self._links):
            link.write(encode_frame(Command(code, 7)))

    def seen(self, code: int) -> list[Command]:
        return [command for command in self.requests if command.code == code]

    def bodies(self, topic: str, queue: int | None = None) -> list[bytes]:
        queues = self.topics[topic].queues
        return [stored.body for messages in (queues if queue is None else [queues[queue]]) for stored in messages]

    def put(self, topic: str, queue: int, body: bytes, *properties: tuple[str, str], stored: int | None = None) -> None:
        now = int(time.time() * 1000)
        self.topics[topic].queues[queue].append(Stored(body, properties, now, now if stored is None else stored))
        self.wake()

    def wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    def store(self, request: Command) -> None:
        """Carry out a send, whatever its answer will be."""
        self._send(request)

    async def answer(self, request: Command) -> Command:
        handler = self.handlers.get(request.code) or _HANDLERS.get(request.code)
        if handler is None:
            return _reply(request, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, "not supported")
        if request.code == RequestCode.PULL_MESSAGE:
            return await self._pull(request)
        return handler(self, request)

    # Requests

    def _route(self, request: Command) -> Command:
        topic = self.topics.get(request.fields["topic"])
        if topic is None:
            return _reply(request, ResponseCode.TOPIC_NOT_EXIST, "No topic route info")
        queues = [{"brokerName": name, "readQueueNums": len(topic.queues), "writeQueueNums": len(topic.queues), "perm": 6} for name in self.names]
        return _reply(request, body=self._json({"queueDatas": queues, "brokerDatas": list(self._brokers().values())}))

    def _cluster(self, request: Command) -> Command:
        return _reply(request, body=self._json({"brokerAddrTable": self._brokers()}))

    def _brokers(self) -> dict[str, dict[str, object]]:
        addresses = {name: self.elsewhere.get(name, self.address) for name in self.names}
        return {name: {"cluster": "Fakes", "brokerName": name, "brokerAddrs": {"0": address}} for name, address in addresses.items()}

    def _json(self, value: object) -> bytes:
        text = json.dumps(value)
        return (text.replace('"0":', "0:") if self.bare_keys else text).encode()

    def _send(self, request: Command) -> Command:
        topic, number = self.topics.get(request.fields["b"]), int(request.fields["e"])
        if topic is None:
            return _reply(request, ResponseCode.TOPIC_NOT_EXIST, "topic not exist, apply first please!")
        if number >= len(topic.queues):
            return _reply(request, ResponseCode.INVALID_PARAMETER, f"request queueId[{number}] is illegal")
        now = int(time.time() * 1000)
        offset = topic.first + len(topic.queues[number])
        bodies = decode_batch(request.body) if request.code == RequestCode.SEND_BATCH_MESSAGE else [(request.body, ())]
        for body, properties in bodies:
            topic.queues[number].append(Stored(body, properties, int(request.fields["g"]), now))
        self.wake()
        return _reply(request, fields={"queueId": str(number), "queueOffset": str(offset)})

    async def _pull(self, request: Command) -> Command:
        fields = request.fields
        if self.groups and fields["consumerGroup"] not in self.groups:
            return _reply(request, ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, "subscription group does not exist")
        topic, number, offset = self.topics.get(fields["topic"]), int(fields["queueId"]), int(fields["queueOffset"])
        if topic is None:
            return _reply(request, ResponseCode.TOPIC_NOT_EXIST, "topic not exist")
        if number >= len(topic.queues):
            return _reply(request, ResponseCode.INVALID_PARAMETER, "queueId is illegal")
        deadline = time.monotonic() + int(fields["suspendTimeoutMillis"]) / 1000
        while offset == topic.first + len(topic.queues[number]) and time.monotonic() < deadline:
            arrived = self._arrived
            try:
                await asyncio.wait_for(arrived.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        following = topic.first + len(topic.queues[number])
        ends = {"minOffset": str(topic.first), "maxOffset": str(following)}
        if not topic.first <= offset <= following:
            moved = topic.first if offset < topic.first else following
            return _reply(request, ResponseCode.PULL_OFFSET_MOVED, fields={"nextBeginOffset": str(moved), **ends})
        found = topic.queues[number][offset - topic.first :][: min(32, int(fields["maxMsgNums"]))]
        if not found:
            return _reply(request, ResponseCode.PULL_NOT_FOUND, fields={"nextBeginOffset": str(offset), **ends})
        body = b"".join(stored.encode(fields["topic"], number, offset + index) for index, stored in enumerate(found))
        return _reply(request, fields={"nextBeginOffset": str(offset + len(found)), **ends}, body=body)

    def _offset(self, request: Command) -> Command:
        topic, number = self.topics[request.fields["topic"]], int(request.fields["queueId"])
        if request.code == RequestCode.GET_MIN_OFFSET:
            offset = topic.first
        elif request.code == RequestCode.GET_MAX_OFFSET:
            offset = topic.first + len(topic.queues[number])
        else:
            wanted = int(request.fields["timestamp"])
            offset = topic.first + sum(stored.stored < wanted for stored in topic.queues[number])
        return _reply(request, fields={"offset": str(offset)})

    def _commit(self, request: Command) -> Command:
        self.committed[self._place(request)] = int(request.fields["commitOffset"])
        return _reply(request)

    def _committed(self, request: Command) -> Command:
        offset = self.committed.get(self._place(request))
        return _reply(request, ResponseCode.QUERY_NOT_FOUND) if offset is None else _reply(request, fields={"offset": str(offset)})

    def _place(self, request: Command) -> tuple[str, str, int]:
        return request.fields["consumerGroup"], request.fields["topic"], int(request.fields["queueId"])

    def _create(self, request: Command) -> Command:
        kind = request.fields.get("attributes", "").rpartition("=")[2]
        self.topics[request.fields["topic"]] = FakeTopic([[] for _ in range(int(request.fields["writeQueueNums"]))], kind)
        return _reply(request)

    def _create_group(self, request: Command) -> Command:
        self.groups[json.loads(request.body)["groupName"]] = True
        return _reply(request)

    def _settings(self, request: Command) -> Command:
        return _reply(request, body="\n".join(f"{name}={value}" for name, value in self.settings.items()).encode())

    def _topic_settings(self, request: Command) -> Command:
        if request.fields["topic"] not in self.topics:
            return _reply(request, ResponseCode.TOPIC_NOT_EXIST, "No topic in this broker")
        kind = self.topics[request.fields["topic"]].kind
        return _reply(request, body=json.dumps({"attributes": {**self.attributes, **({"message.type": kind} if kind else {})}}).encode())

    def _heartbeat(self, request: Command) -> Command:
        self.heartbeats.append(json.loads(request.body))
        return _reply(request)

    def _fine(self, request: Command) -> Command:
        return _reply(request)


def _reply(request: Command, code: int = 0, remark: str = "", *, fields: dict[str, str] | None = None, body: bytes = b"") -> Command:
    return Command(code, request.opaque, RESPONSE, remark, fields or {}, body)


_HANDLERS: dict[int, Callable[[FakeRocketmq, Command], Command]] = {
    RequestCode.GET_ROUTEINFO_BY_TOPIC: FakeRocketmq._route,
    RequestCode.GET_BROKER_CLUSTER_INFO: FakeRocketmq._cluster,
    RequestCode.SEND_BATCH_MESSAGE: FakeRocketmq._send,
    RequestCode.SEND_MESSAGE_V2: FakeRocketmq._send,
    RequestCode.PULL_MESSAGE: FakeRocketmq._fine,
    RequestCode.GET_MIN_OFFSET: FakeRocketmq._offset,
    RequestCode.GET_MAX_OFFSET: FakeRocketmq._offset,
    RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: FakeRocketmq._offset,
    RequestCode.UPDATE_CONSUMER_OFFSET: FakeRocketmq._commit,
    RequestCode.QUERY_CONSUMER_OFFSET: FakeRocketmq._committed,
    RequestCode.UPDATE_AND_CREATE_TOPIC: FakeRocketmq._create,
    RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: FakeRocketmq._create_group,
    RequestCode.GET_BROKER_CONFIG: FakeRocketmq._settings,
    RequestCode.GET_TOPIC_CONFIG: FakeRocketmq._topic_settings,
    RequestCode.HEART_BEAT: FakeRocketmq._heartbeat,
    RequestCode.UNREGISTER_CLIENT: FakeRocketmq._fine,
}


class _Link(asyncio.Protocol):
    """One connection. Requests are handled side by side, as a broker's threads do."""

    def __init__(self, server: FakeRocketmq) -> None:
        self._server = server
        self._reader = FrameReader()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server._links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._links.discard(self)
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        for command in self._reader.feed(data):
            if command.is_response:
                self._server.answers.append(command)
                continue
            self._server.requests.append(command)
            task = asyncio.create_task(self._handle(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def cut(self) -> None:
        self._transport.abort()

    async def _handle(self, command: Command) -> None:
        verdict = self._server.judge(command)
        if verdict == "silent":
            return
        if verdict == "garbage":
            self.write(b"\xff" * 64)
            return
        if isinstance(verdict, tuple):
            self.write(encode_frame(_reply(command, *verdict)))
            return
        if isinstance(verdict, float):
            await asyncio.sleep(verdict)
        answer = await self._server.answer(command)
        if isinstance(verdict, asyncio.Event):
            await verdict.wait()
        if command.is_oneway or verdict == "lost":
            return
        frame = encode_frame(answer)
        if verdict == "cut":
            self.write(frame[: len(frame) // 2])
            self._transport.close()
        elif verdict == "stranger":
            self.write(encode_frame(Command(answer.code, answer.opaque + 1000, RESPONSE, answer.remark, answer.fields, answer.body)))
        else:
            self.write(frame)
