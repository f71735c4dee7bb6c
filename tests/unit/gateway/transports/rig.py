"""What tests of the WebSocket layer share: heads and frames as a client makes them, and the layer between two recorders."""

from __future__ import annotations

from websockets.client import ClientProtocol
from websockets.frames import OP_CLOSE, Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from gateway.transports.websocket import WebSocketProtocol
from schemas.limits import Limits
from tests.unit.gateway.transports.fakes import FakeTransport, Recorder

RSV1 = 0x40
"""The bit that marks a compressed message."""
LIMITS = Limits(packet=2000, connect_bytes=1024, connect_timeout=30.0)


def head(*lines: str, protocol: str | None = "mqtt", request: str = "GET /mqtt HTTP/1.1") -> bytes:
    fields = [request, "Host: gateway", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    fields += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *lines]
    if protocol is not None:
        fields.append(f"Sec-WebSocket-Protocol: {protocol}")
    return "\r\n".join([*fields, "", ""]).encode()


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


class Rig:
    """A WebSocketProtocol between a fake transport and a recording connection, with a client's eyes on what it sends."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.outer = FakeTransport()
        self.inner: Recorder | None = None
        self.upgrading: set[WebSocketProtocol] = set()
        self.refused: list[str] = []
        self.web = WebSocketProtocol(self._make, limits, self.upgrading, self.refused.append)
        self.web.connection_made(self.outer)
        self._client: ClientProtocol | None = None
        self._seen = 0

    def _make(self) -> Recorder:
        self.inner = Recorder()
        return self.inner

    def upgrade(self, after: bytes = b"") -> Recorder:
        client = ClientProtocol(parse_uri("ws://gateway/mqtt"), subprotocols=["mqtt"])  # type: ignore[list-item]
        client.send_request(client.connect())
        self._client = client
        self.web.data_received(b"".join(client.data_to_send()) + after)
        (response,) = self.answers()
        assert isinstance(response, Response)
        assert response.status_code == 101, response.body
        assert self.inner is not None
        return self.inner

    def answers(self) -> list[object]:
        """What the client makes of the bytes sent since the last call."""
        assert self._client is not None
        self._client.receive_data(bytes(self.outer.sent[self._seen :]))
        self._seen = len(self.outer.sent)
        return list(self._client.events_received())

    def frames(self) -> list[tuple[Opcode, bytes]]:
        answers = [answer for answer in self.answers() if isinstance(answer, Frame)]
        return [(answer.opcode, bytes(answer.data)) for answer in answers]

    def close_code(self) -> int:
        ((opcode, data),) = self.frames()
        assert opcode is OP_CLOSE
        return Close.parse(data).code

    @property
    def status(self) -> int:
        return int(self.outer.sent.split(b" ", 2)[1])
