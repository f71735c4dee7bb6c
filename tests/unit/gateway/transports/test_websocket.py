"""The WebSocket layer against a recorded transport: frames, limits, back-pressure and both ends of closing."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
import zlib
from collections.abc import Callable

import pytest
from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG, OP_TEXT, Close, Frame

from gateway.transports import websocket
from tests.unit.gateway.transports.rig import LIMITS, RSV1, Rig, frame, head

# Frames


@pytest.mark.parametrize("continued", [False, True])
async def test_packets_may_span_frames_and_frames_hold_many_packets(continued: bool) -> None:
    """[MQTT-6.0.0-2] [MQTT-4.2-1]: every frame length from one byte to all of them, in reads of several sizes."""
    stream = bytes(range(64))
    for length in range(1, len(stream) + 1):
        parts = [stream[start : start + length] for start in range(0, len(stream), length)]
        wire = b"".join(
            frame(OP_BINARY if number == 0 or not continued else OP_CONT, part, fin=not continued or number == len(parts) - 1)
            for number, part in enumerate(parts)
        )
        for read in (1, 3, 7, len(wire)):
            rig = Rig()
            inner = rig.upgrade()
            for start in range(0, len(wire), read):
                rig.web.data_received(wire[start : start + read])
            assert inner.stream == stream, (length, read)
            assert not rig.outer.closed


async def test_frames_of_one_read_reach_the_connection_as_one_piece() -> None:
    rig = Rig()
    inner = rig.upgrade()
    rig.web.data_received(frame(OP_BINARY, b"ab") + frame(OP_BINARY) + frame(OP_BINARY, b"cd"))
    assert inner.received == [b"abcd"]


async def test_text_frame_closes_the_connection() -> None:
    """[MQTT-6.0.0-1]; what came before it counts, what comes behind it doesn't."""
    rig = Rig()
    inner = rig.upgrade()
    rig.web.data_received(frame(OP_BINARY, b"before") + frame(OP_TEXT, b"text") + frame(OP_BINARY, b"behind"))
    rig.web.data_received(frame(OP_BINARY, b"later"))
    assert inner.stream == b"before"
    assert rig.close_code() == 1003
    assert rig.outer.closed


async def test_each_write_is_one_binary_frame() -> None:
    """[MQTT-6.0.0-1]"""
    rig = Rig()
    inner = rig.upgrade()
    assert inner.transport is not None
    rig.outer.writes.clear()
    inner.transport.write(b"one")
    inner.transport.write(memoryview(b"two"))
    inner.transport.write(b"")
    assert len(rig.outer.writes) == 2
    assert rig.frames() == [(OP_BINARY, b"one"), (OP_BINARY, b"two")]


async def test_frame_as_large_as_the_largest_packet_is_taken_and_a_larger_one_is_refused_by_its_header() -> None:
    rig = Rig()
    inner = rig.upgrade(frame(OP_BINARY, b"CONNECT"))
    assert inner.transport is not None
    inner.transport.write(b"CONNACK")
    rig.web.data_received(frame(OP_BINARY, bytes(LIMITS.packet + 5)))
    assert len(inner.stream) == 7 + LIMITS.packet + 5
    rig.frames()
    rig.web.data_received(frame(OP_BINARY, bytes(LIMITS.packet + 6))[:14])
    assert rig.close_code() == 1009
    assert rig.outer.closed


async def test_unmasked_frame_is_refused() -> None:
    rig = Rig()
    rig.upgrade()
    rig.web.data_received(Frame(OP_BINARY, b"x").serialize(mask=False))
    assert rig.close_code() == 1002


