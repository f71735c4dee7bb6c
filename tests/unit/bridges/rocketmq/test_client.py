"""What the client keeps in touch with: name servers that fail, routes that change, brokers that come back; TLS and ACL."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridges.rocketmq import client as clients
from bridges.rocketmq import peers
from bridges.rocketmq.backend import RocketmqBackend
from bridges.rocketmq.client import Client
from bridges.rocketmq.codes import RequestCode
from bridges.rocketmq.errors import RemotingError, Unreachable
from schemas.connections import ConnectionSettings, Secret
from schemas.errors import BackendError, SettingsError
from tests.support.certificates import Authority
from tests.support.fake_rocketmq import FakeRocketmq, FakeTopic
from tests.unit.bridges.rocketmq.conftest import message

ROUTE = RequestCode.GET_ROUTEINFO_BY_TOPIC


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def client(fake: FakeRocketmq) -> AsyncIterator[Client]:
    client = Client(ConnectionSettings(name="main", kind="rocketmq", address=(fake.address,)))
    yield client
    await client.close()


async def test_a_name_server_that_fails_is_passed_over_and_stays_so(make_backend: Callable[..., RocketmqBackend]) -> None:
    topics = {"T": FakeTopic([[]])}
    async with FakeRocketmq(topics=topics) as first, FakeRocketmq(topics=topics) as second:
        backend = make_backend(first.address, second.address)
        assert await backend.describe("T")
        assert second.requests == []
        await first.stop()
        assert await backend.describe("T")
        await first.start()
        assert await backend.describe("T")
        assert len(first.seen(ROUTE)) == 1
        await second.stop()
        assert await backend.describe("T")
        assert backend.trouble == ""
        await second.start()


async def test_a_name_server_that_is_busy_is_passed_over(make_backend: Callable[..., RocketmqBackend]) -> None:
    topics = {"T": FakeTopic([[]])}
    async with FakeRocketmq(topics=topics, judge=lambda _: (2, "busy")) as first, FakeRocketmq(topics=topics) as second:
        assert await make_backend(first.address, second.address).describe("T")
        with pytest.raises(Unreachable, match="busy"):
            await make_backend(first.address).describe("T")


async def test_routes_outlive_their_name_servers(
    fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "REFRESH_EVERY", 0.02)
    async with FakeRocketmq(names=("broker-a",), elsewhere={"broker-a": fake.address}, topics={"T": FakeTopic([[]])}) as server:
        backend = make_backend(server.address)
        target = backend.target("rule", ordered=True)
        await target.send([message()])
        await server.stop()
        await until(lambda: bool(backend.trouble))
        assert await target.send([message()]) == []
        # One that has just started knows nothing yet.
        server.topics.clear()
        await server.start()
        asked = len(server.seen(ROUTE))
        await until(lambda: len(server.seen(ROUTE)) > asked + 1)
        assert await target.send([message()]) == []
        monkeypatch.setattr(clients, "MISSING_BELIEVED", 0.0)
        asked = len(server.seen(ROUTE))
        await until(lambda: len(server.seen(ROUTE)) > asked + 1)
        with pytest.raises(BackendError, match="does not exist"):
            await target.send([message()])


async def test_a_missing_topic_is_asked_for_again_soon(fake: FakeRocketmq, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await client.route("later") is None
    assert await client.route("later") is None
    assert len(fake.seen(ROUTE)) == 1
    monkeypatch.setattr(clients, "MISSING_TRUSTED", 0.0)
    fake.topics["later"] = FakeTopic([[]])
    assert await client.route("later")
    assert await client.route("later")
    assert len(fake.seen(ROUTE)) == 2


async def test_kept_routes_are_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ROUTES_LIMIT", 3)
    for number in range(5):
        await client.route(f"topic-{number}")
    assert list(client._routes) == ["topic-2", "topic-3", "topic-4"]


async def test_routes_in_use_are_refreshed_and_others_forgotten(fake: FakeRocketmq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "REFRESH_EVERY", 0.02)
    monkeypatch.setattr(clients, "HEARTBEAT_EVERY", 0.02)
    client = Client(ConnectionSettings(name="main", kind="rocketmq", address=(fake.address,)))
    client.join_producers("group")
    await client.route("T")
    await until(lambda: len(fake.seen(ROUTE)) >= 4 and len(fake.heartbeats) >= 3)
    assert fake.heartbeats[-1] == {"clientID": client.id, "producerDataSet": [{"groupName": "group"}], "consumerDataSet": []}
    monkeypatch.setattr(clients, "ROUTE_UNUSED", 0.0)
    await until(lambda: not client._routes and not client.peers.live())
    await client.close()


async def test_tries_to_connect_have_growing_pauses_and_the_first_success_ends_them(fake: FakeRocketmq, client: Client) -> None:
    await fake.stop()
    with pytest.raises(Unreachable):
        await client.ask(fake.address, 1, {})
    waits = []
    for _ in range(3):
        peer = client.peers._peers[fake.address]
        waits.append(peer.retry_at - asyncio.get_running_loop().time())
        with pytest.raises(Unreachable, match="can't be reached"):
            await client.ask(fake.address, 1, {})
        assert peer.opening is None
        peer.retry_at = 0.0
        with pytest.raises(Unreachable, match="can't be reached"):
            await client.ask(fake.address, 1, {})
    assert [round(wait, 1) for wait in waits] == [0.2, 0.4, 0.8]
    assert client.peers.trouble(fake.address)
    peer.retry_at = 0.0
    await fake.start()
    assert (await client.ask(fake.address, RequestCode.HEART_BEAT, {}, b"{}")).code == 0
    assert client.peers.trouble(fake.address) == ""
    assert peer.pause == peers.PAUSE_FIRST


async def test_a_peer_that_takes_connections_and_says_nothing_is_in_trouble(
    fake: FakeRocketmq, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that was stopped."""
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 0.05)
    fake.judge = lambda _: "silent"
    pauses = []
    for _ in range(3):
        with pytest.raises(Unreachable, match="did not answer"):
            await client.ask(fake.address, RequestCode.HEART_BEAT, {}, b"{}")
        peer = client.peers._peers[fake.address]
        pauses.append(peer.pause)
        peer.retry_at = 0.0
        await client.peers.connection(fake.address)
        assert "did not answer" in client.peers.trouble(fake.address)
    assert pauses == [0.4, 0.8, 1.6]
    fake.judge = lambda _: None
    assert (await client.ask(fake.address, RequestCode.HEART_BEAT, {}, b"{}")).code == 0
    assert client.peers.trouble(fake.address) == ""
    assert peer.pause == peers.PAUSE_FIRST


