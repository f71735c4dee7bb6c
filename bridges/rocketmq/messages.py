"""Messages as RocketMQ writes them, without I/O: what a batch send carries, what a pull answers, and the properties of both.

Any bytes are messages or a RemotingError. outgoing.py and incoming.py are the way between these and the port's messages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec

from bridges.rocketmq.compression import COMPRESSED, unpack
from bridges.rocketmq.errors import RemotingError

NAME_END = "\x01"
VALUE_END = "\x02"

PROPERTIES_LIMIT = 32_767 - 64
"""Bytes of a message's properties: their length is a signed 16-bit number, and a broker may add a checksum of its own."""

_MAGIC = 0xDAA320A7
_MAGIC_LONG_TOPIC = 0xDAA320AB

_HOST_BORN_V6 = 0x10
_HOST_STORED_V6 = 0x20
_INNER_BATCH = 0x80
_NEEDS_UNWRAPPING = 0x40

_SYSTEM_FLAG = 36
# Size, magic, checksum, queue, flag, offset in the queue, place in the broker's log, system flag, born time, born host, stored time, store's host,
# how often it was consumed again, where its transaction was prepared, length of the body; by the flag's bits for hosts of IPv6.
_HEADS = {
    flag: struct.Struct(f">IIIiiqqiq{20 if flag & _HOST_BORN_V6 else 8}xq{20 if flag & _HOST_STORED_V6 else 8}x12xi")
    for flag in (0, _HOST_BORN_V6, _HOST_STORED_V6, _HOST_BORN_V6 | _HOST_STORED_V6)
}
_SHORT = struct.Struct(">h")
# Size, magic, checksum, flag, length of the body.
_BATCH_HEAD = struct.Struct(">IIIii")

Properties = tuple[tuple[str, str], ...]


class StoredMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as a broker keeps it. Times are ms of the wall clock: ``born`` the producer's, ``stored`` the broker's. ``size`` is in bytes."""

    topic: str
    queue: int
    offset: int
    body: bytes
    properties: Properties
    born: int = 0
    stored: int = 0
    size: int = 0


def encode_properties(properties: Iterable[tuple[str, str]]) -> bytes:
    """The caller sees to it that no name and no value holds a control character."""
    return "".join([f"{name}\x01{value}\x02" for name, value in properties]).encode()


def decode_properties(data: bytes | memoryview) -> Properties:
    """Whatever is no name with a value is passed over, as RocketMQ's own clients do."""
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise RemotingError(f"a message's properties are not UTF-8: {error.reason}") from error
    if not text:
        return ()
    pairs = [pair.split(NAME_END) for pair in text.removesuffix(VALUE_END).split(VALUE_END)]
    try:
        # What RocketMQ and we write.
        return tuple([(name, value) for name, value in pairs if name])
    except ValueError:
        return tuple((pair[0], NAME_END.join(pair[1:])) for pair in pairs if len(pair) > 1 and pair[0])


def encode_batched(body: bytes, properties: bytes) -> bytes:
    """One message of a batch: the body of a batch send is these, one after the other."""
    size = 22 + len(body) + len(properties)
    return b"".join((_BATCH_HEAD.pack(size, 0, 0, 0, len(body)), body, _SHORT.pack(len(properties)), properties))


def decode_batch(data: bytes | memoryview) -> Iterator[tuple[bytes, Properties]]:
    """What encode_batched wrote: fake brokers read it, and so do we where a broker stored a batch as one message."""
    view = memoryview(data)
    at = 0
    try:
        while at < len(view):
            size, _, _, _, length = _BATCH_HEAD.unpack_from(view, at)
            _expect(0 <= length <= size - 22, "a batch's message has a body longer than itself")
            end = at + 20 + length
            (properties,) = _SHORT.unpack_from(view, end)
            _expect(size == 22 + length + properties and properties >= 0 and at + size <= len(view), "a batch's message has another size")
            yield bytes(view[at + 20 : end]), decode_properties(view[end + 2 : end + 2 + properties])
            at += size
    except struct.error as error:
        raise RemotingError(f"a batch ends within a message: {error}") from error


def decode_stored(data: bytes) -> list[StoredMessage]:
    """The messages in a pull's answer, in order; what a broker stored as one but is a batch comes out as its messages."""
    messages: list[StoredMessage] = []
    at = 0
    try:
        while at < len(data):
            message, flag = _decode_one(data, at)
            at += int.from_bytes(data[at : at + 4], "big")
            if flag & _INNER_BATCH and flag & _NEEDS_UNWRAPPING:
                messages.extend(_unwrap(message))
            else:
                messages.append(message)
    except struct.error as error:
        raise RemotingError(f"a stored message ends too early: {error}") from error
    except UnicodeDecodeError as error:
        raise RemotingError(f"a stored message's topic is not UTF-8: {error.reason}") from error
    return messages


def _decode_one(data: bytes, start: int) -> tuple[StoredMessage, int]:
    """The message that begins there, and its system flag."""
    flag = int.from_bytes(data[start + _SYSTEM_FLAG : start + _SYSTEM_FLAG + 4], "big")
    head = _HEADS[flag & (_HOST_BORN_V6 | _HOST_STORED_V6)]
    size, magic, _, queue, _, offset, _, _, born, stored, length = head.unpack_from(data, start)
    at, end = start + head.size, start + size
    _expect(end <= len(data) and 0 <= length < end - at, "a stored message has another size than it says")
    body = data[at : at + length]
    at += length
    if magic == _MAGIC:
        length, at = data[at], at + 1
    elif magic == _MAGIC_LONG_TOPIC:
        (length,) = _SHORT.unpack_from(data, at)
        at += 2
    else:
        raise RemotingError(f"a stored message has the unknown form {magic:#x}")
    _expect(0 <= length <= end - at - 2, "a stored message has a topic longer than itself")
    topic = str(data[at : at + length], "utf-8")
    at += length
    (length,) = _SHORT.unpack_from(data, at)
    at += 2
    _expect(0 <= length == end - at, "a stored message has properties of another size than it says")
    if flag & COMPRESSED and body:
        packed = len(body)
        body = unpack(body, flag)
        size += len(body) - packed
    return StoredMessage(topic, queue, offset, body, decode_properties(data[at:end]), born, stored, size), flag


def _unwrap(whole: StoredMessage) -> Iterator[StoredMessage]:
    for index, (body, properties) in enumerate(decode_batch(whole.body)):
        size = len(body) + sum(len(name) + len(value) for name, value in properties)
        yield StoredMessage(whole.topic, whole.queue, whole.offset + index, body, properties, whole.born, whole.stored, size)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RemotingError(otherwise)
