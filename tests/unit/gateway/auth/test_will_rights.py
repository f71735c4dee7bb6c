"""What a will is decided by survives a crash: tokens, claims, and when they end."""

import pytest

from gateway.auth import will_rights
from gateway.auth.tokens import ShownTokens, Token
from schemas.identities import AccessRule, Principal

TOKEN = Token(b"id", "SWkey", "bed", "W", ("a/#",), 17)


def test_a_principal_that_its_name_says_all_of_takes_no_room():
    assert will_rights.encode(Principal("SWkey", client="c", user="u")) == b""
    assert will_rights.restore(Principal("SWkey"), b"") == Principal("SWkey")


def test_tokens_come_back():
    encoded = will_rights.encode(Principal("SWkey", client="c", tokens=ShownTokens([TOKEN])))
    back = will_rights.restore(Principal("SWkey", client="c"), encoded)
    assert isinstance(back.tokens, ShownTokens)
    assert back.tokens.by_type == {"W": TOKEN}


def test_no_token_is_not_the_same_as_no_login_by_token():
    back = will_rights.restore(Principal("SWkey"), will_rights.encode(Principal("SWkey", tokens=ShownTokens())))
    assert back.tokens is not None
    assert not back.tokens.covers("publish", "a")


@pytest.mark.parametrize("claims", [(), (AccessRule("jwt:a", "publish", "out/${user}"), AccessRule("jwt:a", "*", "x", "deny"))])
def test_claims_and_their_end_come_back(claims):
    principal = Principal("jwt:a", client="c", user="u", claims=claims, expires=99, signed_by="x")
    assert will_rights.restore(Principal("jwt:a", client="c"), will_rights.encode(principal)) == principal