async def test_one_connection_serves_all_who_want_it_at_once(fake: FakeRocketmq, client: Client) -> None:
    connections = await asyncio.gather(*(client.peers.connection(fake.address) for _ in range(10)))
    assert len(set(connections)) == 1


async def test_a_caller_that_is_cancelled_leaves_the_connection_to_others(fake: FakeRocketmq, client: Client) -> None:
    first = asyncio.create_task(client.peers.connection(fake.address))
    second = asyncio.create_task(client.peers.connection(fake.address))
    await asyncio.sleep(0)
    first.cancel()
    assert not (await second).closed


async def test_addresses_are_bounded(fake: FakeRocketmq, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS_LIMIT", 1)
    await client.peers.connection(fake.address)
    with pytest.raises(Unreachable, match="more than 1"):
        await client.peers.connection("127.0.0.1:1")


async def test_a_route_that_is_no_json_is_an_error(fake: FakeRocketmq, client: Client) -> None:
    fake._json = lambda _: b"{"  # type: ignore[method-assign]
    with pytest.raises(RemotingError, match="route"):
        await client.route("T")


async def test_the_json_of_old_name_servers_is_read(fake: FakeRocketmq, client: Client) -> None:
    fake.bare_keys = True
    route = await client.route("T")
    assert route is not None
    assert route.masters == {"broker-a": fake.address}


async def test_requests_are_signed_for_name_servers_and_brokers(fake: FakeRocketmq, make_backend: Callable[..., RocketmqBackend]) -> None:
    backend = make_backend(fake.address, user="access", password=Secret("secret"))
    await backend.target("rule", ordered=True).send([message(lane="l")])
    assert {ROUTE, RequestCode.SEND_BATCH_MESSAGE, RequestCode.HEART_BEAT} <= {command.code for command in fake.requests}
    for command in fake.requests:
        fields = dict(command.fields)
        signature = fields.pop("Signature")
        assert fields["AccessKey"] == "access"
        content = "".join(value for _, value in sorted(fields.items())).encode() + command.body
        assert signature == base64.b64encode(hmac.new(b"secret", content, hashlib.sha1).digest()).decode()


async def test_tls_with_a_certificate_that_is_checked(tmp_path: Path, make_backend: Callable[..., RocketmqBackend]) -> None:
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    pair, ours = authority.issue("server"), authority.issue("client", client=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    async with FakeRocketmq(topics={"T": FakeTopic([[]])}, context=context) as server:
        mutual = {"tls": True, "certificate": ours.certificate, "key": ours.key}
        assert await make_backend(server.address, ca=authority.path, **mutual).target("rule", ordered=True).send([message()]) == []
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await make_backend(server.address, ca=other.path, **mutual).describe("T")
        for options in ({}, {"tls": True, "ca": authority.path}):
            with pytest.raises(BackendError):
                await make_backend(server.address, **options).describe("T")


async def test_tls_files_that_are_none_are_named(tmp_path: Path, make_backend: Callable[..., RocketmqBackend]) -> None:
    with pytest.raises(SettingsError, match=r"connections\.main.*`ca`"):
        make_backend("127.0.0.1:1", tls=True, ca=tmp_path / "missing.pem")
