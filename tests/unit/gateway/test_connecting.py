"""CONNECT and its answer: whose session, what is present, who is refused and with what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.auth.login import sign, signature_user_name
from gateway.presence import GATHER, STORM
from gateway.protocol.packets import Connack, Disconnect, Pingresp, Suback, Subscribe, SubscriptionRequest
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from tests.support.party import Party, will
from tests.support.testbed import Testbed
from tests.support.wire import connect_packet

Make = Callable[..., Testbed]


def login(bed: Testbed, client: str) -> dict[str, Any]:
    """The fields of a CONNECT with a key of its own."""
    key = bed.loop.finish(bed.keyring.create("device", bed.clock.wall()))
    return {"user_name": signature_user_name(key.id, bed.keyring.instance_id), "password": sign(key.secret.reveal().encode(), client)}


def test_a_new_session_is_not_present_and_a_kept_one_is(bed: Testbed) -> None:
    """[MQTT-3.1.2-5] [MQTT-3.2.2-2] [MQTT-3.2.2-3]"""
    first = bed.connect("c", clean_start=False, session_expiry=60)
    assert first.connack is not None
    assert first.connack.session_present is False
    first.drop()
    second = bed.connect("c", clean_start=False, session_expiry=60)
    assert second.connack is not None
    assert second.connack.session_present is True


def test_clean_start_ends_the_kept_session(bed: Testbed) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2]"""
    first = bed.connect("c", clean_start=False, session_expiry=60)
    first.subscribe("a")
    first.drop()
    bed.connect("p").exchange("a", b"1")
    second = bed.connect("c", clean_start=True, session_expiry=60)
    assert second.connack is not None
    assert second.connack.session_present is False
    bed.connect("p").exchange("a", b"2")
    bed.advance(5)
    assert second.payloads() == []
    assert bed.node.counters.dropped["session_ended"] == 1  # what waited is counted


@pytest.mark.parametrize(("clean", "present"), [(True, False), (False, True)])
def test_a_3_1_1_session_lives_by_clean_session_alone(bed: Testbed, clean: bool, present: bool) -> None:
    """[MQTT-3.1.4-4] [MQTT-3.2.2-3]"""
    bed.connect("c", 4, clean_start=clean).drop()
    again = bed.connect("c", 4, clean_start=False)
    assert again.connack is not None
    assert again.connack.session_present is present


def test_an_empty_client_id_is_given_one_and_told(bed: Testbed) -> None:
    """[MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]"""
    party = bed.connect("")
    assert party.connack is not None
    assert party.connack.properties is not None
    assigned = party.connack.properties.assigned_client_identifier
    assert assigned
    assert bed.session(assigned) is not None
    other = bed.connect("")
    assert other.connack is not None
    assert other.connack.properties is not None
    assert other.connack.properties.assigned_client_identifier != assigned


