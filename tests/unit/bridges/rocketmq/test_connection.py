"""One connection against a peer that behaves, and against one that doesn't."""

from __future__ import annotations

import asyncio

import pytest

from bridges.rocketmq import connection as connections
from bridges.rocketmq.connection import Connection, connect
from bridges.rocketmq.errors import RemotingError, Unreachable
from tests.support.fake_rocketmq import FakeRocketmq, Verdict

ROUTE = 105
FIELDS = {"topic": "T"}


@pytest.fixture
async def link(fake: FakeRocketmq) -> Connection:
    return await connect(fake.address, None, None, within=2)


def judge(fake: FakeRocketmq, *verdicts: Verdict) -> None:
    """In turn; the usual afterwards."""
    rest = list(verdicts)
    fake.judge = lambda _: rest.pop(0) if rest else None


async def test_answers_find_their_requests_in_any_order(fake: FakeRocketmq, link: Connection) -> None:
    judge(fake, 0.05)
    slow, quick = link.request(ROUTE, FIELDS, within=2), link.request(ROUTE, {"topic": "none"}, within=2)
    assert (await quick).code == 17
    assert not slow.done()
    assert (await slow).code == 0


async def test_an_answer_that_does_not_come_is_no_answer(fake: FakeRocketmq, link: Connection) -> None:
    judge(fake, "silent")
    with pytest.raises(Unreachable, match=r"did not answer within 0\.02 s"):
        await link.request(ROUTE, FIELDS, within=0.02)
    assert (await link.request(ROUTE, FIELDS, within=2)).code == 0


async def test_an_answer_under_another_number_is_nobodys(fake: FakeRocketmq, link: Connection) -> None:
    judge(fake, "stranger")
    with pytest.raises(Unreachable):
        await link.request(ROUTE, FIELDS, within=0.05)
    assert (await link.request(ROUTE, FIELDS, within=2)).code == 0


@pytest.mark.parametrize(("verdict", "words"), [("garbage", "a frame announces"), ("cut", "closed by the peer")])
async def test_what_waits_fails_with_the_connection(fake: FakeRocketmq, link: Connection, verdict: str, words: str) -> None:
    judge(fake, "silent", verdict)
    waiting = [link.request(ROUTE, FIELDS, within=5) for _ in range(2)]
    for future in waiting:
        with pytest.raises(Unreachable, match=words):
            await future
    assert words in link.closed
    with pytest.raises(Unreachable, match=words):
        await link.request(ROUTE, FIELDS, within=5)
    link.tell(ROUTE, FIELDS)


async def test_closing_fails_what_waits(fake: FakeRocketmq, link: Connection) -> None:
    judge(fake, "silent")
    future = link.request(ROUTE, FIELDS, within=5)
    link.close()
    with pytest.raises(Unreachable, match="this side"):
        await future


async def test_a_request_of_the_peer_is_answered_with_not_supported(fake: FakeRocketmq, link: Connection) -> None:
    await link.request(ROUTE, FIELDS, within=2)
    fake.ask_clients(307)
    await link.request(ROUTE, FIELDS, within=2)
    (answer,) = fake.answers
    assert (answer.code, answer.opaque) == (3, 7)
    assert "307" in answer.remark


async def test_requests_in_flight_are_bounded(fake: FakeRocketmq, link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IN_FLIGHT_LIMIT", 2)
    judge(fake, "silent", "silent")
    waiting = [link.request(ROUTE, FIELDS, within=5) for _ in range(2)]
    with pytest.raises(Unreachable, match="owes 2 answers"):
        await link.request(ROUTE, FIELDS, within=5)
    link.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_bytes_to_a_peer_that_reads_nothing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_LIMIT", 1000)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed.wait()
        writer.close()

    closed = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1000)
    link = await connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", None, None, within=2)
    waiting = []
    with pytest.raises(Unreachable, match="doesn't read"):
        for _ in range(100):
            waiting.append(link.request(1, {}, bytes(1_000_000), within=5))
            if waiting[-1].done():
                await waiting[-1]
    link.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    closed.set()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:http", "host:70000"])
async def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(RemotingError, match="HOST:PORT") as raised:
        await connect(address, None, None, within=1)
    assert not raised.value.retryable


@pytest.mark.parametrize("host", ["a" * 100, "a..b", "a\x00b"])
async def test_a_host_that_can_not_be_looked_up(host: str) -> None:
    with pytest.raises(Unreachable, match="can't be reached"):
        await connect(f"{host}:1", None, None, within=1)


async def test_nobody_there(fake: FakeRocketmq) -> None:
    await fake.stop()
    with pytest.raises(Unreachable, match=fake.address):
        await connect(fake.address, None, None, within=1)
