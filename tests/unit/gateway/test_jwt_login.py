"""Connections by JWT: the token's rules hold, the connection ends with the token, the session outlives both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from schemas.settings import JwtSettings
from tests.support.party import Party
from tests.support.testbed import NOON, Testbed

KEY = ECKey.generate_key("P-256")
KEPT = {"clean_start": False, "session_expiry": 3600}


@pytest.fixture
def bed(make_bed: Callable[..., Testbed], tmp_path: Path) -> Testbed:
    path = tmp_path / "key.pem"
    path.write_bytes(KEY.as_pem(private=False))
    return make_bed(jwt=JwtSettings(keys=path))


def token(seconds: int = 60, **claims: Any) -> bytes:
    return jwt.encode({"alg": "ES256"}, {"sub": "alice", "exp": NOON / 1000 + seconds} | claims, KEY).encode()


def connect(bed: Testbed, password: bytes, version: int = 5, **fields: Any) -> Party:
    return bed.connect("c", version, user_name="anything", password=password, **fields)


@pytest.mark.parametrize("version", [4, 5])
def test_the_tokens_rules_hold_and_its_end_is_the_connections(bed: Testbed, version: int) -> None:
    party = connect(bed, token(acl={"publish": ["out/${client}"], "subscribe": ["in/#"], "deny": ["in/secret"]}), version)
    assert party.subscribe("in/#") == (1,)
    assert party.subscribe("other")[0] >= 0x80
    party.exchange("out/c", b"x")
    publisher = bed.connect("publisher")
    publisher.exchange("in/a", b"yes")
    publisher.exchange("in/secret", b"no")
    assert party.payloads() == [b"yes"]
    bed.advance(59)
    assert not party.closed
    bed.advance(2)
    assert party.closed
    refused = bed.dial(version)
    refused.connect("c", user_name="anything", password=token())
    assert refused.closed


def test_a_token_without_rules_opens_nothing(bed: Testbed) -> None:
    party = connect(bed, token())
    assert party.subscribe("a")[0] >= 0x80
    party.publish("a", b"x", 1)
    bed.settle()
    assert bed.published() == []


@pytest.mark.parametrize("crash", [False, True])
def test_a_session_is_kept_between_tokens_and_read_by_the_next_ones_rules(bed: Testbed, crash: bool) -> None:
    party = connect(bed, token(acl={"subscribe": ["#"]}), **KEPT)
    party.subscribe("a", "b")
    party.drop()
    if crash:
        bed.crash()
    publisher = bed.connect("publisher")
    publisher.exchange("a", b"a")
    publisher.exchange("b", b"b")
    assert connect(bed, token(acl={"subscribe": ["a"]}), **KEPT).payloads() == [b"a"]


def test_a_session_is_of_its_subject(bed: Testbed) -> None:
    connect(bed, token(), **KEPT).drop()
    party = bed.dial()
    party.connect("c", user_name="x", password=token(sub="bob"), **KEPT)
    assert party.connack is not None
    assert party.connack.reason_code == 0x87
