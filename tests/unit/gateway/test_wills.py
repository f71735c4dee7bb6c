"""Wills: who may have one, when it falls due, what cancels it, and once each whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.auth.login import sign, signature_user_name
from gateway.auth.tokens import Token
from gateway.protocol.errors import Unencodable
from gateway.protocol.packets import Disconnect, Publish
from schemas.identities import AccessRule
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Kind, Source
from tests.support.party import Party, will
from tests.support.testbed import Testbed

Make = Callable[..., Testbed]
KEPT = {"clean_start": False, "session_expiry": 600}


def wills(bed: Testbed) -> list[bytes]:
    return [record.payload for record in bed.published() if record.source == Source.WILL]


class TokenLogin:
    """Clients that log in with tokens of one key, each for the topic `w` and a minute; ``tokens`` holds the one to write with."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.key = bed.loop.finish(bed.keyring.create("device", 0)).id
        self.tokens: dict[str, Token] = {}

    def connect(self, kinds: str, client: str = "c", **fields: Any) -> Party:
        mint, now = self.bed.node.registers.mint, self.bed.clock.wall()
        password = []
        for kind in kinds.split("|"):
            text = mint.apply(self.key, ["w"], ",".join(kind), now + 60_000, now)
            password += [kind, text]
            token = mint.open(text)
            assert isinstance(token, Token)
            self.tokens[client] = token
        return self.bed.connect(client, user_name=f"Token|{self.key}|bed", password="|".join(password).encode(), **fields)

    def revoke(self, client: str) -> None:
        node, token = self.bed.node, self.tokens[client]
        self.bed.loop.finish(node.registers.mint.revoke(token, self.bed.clock.wall()))
        node.token_watch.revoked(token)


@pytest.mark.parametrize("version", [4, 5])
def test_a_lost_connection_publishes_the_will(bed: Testbed, version: int) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.2-7]"""
    watcher = bed.connect("w")
    watcher.subscribe("last/#", qos=2)
    bed.connect("c", version, will=will("last/c", b"x", qos=2, retain=True)).drop()
    packet = watcher.one(Publish)
    assert (packet.topic, packet.payload, packet.qos, packet.retain) == ("last/c", b"x", 2, False)
    late = bed.connect("l")
    late.subscribe("last/#")
    assert late.one(Publish).retain


def test_disconnect_drops_the_will_and_0x04_does_not(bed: Testbed) -> None:
    """[MQTT-3.1.2-10] [MQTT-3.14.4-3]"""
    bed.connect("a", will=will("w", b"a")).disconnect()
    bed.connect("b", 4, will=will("w", b"b")).disconnect()
    bed.connect("c", will=will("w", b"c")).disconnect(ReasonCode.DISCONNECT_WITH_WILL)
    bed.settle()
    assert wills(bed) == [b"c"]


@pytest.mark.parametrize("cause", ["protocol error", "keep-alive", "takeover", "reset"])
def test_each_end_that_is_not_the_clients_wish_publishes_it(bed: Testbed, cause: str) -> None:
    """[MQTT-3.1.2-8] [MQTT-4.13.1-1]"""
    party = bed.connect("c", keep_alive=2, will=will("w"))
    if cause == "protocol error":
        party.write_bytes(b"\xf0\x00")
    elif cause == "keep-alive":
        bed.advance(4)
    elif cause == "takeover":
        bed.connect("c")
    else:
        party.drop()
    bed.settle()
    assert party.closed
    assert wills(bed) == [b"gone"]
    bed.advance(3)
    assert bed.store._state.channels.keys() == {p.connection.channel for p in bed.parties if not p.closed}


@pytest.mark.parametrize("topic", ["no/w", "$SYS/x", "a/#", "", "x" * 21])
@pytest.mark.parametrize("version", [4, 5])
def test_a_will_obeys_the_rules_of_a_publish_at_connect(make_bed: Make, topic: str, version: int) -> None:
    """Denied, `$`, wildcard, empty, too long: CONNECT is refused and nothing is published, ever."""
    bed = make_bed(access=(AccessRule("*", "publish", "no/#", "deny"),), limits=Limits(topic_bytes=20))
    party = bed.dial(version)
    try:
        party.connect("c", will=will(topic))
    except Unencodable as error:
        assert "topic" in str(error)
    else:
        assert party.closed
        assert party.connack is None or party.connack.reason_code in (
            ReasonCode.NOT_AUTHORIZED,
            ReasonCode.TOPIC_NAME_INVALID,
            ReasonCode.MALFORMED_PACKET,
        )
    bed.advance(2)
    assert bed.published() == []


def test_a_will_too_large_for_a_connect_is_refused(bed: Testbed) -> None:
    party = bed.dial()
    party.connect("c", will=will("w", bytes(9_000)))
    assert party.closed
    assert bed.published() == []


def test_a_failed_login_publishes_no_will(bed: Testbed) -> None:
    party = bed.dial()
    party.connect("c", will=will("w"), user_name="Signature|x|y", password=b"wrong")
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.BAD_USER_NAME_OR_PASSWORD
    bed.advance(2)
    assert bed.published() == []
    assert bed.events() == []


def test_a_refused_connect_publishes_no_will(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(sessions=0))
    party = bed.dial()
    party.connect("c", will=will("w"), **KEPT)
    assert party.closed
    bed.advance(2)
    assert bed.published() == []


def test_a_will_is_authorised_again_when_it_is_published(bed: Testbed) -> None:
    """Its owner's right was taken away meanwhile: refused, counted, and the channel is done with."""
    key = bed.loop.finish(bed.keyring.create("device", 0))
    user = signature_user_name(key.id, bed.keyring.instance_id)
    party = bed.connect("c", will=will("w"), user_name=user, password=sign(key.secret.reveal().encode(), "c"))
    bed.loop.finish(bed.keyring.revoke(key.id))
    party.drop()
    bed.advance(1)
    assert wills(bed) == []
    assert bed.node.counters.refused["will_not_authorized"] == 1
    assert bed.store._state.channels == {}


