"""Rights that change while clients are connected: what is queued, stored and in flight, and whose connection ends."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.auth.login import sign, signature_user_name
from schemas.identities import AccessRule
from schemas.reasons import ReasonCode
from tests.support.party import Party
from tests.support.testbed import Testbed

KEPT = {"clean_start": False, "session_expiry": 600}


class Site:
    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.key = bed.loop.finish(bed.keyring.create("device", 0))
        self.publisher = bed.connect("publisher", **KEPT)

    def connect(self, **fields: Any) -> Party:
        secret = self.key.secret.reveal().encode()
        return self.bed.connect("c", user_name=signature_user_name(self.key.id, "bed"), password=sign(secret, "c"), **fields)

    def deny(self, topic_filter: str) -> None:
        self.bed.loop.finish(self.bed.node.registers.policies.put(AccessRule(self.key.id, "*", topic_filter, "deny")))
        self.bed.advance(0.1)

    @property
    def dropped(self) -> int:
        return self.bed.node.counters.dropped["not_authorized"]


@pytest.fixture
def site(bed: Testbed) -> Site:
    return Site(bed)


def test_what_is_queued_in_memory_is_dropped(site: Site) -> None:
    party = site.connect()
    party.subscribe("a", "b", qos=0)
    party.stop_reading()
    for topic in ("a", "b", "a"):
        site.publisher.exchange(topic, topic.encode())
    session = site.bed.session("c")
    assert session is not None
    assert session.queue_length() == 3
    site.deny("a")
    assert session.queue_length() == 1
    assert site.dropped == 2
    assert site.bed.node.queued_bytes == 1
    party.read_on()
    assert party.payloads() == [b"b"]


def test_what_is_stored_is_dropped_when_it_would_be_sent(site: Site) -> None:
    party = site.connect(**KEPT)
    party.subscribe("a", "b")
    party.drop()
    for topic in ("a", "b"):
        site.publisher.exchange(topic, topic.encode())
    site.publisher.exchange("t/p2p/c", b"p2p")
    site.deny("a")
    site.deny("t/#")
    assert site.connect(**KEPT).payloads() == [b"b"]
    site.bed.advance(1)
    assert site.dropped == 2
    assert site.bed.stored("c") == []


def test_what_was_in_flight_is_not_sent_again(site: Site) -> None:
    party = site.connect(**KEPT)
    party.auto_ack = False
    party.subscribe("a")
    site.publisher.exchange("a", b"1")
    assert party.payloads() == [b"1"]
    party.drop()
    site.deny("a")
    assert site.connect(**KEPT).payloads() == []
    site.bed.advance(1)
    assert site.dropped == 1
    assert site.bed.stored("c") == []


def test_what_lies_in_a_mailbox_is_dropped(site: Site) -> None:
    site.publisher.exchange("t/p2p/c", b"1")
    site.bed.advance(1)
    assert site.bed.in_mailbox("c") == [b"1"]
    site.deny("t/p2p/c")
    assert site.connect().payloads() == []
    site.bed.advance(1)
    assert site.bed.in_mailbox("c") == []


def test_a_right_that_comes_back_brings_messages_back(site: Site) -> None:
    party = site.connect()
    party.subscribe("a")
    site.deny("a")
    site.publisher.exchange("a", b"1")
    site.bed.loop.finish(site.bed.node.registers.policies.drop(AccessRule(site.key.id, "*", "a")))
    site.bed.advance(0.1)
    site.publisher.exchange("a", b"2")
    assert party.payloads() == [b"2"]


def test_a_revoked_key_closes_its_connections_without_being_told(site: Site) -> None:
    """Whoever revoked it, here or on another node: the tick sees it."""
    party = site.connect()
    site.bed.loop.finish(site.bed.keyring.revoke(site.key.id))
    site.bed.advance(0.1)
    assert party.closed
    assert not site.publisher.closed


def test_rules_are_in_force_after_a_crash(site: Site) -> None:
    site.connect(**KEPT).subscribe("a", "b")
    site.deny("a")
    site.bed.crash()
    site.publisher = site.bed.connect("publisher")
    for topic in ("a", "b"):
        site.publisher.exchange(topic, topic.encode())
    assert site.connect(**KEPT).payloads() == [b"b"]


@pytest.mark.slow
def test_failed_logins_are_limited_by_address_and_key(site: Site) -> None:
    def attempt(host: str, user: str, password: bytes) -> int:
        party = site.bed.dial(4, host=host)
        party.connect("c", user_name=user, password=password)
        assert party.connack is not None
        return party.connack.reason_code

    name, right = signature_user_name(site.key.id, "bed"), sign(site.key.secret.reveal().encode(), "c")
    for number in range(100):
        assert attempt("127.0.0.1", name, b"wrong") != 0, number
    assert attempt("127.0.0.1", name, right) == ReasonCode.SERVER_UNAVAILABLE  # what 3 stands for
    site.bed.advance(61)
    assert attempt("127.0.0.1", name, right) == 0
