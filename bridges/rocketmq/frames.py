"""Remoting frames, without I/O: bytes to commands and back. Any bytes are commands, the wish for more, or a RemotingError.

A frame is its length, the length of its header (whose first byte names the header's form; 0 is JSON), the header, and a body.
signing.py signs what encode_frame is given; messages.py knows the bodies that hold messages.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from bridges.rocketmq.codes import LANGUAGE, VERSION
from bridges.rocketmq.errors import RemotingError

FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of a frame: RocketMQ's own servers take no longer ones."""

RESPONSE = 1
ONEWAY = 2
"""Bits of a command's flag."""

JSON_FORM = 0

_LENGTHS = struct.Struct(">II")


class Command(msgspec.Struct, frozen=True, gc=False):
    """A request or an answer. ``code`` says what for in the one and what became of it in the other; ``opaque`` ties them together."""

    code: int
    opaque: int
    flag: int = 0
    remark: str = ""
    fields: Mapping[str, str] = {}
    body: bytes = b""

    @property
    def is_response(self) -> bool:
        return bool(self.flag & RESPONSE)

    @property
    def is_oneway(self) -> bool:
        return bool(self.flag & ONEWAY)


class _Header(msgspec.Struct, gc=False):
    """The JSON header; what else it holds is passed over."""

    code: int
    opaque: int
    flag: int = 0
    remark: str | None = None
    extFields: dict[str, str | None] | None = None


class _OwnHeader(msgspec.Struct, gc=False, omit_defaults=True):
    code: int
    opaque: int
    language: str
    version: int
    flag: int
    remark: str | None = None
    extFields: Mapping[str, str] = {}


_decode_header = msgspec.json.Decoder(_Header).decode
_encode_header = msgspec.json.Encoder().encode


def encode_frame(command: Command) -> bytes:
    header = _encode_header(
        _OwnHeader(command.code, command.opaque, LANGUAGE, VERSION, command.flag, command.remark or None, command.fields),
    )
    length = 4 + len(header) + len(command.body)
    if length > FRAME_LIMIT:
        raise RemotingError(f"a frame of {length} bytes is over RocketMQ's limit of {FRAME_LIMIT}", retryable=False)
    return b"".join((_LENGTHS.pack(length, JSON_FORM << 24 | len(header)), header, command.body))


def decode_frame(frame: bytes | memoryview) -> Command:
    """One frame without its leading length."""
    if len(frame) < 4:
        raise RemotingError(f"a frame of {len(frame)} bytes has no room for the length of its header")
    word = int.from_bytes(frame[:4], "big")
    form, end = word >> 24, 4 + (word & 0xFFFFFF)
    if form != JSON_FORM:
        raise RemotingError(f"a frame's header has form {form} instead of {JSON_FORM}, which is JSON")
    if end > len(frame):
        raise RemotingError(f"a frame of {len(frame)} bytes says that its header ends at {end}")
    try:
        header = _decode_header(frame[4:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemotingError(f"a frame's header can't be read: {error}") from error
    fields = {name: value for name, value in header.extFields.items() if value is not None} if header.extFields else {}
    return Command(header.code, header.opaque, header.flag, header.remark or "", fields, bytes(frame[end:]))


class FrameReader:
    """Cuts commands out of a stream. O(bytes) however they arrive: a frame's bytes are joined once it is whole."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._wanted = 4

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are whole now, in order."""
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        buffer = memoryview(b"".join(self._parts)) if len(self._parts) > 1 else memoryview(data)
        commands: list[Command] = []
        at = 0
        while True:
            rest = len(buffer) - at
            if rest < 4:
                self._wanted = 4
                break
            length = int.from_bytes(buffer[at : at + 4], "big")
            if not 4 <= length <= FRAME_LIMIT:
                raise RemotingError(f"a frame announces {length} bytes; it may have 4 to {FRAME_LIMIT}")
            if rest < 4 + length:
                self._wanted = 4 + length
                break
            commands.append(decode_frame(buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        self._parts = [bytes(buffer[at:])] if at < len(buffer) else []
        self._held = len(buffer) - at
        return commands
