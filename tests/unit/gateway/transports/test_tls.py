"""TLS: versions and suites, deadlines, client certificates, and certificates that change while the listener serves."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from gateway.transports import listeners as module
from gateway.transports.certificates import Certificates, load_context
from gateway.transports.listeners import Listeners, ListenerSpec
from schemas.errors import StartError
from schemas.limits import Limits
from schemas.settings import TlsSettings
from tests.support.certificates import Authority, Pair
from tests.unit.gateway.transports.fakes import WITHIN, Harbour, until

SECURE = ListenerSpec("mqtts", "127.0.0.1", 0)
SECURE_WEB = ListenerSpec("wss", "127.0.0.1", 0)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def settings(pair: Pair, client_ca: Path | None = None) -> TlsSettings:
    return TlsSettings(certificate=pair.certificate, key=pair.key, client_ca=client_ca)


async def dial(listeners: Listeners, context: ssl.SSLContext, name: str | None = None) -> Stream:
    spec = listeners.addresses[0]
    async with asyncio.timeout(WITHIN):
        return await asyncio.open_connection(spec.host, spec.port, ssl=context, server_hostname=name)


async def echo(listeners: Listeners, context: ssl.SSLContext, name: str | None = None) -> Stream:
    """A connection that works. With TLS 1.3 a server's refusal of a client certificate shows in the first read only."""
    stream = await dial(listeners, context, name)
    try:
        stream[1].write(b"x")
        async with asyncio.timeout(WITHIN):
            assert await stream[0].readexactly(1) == b"x"
    except BaseException:
        stream[1].transport.abort()
        raise
    return stream


async def hang_up(*streams: Stream) -> None:
    for _, writer in streams:
        writer.transport.abort()
    await asyncio.sleep(0)


REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


# Versions and suites


