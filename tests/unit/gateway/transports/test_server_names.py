"""Several certificates on a listener: each client gets the one that names the server it asks for, else the default; they change with their files."""

from __future__ import annotations

import logging
import shutil
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from gateway.transports import listeners as module
from gateway.transports import server_names
from gateway.transports.certificates import Certificates
from gateway.transports.listeners import Listeners
from gateway.transports.server_names import ServerNames, dns_names
from schemas.errors import StartError
from schemas.settings import NamedCertificate, TlsSettings
from tests.support.certificates import Authority, Pair
from tests.unit.gateway.transports.fakes import Harbour, until
from tests.unit.gateway.transports.test_client_certificates import Register
from tests.unit.gateway.transports.test_tls import REFUSED, SECURE, SECURE_WEB, dial, echo, hang_up

ONE, TWO = ("one.example", "*.one.example"), ("Two.Example", "x.one.example")


def named(default: Pair, *pairs: Pair, client_ca: Path | None = None) -> TlsSettings:
    certificates = tuple(NamedCertificate(certificate=pair.certificate, key=pair.key) for pair in pairs)
    return TlsSettings(certificate=default.certificate, key=default.key, client_ca=client_ca, certificates=certificates)


class Server:
    """A default certificate and two more."""

    def __init__(self, authority: Authority) -> None:
        self.default = authority.issue("default")
        self.one, self.two = authority.issue("one", dns_names=ONE), authority.issue("two", dns_names=TWO)
        self.tls = named(self.default, self.one, self.two)

    def called(self, der: bytes | None) -> str:
        return next(name for name in ("default", "one", "two") if getattr(self, name).der == der)


@pytest.fixture
def server(authority: Authority) -> Server:
    return Server(authority)


