"""As much of an MQTT broker as the commands need: takes any login, notes it, acknowledges, and sends what it is told to."""

from __future__ import annotations

import asyncio
import contextlib


class Broker:
    """``codes``: reason codes by packet type for CONNACK (2), PUBACK (4) and SUBACK (9). ``messages``: sent after a SUBSCRIBE."""

    def __init__(self):
        self.codes = {2: 0, 4: 0, 9: 1}
        self.messages = []
        self.packets = []
        self.closes_after_connack = False
        self._connections = {}

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return "127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]  # noqa: UP031

    async def stop(self):
        self._server.close()
        for writer in self._connections:
            writer.close()
        await asyncio.gather(*self._connections.values())

    async def _serve(self, reader, writer):
        version = 4
        self._connections[writer] = asyncio.current_task()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, body = await self._packet(reader)
                kind = first >> 4
                self.packets.append((kind, body))
                if kind == 1:
                    version = body[6]
                    writer.write(_frame(0x20, bytes([0, self.codes[2]]) + b"\x00" * (version == 5)))
                    if self.closes_after_connack:
                        break
                elif kind == 3 and first & 0x06:
                    size = int.from_bytes(body[:2])
                    answer = body[2 + size : 4 + size] + (bytes([self.codes[4], 0]) if version == 5 else b"")
                    writer.write(_frame(0x40, answer))
                elif kind == 8:
                    writer.write(_frame(0x90, body[:2] + b"\x00" * (version == 5) + bytes([self.codes[9]])))
                    for topic, payload in self.messages:
                        writer.write(_frame(0x30, len(topic).to_bytes(2) + topic + b"\x00" * (version == 5) + payload))
                elif kind == 14:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    @staticmethod
    async def _packet(reader):
        first = (await reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first, await reader.readexactly(length)


def _frame(first, body):
    assert len(body) < 128
    return bytes([first, len(body)]) + body
