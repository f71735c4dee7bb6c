"""What certificates say: which authorities may be registered, what proves their key, and by which one name a device is known."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID

from gateway.auth.x509 import CertificateRefused, check_verification, common_name, der_to_pem, is_issued_by, read_authority, read_serial, serial_text
from tests.support.certificates import Authority, signed_with_sha1

NOW = int(datetime.now(UTC).timestamp() * 1000)
DAY = timedelta(days=1)
DAY_MS = 86_400_000


def made(*names, ca=True, usage=None, key=None, begin=-DAY, end=DAY):
    """A self-signed certificate as PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in names])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now + begin, now + end)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if usage is not None:
        builder = builder.add_extension(x509.KeyUsage(True, False, False, False, False, usage, usage, False, False), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be one certificate in PEM form"),
        ("no PEM", "must be one certificate in PEM form"),
        (made("a") + made("b"), "must be one certificate in PEM form"),
        ("x" * 40_000, "at most 32768 characters"),
        (made("a") + "\x00", "none of them NUL"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a well-formed certificate"),
        (made("a").replace("M", "N", 1), "not a well-formed certificate"),
        (made("a", ca=None), "basic constraints don't say CA"),
        (made("a", ca=False), "basic constraints don't say CA"),
        (made("a", usage=False), "may not sign certificates"),
        (made(), "empty subject"),
        (made("a", key=rsa.generate_private_key(65537, 1024)), "RSA key of less than 2048 bits"),  # noqa: S505 - to be refused
        (made("a", key=ec.generate_private_key(ec.SECP192R1())), "elliptic key of less than 224 bits"),
        (made("a", begin=DAY / 2), "not valid yet"),
        (made("a", end=-DAY / 2), "has expired"),
    ],
)
def test_what_is_no_authority_is_told(text, words):
    with pytest.raises(CertificateRefused, match=words) as refused:
        read_authority(text, NOW)
    assert refused.value.part == "ca"


@pytest.mark.slow
def test_a_dsa_key_is_refused():
    with pytest.raises(CertificateRefused, match="DSA"):
        read_authority(made("a", key=dsa.generate_private_key(2048)), NOW)


@pytest.mark.slow
def test_an_authority_signed_with_sha_1_is_refused(tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    authority = Authority(tmp_path, key=key)
    assert read_authority(authority.pem, NOW)
    weak = signed_with_sha1(x509.load_pem_x509_certificate(authority.pem.encode()).public_bytes(serialization.Encoding.DER), key)
    with pytest.raises(CertificateRefused, match="SHA-1"):
        read_authority(der_to_pem(weak), NOW)


@pytest.mark.parametrize("usage", [None, True])
def test_an_authority_is_read(usage):
    assert read_authority("a comment\n" + made("a", usage=usage), NOW).serial_number == 7


def test_the_key_of_an_authority_is_proved_by_its_signature_under_the_code(tmp_path):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate = read_authority(authority.pem, NOW)
    check_verification(authority.verification("code"), certificate, "code", NOW)
    for text, words, is_code in (
        (authority.verification("codf"), "registration code", True),
        (other.verification("code"), "not signed by the authority's key", False),
        (authority.pem, "registration code", True),
        (authority.issue("two", common_names=["code", "code"]).certificate.read_text(), "registration code", True),
        (authority.issue("late", common_names=["code"], expired=True).certificate.read_text(), "has expired", False),
        (authority.issue("early", common_names=["code"], early=True).certificate.read_text(), "not valid yet", False),
        ("x", "PEM", False),
    ):
        with pytest.raises(CertificateRefused, match=words) as refused:
            check_verification(text, certificate, "code", NOW)
        assert (refused.value.part, refused.value.is_code) == ("verification", is_code)


def test_an_authority_of_the_same_name_has_issued_nothing(tmp_path):
    authority, imitation = Authority(tmp_path, "one", subject="same"), Authority(tmp_path, "two", subject="same")
    device = x509.load_der_x509_certificate(authority.issue("device", client=True).der)
    assert is_issued_by(device, x509.load_pem_x509_certificate(authority.pem.encode()))
    assert not is_issued_by(device, x509.load_pem_x509_certificate(imitation.pem.encode()))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["d1"], "d1"), (["GID_a@@@d/1 é"], "GID_a@@@d/1 é"), ([], ""), (["a", "b"], ""), (["*"], ""), (["a\x00b"], ""), (["a\nb"], ""),
        (["\u202eabc"], ""), (["x" * 64], "x" * 64),
    ],
)  # fmt: skip
def test_a_device_has_one_name_or_none(tmp_path, names, found):
    pair = Authority(tmp_path).issue("device", client=True, common_names=names)
    assert common_name(x509.load_der_x509_certificate(pair.der)) == found


@pytest.mark.parametrize(
    ("typed", "serial"), [("0a:FF", "0aff"), ("AFF", "0aff"), ("000aff", "0aff"), ("0", "00"), ("", ""), ("0x1", ""), ("f" * 129, "")]
)
def test_serial_numbers_are_taken_as_they_are_typed(typed, serial):
    assert read_serial(typed) == serial
    assert not serial or serial_text(int(serial, 16)) == serial
