"""One connection to a name server or broker: requests out, answers matched by their opaque number, and what the peer asks of us.

A request costs a future and a timer, and a batch of messages is one request. What goes wrong is told by the future: Unreachable where it is unknown
whether the request was carried out. client.py opens connections and decides when to try again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import cast

from bridges.rocketmq.codes import ResponseCode
from bridges.rocketmq.errors import RemotingError, Unreachable
from bridges.rocketmq.frames import ONEWAY, RESPONSE, Command, FrameReader, encode_frame
from schemas.errors import BackendError

log = logging.getLogger(__name__)

IN_FLIGHT_LIMIT = 4096
"""Requests of one connection that wait for their answers."""

WRITE_LIMIT = 64 * 1024 * 1024
"""Bytes that a connection may have outstanding; a peer that reads nothing fills it."""

Sign = Callable[[Mapping[str, str], bytes], dict[str, str]]


class Connection(asyncio.Protocol):
    """Made by ``connect``. ``closed`` is why it is no more, empty while it lives; ``heard`` is whether the peer ever said anything."""

    def __init__(self, peer: str, sign: Sign | None) -> None:
        self.peer = peer
        self.closed = ""
        self.heard = False
        self._sign = sign
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._opaque = 0
        self._waiting: dict[int, tuple[asyncio.Future[Command], asyncio.TimerHandle]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            commands = self._reader.feed(data)
        except RemotingError as error:
            log.warning("rocketmq_garbage peer=%s error=%s", self.peer, error)
            self._end(str(error))
            return
        self.heard = True
        for command in commands:
            if command.is_response:
                self._answered(command)
            else:
                self._asked(command)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection was lost: {exc}" if exc else "the connection was closed by the peer")

    def request(self, code: int, fields: Mapping[str, str], body: bytes = b"", *, within: float) -> asyncio.Future[Command]:
        """Ask. The future's result is the answer whatever its code; its exception is a BackendError."""
        future: asyncio.Future[Command] = self._loop.create_future()
        try:
            self._expect_room()
            self._opaque = opaque = (self._opaque + 1) & 0x7FFFFFFF
            frame = encode_frame(Command(code, opaque, 0, "", self._sign(fields, body) if self._sign else fields, body))
        except BackendError as error:
            future.set_exception(error)
            return future
        self._waiting[opaque] = (future, self._loop.call_later(within, self._late, opaque, within))
        self._write(frame)
        return future

    def tell(self, code: int, fields: Mapping[str, str], body: bytes = b"") -> None:
        """A request without an answer, as far as the connection takes it."""
        if not self.closed:
            self._opaque = opaque = (self._opaque + 1) & 0x7FFFFFFF
            self._write(encode_frame(Command(code, opaque, ONEWAY, "", self._sign(fields, body) if self._sign else fields, body)))

    def close(self, reason: str = "this side closed the connection") -> None:
        self._end(reason)

    def _expect_room(self) -> None:
        if self.closed:
            raise Unreachable(f"{self.peer}: {self.closed}")
        if len(self._waiting) >= IN_FLIGHT_LIMIT:
            raise Unreachable(f"{self.peer} owes {IN_FLIGHT_LIMIT} answers")
        if self._transport is None or self._transport.get_write_buffer_size() > WRITE_LIMIT:
            raise Unreachable(f"{self.peer} doesn't read what it is sent")

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _answered(self, command: Command) -> None:
        entry = self._waiting.pop(command.opaque, None)
        if entry is None:
            # The answer of a request that was given up, or of none: nobody waits for it.
            log.debug("rocketmq_answer_unexpected peer=%s opaque=%d", self.peer, command.opaque)
            return
        future, timer = entry
        timer.cancel()
        if not future.done():
            future.set_result(command)

    def _asked(self, command: Command) -> None:
        """Brokers ask clients for their state, or to reset it. We do nothing of that, and say so where an answer is wanted."""
        if not command.is_oneway:
            remark = f"request {command.code} is not supported by this client"
            self._write(encode_frame(Command(ResponseCode.REQUEST_CODE_NOT_SUPPORTED, command.opaque, RESPONSE, remark)))

    def _late(self, opaque: int, within: float) -> None:
        future, _ = self._waiting.pop(opaque)
        if not future.done():
            future.set_exception(Unreachable(f"{self.peer} did not answer within {within:g} s"))

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.closed = reason
            if self._transport is not None:
                self._transport.abort()
        waiting, self._waiting = self._waiting, {}
        for future, timer in waiting.values():
            timer.cancel()
            if not future.done():
                future.set_exception(Unreachable(f"{self.peer}: {reason}"))


async def connect(address: str, context: ssl.SSLContext | None, sign: Sign | None, *, within: float) -> Connection:
    """Open a connection to `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise RemotingError(f"`{address}` is no address: write HOST:PORT", retryable=False)
    host = host.strip("[]")
    try:
        async with asyncio.timeout(within):
            name = host if context else None
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(address, sign), host, int(port), ssl=context, server_hostname=name
            )
    except TimeoutError as error:
        raise Unreachable(f"{address} did not take a connection within {within:g} s") from error
    except OSError as error:
        raise Unreachable(f"{address} can't be reached: {error.strerror or error}") from error
    except ValueError as error:
        # A host that no name service can look up.
        raise Unreachable(f"{address} can't be reached: {error}") from error
    return connection
