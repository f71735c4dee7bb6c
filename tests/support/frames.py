"""Bytes to frames as a connected client's Connection cuts them (gateway/reading.py), kept instead of handled.

``keeping`` is for the fixture of tests/unit/gateway/protocol: while it holds, whatever a Connection reads lands in its Framer.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import inbound, reading
from gateway.connection import Connection
from gateway.node import Node
from gateway.protocol.errors import PacketError
from gateway.protocol.states import ConnectionState
from gateway.transports.listeners import ListenerSpec
from schemas.limits import Limits


class Framer(Connection):
    """``limit`` is the largest packet in bytes, all of it."""

    def __init__(self, limit: int) -> None:
        clock, counters = SimpleNamespace(wall=lambda: 0), SimpleNamespace(bytes_in=0, published=0)
        guarding = SimpleNamespace(is_rating=False)
        self.stub: Any = SimpleNamespace(limits=Limits(packet=limit), clock=clock, counters=counters, tick=0.0, guarding=guarding)
        super().__init__(cast("Node", self.stub), ListenerSpec("mqtt", "127.0.0.1", 1883))
        self.state = ConnectionState.CONNECTED
        self.session = cast("Any", SimpleNamespace(queue=None, backlog=False, puback=self._puback))
        self._frames: list[tuple[int, bytes]] = []
        self._error: PacketError | None = None

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """First byte and body of each packet that is whole now; then what is wrong with the next, raised."""
        self.data_received(data)
        frames, self._frames = self._frames, []
        yield from frames
        if self._error is not None:
            raise self._error

    def keep(self, first: int, body: bytes) -> None:
        self._frames.append((first, body))

    @property
    def buffered(self) -> int:
        """Bytes that have arrived and are not taken."""
        return len(self._buffer or b"")

    def fail(self, error: PacketError) -> None:
        self._error = error

    def _puback(self, packet_id: int) -> None:
        self.keep(0x40, packet_id.to_bytes(2, "big"))


def keeping(patch: pytest.MonkeyPatch) -> None:
    """Frames are kept for as long as the patch holds."""

    def publish(connection: Framer, first: int, data: bytes, start: int, stop: int, now: int) -> None:
        connection.keep(first, data[start:stop])

    patch.setattr(inbound, "publish", publish)
    patch.setattr(reading, "_packet", Framer.keep)
