"""Connections by JWT: the token's rules hold, the connection ends with the token, the session outlives both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from schemas.identities import AccessRule
from schemas.settings import JwtSettings
from tests.support.party import Party, will
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


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(("topic", "seconds", "comes"), [("out/c", 60, True), ("elsewhere", 60, False), ("out/c", 3, False)])
def test_a_will_is_decided_by_the_tokens_rules_and_its_end(bed: Testbed, crash: bool, topic: str, seconds: int, comes: bool) -> None:
    """After a crash as before it. ``elsewhere`` was allowed by a stored rule until the connection was there."""
    policies = bed.node.registers.policies
    rule = AccessRule("jwt:alice", "publish", "elsewhere")
    bed.loop.finish(policies.put(rule))
    party = connect(bed, token(seconds, acl={"publish": ["out/${client}"]}), will=will(topic, delay=5), **KEPT)
    bed.loop.finish(policies.drop(rule))
    if crash:
        bed.crash()
    else:
        party.drop()
    bed.advance(6)
    assert [record.topic for record in bed.published()] == ([topic] if comes else [])
    assert bed.node.counters.refused["will_not_authorized"] == (not comes)


def test_a_key_that_is_withdrawn_ends_its_connections_and_no_others(bed: Testbed, tmp_path: Path) -> None:
    path, other = tmp_path / "key.pem", ECKey.generate_key("P-256")
    path.write_bytes(KEY.as_pem(private=False) + other.as_pem(private=False))
    bed.advance(2)
    by_other = jwt.encode({"alg": "ES256"}, {"sub": "bob", "exp": NOON / 1000 + 60}, other).encode()
    first = connect(bed, token(acl={"publish": ["w"]}), will=will("w"))
    second = bed.connect("d", user_name="anything", password=by_other)
    path.write_bytes(other.as_pem(private=False))
    bed.advance(2)
    assert first.closed
    assert not second.closed
    assert bed.published() == [], "nor is a will of theirs published"
    refused = bed.dial()
    refused.connect("c", user_name="anything", password=token())
    assert refused.closed
