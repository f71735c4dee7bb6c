"""What X.509 certificates say: authorities that a user wants to register, and certificates that devices show. Pure.

That the chain of a device's certificate holds is TLS's business (gateway/transports/certificates.py); here is by whom it was issued, and what
its one name is: the single common name of its subject, never a pattern over the subject. Which authorities there are is client_certificates.py's.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from schemas.errors import SluicewayError
from schemas.reasons import ReasonCode

MAX_PEM: Final = 32 * 1024
"""Characters of a certificate as PEM."""
MAX_NAME: Final = 64
MAX_SERIAL: Final = 128
"""Characters of a serial number; one of X.509 has 40 digits at most."""
MIN_RSA_BITS: Final = 2048
MIN_EC_BITS: Final = 224

_SERIAL: Final = re.compile(r"[0-9a-f]+")
_WEAK: Final = (hashes.MD5, hashes.SHA1)
_UNREADABLE: Final = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What ``cryptography`` says to certificates of which a part is not well formed. Parts are read when they are asked for."""


class CertificateRefused(SluicewayError):
    """An authority that can't be registered; ``part`` is name, ca or verification. ``is_code``, ``exists``: because the registration code is
    another, or because it is registered already."""

    reason_code = ReasonCode.NOT_AUTHORIZED

    def __init__(self, part: str, message: str, *, is_code: bool = False, exists: bool = False) -> None:
        super().__init__(message)
        self.part = part
        self.is_code = is_code
        self.exists = exists


def serial_text(serial: int) -> str:
    """A serial number as it is shown: hexadecimal digits, an even number of them."""
    digits = f"{serial:x}"
    return digits if len(digits) % 2 == 0 else "0" + digits


def read_serial(text: str) -> str:
    """A serial number as somebody typed it, with colons, in capitals or with zeros in front; empty where it is none."""
    digits = text.replace(":", "").lower()
    if len(digits) > MAX_SERIAL or not _SERIAL.fullmatch(digits):
        return ""
    return serial_text(int(digits, 16))


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def der_to_pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


def common_name(certificate: x509.Certificate) -> str:
    """The one common name; empty where there are none or several, or where it is empty, too long or not printable."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE:
        return ""
    name = names[0].value if len(names) == 1 else ""
    return name if isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable() and name != "*" else ""


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority itself has signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def read_pem(part: str, text: str) -> x509.Certificate:
    """One certificate, all of whose parts that matter can be read."""
    if len(text) > MAX_PEM or "\x00" in text:
        raise CertificateRefused(part, f"must have at most {MAX_PEM} characters, none of them NUL")
    if text.count("-----BEGIN CERTIFICATE-----") != 1:
        raise CertificateRefused(part, "must be one certificate in PEM form")
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
        _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key(), certificate.serial_number
    except _UNREADABLE:
        raise CertificateRefused(part, "is not a well-formed certificate in PEM form") from None
    except Exception as error:  # noqa: BLE001 - keys of unknown kinds are told by an exception of their own
        raise CertificateRefused(part, f"can't be read ({type(error).__name__})") from None
    return certificate


def read_authority(text: str, now: int) -> x509.Certificate:
    """The certificate of an authority that devices' certificates may be issued by; ``now`` in ms. CertificateRefused where it is none."""
    certificate = read_pem("ca", text)
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise CertificateRefused("ca", "is not an authority's certificate: its basic constraints don't say CA")
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    if not may_sign:
        raise CertificateRefused("ca", "may not sign certificates: its key usage lacks that")
    if not certificate.subject.rdns:
        raise CertificateRefused("ca", "has an empty subject, by which no issuer can be found")
    _check_strength(certificate)
    _check_time("ca", certificate, now)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=to_pem(certificate))
    except (ssl.SSLError, ValueError):
        raise CertificateRefused("ca", "is one that OpenSSL can't load") from None
    return certificate


def check_verification(text: str, authority: x509.Certificate, code: str, now: int) -> x509.Certificate:
    """That whoever registers an authority has its key: it has signed a certificate whose common name is the registration code."""
    certificate = read_pem("verification", text)
    if not is_issued_by(certificate, authority):
        raise CertificateRefused("verification", "is not signed by the authority's key")
    if common_name(certificate) != code:
        raise CertificateRefused("verification", "must have the registration code as its one common name", is_code=True)
    _check_time("verification", certificate, now)
    return certificate


def _check_strength(certificate: x509.Certificate) -> None:
    """OpenSSL's security level would refuse such an authority at each handshake; here it is told once."""
    key = certificate.public_key()
    if isinstance(key, dsa.DSAPublicKey):
        raise CertificateRefused("ca", "has a DSA key: use RSA, ECDSA or Ed25519")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise CertificateRefused("ca", f"has an RSA key of less than {MIN_RSA_BITS} bits")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < MIN_EC_BITS:
        raise CertificateRefused("ca", f"has an elliptic key of less than {MIN_EC_BITS} bits")
    if has_weak_signature(certificate):
        raise CertificateRefused("ca", "is signed with SHA-1 or MD5")


def has_weak_signature(certificate: x509.Certificate) -> bool:
    try:
        return isinstance(certificate.signature_hash_algorithm, _WEAK)
    except Exception:  # noqa: BLE001 - an unknown algorithm
        return True


def _check_time(part: str, certificate: x509.Certificate, now: int) -> None:
    moment = datetime.fromtimestamp(now / 1000, UTC)
    if moment < certificate.not_valid_before_utc:
        raise CertificateRefused(part, "is not valid yet")
    if moment > certificate.not_valid_after_utc:
        raise CertificateRefused(part, "has expired")
