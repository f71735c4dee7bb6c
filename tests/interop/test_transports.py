"""Listeners against other people's TLS and WebSocket: OpenSSL's own client, and the WebSocket that is built into Node."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.transports.listeners import Listeners, ListenerSpec
from schemas.settings import NamedCertificate, TlsSettings
from tests.support.certificates import Authority
from tests.support.node import node_and_npm
from tests.unit.gateway.transports.fakes import Harbour

WITHIN = 20.0
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed: apt-get install openssl")
OLD = ("-cipher", "DEFAULT:@SECLEVEL=0")
"""What lets the client itself speak versions that its own defaults refuse."""

SCRIPT = """
const [url, protocol] = process.argv.slice(1);
const socket = protocol ? new WebSocket(url, protocol) : new WebSocket(url);
socket.binaryType = "arraybuffer";
let got = 0;
socket.onopen = () => { for (const size of [1, 200, 70000]) socket.send(new Uint8Array(size)); };
socket.onmessage = (event) => { got += event.data.byteLength; if (got === 70201) socket.close(1000); };
socket.onerror = () => console.log("refused");
socket.onclose = (event) => console.log(`closed ${event.code} protocol=${socket.protocol} got=${got}`);
"""


@pytest.fixture
async def harbour() -> AsyncIterator[Harbour]:
    harbour = Harbour()
    yield harbour
    await harbour.close()


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(WITHIN):
            text, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return text.decode()


async def s_client(listeners: Listeners, authority: Authority, *options: str) -> str:
    assert OPENSSL is not None
    return await output(OPENSSL, "s_client", "-connect", listeners.addresses[0].address, "-CAfile", str(authority.path), *options)


async def secure_listener(harbour: Harbour, authority: Authority) -> Listeners:
    pair = authority.issue("server")
    return await harbour.open(ListenerSpec("mqtts", "127.0.0.1", 0), tls=TlsSettings(certificate=pair.certificate, key=pair.key))


@needs_openssl
@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_openssl_client(harbour: Harbour, tmp_path: Path, version: str) -> None:
    authority = Authority(tmp_path)
    text = await s_client(await secure_listener(harbour, authority), authority, f"-tls{version.replace('.', '_')}")
    assert f"New, TLSv{version}, Cipher is" in text
    assert "Verify return code: 0 (ok)" in text
    assert "Compression: NONE" in text


@needs_openssl
async def test_openssl_client_that_asks_for_a_name(harbour: Harbour, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("server"), authority.issue("other", dns_names=("other.example",))
    certificates = (NamedCertificate(certificate=other.certificate, key=other.key),)
    tls = TlsSettings(certificate=pair.certificate, key=pair.key, certificates=certificates)
    listeners = await harbour.open(ListenerSpec("mqtts", "127.0.0.1", 0), tls=tls)
    for options, subject in ((("-servername", "other.example"), "other"), (("-servername", "x.example"), "server"), (("-noservername",), "server")):
        assert f"subject=CN = {subject}\n" in await s_client(listeners, authority, *options)


@needs_openssl
@pytest.mark.parametrize(
    "options",
    [("-tls1_2", "-cipher", "AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA"), ("-tls1_1", *OLD), ("-tls1", *OLD)],
    ids=["no forward secrecy or no authenticated encryption", "tls1.1", "tls1.0"],
)
async def test_openssl_client_with_less_is_refused(harbour: Harbour, tmp_path: Path, options: tuple[str, ...]) -> None:
    authority = Authority(tmp_path)
    text = await s_client(await secure_listener(harbour, authority), authority, *options)
    assert "Cipher is (NONE)" in text
    await harbour.has_refused("tls_handshake")


async def node(url: str, *protocol: str) -> list[str]:
    program, _ = node_and_npm()
    return (await output(str(program), "-e", SCRIPT, url, *protocol)).splitlines()


async def test_node_websocket(harbour: Harbour) -> None:
    """[MQTT-6.0.0-4] seen by a browser's kind of client: it fails the connection where the server selects nothing or something else."""
    listeners = await harbour.open(ListenerSpec("ws", "127.0.0.1", 0))
    address = listeners.addresses[0].address
    assert await node(f"ws://{address}/mqtt", "mqtt") == ["closed 1000 protocol=mqtt got=70201"]


async def test_node_websocket_without_the_subprotocol(harbour: Harbour) -> None:
    """[MQTT-6.0.0-3]"""
    listeners = await harbour.open(ListenerSpec("ws", "127.0.0.1", 0))
    address = listeners.addresses[0].address
    assert await node(f"ws://{address}/mqtt") == ["refused", "closed 1006 protocol= got=0"]
    assert harbour.connections == []