@pytest.mark.parametrize("kinds", ["W", "R|W", "RW"])
@pytest.mark.parametrize("crash", [False, True])
def test_a_revoked_token_publishes_no_will(bed: Testbed, kinds: str, crash: bool) -> None:
    login = TokenLogin(bed)
    party = login.connect(kinds, will=will("w"))
    stays = login.connect(kinds, client="other", will=will("w", b"theirs"))
    if crash:
        bed.loop.finish(bed.node.registers.mint.revoke(login.tokens["c"], bed.clock.wall()))
        bed.crash()
    else:
        login.revoke("c")
        assert party.closed
        stays.drop()
    bed.advance(1)
    assert wills(bed) == [b"theirs"]
    assert bed.node.counters.refused["will_not_authorized"] == 1
    assert bed.store._state.channels == {}


@pytest.mark.parametrize("crash", [False, True])
def test_a_token_that_expired_before_the_delay_publishes_no_will(bed: Testbed, crash: bool) -> None:
    login = TokenLogin(bed)
    login.connect("W", will=will("w", b"late", delay=90), **KEPT).drop()
    login.connect("W", client="other", will=will("w", b"in time", delay=50), **KEPT).drop()
    if crash:
        bed.crash()
    bed.advance(100)
    assert wills(bed) == [b"in time"]
    assert bed.store._state.channels == {}


def test_a_delayed_will_comes_after_its_delay(bed: Testbed) -> None:
    """[MQTT-3.1.3-9] [MQTT-3.1.2-8] section 3.1.3.2.2"""
    bed.connect("c", will=will("w", delay=10), **KEPT).drop()
    bed.advance(9)
    assert wills(bed) == []
    bed.advance(2)
    assert wills(bed) == [b"gone"]
    bed.advance(1)
    assert bed.store._state.channels == {}


def test_a_delayed_will_comes_with_the_end_of_the_session_if_that_is_first(bed: Testbed) -> None:
    """[MQTT-3.1.2-8]"""
    bed.connect("c", will=will("w", delay=100), clean_start=False, session_expiry=5).drop()
    bed.advance(4)
    assert wills(bed) == []
    bed.advance(2)
    assert wills(bed) == [b"gone"]
    bed.connect("d", will=will("w", b"at once", delay=100)).drop()
    assert wills(bed) == [b"gone", b"at once"]


def test_disconnect_that_ends_the_session_ends_the_delay(bed: Testbed) -> None:
    bed.connect("c", will=will("w", delay=100), **KEPT).disconnect(ReasonCode.DISCONNECT_WITH_WILL, session_expiry_interval=0)
    assert wills(bed) == [b"gone"]


@pytest.mark.parametrize("how", ["reconnect", "takeover"])
def test_a_session_that_goes_on_cancels_the_delayed_will(bed: Testbed, how: str) -> None:
    """[MQTT-3.1.3-9]; and the new connection's own will is in force."""
    first = bed.connect("c", will=will("w", b"first", delay=10), **KEPT)
    if how == "reconnect":
        first.drop()
        bed.advance(5)
    second = bed.connect("c", will=will("w", b"second"), **KEPT)
    bed.advance(30)
    assert wills(bed) == []
    second.drop()
    assert wills(bed) == [b"second"]


@pytest.mark.parametrize("how", ["reconnect", "takeover"])
def test_a_session_that_is_ended_publishes_the_delayed_will(bed: Testbed, how: str) -> None:
    first = bed.connect("c", will=will("w", delay=100), **KEPT)
    if how == "reconnect":
        first.drop()
        bed.advance(1)
    bed.connect("c", clean_start=True, session_expiry=600)
    assert wills(bed) == [b"gone"]
    bed.advance(200)
    assert wills(bed) == [b"gone"]


