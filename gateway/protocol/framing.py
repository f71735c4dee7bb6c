"""A stream of bytes to packets not decoded yet: first byte and body.

O(bytes) however the stream is cut, one byte at a time included. Nothing is allocated by an announced length: a packet longer
than the limit is refused as soon as its length is read, and what is held is only what has arrived.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.protocol.errors import MalformedPacket, ProtocolError
from schemas.reasons import ReasonCode


class Framer:
    """Cuts one connection's stream. ``limit`` is the largest packet in bytes, all of it; it may change between two packets."""

    __slots__ = ("_at", "_data", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data: bytes | bytearray = b""
        self._at = 0

    @property
    def buffered(self) -> int:
        """Bytes that have arrived and are not taken."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add bytes; iterate over the packets that are complete. What is not iterated over waits for ``take`` or the next call."""
        if self._at == len(self._data):
            self._data = data
        else:
            # A bytearray gives its front away without moving the rest.
            if not isinstance(self._data, bytearray):
                self._data = bytearray(self._data)
            del self._data[: self._at]
            self._data += data
        self._at = 0
        return iter(self.take, None)

    def take(self) -> tuple[int, bytes] | None:
        """The next complete packet, None where it hasn't arrived yet. Raises PacketError, and again at each call after it."""
        data, at = self._data, self._at
        size = len(data)
        if size - at < 2:
            if size == at:  # an idle connection holds on to nothing
                self._data, self._at = b"", 0
            return None
        remaining = data[at + 1]
        start = at + 2
        if remaining >= 0x80:
            remaining &= 0x7F
            shift = 7
            while True:
                if start == size:
                    return None
                byte = data[start]
                start += 1
                remaining |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > 21:
                    raise MalformedPacket("remaining length: more than 4 bytes")
            if byte == 0:  # [MQTT-1.5.5-1]
                raise MalformedPacket("remaining length: more bytes than it needs")
        stop = start + remaining
        if stop - at > self.limit:  # [MQTT-3.2.2-15]
            raise ProtocolError(f"packet: {stop - at} bytes, at most {self.limit}", ReasonCode.PACKET_TOO_LARGE)
        if stop > size:
            return None
        self._at = stop
        return data[at], bytes(data[start:stop])
