"""Client certificates of registered authorities: asked for where there are any, verified where one is shown, by the authorities of this moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from gateway.transports.certificates import Certificates
from gateway.transports.endpoints import ListenerSpec
from schemas.settings import TlsSettings
from tests.support.certificates import Authority, Pair
from tests.unit.gateway.transports.fakes import Harbour
from tests.unit.gateway.transports.test_tls import REFUSED, SECURE, SECURE_WEB, echo, hang_up, settings


class Register:
    """The authorities of a gateway, as TLS sees them."""

    def __init__(self, *authorities: Authority) -> None:
        self.pem = "".join(authority.pem for authority in authorities)

    def __call__(self) -> str:
        return self.pem


async def shown(harbour: Harbour, authority: Authority, pair: Pair | None, spec: ListenerSpec = SECURE) -> bytes | None:
    """What the gateway has seen of a client's certificate, on the listener that is open."""
    stream = await echo(harbour._opened[-1], authority.client_context(pair))
    peer = harbour.connections[-1].peer
    assert peer is not None
    await hang_up(stream)
    return peer.certificate


@pytest.fixture
def factory(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "factory")


async def test_nobody_is_asked_where_no_authority_is_registered(harbour: Harbour, authority: Authority, factory: Authority) -> None:
    await harbour.open(SECURE, tls=settings(authority.issue("server")))
    assert await shown(harbour, authority, factory.issue("d1", client=True)) is None


async def test_a_certificate_is_taken_and_none_as_well(harbour: Harbour, authority: Authority, factory: Authority) -> None:
    await harbour.open(SECURE, tls=settings(authority.issue("server")), trusted=Register(factory))
    pair = factory.issue("d1", client=True)
    assert await shown(harbour, authority, pair) == pair.der
    assert await shown(harbour, authority, None) is None


async def test_a_certificate_is_shown_over_a_websocket(harbour: Harbour, authority: Authority, factory: Authority) -> None:
    listeners = await harbour.open(SECURE_WEB, tls=settings(authority.issue("server")), trusted=Register(factory))
    pair = factory.issue("d1", client=True)
    context = authority.client_context(pair)
    async with connect(f"wss://{listeners.addresses[0].address}/mqtt", ssl=context, subprotocols=["mqtt"]) as client:  # type: ignore[list-item]
        await client.send(b"x")
        await client.recv()
        peer = harbour.connections[0].peer
        assert peer is not None
        assert peer.certificate == pair.der


async def test_authorities_come_and_go_while_the_listener_serves(harbour: Harbour, authority: Authority, factory: Authority) -> None:
    register, pair = Register(), factory.issue("d1", client=True)
    other = Authority(factory.path.parent, "other")
    await harbour.open(SECURE, tls=settings(authority.issue("server")), trusted=register)
    assert await shown(harbour, authority, pair) is None
    register.pem = factory.pem + other.pem
    assert await shown(harbour, authority, pair) == pair.der
    register.pem = other.pem
    with pytest.raises(REFUSED):
        await shown(harbour, authority, pair)
    await harbour.has_refused("tls_handshake")


async def test_an_intermediate_authority_is_one_like_another(harbour: Harbour, authority: Authority, factory: Authority) -> None:
    line = Authority(factory.path.parent, "line", of=factory)
    await harbour.open(SECURE, tls=settings(authority.issue("server")), trusted=Register(line))
    pair = line.issue("d1", client=True)
    assert await shown(harbour, authority, pair) == pair.der
    with pytest.raises(REFUSED):
        await shown(harbour, authority, factory.issue("d2", client=True))


@pytest.mark.parametrize("kind", ["expired", "not valid yet", "a stranger's", "a server's", "an imitation's"])
async def test_a_certificate_that_is_no_good_is_refused_though_none_is_demanded(
    harbour: Harbour, authority: Authority, factory: Authority, tmp_path: Path, kind: str
) -> None:
    await harbour.open(SECURE, tls=settings(authority.issue("server")), trusted=Register(factory))
    pair = {
        "expired": lambda: factory.issue("d", client=True, expired=True),
        "not valid yet": lambda: factory.issue("d", client=True, early=True),
        "a stranger's": lambda: Authority(tmp_path, "stranger").issue("d", client=True),
        "a server's": lambda: factory.issue("d"),
        "an imitation's": lambda: Authority(tmp_path, "imitation", subject="factory").issue("d", client=True),
    }[kind]()
    with pytest.raises(REFUSED):
        await shown(harbour, authority, pair)
    await harbour.has_refused("tls_handshake")
    assert harbour.live == []


@pytest.mark.parametrize("registered", [False, True])
async def test_a_certificate_may_be_demanded(harbour: Harbour, authority: Authority, factory: Authority, registered: bool) -> None:
    server = authority.issue("server")
    tls = TlsSettings(certificate=server.certificate, key=server.key, require_client_certificate=True)
    await harbour.open(SECURE, tls=tls, trusted=Register(*[factory] * registered))
    with pytest.raises(REFUSED):
        await shown(harbour, authority, None)
    if registered:
        assert await shown(harbour, authority, factory.issue("d1", client=True))


async def test_registered_authorities_stand_beside_those_of_the_file(harbour: Harbour, authority: Authority, factory: Authority) -> None:
    await harbour.open(SECURE, tls=settings(authority.issue("server"), client_ca=authority.path), trusted=Register(factory))
    for pair in (factory.issue("d1", client=True), authority.issue("d2", client=True)):
        assert await shown(harbour, authority, pair) == pair.der
    with pytest.raises(REFUSED):
        await shown(harbour, authority, None)


def test_files_that_are_broken_when_an_authority_changes_keep_the_context(
    authority: Authority, factory: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    server, register = authority.issue("server"), Register()
    certificates = Certificates(settings(server), register)
    before = certificates.context
    key = server.key.read_text()
    server.key.write_text("broken")
    register.pem = factory.pem
    assert certificates.context is before
    assert caplog.messages[0].startswith("certificate kept, the new one doesn't load reason=tls.certificate:")
    server.key.write_text(key)
    certificates.check()
    assert certificates.context is not before
