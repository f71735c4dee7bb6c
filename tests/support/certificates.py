"""Certificates for tests: an authority that issues server and client certificates, expired and otherwise bad ones too, as PEM files."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.auth.x509 import serial_text

DAY = timedelta(days=1)
SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")
"""Object identifiers in DER."""


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def signed_with_sha1(der: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """A certificate of an authority with an RSA key, as it would be had it been signed with SHA-1, which no library does any more."""
    changed = der.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)
    certificate = x509.load_der_x509_certificate(changed)
    signature = key.sign(certificate.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - to be refused
    return changed.replace(certificate.signature, signature)


class Pair(NamedTuple):
    """A certificate and its key, as PEM files, and the certificate as DER."""

    certificate: Path
    key: Path
    der: bytes


class Authority:
    """Issues into ``folder``. Keys are elliptic unless one is given: making one takes a millisecond."""

    def __init__(
        self,
        folder: Path,
        name: str = "authority",
        *,
        of: Authority | None = None,
        subject: str = "",
        serial: int | None = None,
        key: rsa.RSAPrivateKey | None = None,
        ca: bool = True,
    ) -> None:
        """``of``: an intermediate authority, issued by that one; ``ca`` False: it is none by its word. ``name`` names the file, and is the
        subject where that is empty."""
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject or name)])
        self._key: Key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        issuer = of or self
        builder = issuer._builder(self._name, self._key, now - DAY, now + 30 * DAY, serial)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = builder.add_extension(usage, critical=True).sign(issuer._key, hashes.SHA256())
        self._subject_key = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.pem = self.path.read_text()
        self.serial = serial_text(certificate.serial_number)

    def issue(
        self,
        name: str,
        *,
        client: bool = False,
        expired: bool = False,
        early: bool = False,
        passphrase: str | None = None,
        common_names: Sequence[str] | None = None,
        serial: int | None = None,
        key: Key | None = None,
        dns_names: Sequence[str] = ("localhost",),
    ) -> Pair:
        """A pair for localhost, 127.0.0.1 and ::1, or for a client; ``name`` names its files and is its common name, unless there are others."""
        now = datetime.now(UTC)
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in ([name] if common_names is None else common_names)])
        builder = self._builder(subject, key, now + DAY if early else now - 10 * DAY, now - DAY if expired else now + 10 * DAY, serial)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._subject_key), critical=False)
        if not client:
            addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
            builder = builder.add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, dns_names), *addresses]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key", certificate.public_bytes(serialization.Encoding.DER))
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        sealed = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        pair.key.touch(0o600)
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
        return pair

    def verification(self, code: str) -> str:
        """A verification certificate, as PEM: it proves that somebody has the authority's key."""
        return self.issue("verification", client=True, common_names=[code]).certificate.read_text()

    def revocations(self, *pairs: Pair, expired: bool = False) -> str:
        """A revocation list, as PEM."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self._name).last_update(now - 2 * DAY).next_update(now - DAY if expired else now + DAY)
        for pair in pairs:
            serial = x509.load_der_x509_certificate(pair.der).serial_number
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, now - DAY).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """What a client uses that trusts this authority alone, and shows ``pair`` when asked."""
        context = ssl.create_default_context(cafile=str(self.path))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def _builder(self, subject: x509.Name, key: Key, begin: datetime, end: datetime, serial: int | None = None) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(issuer_name=self._name, subject_name=subject, public_key=key.public_key())
        builder = builder.serial_number(serial or x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
