"""SCRAM-SHA-256 without a network: the vector of RFC 7677, and what is refused."""

import base64

import pytest

from gateway.auth import scram
from gateway.auth.scram import ScramRefused

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SENT = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
LAST = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
PASSWORD = scram.salted(b"pencil", SALT)


def finish(last=LAST, password=PASSWORD, known=True, first=FIRST):
    return scram.finish(scram.read_first(first), SENT, last, password, known=known)


def test_the_vector_of_rfc_7677():
    assert scram.server_first(scram.read_first(FIRST), NONCE, SALT) == SENT
    assert finish() == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_names_are_unquoted():
    assert scram.read_first(b"n,,n=a=2Cb=3Dc,r=12345678").user == "a,b=c"
    assert scram.read_first("y,,n=ü,r=12345678,x=more".encode()).user == "ü"


@pytest.mark.parametrize(
    "first",
    [b"", b"n", b"n,,n=user", b"n,,r=12345678", b"p=tls-unique,,n=user,r=12345678", b"n,,n=,r=12345678", b"n,,n=u,r=short", b"\xff" * 20,
     b"n,,n=u,r=1234\x005678", b"n,,n=" + b"u" * 2000 + b",r=12345678", b"n,,m=x,n=u,r=12345678"],
)  # fmt: skip
def test_first_messages_that_are_none(first):
    with pytest.raises(ScramRefused):
        scram.read_first(first)


@pytest.mark.parametrize(
    "last",
    [b"", b"c=biws", LAST.replace(b"biws", b"eSws"), LAST.replace(b"r=r", b"r=x"), LAST[:-8] + b"AAAAAAA=", LAST.partition(b",p=")[0] + b",p=",
     LAST.partition(b",p=")[0] + b",p=A", LAST + b",x", b"\xff"],
)  # fmt: skip
def test_last_messages_that_prove_nothing(last):
    with pytest.raises(ScramRefused):
        finish(last)


def test_a_wrong_secret_and_an_unknown_name_fail_alike():
    with pytest.raises(ScramRefused) as wrong:
        finish(password=scram.salted(b"other", SALT))
    with pytest.raises(ScramRefused) as unknown:
        finish(known=False)
    assert str(wrong.value) == str(unknown.value)