async def test_compression_is_declined_and_a_compressed_frame_refused() -> None:
    rig = Rig()
    rig.web.data_received(head("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
    assert rig.status == 101
    assert b"Sec-WebSocket-Extensions" not in rig.outer.sent
    rig = Rig()
    inner = rig.upgrade()
    bomb = bytearray(frame(OP_BINARY, zlib.compress(bytes(10**6))[2:-4]))
    bomb[0] |= RSV1
    rig.web.data_received(bytes(bomb))
    assert inner.received == []
    assert rig.close_code() == 1002


@pytest.mark.parametrize("seed", range(4))
async def test_any_bytes_give_a_stream_or_an_end_and_the_same_for_every_chunking(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """No other exception, ever; and how the network cuts the bytes changes nothing."""
    dice = random.Random(seed)
    for _ in range(60):
        wire = bytearray(head() if dice.random() < 0.5 else b"")
        opcodes = [dice.choice([OP_BINARY, OP_BINARY, OP_BINARY, OP_PING, OP_CONT]) for _ in range(dice.randrange(1, 12))]
        wire += b"".join(frame(opcode, dice.randbytes(dice.choice([0, 1, 20, 120]))) for opcode in opcodes)
        for _ in range(dice.choice([0, 1, 1, 8])):
            wire[dice.randrange(len(wire))] = dice.randrange(256)
        upgraded = wire[:3] == b"GET"
        results = []
        for read in (1, 17, len(wire)):
            rig = Rig()
            if not upgraded:
                rig.web.data_received(head())
            for start in range(0, len(wire), read):
                rig.web.data_received(bytes(wire[start : start + read]))
            results.append((rig.inner.stream if rig.inner else None, rig.outer.closed, rig.refused))
            rig.web.connection_lost(None)
        assert results[0] == results[1] == results[2], (seed, wire.hex())
    assert caplog.records == []


# Before the first answer


async def test_first_frame_larger_than_any_connect_is_refused() -> None:
    rig = Rig()
    rig.upgrade()
    rig.web.data_received(frame(OP_BINARY, bytes(1900))[:1500])
    assert rig.close_code() == 1009
    assert rig.outer.closed


async def test_large_frame_behind_connect_waits_in_the_network_for_the_answer() -> None:
    rig = Rig()
    inner = rig.upgrade(frame(OP_BINARY, b"CONNECT"))
    assert inner.transport is not None
    large = frame(OP_BINARY, bytes(1900))
    rig.web.data_received(large[:1500])
    assert not rig.outer.reading
    inner.transport.resume_reading()
    assert not rig.outer.reading
    inner.transport.write(b"CONNACK")
    assert rig.outer.reading
    rig.web.data_received(large[1500:])
    assert inner.stream == b"CONNECT" + bytes(1900)


async def test_connect_in_small_frames_is_not_mistaken_for_a_large_one() -> None:
    rig = Rig()
    inner = rig.upgrade()
    for _ in range(1000):
        rig.web.data_received(frame(OP_BINARY, b"x"))
    assert inner.stream == b"x" * 1000
    assert rig.outer.reading


# Pings and back-pressure


async def test_ping_is_answered() -> None:
    rig = Rig()
    inner = rig.upgrade()
    rig.web.data_received(frame(OP_PING, b"here?") + frame(OP_PONG, b"unasked"))
    assert rig.frames() == [(OP_PONG, b"here?")]
    assert inner.received == []


async def test_pings_of_a_peer_that_does_not_read_pile_up_nothing() -> None:
    rig = Rig()
    rig.upgrade()
    rig.web.pause_writing()
    rig.web.data_received(frame(OP_PING, b"x") * 100)
    assert rig.frames() == []
    rig.web.resume_writing()
    rig.web.data_received(frame(OP_PING, b"y"))
    assert rig.frames() == [(OP_PONG, b"y")]


async def test_back_pressure_passes_through_both_ways() -> None:
    rig = Rig()
    inner = rig.upgrade()
    assert inner.transport is not None
    rig.web.pause_writing()
    rig.web.resume_writing()
    assert inner.calls == ["pause_writing", "resume_writing"]
    inner.transport.pause_reading()
    assert not rig.outer.reading
    inner.transport.resume_reading()
    assert rig.outer.reading
    inner.transport.set_write_buffer_limits(high=7, low=3)
    assert rig.outer.limits == (7, 3)
    assert inner.transport.get_write_buffer_size() == 321
    assert inner.transport.get_extra_info("peername") == ("192.0.2.7", 4321)


async def test_writing_paused_before_the_connection_is_there_is_told_to_it() -> None:
    rig = Rig()
    rig.web.pause_writing()
    assert rig.upgrade().calls == ["pause_writing"]


# Closing


async def test_close_sends_a_close_frame_and_reads_on_for_the_reply() -> None:
    rig = Rig()
    inner = rig.upgrade()
    assert inner.transport is not None
    inner.transport.pause_reading()
    inner.transport.write(b"DISCONNECT")
    inner.transport.close()
    inner.transport.close()
    inner.transport.write(b"too late")
    assert inner.transport.is_closing()
    assert rig.outer.reading
    assert not rig.outer.closed
    assert rig.frames() == [(OP_BINARY, b"DISCONNECT"), (OP_CLOSE, Close(1000, "").serialize())]
    rig.web.data_received(frame(OP_BINARY, b"on its way") + frame(OP_CLOSE, Close(1000, "").serialize()))
    assert inner.received == []
    assert rig.outer.closed
    assert not rig.outer.aborted


async def test_close_without_a_reply_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_WITHIN", 0.01)
    rig = Rig()
    inner = rig.upgrade()
    assert inner.transport is not None
    inner.transport.close()
    async with asyncio.timeout(5):
        await rig.outer.ended.wait()
    assert rig.outer.aborted


async def test_close_frame_of_the_peer_is_echoed_behind_what_came_before_it() -> None:
    rig = Rig()
    inner = rig.upgrade()
    assert inner.transport is not None
    rig.web.data_received(frame(OP_BINARY, b"last") + frame(OP_CLOSE, Close(1001, "").serialize()))
    assert inner.stream == b"last"
    assert rig.close_code() == 1001
    assert rig.outer.closed
    inner.transport.write(b"swallowed")
    rig.web.connection_lost(None)
    assert inner.lost == [None]
    inner.transport.write(b"swallowed")
    inner.transport.abort()
    inner.transport.pause_reading()
    inner.transport.set_write_buffer_limits(high=1)
    assert inner.transport.get_write_buffer_size() == 0
    assert inner.transport.get_extra_info("peername", "gone") == "gone"


@pytest.mark.parametrize("act", [lambda transport: transport.close(), lambda transport: transport.abort()], ids=["close", "abort"])
async def test_connection_may_end_from_within_its_own_read(act: Callable[[asyncio.Transport], None]) -> None:
    rig = Rig()
    inner = rig.upgrade()
    transport = inner.transport
    assert transport is not None
    inner.on_data = lambda data: act(transport)
    rig.web.data_received(frame(OP_BINARY, b"bad") + frame(OP_TEXT))
    rig.web.data_received(frame(OP_BINARY, b"more"))
    assert inner.stream == b"bad"


async def test_error_of_the_socket_reaches_the_connection() -> None:
    rig = Rig()
    inner = rig.upgrade()
    error = ConnectionResetError()
    rig.web.connection_lost(error)
    assert inner.lost == [error]


async def test_lost_connection_leaves_no_cycle() -> None:
    """Memory of many short connections must not wait for a collection."""
    rig = Rig()
    inner = rig.upgrade(frame(OP_BINARY, b"x"))
    frames = rig.web._frames
    assert frames is not None
    gc.collect()
    gc.disable()
    try:
        left = weakref.ref(frames), weakref.ref(inner)
        rig.web.connection_lost(None)
        rig.inner = None  # the rig's own
        del frames, rig, inner
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()
