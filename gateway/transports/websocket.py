"""MQTT over WebSocket (MQTT 5.0 section 6): the HTTP upgrade and the frames around a connection that sees a byte stream.

The rules of RFC 6455 are those of the sans-I/O layer of ``websockets``; here are the limits, deadlines and back-pressure.
Knows no MQTT but the subprotocol's name. Any path is served; clients use /mqtt by custom. Extensions are declined, so
nothing is ever inflated. Neighbours: listeners.py puts it on a socket or on TLS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from gateway.transports.endpoints import ByteProtocol
from schemas.limits import Limits

SUBPROTOCOL: Final = Subprotocol("mqtt")
END_OF_HEAD: Final = b"\r\n\r\n"
FIXED_HEADER: Final = 5
"""The most bytes of a packet's fixed header, which the limit of a packet doesn't count."""
CLOSE_WITHIN: Final = 2.0
"""Seconds that a peer has for its part of the closing handshake; then the socket is cut."""
PONG: Final = 0x8A
"""First byte of an unfragmented pong."""

_frames_log = logging.getLogger(f"{__name__}.frames")
_frames_log.setLevel(logging.CRITICAL)  # the library has lines for every connection, and tracebacks for what peers make up


class WebSocketTransport(asyncio.Transport):
    """What the inner connection writes to. After ``close`` or the peer's close frame it swallows what is written, as a socket's transport does."""

    __slots__ = ("_web",)

    def __init__(self, web: WebSocketProtocol) -> None:
        self._web = web

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._web.send(data)

    def close(self) -> None:
        self._web.close()

    def abort(self) -> None:
        self._web.abort()

    def is_closing(self) -> bool:
        return self._web.is_closing

    def pause_reading(self) -> None:
        self._web.pause(True)

    def resume_reading(self) -> None:
        self._web.pause(False)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        outer = self._web.outer
        return default if outer is None else outer.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._web.outer is not None:
            self._web.outer.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return 0 if self._web.outer is None else self._web.outer.get_write_buffer_size()


class WebSocketProtocol(asyncio.Protocol):
    """One socket. It has a head to read, then an inner connection, then nothing.

    ``upgrading`` holds those without an inner connection. Until the inner connection has answered for the first time, which a
    gateway does when CONNECT is complete, an unfinished frame may keep ``connect_bytes`` at most.
    """

    __slots__ = (
        "_answered", "_closing", "_deadline", "_fed", "_frames", "_head", "_held", "_inner", "_inner_paused",
        "_limits", "_make", "_refused", "_stalled", "_unfinished", "_upgrading", "outer",
    )  # fmt: skip

    def __init__(self, make: Callable[[], ByteProtocol], limits: Limits, upgrading: set[WebSocketProtocol], refused: Callable[[str], None]) -> None:
        self._make = make
        self._limits = limits
        self._upgrading = upgrading
        self._refused = refused
        self.outer: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._head: bytearray | None = bytearray()
        self._frames: ServerProtocol | None = None
        self._inner: ByteProtocol | None = None
        self._inner_paused = False
        self._stalled = False
        self._closing = False
        self._answered = False
        self._held = False
        self._fed = False
        self._unfinished = 0

    # Called by the outer transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.outer = cast("asyncio.Transport", transport)
        self._upgrading.add(self)
        self._deadline = asyncio.get_running_loop().call_later(self._limits.connect_timeout, self._too_late)

    def data_received(self, data: bytes) -> None:
        if self._frames is not None:
            self._receive(self._frames, data)
        elif self._head is not None:
            self._read_head(self._head, data)

    def pause_writing(self) -> None:
        self._stalled = True
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._stalled = False
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._upgrading.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._frames is not None:
            self._frames.parser.close()  # it refers back to its owner: a cycle that would wait for a collection
        inner, self._inner, self._frames, self._head, self.outer = self._inner, None, None, None, None
        self._closing = True
        if inner is not None:
            inner.connection_lost(error)

    # Upgrade

    def _read_head(self, head: bytearray, data: bytes) -> None:
        known = len(head)
        head += data[: self._limits.connect_bytes - known]
        if not head.startswith(b"GET "[: len(head)]):
            self._refuse(HTTPStatus.BAD_REQUEST)  # most often a client that speaks MQTT without WebSocket
            return
        end = head.find(END_OF_HEAD, max(known - len(END_OF_HEAD) + 1, 0))
        if end >= 0:
            end += len(END_OF_HEAD)
            self._head = None
            self._upgrade(bytes(head[:end]), data[end - known :])
        elif len(head) >= self._limits.connect_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _upgrade(self, head: bytes, rest: bytes) -> None:
        """Accept a request that offers ``mqtt`` [MQTT-6.0.0-3] and answer with that name [MQTT-6.0.0-4]; HTTP 400 for others."""
        if not head.isascii():
            self._refuse(HTTPStatus.BAD_REQUEST)  # no such byte is of use here, and the library fails on some
            return
        frames = ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=self._limits.packet + FIXED_HEADER, logger=_frames_log)
        frames.receive_data(head)
        events = frames.events_received()
        if not events or not isinstance(events[0], Request):
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        response = frames.accept(events[0])
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._end_refused(response.serialize())
            return
        frames.send_response(response)
        self._frames = frames
        self._write_out()
        self._open()
        if rest:
            self._receive(frames, rest)

    def _open(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._inner = self._make()
        self._inner.connection_made(WebSocketTransport(self))
        self._upgrading.discard(self)
        if self._stalled:
            self._inner.pause_writing()

    def _refuse(self, status: HTTPStatus) -> None:
        self._end_refused(f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())

    def _end_refused(self, answer: bytes) -> None:
        """Say no over HTTP and close. The deadline of the upgrade still cuts a peer that doesn't read the answer."""
        self._head = None
        self._refused("websocket_upgrade")
        if self.outer is not None:
            self.outer.write(answer)
            self.outer.close()

    def _too_late(self) -> None:
        if self._head is not None:
            self._refused("websocket_upgrade")
        self.abort()

    # Frames

    def _receive(self, frames: ServerProtocol, data: bytes) -> None:
        """A frame holds parts of packets or many of them [MQTT-6.0.0-2]: all that a read brings is one piece of the stream."""
        inner = self._inner
        frames.receive_data(data)
        parts: list[bytes] = []
        text = False
        events = frames.events_received()
        for event in events:
            if not isinstance(event, Frame):
                continue
            if event.opcode is OP_BINARY or event.opcode is OP_CONT:
                parts.append(bytes(event.data))
            elif event.opcode is OP_TEXT:
                text = True
                break
        if parts and inner is not None and not self._closing:
            stream = parts[0] if len(parts) == 1 else b"".join(parts)
            if stream:
                self._fed = True
                inner.data_received(stream)
        if not self._answered:
            self._bound_unfinished(0 if events else self._unfinished + len(data))
        if text and self._frames is not None:
            self._fail(CloseCode.UNSUPPORTED_DATA, "MQTT packets come in binary frames")  # [MQTT-6.0.0-1]
        self._write_out()

    def _bound_unfinished(self, size: int) -> None:
        """Before the first answer: refuse a first frame that no CONNECT needs, and let later ones wait in the network."""
        self._unfinished = size
        if size <= self._limits.connect_bytes or self._frames is None:
            return
        if not self._fed:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too large before CONNECT")
        elif not self._held:
            self._held = True
            self._set_reading()

    def _fail(self, code: CloseCode, reason: str) -> None:
        if self._frames is not None and not self._frames.eof_sent:
            self._frames.fail(code, reason)

    def _write_out(self) -> None:
        """Send what the frame layer has to send. A peer that pings and doesn't read goes without pongs (RFC 6455 section 5.5.3)."""
        frames, outer = self._frames, self.outer
        if frames is None or outer is None:
            return
        for piece in frames.data_to_send():
            if not piece:
                outer.close()
            elif not (self._stalled and piece[0] == PONG) and not outer.is_closing():
                outer.write(piece)
        if not self._closing and frames.state is CLOSING:
            self._closing = True
            self._bound_close()

    def _bound_close(self) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_WITHIN, self.abort)

    def _set_reading(self) -> None:
        if self.outer is None:
            return
        if self._held or (self._inner_paused and not self._closing):
            self.outer.pause_reading()
        else:
            self.outer.resume_reading()

    # Called by the inner connection, through its transport

    @property
    def is_closing(self) -> bool:
        return self._closing

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """One binary frame a write: the connection has put together what belongs together [MQTT-6.0.0-1]."""
        frames = self._frames
        if frames is None or frames.state is not OPEN or not data:
            return
        frames.send_binary(bytes(data))
        self._write_out()
        if not self._answered:
            self._answered = True
            if self._held:
                self._held = False
                self._set_reading()

    def pause(self, paused: bool) -> None:
        self._inner_paused = paused
        self._set_reading()

    def close(self) -> None:
        """Start the closing handshake; reading goes on for the peer's part of it."""
        frames = self._frames
        if frames is None or self._closing:
            return
        if frames.state is OPEN:
            frames.send_close(CloseCode.NORMAL_CLOSURE)
        self._held = False
        self._write_out()
        self._set_reading()

    def abort(self) -> None:
        if self.outer is not None:
            self.outer.abort()
