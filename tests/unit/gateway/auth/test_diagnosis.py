"""Each way in which devices get a Signature login wrong has its line."""

import hmac

import pytest

from gateway.auth.diagnosis import RIGHT, diagnose
from gateway.auth.login import sign

CLIENT, SECRET = "GID_test@@@d1", b"the-secret"
RIGHT_PASSWORD = sign(SECRET, CLIENT)


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("Signature|K|i", RIGHT_PASSWORD, RIGHT),
        ("K", RIGHT_PASSWORD, "1 fields"),
        ("Signature|K|i|", RIGHT_PASSWORD, "4 fields"),
        ("signature|K|i", RIGHT_PASSWORD, "spelling"),
        ("Token|K|i", RIGHT_PASSWORD, "mode word is 'Token'"),
        ("Signature|X|i", RIGHT_PASSWORD, "access key is 'X'"),
        ("Signature|K|other", RIGHT_PASSWORD, "instance id is 'other'"),
        ("Signature|K|i", RIGHT_PASSWORD + b"\n", "white space"),
        ("Signature|K|i", SECRET, "secret itself"),
        ("Signature|K|i", hmac.digest(SECRET, CLIENT.encode(), "sha1").hex().encode(), "hexadecimal"),
        ("Signature|K|i", sign(CLIENT.encode(), SECRET.decode()), "swapped"),
        ("Signature|K|i", b"not base64!", "not base64"),
        ("Signature|K|i", b"", "of 0 bytes"),
        ("Signature|K|i", b"QUFBQQ==", "of 4 bytes"),
        ("Signature|K|i", sign(SECRET, "GID_test"), "group id alone"),
        ("Signature|K|i", sign(SECRET, "other"), "another client id, or made with another secret"),
        ("Signature|K|i", sign(b"other", CLIENT), "another client id, or made with another secret"),
    ],
)
def test_what_is_wrong(user, password, words):
    found = diagnose(CLIENT, "K", SECRET, "i", user, password)
    assert words in found
    assert SECRET.decode() not in found
    assert RIGHT_PASSWORD.decode() not in found