def blind(authority: Authority, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that takes whatever certificate it gets, of whatever name."""
    context = authority.client_context()
    context.check_hostname = False
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def got(listeners: Listeners, context: ssl.SSLContext, name: str) -> bytes | None:
    """The certificate that a client gets who asks for a name."""
    stream = await dial(listeners, context, name)
    certificate: bytes | None = stream[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
    await hang_up(stream)
    return certificate


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_each_name_has_its_certificate(harbour: Harbour, authority: Authority, server: Server, version: ssl.TLSVersion) -> None:
    listeners = await harbour.open(SECURE, tls=server.tls)
    expected = {
        "one.example": "one", "a.one.example": "one", "x.one.example": "two", "ONE.EXAMPLE": "one", "two.example": "two",
        "a.b.one.example": "default", "a.two.example": "default", "example": "default", "localhost": "default", "127.0.0.1": "default",
    }  # fmt: skip
    found = {name: server.called(await got(listeners, blind(authority, version), name)) for name in expected}
    assert found == expected


async def test_clients_that_check_the_name_are_content(harbour: Harbour, authority: Authority, server: Server) -> None:
    listeners = await harbour.open(SECURE_WEB, tls=server.tls)
    for name in ("two.example", "a.one.example", "localhost"):
        address, port = listeners.addresses[0].host, listeners.addresses[0].port
        uri, checking = f"wss://{name}:{port}/mqtt", authority.client_context()
        async with connect(uri, host=address, port=port, ssl=checking, subprotocols=["mqtt"]) as client:  # type: ignore[list-item]
            await client.send(b"x")
            assert await client.recv() == b"x"
    with pytest.raises(ssl.SSLCertVerificationError, match="other.example"):
        await dial(listeners, authority.client_context(), "other.example")


async def test_client_certificates_are_judged_under_every_name(harbour: Harbour, authority: Authority, server: Server, tmp_path: Path) -> None:
    """By the authority of the settings and by those that are registered, now and later."""
    factory, stranger, register = Authority(tmp_path, "factory"), Authority(tmp_path, "stranger"), Register()
    tls = named(server.default, server.one, client_ca=authority.path)
    listeners = await harbour.open(SECURE, tls=tls, trusted=register)
    good, later, bad = (each.issue(f"d{number}", client=True) for number, each in enumerate((authority, factory, stranger)))

    async def seen(pair: Pair | None, name: str) -> bytes | None:
        stream = await echo(listeners, authority.client_context(pair), name)
        peer = harbour.connections[-1].peer
        assert peer is not None
        await hang_up(stream)
        return peer.certificate

    for name in ("localhost", "one.example"):
        assert await seen(good, name) == good.der
        for pair in (bad, later, None):
            with pytest.raises(REFUSED):
                await seen(pair, name)
    register.pem = factory.pem
    for name in ("localhost", "one.example"):
        assert await seen(later, name) == later.der


async def test_a_certificate_is_replaced_while_serving(
    harbour: Harbour, authority: Authority, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY", 0.01)
    listeners = await harbour.open(SECURE, tls=server.tls)
    old = await echo(listeners, blind(authority), "one.example")
    fresh = authority.issue("fresh", dns_names=("one.example", "new.example"))
    certificates = listeners._certificates
    assert certificates is not None
    before = certificates.context
    replace(fresh, server.one)
    await until(lambda: certificates.context is not before)
    assert await got(listeners, blind(authority), "one.example") == fresh.der
    assert await got(listeners, blind(authority), "new.example") == fresh.der
    assert server.called(await got(listeners, blind(authority), "a.one.example")) == "default"
    assert server.called(await got(listeners, blind(authority), "two.example")) == "two"
    await hang_up(old)


def replace(pair: Pair, place: Pair) -> None:
    """As certbot and its like do it: under another name first, so that nobody sees half a file."""
    for source, target in ((pair.key, place.key), (pair.certificate, place.certificate)):
        draft = target.with_name("draft")
        shutil.copyfile(source, draft)
        draft.chmod(0o600)
        draft.replace(target)


def test_one_that_does_not_load_keeps_all_with_one_line(authority: Authority, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    certificates = Certificates(server.tls)
    before = certificates.for_name("two.example")
    assert before is not certificates.context
    assert certificates.for_name("other.example") is certificates.for_name(None) is certificates.context
    replace(authority.issue("fresh"), server.default)
    shutil.copyfile(server.one.key, server.two.key)
    for _ in range(2):
        certificates.check()
    assert certificates.for_name("two.example") is before
    (line,) = caplog.messages
    assert line.startswith("certificate kept, the new one doesn't load reason=tls.certificates: section 2: tls.key:")
    replace(authority.issue("again", dns_names=TWO), server.two)
    certificates.check()
    assert certificates.for_name("two.example") is not before


def test_keys_that_others_may_read_are_warned_about(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.two.key.chmod(0o640)
    Certificates(server.tls)
    assert [line.split(" mode")[0] for line in caplog.messages] == [f"private key open to others file={server.two.key}"]


def test_what_is_wrong_names_its_section(authority: Authority, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nameless, again = authority.issue("nameless", dns_names=()), authority.issue("again", dns_names=("other.example", "two.example"))
    for pairs, words in (
        ((server.one, nameless), "section 2: certificate .*nameless.pem has no DNS name"),
        ((server.two, server.one, again), "section 3: two.example is a name of a section before it"),
        ((server.one._replace(key=server.two.key),), "section 1: tls.key: .*two.key is not the key of"),
        ((server.one._replace(certificate=tmp_path / "none"),), r"section 1: tls.certificate: .*none can't be read \(No such file"),
    ):
        with pytest.raises(StartError, match=f"^tls.certificates: {words}"):
            Certificates(named(server.default, *pairs))
    monkeypatch.setattr(server_names, "MAX_NAMES", 3)
    with pytest.raises(StartError, match="more than 3 names"):
        Certificates(server.tls)


def test_a_client_certificate_has_no_server_names(authority: Authority, tmp_path: Path) -> None:
    assert dns_names(authority.issue("server").certificate) == ["localhost"]
    with pytest.raises(StartError, match="no DNS name"):
        dns_names(authority.issue("device", client=True).certificate)
    (tmp_path / "other").write_text("no certificate")
    with pytest.raises(StartError, match="can't be read"):
        dns_names(tmp_path / "other")


@pytest.mark.parametrize("name", [None, "", ".", "*", ".one.example", "one.example.", "\x00", "x" * 300])
def test_what_is_no_name_of_one_has_the_default(name: str | None) -> None:
    names, context = ServerNames(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names.add(["one.example", "*.two.example"], context)
    assert names.find(name) is None
    assert names.find("one.example") is names.find("a.two.example") is context