async def test_tls_1_3_is_preferred(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    stream = await echo(listeners, authority.client_context())
    chosen = stream[1].get_extra_info("ssl_object")
    assert chosen.version() == "TLSv1.3"
    assert chosen.compression() is None
    await hang_up(stream)


async def test_connection_is_the_protocol_of_the_tls_transport(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    stream = await echo(listeners, authority.client_context())
    (connection,) = harbour.connections
    assert connection.transport is not None
    assert connection.transport.get_protocol() is connection
    assert connection.peer is not None
    assert (connection.peer.is_secure, connection.peer.listener, connection.peer.certificate) == (True, "mqtts", None)
    assert connection.peer.port == stream[1].get_extra_info("sockname")[1]
    assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await hang_up(stream)


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"])
async def test_tls_1_2_with_authenticated_encryption_is_taken(harbour: Harbour, authority: Authority, suite: str) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    context = authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    stream = await echo(listeners, context)
    assert stream[1].get_extra_info("cipher")[0] == suite
    await hang_up(stream)


def _tls_1_1(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def _cbc(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA")


@pytest.mark.parametrize("weaken", [_tls_1_1, _cbc])
async def test_older_versions_and_suites_are_refused(harbour: Harbour, authority: Authority, weaken: Callable[[ssl.SSLContext], None]) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    context = authority.client_context()
    weaken(context)
    with pytest.raises(REFUSED):
        await echo(listeners, context)
    await harbour.has_refused("tls_handshake")
    assert harbour.live == []


def test_context_allows_neither_old_versions_nor_compression_nor_renegotiation(authority: Authority) -> None:
    context = load_context(settings(authority.issue("server")))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION


# Handshakes


async def test_handshake_that_never_comes_is_cut(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")), limits=Limits(connect_timeout=0.05))
    reader, writer = await asyncio.open_connection("127.0.0.1", listeners.addresses[0].port)
    async with asyncio.timeout(WITHIN):
        assert await reader.read() == b""
    await harbour.has_refused("tls_handshake")
    writer.close()


async def test_bytes_that_are_no_tls_are_cut(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    reader, writer = await asyncio.open_connection("127.0.0.1", listeners.addresses[0].port)
    writer.write(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
    async with asyncio.timeout(WITHIN):
        await reader.read()
    await harbour.has_refused("tls_handshake")
    assert harbour.live == []
    writer.close()


async def test_handshakes_under_way_count_against_the_limit_and_end_with_the_listeners(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")), limits=Limits(connections=1))
    first_reader, first = await asyncio.open_connection("127.0.0.1", listeners.addresses[0].port)
    await until(lambda: len(listeners._acceptors[0].handshakes) == 1)
    reader, second = await asyncio.open_connection("127.0.0.1", listeners.addresses[0].port)
    async with asyncio.timeout(WITHIN):
        assert await reader.read() == b""
        assert harbour.refused == {"connections": 1}
        await listeners.close()
        assert await first_reader.read() == b""
    assert not listeners._acceptors[0].handshakes
    first.close()
    second.close()


async def test_connection_accepted_in_the_last_turn_is_closed(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    (acceptor,) = listeners._acceptors
    with socket.create_connection(("127.0.0.1", listeners.addresses[0].port)) as client:
        acceptor._accept()
        (sock,) = acceptor.handshakes.values()
        await acceptor.close()
        assert sock.fileno() == -1
        client.setblocking(False)
        async with asyncio.timeout(WITHIN):
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


async def test_herd_of_handshakes(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server")))
    context = authority.client_context()
    streams = await asyncio.gather(*(echo(listeners, context) for _ in range(60)))
    assert len(harbour.live) == 60
    assert harbour.refused == {}
    await hang_up(*streams)


async def test_websocket_over_tls(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE_WEB, tls=settings(authority.issue("server")))
    address = listeners.addresses[0].address
    async with connect(f"wss://{address}/mqtt", ssl=authority.client_context(), subprotocols=["mqtt"]) as client:  # type: ignore[list-item]
        for size in (1, 100_000):
            await client.send(bytes(size))
            assert len(await client.recv()) > 0
        peer = harbour.connections[0].peer
        assert peer is not None
        assert (peer.listener, peer.is_secure, peer.is_loopback) == ("wss", True, True)
    await harbour.connections[0].is_lost()


# Client certificates


async def test_client_certificate_is_wanted_checked_and_described(harbour: Harbour, authority: Authority) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server"), client_ca=authority.path))
    pair = authority.issue("device", client=True)
    stream = await echo(listeners, authority.client_context(pair))
    peer = harbour.live[0].peer
    assert peer is not None
    assert peer.certificate == pair.der
    await hang_up(stream)


@pytest.mark.parametrize("kind", ["none", "expired", "another authority", "a server's"])
async def test_client_certificate_that_is_no_good_is_refused(harbour: Harbour, authority: Authority, tmp_path: Path, kind: str) -> None:
    listeners = await harbour.open(SECURE, tls=settings(authority.issue("server"), client_ca=authority.path))
    pair = {
        "none": lambda: None,
        "expired": lambda: authority.issue("old", client=True, expired=True),
        "another authority": lambda: Authority(tmp_path, "other").issue("alien", client=True),
        "a server's": lambda: authority.issue("wrong"),
    }[kind]()
    with pytest.raises(REFUSED):
        await echo(listeners, authority.client_context(pair))
    await harbour.has_refused("tls_handshake")
    assert harbour.live == []


# Rotation


def install(pair: Pair, place: Path) -> TlsSettings:
    """Put a pair where the settings point."""
    shutil.copyfile(pair.key, place / "live.key")
    shutil.copyfile(pair.certificate, place / "live.pem")
    (place / "live.key").chmod(0o600)
    return TlsSettings(certificate=place / "live.pem", key=place / "live.key")


async def test_expired_certificate_is_replaced_while_serving(
    harbour: Harbour, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY", 0.01)
    tls = install(authority.issue("expired", expired=True), tmp_path)
    listeners = await harbour.open(SECURE, tls=tls)
    trusting = authority.client_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    old = await echo(listeners, trusting)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await echo(listeners, authority.client_context())
    before = listeners._certificates
    assert before is not None
    context = before.context
    install(authority.issue("fresh"), tmp_path)
    await until(lambda: before.context is not context)
    new = await echo(listeners, authority.client_context())
    old[1].write(b"y")
    async with asyncio.timeout(WITHIN):
        assert await old[0].readexactly(1) == b"y"
    await hang_up(old, new)


def test_certificates_change_with_their_files(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    certificates = Certificates(install(authority.issue("one"), tmp_path))
    first = certificates.context
    certificates.check()
    assert certificates.context is first
    install(authority.issue("two"), tmp_path)
    certificates.check()
    assert certificates.context is not first
    assert caplog.messages == [f"certificate loaded file={tmp_path / 'live.pem'}"]


def test_broken_pair_keeps_the_old_one_with_one_line(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    certificates = Certificates(install(authority.issue("one"), tmp_path))
    first = certificates.context
    two = authority.issue("two")
    shutil.copyfile(two.certificate, tmp_path / "live.pem")
    for _ in range(3):
        certificates.check()
    assert certificates.context is first
    (line,) = caplog.messages
    assert line.startswith("certificate kept, the new one doesn't load reason=tls.key:")
    shutil.copyfile(two.key, tmp_path / "live.key")
    certificates.check()
    assert certificates.context is not first
    (tmp_path / "live.key").unlink()
    certificates.check()
    assert "can't be read (No such file or directory)" in caplog.messages[-1]


def test_pair_that_did_not_load_is_tried_again_though_its_files_look_the_same(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file caught half-written may be finished within the resolution of its time stamp."""
    certificates = Certificates(install(authority.issue("one"), tmp_path))
    first = certificates.context
    install(authority.issue("two"), tmp_path)

    def fails(settings: TlsSettings, trusted: str) -> ssl.SSLContext:
        raise StartError("half of it")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.transports.certificates.load_context", fails)
        certificates.check()
    assert certificates.context is first
    certificates.check()
    assert certificates.context is not first


def test_key_that_others_may_read_is_warned_about(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = authority.issue("server")
    Certificates(settings(pair))
    assert caplog.messages == []
    pair.key.chmod(0o644)
    Certificates(settings(pair))
    assert caplog.messages == [f"private key open to others file={pair.key} mode=644; chmod 600 it"]


# Not starting


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("no certificate", "tls.certificate: a listener with TLS (mqtts, wss) needs"),
        ("no key", "tls.key: a listener with TLS (mqtts, wss) needs"),
        ("missing", "tls.certificate: {folder}/missing.pem can't be read (No such file or directory)"),
        ("folder", "tls.certificate: {folder} can't be read (Is a directory)"),
        ("garbage", "tls.certificate: {folder}/garbage.pem and tls.key {folder}/server.key are not a PEM chain and its key"),
        ("another key", "tls.key: {folder}/other.key is not the key of {folder}/server.pem"),
        ("passphrase", "tls.key: the file is protected by a passphrase"),
        ("garbage authority", "tls.client_ca: {folder}/garbage.pem holds no CA certificate"),
    ],
)
def test_files_that_cannot_serve_are_named(authority: Authority, tmp_path: Path, broken: str, words: str) -> None:
    server = authority.issue("server")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no PEM at all\n")
    tls = {
        "no certificate": lambda: TlsSettings(key=server.key),
        "no key": lambda: TlsSettings(certificate=server.certificate),
        "missing": lambda: TlsSettings(certificate=tmp_path / "missing.pem", key=server.key),
        "folder": lambda: TlsSettings(certificate=tmp_path, key=server.key),
        "garbage": lambda: TlsSettings(certificate=garbage, key=server.key),
        "another key": lambda: TlsSettings(certificate=server.certificate, key=authority.issue("other").key),
        "passphrase": lambda: settings(authority.issue("sealed", passphrase="secret")),
        "garbage authority": lambda: settings(server, client_ca=garbage),
    }[broken]()
    with pytest.raises(StartError) as failure:
        load_context(tls)
    assert str(failure.value).startswith(words.format(folder=tmp_path))
    assert "\n" not in str(failure.value)