def test_a_will_expires_as_it_says(bed: Testbed) -> None:
    watcher = bed.connect("w", **KEPT)
    watcher.subscribe("w")
    watcher.drop()
    bed.connect("c", will=will("w", message_expiry_interval=5)).drop()
    bed.advance(6)
    again = bed.connect("w", **KEPT)
    bed.advance(1)
    assert again.payloads() == []


@pytest.mark.parametrize("after", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("delay", [0, 5])
def test_a_crash_publishes_each_will_once(bed: Testbed, after: float, delay: int) -> None:
    """Whatever time there was for the store, and however often the process dies again."""
    for number in range(10):
        bed.connect(f"c{number}", will=will("w", b"%d" % number, delay=delay), **KEPT)
    bed.advance(after)
    for _ in range(4):
        bed.crash()
        bed.advance(after)
    bed.advance(30)
    bed.crash()
    bed.advance(30)
    assert sorted(wills(bed)) == [b"%d" % number for number in range(10)]
    assert bed.store._state.channels == {}
    cleans = [record.id for record in bed.events() if record.kind == Kind.TCPCLEAN]
    assert len(set(cleans)) == 10  # repeats fold away by their ids


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_a_will_that_was_published_or_cancelled_does_not_come_again_after_a_crash(bed: Testbed, after: float) -> None:
    """[MQTT-3.1.2-10]"""
    bed.connect("published", will=will("w", b"published"), **KEPT).drop()
    bed.connect("cancelled", will=will("w", b"cancelled", delay=60), **KEPT).drop()
    bed.connect("unwanted", will=will("w", b"unwanted"), **KEPT).disconnect()
    bed.connect("cancelled", **KEPT)
    bed.advance(after)
    for _ in range(3):
        bed.crash()
        bed.advance(2)
    bed.advance(100)
    assert wills(bed) == [b"published"]
    assert bed.store._state.channels == {}


def test_a_delayed_will_keeps_its_time_over_a_crash_and_can_be_cancelled_after_it(bed: Testbed) -> None:
    """[MQTT-3.1.3-9]"""
    for client in ("a", "b"):
        bed.connect(client, will=will("w", client.encode(), delay=60), **KEPT).drop()
    bed.advance(2)
    bed.crash(downtime=30)
    bed.connect("a", **KEPT)
    bed.advance(20)
    assert wills(bed) == []
    bed.advance(20)
    assert wills(bed) == [b"b"]
    bed.advance(60)
    assert wills(bed) == [b"b"]


@pytest.mark.parametrize("folded", ["nothing", "connect"])
def test_a_will_published_before_the_presence_fold_comes_to_it_is_not_published_again(bed: Testbed, folded: str) -> None:
    """The fold lags behind: the position of the router waits, so that the next start sees the will in the log."""

    async def stuck(clients: object) -> object:
        return await bed.loop.create_future()

    if folded == "nothing":
        bed.store.statuses = stuck  # type: ignore[method-assign, assignment]
    party = bed.connect("c", will=will("w"), **KEPT)
    bed.advance(1)
    bed.store.statuses = stuck  # type: ignore[method-assign, assignment]
    party.drop()
    bed.advance(3)
    assert wills(bed) == [b"gone"]
    bed.crash()
    bed.advance(5)
    bed.crash()
    bed.advance(5)
    assert wills(bed) == [b"gone"]
    assert bed.store._state.channels == {}


def test_wills_that_wait_for_an_offline_session_are_not_swept_as_old(bed: Testbed) -> None:
    """The sweep tells a message's age by its id: a will's begins with its time like any other."""
    watcher = bed.connect("w", **KEPT)
    watcher.subscribe("w", qos=2)
    watcher.drop()
    for number in range(600):
        bed.connect(f"c{number}", will=will("w", b"%d" % number)).drop()
    bed.advance(30)
    again = bed.connect("w", **KEPT)
    bed.advance(1)
    assert len(again.payloads()) == 600
    assert bed.node.counters.dropped["offline_age"] == 0


def test_no_will_falls_due_from_a_close_of_ours(bed: Testbed) -> None:
    party = bed.connect("c", will=will("w"))
    party.connection.close_without_will(ReasonCode.SERVER_SHUTTING_DOWN, "gateway stopped")
    bed.advance(2)
    assert party.one(Disconnect).reason_code == ReasonCode.SERVER_SHUTTING_DOWN
    assert wills(bed) == []


def test_memory_of_settled_wills_does_not_grow(bed: Testbed) -> None:
    for number in range(20):
        bed.connect(f"c{number}", will=will("w", delay=number % 3), **KEPT).drop()
    bed.advance(30)
    settled = bed.node.ending.wills
    assert not settled._delayed
    assert not settled._publishing
    assert not settled._early
    fold = bed.node.presence.fold
    assert not fold._wills
    assert not fold._waiting
