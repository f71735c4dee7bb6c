"""Handshakes that must not come about, each beside one that does: whoever is refused differs from whoever is taken in one respect."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.transports import listeners as module
from gateway.transports.certificates import load_context
from schemas.errors import StartError
from schemas.settings import TlsSettings
from tests.support.certificates import Authority, Pair, signed_with_sha1
from tests.unit.gateway.transports.fakes import Harbour, until
from tests.unit.gateway.transports.test_client_certificates import Register
from tests.unit.gateway.transports.test_tls import REFUSED, SECURE, _tls_1_1, echo, hang_up

pytestmark = pytest.mark.slow

KEY = rsa.generate_private_key(65537, 2048)


class Site:
    """A listener that demands client certificates of one authority and heeds its revocations. RSA keys, so that there are bad suites to choose."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = Authority(folder, "servers", key=KEY)
        self.devices = Authority(folder, "devices", key=KEY)
        self.revoked = self.device("revoked")
        server = self.servers.issue("server", key=KEY)
        self.crl = folder / "devices.crl"
        self.crl.write_text(self.devices.revocations(self.revoked))
        self.tls = TlsSettings(certificate=server.certificate, key=server.key, client_crl=self.crl, require_client_certificate=True)

    def device(self, name: str = "d", **options: bool) -> Pair:
        return self.devices.issue(name, client=True, **options)  # type: ignore[arg-type]

    def stranger(self, subject: str) -> Pair:
        return Authority(self.folder, "stranger", subject=subject).issue("d", client=True)

    def weak(self) -> Pair:
        pair = self.device()
        pair.certificate.write_text(ssl.DER_cert_to_PEM_cert(signed_with_sha1(pair.der, KEY)))
        return pair

    def below(self) -> Pair:
        """Issued by a device that takes itself for an authority."""
        device = Authority(self.folder, "device", of=self.devices, ca=False)
        pair = device.issue("below", client=True)
        pair.certificate.write_text(pair.certificate.read_text() + device.pem)
        return pair

    def by_itself(self) -> Pair:
        """Its own issuer."""
        own = Authority(self.folder, "own", key=KEY, ca=False)
        return self.devices.issue("own key", client=True, key=KEY)._replace(certificate=own.path)


def _as_it_is(context: ssl.SSLContext) -> None:
    """What most clients would do."""


def _cbc_with_rsa(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES128-SHA")


def _without_forward_secrecy(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256:AES256-GCM-SHA384")


def _careless(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or it would not even load what it is to show


NEGATIVES: dict[str, tuple[Callable[[Site], Pair | None], Callable[[ssl.SSLContext], None], str]] = {
    "no certificate": (lambda site: None, _as_it_is, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "expired": (lambda site: site.device(expired=True), _as_it_is, "expired"),
    "not valid yet": (lambda site: site.device(early=True), _as_it_is, "not yet valid"),
    "revoked": (lambda site: site.revoked, _as_it_is, "revoked"),
    "of another authority": (lambda site: site.stranger("stranger"), _as_it_is, "issuer"),
    "of an imitation of the authority": (lambda site: site.stranger("devices"), _as_it_is, "issuer"),
    "signed by itself": (Site.by_itself, _as_it_is, "self"),
    "issued by a device": (Site.below, _as_it_is, "invalid CA"),
    "a server's": (lambda site: site.devices.issue("d"), _as_it_is, "purpose"),
    "signed with SHA-1": (Site.weak, _careless, "too weak"),
    "TLS 1.1": (Site.device, _tls_1_1, "UNSUPPORTED_PROTOCOL"),
    "CBC": (Site.device, _cbc_with_rsa, "NO_SHARED_CIPHER"),
    "no forward secrecy": (Site.device, _without_forward_secrecy, "NO_SHARED_CIPHER"),
}
"""Who comes with which certificate and in which way, and a word of the reason why that doesn't do."""


def _client(site: Site, pair: Pair | None, weaken: Callable[[ssl.SSLContext], None]) -> ssl.SSLContext:
    context = site.servers.client_context()
    weaken(context)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("weaken", [_as_it_is, _careless])
async def test_who_is_as_it_should_be_comes_in(harbour: Harbour, site: Site, weaken: Callable[[ssl.SSLContext], None]) -> None:
    listeners = await harbour.open(SECURE, tls=site.tls, trusted=Register(site.devices))
    await hang_up(await echo(listeners, _client(site, site.device(), weaken)))
    assert harbour.refused == {}


@pytest.mark.parametrize("name", NEGATIVES)
async def test_who_is_not_stays_outside(harbour: Harbour, site: Site, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gateway.transports.tls")
    listeners = await harbour.open(SECURE, tls=site.tls, trusted=Register(site.devices))
    make, weaken, words = NEGATIVES[name]
    with pytest.raises(REFUSED):
        await echo(listeners, _client(site, make(site), weaken))
    await harbour.has_refused("tls_handshake")
    assert harbour.live == []
    assert words in caplog.messages[-1]


async def test_a_client_that_wants_another_host_stays_outside(harbour: Harbour, site: Site) -> None:
    listeners = await harbour.open(SECURE, tls=site.tls, trusted=Register(site.devices))
    spec = listeners.addresses[0]
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await asyncio.open_connection(spec.host, spec.port, ssl=_client(site, site.device(), _as_it_is), server_hostname="another.example")
    await harbour.has_refused("tls_handshake")


# Revocation lists


async def test_a_certificate_is_revoked_while_the_listener_serves(harbour: Harbour, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY", 0.01)
    listeners = await harbour.open(SECURE, tls=site.tls, trusted=Register(site.devices))
    pair = site.device()
    await hang_up(await echo(listeners, _client(site, pair, _as_it_is)))
    assert listeners._certificates is not None
    before = listeners._certificates.context
    site.crl.write_text(site.devices.revocations(site.revoked, pair))
    await until(lambda: listeners._certificates is not None and listeners._certificates.context is not before)
    with pytest.raises(REFUSED):
        await echo(listeners, _client(site, pair, _as_it_is))


@pytest.mark.parametrize("kind", ["expired", "of another authority", "signed by another authority"])
async def test_without_a_good_list_of_its_authority_nobody_comes_in(harbour: Harbour, site: Site, kind: str) -> None:
    other = Authority(site.folder, "other", subject="devices" if kind.startswith("signed") else "other", key=rsa.generate_private_key(65537, 2048))
    site.crl.write_text(site.devices.revocations(expired=True) if kind == "expired" else other.revocations())
    listeners = await harbour.open(SECURE, tls=site.tls, trusted=Register(site.devices))
    with pytest.raises(REFUSED):
        await echo(listeners, _client(site, site.device(), _as_it_is))


@pytest.mark.parametrize("content", ["", "no PEM", "a certificate"])
def test_a_file_without_a_list_is_named(site: Site, content: str) -> None:
    site.crl.write_text(site.devices.pem if content == "a certificate" else content)
    with pytest.raises(StartError, match=r"tls.client_crl: .* holds no revocation list"):
        load_context(site.tls)
    site.crl.unlink()
    with pytest.raises(StartError, match=r"tls.client_crl: .* can't be read"):
        load_context(site.tls)


# What is offered


def test_the_context_has_nothing_that_is_weak(site: Site) -> None:
    context = load_context(site.tls)
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_CIPHER_SERVER_PREFERENCE):
        assert context.options & option
    for suite in context.get_ciphers():
        assert suite["aead"], suite["name"]
        assert suite["protocol"] == "TLSv1.3" or suite["kea"] == "kx-ecdhe", suite["name"]
        assert suite["strength_bits"] >= 128
