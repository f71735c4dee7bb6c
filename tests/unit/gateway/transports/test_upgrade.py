"""The HTTP upgrade to WebSocket: whom it lets in, what it keeps, and when it gives up."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import OP_BINARY

from schemas.limits import Limits
from tests.unit.gateway.transports.rig import Rig, frame, head


async def test_upgrade_selects_mqtt() -> None:
    """[MQTT-6.0.0-4]; the connection exists from the upgrade on, not before."""
    rig = Rig()
    rig.web.data_received(head(protocol="chat, mqtt, mqttv3.1")[:-1])
    assert rig.inner is None
    assert rig.upgrading == {rig.web}
    rig.web.data_received(b"\n")
    assert b"Sec-WebSocket-Protocol: mqtt\r\n" in rig.outer.sent
    assert rig.status == 101
    assert rig.inner is not None
    assert not rig.upgrading


@pytest.mark.parametrize("protocol", [None, "mqttv3.1", "chat", "MQTT"])
async def test_client_that_does_not_offer_mqtt_is_refused(protocol: str | None) -> None:
    """[MQTT-6.0.0-3]"""
    rig = Rig()
    rig.web.data_received(head(protocol=protocol))
    assert (rig.status, rig.inner, rig.outer.closed, rig.refused) == (400, None, True, ["websocket_upgrade"])


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n", 426),
        (head(request="GET /mqtt HTTP/1.0"), 400),
        (head("Content-Length: 5"), 400),
        (head("Sec-WebSocket-Version: 13"), 400),
        (b"GET /mqtt HTTP/1.1\r\nbad line\r\n\r\n", 400),
        (head("Sec-WebSocket-Key: \xff").replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        (b"POST /mqtt HTTP/1.1\r\n", 400),
        (b"\x10", 400),
        (b"GET /" + b"x" * 2000, 431),
    ],
)
async def test_bad_requests_get_a_status_and_a_close(request_head: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.web.data_received(request_head)
    assert (rig.status, rig.inner, rig.outer.closed, rig.refused) == (status, None, True, ["websocket_upgrade"])
    rig.web.data_received(b"more")
    rig.web.connection_lost(None)
    assert not rig.upgrading
    assert caplog.records == []


async def test_head_may_come_byte_by_byte_and_any_path_is_served() -> None:
    rig = Rig()
    for byte in head(request="GET /any?path HTTP/1.1"):
        rig.web.data_received(bytes([byte]))
    assert rig.status == 101


async def test_head_is_never_kept_beyond_its_limit() -> None:
    rig = Rig()
    rig.web.data_received(b"GET /")
    for _ in range(2000):
        if not rig.outer.closed:
            rig.web.data_received(b"x")
    assert rig.status == 431
    assert rig.web._head is None


async def test_what_follows_the_head_in_one_read_is_delivered() -> None:
    rig = Rig()
    inner = rig.upgrade(frame(OP_BINARY, b"CONNECT"))
    assert inner.received == [b"CONNECT"]


async def test_upgrade_that_takes_too_long_is_cut() -> None:
    rig = Rig(Limits(connect_timeout=0.01))
    rig.web.data_received(b"GET /mqtt HTTP/1.1\r\n")
    async with asyncio.timeout(5):
        await rig.outer.ended.wait()
    assert rig.outer.aborted
    assert rig.refused == ["websocket_upgrade"]
