"""Toxics as pure steps, and the proxy over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.chaos_proxy import (
    QUEUE_BYTES,
    Bandwidth,
    BlackHole,
    ChaosProxy,
    CloseAfter,
    CutAnswers,
    Latency,
    Parcel,
    ResetAfter,
    Slices,
    Toxic,
)

WITHIN = 5.0
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def after(toxic: Toxic, *parcels: Parcel) -> list[Parcel]:
    step = toxic.start()
    return [result for parcel in parcels for result in step(parcel)]


# Toxics


def test_latency_delays_without_slowing_down() -> None:
    assert after(Latency(0.2), Parcel(1.0, b"a"), Parcel(1.0, b"b"), Parcel(1.1, b"", "eof")) == [
        Parcel(1.2, b"a"),
        Parcel(1.2, b"b"),
        Parcel(1.1 + 0.2, b"", "eof"),
    ]


def test_jitter_is_repeatable_and_keeps_the_order() -> None:
    parcels = [Parcel(number / 1000, bytes([number])) for number in range(100)]
    once, again = after(Latency(0.2, 0.1, seed=7), *parcels), after(Latency(0.2, 0.1, seed=7), *parcels)
    assert once == again
    assert once != after(Latency(0.2, 0.1, seed=8), *parcels)
    assert [parcel.due for parcel in once] == sorted(parcel.due for parcel in once)
    assert min(late.due for late in once) >= 0.1


def test_bandwidth_spreads_bytes_over_time() -> None:
    result = after(Bandwidth(1000), Parcel(5.0, bytes(500)), Parcel(5.0, bytes(500), "eof"))
    assert sum(len(parcel.data) for parcel in result) == 1000
    assert max(len(parcel.data) for parcel in result) == 50
    assert result[-1].due == pytest.approx(6.0)
    assert [parcel.end for parcel in result if parcel.end] == ["eof"]


def test_slices() -> None:
    assert after(Slices(), Parcel(1.0, b"abc"), Parcel(1.0, b"", "eof")) == [
        Parcel(1.0, b"a"),
        Parcel(1.0, b"b"),
        Parcel(1.0, b"c"),
        Parcel(1.0, b"", "eof"),
    ]
    assert [parcel.due for parcel in after(Slices(2, gap=0.5), Parcel(1.0, b"abcde"))] == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(("toxic", "end"), [(ResetAfter(3), "reset"), (CloseAfter(3), "close")])
def test_an_end_comes_behind_so_many_bytes(toxic: Toxic, end: str) -> None:
    assert after(toxic, Parcel(1.0, b"ab"), Parcel(2.0, b"cde"), Parcel(3.0, b"f")) == [Parcel(1.0, b"ab"), Parcel(2.0, b"c", end)]  # type: ignore[arg-type]
    assert after(toxic, Parcel(1.0, b"abc")) == [Parcel(1.0, b"abc", end)]  # type: ignore[arg-type]
    assert after(toxic, Parcel(1.0, b"ab"), Parcel(2.0, b"", "eof")) == [Parcel(1.0, b"ab"), Parcel(2.0, b"", "eof")]


def test_cut_answers_end_at_the_first_one() -> None:
    assert after(CutAnswers(), Parcel(1.0, b"ok")) == [Parcel(1.0, b"", "reset")]


def test_black_hole_swallows_ends_too() -> None:
    assert after(BlackHole(3), Parcel(1.0, b"ab"), Parcel(2.0, b"cd"), Parcel(3.0, b"e"), Parcel(4.0, b"", "eof")) == [
        Parcel(1.0, b"ab"),
        Parcel(2.0, b"c"),
    ]


# Proxy


class Echo:
    def __init__(self) -> None:
        self.received = bytearray()
        self.ends: list[str] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                self.received += data
                writer.write(data)
                await writer.drain()
            self.ends.append("eof")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            self.ended.set()
            writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[ChaosProxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with ChaosProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


@pytest.fixture
async def stream(proxy: ChaosProxy) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    yield reader, writer
    writer.transport.abort()


async def exactly(stream: Stream, count: int) -> bytes:
    async with asyncio.timeout(WITHIN):
        return await stream[0].readexactly(count)


async def ended(echo: Echo) -> list[str]:
    async with asyncio.timeout(WITHIN):
        await echo.ended.wait()
    return echo.ends


async def test_bytes_and_ends_pass_unharmed(proxy: ChaosProxy, stream: Stream, echo: Echo) -> None:
    data = bytes(range(256)) * 4 * (QUEUE_BYTES // 1024)
    stream[1].write(data)
    assert await exactly(stream, len(data)) == data
    stream[1].write_eof()
    assert await ended(echo) == ["eof"]
    async with asyncio.timeout(WITHIN):
        assert await stream[0].read() == b""


async def test_reset_in_the_middle(proxy: ChaosProxy, stream: Stream, echo: Echo) -> None:
    proxy.add(ResetAfter(3), "up")
    stream[1].write(b"abcdef")
    with pytest.raises(ConnectionResetError):
        await exactly(stream, 6)
    assert await ended(echo) == ["reset"]
    assert bytes(echo.received) in (b"", b"abc")


async def test_answers_are_cut_and_requests_were_served(proxy: ChaosProxy, stream: Stream, echo: Echo) -> None:
    proxy.add(CutAnswers(), "down")
    stream[1].write(b"request")
    with pytest.raises(ConnectionResetError):
        await exactly(stream, 1)
    assert echo.received == b"request"


async def test_close_after_some_bytes(proxy: ChaosProxy, stream: Stream, echo: Echo) -> None:
    proxy.add(CloseAfter(2), "down")
    stream[1].write(b"abcd")
    async with asyncio.timeout(WITHIN):
        assert await stream[0].read() == b"ab"


async def test_black_hole_is_silent_one_way(proxy: ChaosProxy, stream: Stream, echo: Echo) -> None:
    proxy.add(BlackHole(), "down")
    stream[1].write(b"heard")
    async with asyncio.timeout(WITHIN):
        while echo.received != b"heard":
            await asyncio.sleep(0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await stream[0].read(1)
    assert proxy.connections == 1


async def test_toxics_come_and_go_while_a_connection_lives(proxy: ChaosProxy, stream: Stream) -> None:
    toxic = Latency(0.05)
    loop = asyncio.get_running_loop()
    stream[1].write(b"x")
    await exactly(stream, 1)
    proxy.add(toxic, "up")
    begun = loop.time()
    stream[1].write(b"x")
    await exactly(stream, 1)
    assert loop.time() - begun >= 0.05
    proxy.remove(toxic, "up")
    assert proxy.toxics["up"] == ()
    stream[1].write(b"x")
    await exactly(stream, 1)


async def test_slices_and_bandwidth_together_keep_the_bytes(proxy: ChaosProxy, stream: Stream) -> None:
    proxy.add(Slices(1), "up")
    proxy.add(Bandwidth(200_000), "down")
    data = bytes(range(256)) * 8
    stream[1].write(data)
    assert await exactly(stream, len(data)) == data


async def test_all_are_cut_at_once(proxy: ChaosProxy, stream: Stream, echo: Echo) -> None:
    stream[1].write(b"x")
    await exactly(stream, 1)
    proxy.cut_all()
    with pytest.raises(ConnectionResetError):
        await exactly(stream, 1)
    assert await ended(echo) == ["reset"]


async def test_server_that_is_gone_is_a_reset() -> None:
    gone = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    async with ChaosProxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(WITHIN):
                await reader.readexactly(1)
        writer.close()