def test_3_1_1_without_an_id_needs_a_clean_session(bed: Testbed) -> None:
    """[MQTT-3.1.3-8]"""
    bed.connect("", 4, clean_start=True)
    party = bed.dial(4)
    party.connect("", clean_start=False)
    assert party.connack == Connack(session_present=False, reason_code=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
    assert party.closed


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("clean", [True, False])
def test_a_newer_connection_takes_over(bed: Testbed, version: int, clean: bool) -> None:
    """[MQTT-3.1.4-3] [MQTT-3.2.2-2]"""
    first = bed.connect("c", version, clean_start=False, session_expiry=60)
    second = bed.connect("c", version, clean_start=clean, session_expiry=60)
    assert first.closed
    assert second.connack is not None
    assert second.connack.session_present is not clean
    if version == 5:
        assert first.one(Disconnect).reason_code == ReasonCode.SESSION_TAKEN_OVER
    assert bed.node.counters.disconnects["clientId conflict"] == 1


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("online", [True, False])
def test_another_principal_is_refused_and_nothing_changes(bed: Testbed, version: int, clean: bool, online: bool) -> None:
    """[MQTT-3.1.4-2]"""
    owner = bed.connect("c", version, clean_start=False, session_expiry=60, **login(bed, "c"))
    owner.subscribe("a")
    if not online:
        owner.drop()
    thief = bed.dial(version)
    thief.connect("c", clean_start=clean, session_expiry=60, **login(bed, "c"))
    assert thief.connack is not None
    assert thief.connack.reason_code == ReasonCode.NOT_AUTHORIZED
    assert thief.closed
    assert owner.closed is not online
    session = bed.session("c")
    assert session is not None
    assert list(session.subscriptions) == ["a"]


def test_of_two_principals_at_once_the_second_closes_nothing(bed: Testbed) -> None:
    """Both pass the first check before either has the session; the one that waited for its turn is checked again."""
    mine, other = login(bed, "c"), login(bed, "c")
    first, second = bed.dial(), bed.dial()
    first.send(connect_packet("c", session_expiry=60, **mine))
    second.send(connect_packet("c", session_expiry=60, **other))
    bed.settle()
    assert not first.closed
    assert first.one(Connack).reason_code == ReasonCode.SUCCESS
    assert second.one(Connack).reason_code == ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize(("refusing", "code"), [(False, ReasonCode.SUCCESS), (True, ReasonCode.SERVER_UNAVAILABLE)])
def test_connects_of_a_storm_go_into_the_log_together_and_each_gets_its_answer(bed: Testbed, refusing: bool, code: ReasonCode) -> None:
    bed.log.held = True
    parties = [bed.dial() for _ in range(STORM + 5)]
    for number, party in enumerate(parties):
        party.connect(f"c{number}")
    assert bed.log.appended == [f"c{number}" for number in range(STORM)]
    bed.log.refusing = refusing
    bed.advance(GATHER)
    assert bed.log.appended == [f"c{number}" for number in range(STORM + 5)]
    assert not any(party.take(Connack) for party in parties)
    bed.log.release_held()
    assert [party.one(Connack).reason_code for party in parties] == [code] * len(parties)
    bed.log.refusing = False
    bed.connect("alone")  # at once: nobody else waits


def test_of_many_connects_that_wait_only_the_newest_goes_on(bed: Testbed) -> None:
    """The code is one that CONNACK may carry [MQTT-3.2.2-8]."""
    bed.log.held = True
    parties = [bed.dial() for _ in range(4)]
    for party in parties:
        party.connect("c")
    bed.log.release_held()
    bed.settle()
    codes = [party.one(Connack).reason_code for party in parties]
    assert codes == [ReasonCode.SUCCESS, ReasonCode.SERVER_BUSY, ReasonCode.SERVER_BUSY, ReasonCode.SUCCESS]
    assert [party.closed for party in parties] == [True, True, True, False]


def test_the_first_packet_must_be_connect(bed: Testbed) -> None:
    """[MQTT-3.1.0-1]: no answer, closed at once, by the first byte."""
    party = bed.dial()
    party.write_bytes(b"\xc0")
    bed.settle()
    assert party.closed
    assert party.inbox == []


def test_a_second_connect_is_a_protocol_error(bed: Testbed) -> None:
    """[MQTT-3.1.0-2] [MQTT-3.14.4-2]"""
    party = bed.connect("c")
    party.connect("c")
    assert party.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR
    assert party.closed


def test_packets_behind_connect_wait_for_its_answer_and_keep_their_order(bed: Testbed) -> None:
    """[MQTT-3.1.4-5]"""
    subscriber = bed.connect("s")
    subscriber.subscribe("a")
    party = bed.dial()
    bed.log.held = True
    party.connect("c")
    party.publish("a", b"1")
    party.publish("a", b"2")
    party.write_bytes(b"\xc0\x00")
    bed.settle()
    assert party.inbox == []
    bed.log.release_held()
    bed.settle()
    assert isinstance(party.inbox[0], Connack)
    assert isinstance(party.inbox[1], Pingresp)
    assert subscriber.payloads() == [b"1", b"2"]


def test_a_connect_of_one_byte_at_a_time_is_read(bed: Testbed) -> None:
    source, sink = bed.dial(), bed.dial()
    sent: list[bytes] = []
    source.write_bytes = sent.append  # type: ignore[method-assign]
    Party.connect(source, "c")
    for byte in sent[0]:
        sink.write_bytes(bytes((byte,)))
    bed.settle()
    assert sink.one(Connack).reason_code == ReasonCode.SUCCESS


def test_a_silent_connection_is_closed_after_connect_timeout(bed: Testbed) -> None:
    party = bed.dial()
    bed.advance(9)
    assert not party.closed
    bed.advance(2)
    assert party.aborted
    assert bed.node.counters.refused["connect_timeout"] == 1


def test_a_connect_that_gets_no_durable_answer_ends_and_leaves_nothing(bed: Testbed) -> None:
    """The log is silent: no CONNACK, the deadline holds, and no session without a connection is left."""
    bed.log.held = True
    party = bed.dial()
    party.connect("c")
    bed.advance(12)
    assert party.aborted
    bed.log.release_held()
    bed.settle()
    assert bed.session("c") is None


@pytest.mark.parametrize("expiry", [0, 60])
def test_a_refused_connect_event_refuses_the_connect(bed: Testbed, expiry: int) -> None:
    bed.log.refusing = True
    party = bed.dial()
    party.connect("c", clean_start=False, session_expiry=expiry)
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.SERVER_UNAVAILABLE
    bed.log.refusing = False
    session = bed.session("c")
    assert (session is not None) is (expiry > 0)
    bed.advance(62)
    assert bed.session("c") is None  # its time runs


def test_a_failing_store_refuses_sessions_that_are_kept(bed: Testbed) -> None:
    bed.store.failing = True
    party = bed.dial()
    party.connect("c", session_expiry=60)
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.SERVER_UNAVAILABLE
    bed.store.failing = False


def test_a_client_gone_before_its_answer_leaves_the_session_as_a_lost_connection_does(bed: Testbed) -> None:
    bed.log.held = True
    party = bed.dial()
    party.connect("c", session_expiry=60, will=will("w"))
    party.drop()
    bed.log.release_held()
    bed.settle()
    assert [record.topic for record in bed.published()] == ["w"]
    bed.advance(61)
    assert bed.session("c") is None


def test_the_limit_of_sessions_refuses_and_evicts_nobody(make_bed: Make) -> None:
    bed = make_bed(limits=Limits(sessions=1))
    bed.connect("a", session_expiry=60).drop()
    party = bed.dial()
    party.connect("b", session_expiry=60)
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.QUOTA_EXCEEDED
    bed.connect("b")
    assert bed.session("a") is not None


@pytest.mark.parametrize("client", ["x" * 257, "a\x01b", "\x7f"])
def test_bad_client_ids_are_refused(bed: Testbed, client: str) -> None:
    """[MQTT-3.1.3-8]"""
    party = bed.dial()
    party.connect(client)
    assert party.connack is not None or party.closed
    assert party.connack is None or party.connack.reason_code in (ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, ReasonCode.MALFORMED_PACKET)
    assert party.closed


def test_an_authentication_method_is_refused(bed: Testbed) -> None:
    """[MQTT-4.12.0-1]"""
    party = bed.dial()
    party.connect("c", properties=Properties(authentication_method="SCRAM"))
    assert party.connack is not None
    assert party.connack.reason_code == ReasonCode.BAD_AUTHENTICATION_METHOD


def test_draining_refuses_with_codes_that_connack_has(bed: Testbed) -> None:
    """[MQTT-3.2.2-8]"""
    bed.node.draining = True
    for version in (4, 5):
        party = bed.dial(version)
        party.connect("c")
        assert party.connack is not None
        assert party.connack.reason_code == ReasonCode.SERVER_UNAVAILABLE


def test_a_client_is_told_what_it_did_not_ask_for(make_bed: Make) -> None:
    """[MQTT-3.1.2-21] [MQTT-3.2.2-21]: server keep-alive, expiry, receive maximum, packet size, aliases."""
    bed = make_bed(limits=Limits(keep_alive=30, session_expiry=50, receive_maximum=7, packet=900, topic_alias_maximum=3))
    party = bed.connect("c", session_expiry=60, keep_alive=90)
    assert party.connack is not None
    told = party.connack.properties
    assert told is not None
    assert (told.server_keep_alive, told.session_expiry_interval, told.receive_maximum) == (30, 50, 7)
    assert (told.maximum_packet_size, told.topic_alias_maximum) == (900, 3)
    content = bed.connect("d", session_expiry=40, keep_alive=20)
    assert content.connack is not None
    assert content.connack.properties is not None
    assert content.connack.properties.server_keep_alive is None
    assert content.connack.properties.session_expiry_interval is None


def test_the_connect_event_is_durable_before_connack(bed: Testbed) -> None:
    bed.log.held = True
    party = bed.dial()
    party.connect("c")
    assert party.connack is None
    bed.log.release_held()
    bed.settle()
    assert party.one(Connack).reason_code == ReasonCode.SUCCESS
    assert len(bed.events()) == 1


def test_what_is_published_while_a_session_is_claimed_is_kept(bed: Testbed) -> None:
    """Between the claim's new epoch and its CONNACK deliveries go to the box under that epoch; none is refused as stale."""
    party = bed.connect("c", clean_start=False, session_expiry=60)
    party.subscribe("a")
    party.drop()
    publisher = bed.connect("p")
    claim = bed.store.claim

    async def slow_claim(*args: object, **options: object) -> object:
        publisher.publish("a", b"during")
        publisher.publish("a", b"in claim", 1)
        for _ in range(20):
            await asyncio.sleep(0)
        state = await claim(*args, **options)  # type: ignore[arg-type]
        publisher.publish("a", b"after claim", 1)
        for _ in range(20):
            await asyncio.sleep(0)
        return state

    bed.store.claim = slow_claim  # type: ignore[method-assign, assignment]
    again = bed.connect("c", clean_start=False, session_expiry=60)
    bed.advance(1)
    assert again.payloads() == [b"in claim", b"after claim"]


def test_a_session_that_is_claimed_does_not_expire_meanwhile(bed: Testbed) -> None:
    party = bed.connect("c", clean_start=False, session_expiry=10)
    party.subscribe("a")
    party.drop()
    bed.advance(9.8)
    bed.log.held = True
    again = bed.dial()
    again.connect("c", clean_start=False, session_expiry=10)
    bed.advance(5)
    bed.log.release_held()
    bed.settle()
    assert again.one(Connack).session_present
    bed.connect("p").exchange("a", b"1")
    assert again.payloads() == [b"1"]


@pytest.mark.parametrize("size", range(1, 80))
def test_no_answer_is_larger_than_the_client_takes(bed: Testbed, size: int) -> None:
    """[MQTT-3.1.2-24] [MQTT-3.2.2-19]: what can't be told within the maximum ends the connection instead."""
    party = bed.dial()
    lengths: list[int] = []
    write = party.write
    party.write = lambda data: (lengths.append(len(data)), write(data))[1]  # type: ignore[method-assign]
    party.connect("", properties=Properties(maximum_packet_size=size))
    welcome = party.connack is not None and party.connack.reason_code == ReasonCode.SUCCESS
    if welcome:
        party.send(Subscribe(packet_id=7, requests=tuple(SubscriptionRequest(filter=f"a/{number}", qos=0) for number in range(60))))
        bed.settle()
    assert max(lengths, default=0) <= size
    answered = any(isinstance(packet, Suback) for packet in party.inbox)
    assert answered or party.closed
    assert answered == (size >= 65)
    assert welcome == (size >= 49)
