"""Token logins that live: what a token covers, notices, new tokens, revocation and expiry, and offline messages that wait for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.auth.tokens import Token
from gateway.protocol.packets import PacketType, Publish, Subscribe, SubscriptionRequest
from schemas.reasons import ReasonCode
from tests.support.party import Party
from tests.support.testbed import Testbed

VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEPT = {"clean_start": False, "session_expiry": 3600}


class Site:
    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.key = bed.loop.finish(bed.keyring.create("device", 0)).id

    def token(self, actions: str, *resources: str, seconds: int = 3600) -> str:
        now = self.bed.clock.wall()
        return self.bed.node.registers.mint.apply(self.key, resources, actions, now + seconds * 1000, now)

    def dial(self, password: str, version: int = 5, client: str = "c", **fields: Any) -> Party:
        party = self.bed.dial(version)
        party.connect(client, user_name=f"Token|{self.key}|bed", password=password.encode(), **fields)
        return party

    def connect(self, password: str, version: int = 5, **fields: Any) -> Party:
        party = self.dial(password, version, **fields)
        assert party.connack is not None
        assert party.connack.reason_code == 0
        return party

    def revoke(self, text: str) -> None:
        mint, watch = self.bed.node.registers.mint, self.bed.node.token_watch
        token = mint.open(text)
        assert isinstance(token, Token)
        self.bed.loop.finish(mint.revoke(token, self.bed.clock.wall()))
        watch.revoked(token)


@pytest.fixture
def site(bed: Testbed) -> Site:
    return Site(bed)


def notices(party: Party) -> list[tuple[str, dict[str, Any]]]:
    return [(p.topic, json.loads(p.payload)) for p in party.take(Publish) if p.topic.startswith("$SYS/")]


def _altered(token: str) -> str:
    return token[:-5] + ("B" if token[-5] == "A" else "A") + token[-4:]


def upload(party: Party, token: str, kind: str) -> None:
    party.publish("$SYS/uploadToken", json.dumps({"token": token, "type": kind}).encode(), 1)
    party.bed.settle()


INVALID = "$SYS/tokenInvalidNotice"


@VERSIONS
def test_tokens_say_what_a_client_may_do(site: Site, version: int) -> None:
    party = site.connect(f"R|{site.token('R', 'in/#')}|W|{site.token('W', 'out/+')}", version)
    assert party.subscribe("in/a", "in/+/x") == (1, 1)
    assert party.subscribe("out/a")[0] >= 0x80
    party.exchange("out/1", b"x")
    reader = site.bed.connect("other")
    reader.subscribe("in/#")
    reader.exchange("in/a", b"hello")
    assert party.payloads() == [b"hello"]
    party.publish("in/a", b"no", 1)
    site.bed.settle()
    assert [record.payload for record in site.bed.published()] == [b"x", b"hello"]


@pytest.mark.parametrize(("topic", "code"), [("out/1/deep", 4), ("elsewhere", 4)])
def test_a_publish_outside_the_resources_is_told_and_closed(site: Site, topic: str, code: int) -> None:
    party = site.connect(f"W|{site.token('W', 'out/+')}", 4)
    party.publish(topic, b"x", 1)
    assert notices(party) == [(INVALID, {"code": code, "type": "W"})]
    assert party.closed


def test_a_publish_without_a_token_to_write_is_another_code(site: Site) -> None:
    party = site.connect(f"R|{site.token('R', 'out/+')}", 4)
    party.publish("out/1", b"x", 1)
    assert notices(party) == [(INVALID, {"code": 5, "type": "W"})]
    assert party.closed


@pytest.mark.parametrize("kind", ["RW", "W", "R"])
def test_the_notice_names_the_type_of_the_token_that_was_asked(site: Site, kind: str) -> None:
    site.bed.node.strict = True
    password = f"{kind}|{site.token(','.join(kind), 'in/+')}"
    writer, reader = site.connect(password, 4, client="writer"), site.connect(password, 4, client="reader")
    if "W" in kind:
        writer.publish("elsewhere", b"x", 1)
        assert notices(writer) == [(INVALID, {"code": 4, "type": kind})]
    if "R" in kind:
        reader.send(Subscribe(packet_id=7, requests=(SubscriptionRequest(filter="elsewhere", qos=1),)))
        assert notices(reader) == [(INVALID, {"code": 4, "type": kind})]


@VERSIONS
@pytest.mark.parametrize("password", ["", "R|x", "W", "R|{r}|W|{expired}"])
def test_a_bad_token_refuses_the_connection(site: Site, version: int, password: str) -> None:
    filled = password.format(r=site.token("R", "a"), expired=site.token("W", "a", seconds=60))
    site.bed.advance(61)
    party = site.dial(filled, version)
    assert party.connack is not None
    assert party.connack.reason_code in (4, ReasonCode.BAD_USER_NAME_OR_PASSWORD)
    assert party.closed


@VERSIONS
def test_a_token_is_announced_to_end_once_and_ends_the_connection(site: Site, version: int) -> None:
    party = site.connect(f"R|{site.token('R', 'a', seconds=400)}", version)
    ends = site.bed.clock.wall() + 400_000
    site.bed.advance(99)
    assert notices(party) == []
    site.bed.advance(2)
    assert notices(party) == [("$SYS/tokenExpireNotice", {"expireTime": ends, "type": "R"})]
    site.bed.advance(298)
    assert notices(party) == []
    assert not party.closed
    site.bed.advance(2)
    assert notices(party) == [(INVALID, {"code": 2, "type": "R"})]
    assert party.closed


def test_a_clock_that_is_set_ends_tokens_within_a_minute(site: Site) -> None:
    party = site.connect(f"R|{site.token('R', 'a', seconds=86_400)}")
    site.bed.clock.ahead = 2 * 86_400_000
    site.bed.advance(61)
    assert party.closed


@VERSIONS
def test_a_revoked_token_ends_its_connections_and_no_others(site: Site, version: int) -> None:
    text, other = site.token("R", "a"), site.token("R", "a")
    first, second = site.connect(f"R|{text}", version, client="c1"), site.connect(f"R|{text}", version, client="c2")
    third = site.connect(f"R|{other}", version, client="c3")
    site.revoke(text)
    site.bed.advance(0.1)
    assert notices(first) == notices(second) == [(INVALID, {"code": 3, "type": "R"})]
    assert first.closed
    assert second.closed
    assert not third.closed
    assert site.dial(f"R|{text}", client="c4").closed


def test_a_revoked_key_ends_connections_with_its_tokens(site: Site) -> None:
    party = site.connect(f"R|{site.token('R', 'a')}")
    site.bed.loop.finish(site.bed.keyring.revoke(site.key))
    site.bed.advance(0.2)
    assert party.closed


def test_an_uploaded_token_takes_the_place_of_its_type(site: Site) -> None:
    old = site.token("W", "a", seconds=400)
    party = site.connect(f"W|{old}")
    party.exchange("a", b"1")
    upload(party, site.token("W", "b"), "W")
    assert party.acks(PacketType.PUBACK) == [2]
    party.exchange("b", b"2")
    site.bed.advance(500)
    assert not party.closed
    assert notices(party) == []
    site.revoke(old)
    site.bed.settle()
    assert not party.closed
    party.publish("a", b"3", 1)
    site.bed.settle()
    assert [record.payload for record in site.bed.published()] == [b"1", b"2"]


@pytest.mark.parametrize(("token", "code"), [("nonsense", 1), ("{altered}", 8), ("{other}", -1), ("{w}", 5), ("{revoked}", 3)])
def test_an_uploaded_token_that_is_not_valid_ends_the_connection(site: Site, token: str, code: int) -> None:
    other, revoked = Site(site.bed).token("R", "a"), site.token("R", "a")
    site.revoke(revoked)
    party = site.connect(f"R|{site.token('R', 'a')}")
    upload(party, token.format(other=other, w=site.token("W", "a"), revoked=revoked, altered=_altered(site.token("R", "a"))), "R")
    assert notices(party) == [(INVALID, {"code": code, "type": "R"})]
    assert party.closed


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"token": 1, "type": "R"}', b'{"token": "x", "type": "X"}', b"x" * 9000])
def test_an_upload_that_is_not_well_formed_changes_nothing(site: Site, payload: bytes) -> None:
    party = site.connect(f"R|{site.token('R', 'a')}")
    party.publish("$SYS/uploadToken", payload, 1)
    site.bed.settle()
    assert not party.closed
    assert party.inbox[-1].reason_code == ReasonCode.PAYLOAD_FORMAT_INVALID  # type: ignore[union-attr]


def test_an_upload_of_a_client_without_tokens_is_refused(bed: Testbed) -> None:
    party = bed.connect("c")
    upload(party, "x", "R")
    assert party.inbox[-1].reason_code == ReasonCode.NOT_AUTHORIZED  # type: ignore[union-attr]
    assert not party.closed


@VERSIONS
@pytest.mark.parametrize("pace", ["acknowledged", "batches"])
def test_offline_messages_wait_for_a_token_to_read_with(make_bed: Any, version: int, pace: str) -> None:
    """Whatever comes meanwhile waits behind them; nothing is lost, nothing is read without a token."""
    site = Site(make_bed(pace=pace))
    bed = site.bed
    party = site.connect(f"R|{site.token('R', 'a/#')}", version, **KEPT)
    party.subscribe("a/#", qos=1)
    publisher = bed.connect("publisher")
    publisher.exchange("a/1", b"0")
    assert party.payloads() == [b"0"]
    party.drop()
    publisher.exchange("a/1", b"1")
    writing = site.connect(f"W|{site.token('W', 'b')}", version, **KEPT)
    publisher.exchange("a/1", b"2")
    bed.advance(20)
    assert writing.payloads() == []
    upload(writing, site.token("R", "a/#"), "R")
    bed.advance(20)
    publisher.exchange("a/1", b"3")
    assert sorted(writing.payloads()) == [b"1", b"2", b"3"]
    bed.advance(10)
    assert bed.stored("c") == []


def test_what_was_in_flight_waits_for_a_token_as_well(site: Site) -> None:
    party = site.connect(f"R|{site.token('R', 'a')}", **KEPT)
    party.auto_ack = False
    party.subscribe("a")
    site.bed.connect("publisher").exchange("a", b"1")
    assert party.payloads() == [b"1"]
    party.drop()
    again = site.connect(f"W|{site.token('W', 'b')}", **KEPT)
    site.bed.advance(5)
    assert again.deliveries() == []
    upload(again, site.token("R", "a"), "R")
    assert [(d.payload, d.dup) for d in again.deliveries()] == [(b"1", True)]


def test_messages_that_a_token_does_not_cover_stay_for_another(site: Site) -> None:
    party = site.connect(f"R|{site.token('R', '#')}", **KEPT)
    party.subscribe("a", "b")
    party.drop()
    publisher = site.bed.connect("publisher")
    publisher.exchange("a", b"a")
    publisher.exchange("b", b"b")
    again = site.connect(f"R|{site.token('R', 'a')}", **KEPT)
    assert again.payloads() == [b"a"]
    publisher.exchange("b", b"live")
    assert again.payloads() == []
    again.drop()
    assert site.connect(f"R|{site.token('R', 'b')}", **KEPT).payloads() == [b"b"]


def test_a_session_that_was_kept_by_tokens_is_kept_across_a_crash(site: Site) -> None:
    party = site.connect(f"R|{site.token('R', 'a')}", **KEPT)
    party.subscribe("a")
    site.bed.crash()
    site.bed.connect("publisher").exchange("a", b"1")
    assert site.connect(f"W|{site.token('W', 'a')}", **KEPT).payloads() == []
    assert site.connect(f"R|{site.token('R', 'a')}", **KEPT).payloads() == [b"1"]


def test_p2p_to_a_client_without_a_token_to_read_waits(site: Site) -> None:
    party = site.connect(f"W|{site.token('W', 'a')}", **KEPT)
    sender = site.bed.connect("sender", **KEPT)
    sender.exchange("t/p2p/c", b"hello")
    site.bed.advance(3)
    assert party.payloads() == []
    upload(party, site.token("R", "a"), "R")
    assert party.payloads() == [b"hello"]


def test_nothing_is_held_of_connections_that_ended(site: Site) -> None:
    watch = site.bed.node.token_watch
    party = site.connect(f"R|{site.token('R', 'a')}|W|{site.token('W', 'a')}")
    upload(party, site.token("R", "b"), "R")
    assert len(watch._holders) == 2
    party.drop()
    assert not watch._holders
    assert not watch._noticed
    assert not len(watch._wheel)
