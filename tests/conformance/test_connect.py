"""CONNECT, CONNACK, DISCONNECT and AUTH as a client meets them: what comes first, what comes once, and what comes never."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.protocol.decode import answer_version
from gateway.protocol.encode import encode_packet
from gateway.protocol.packets import Auth, Connack, Disconnect, Pingreq, Publish
from gateway.protocol.properties import Properties
from schemas.identities import AccessRule
from schemas.limits import Limits
from schemas.reasons import CONNECT_RETURN_CODES, ReasonCode
from tests.support.party import will
from tests.support.testbed import Testbed
from tests.support.wire import connect_packet, split
from tests.unit.gateway.protocol.test_vectors import VECTORS
from tests.unit.gateway.protocol.vectors import Vector

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEPT: dict[str, Any] = {"clean_start": False, "session_expiry": 600}
BAD_CONNECTS = [vector for vector in VECTORS if vector.packet is None and vector.data[:1] == b"\x10"]


@pytest.mark.parametrize("vector", BAD_CONNECTS, ids=[vector.name for vector in BAD_CONNECTS])
def test_a_connect_that_is_not_well_formed_ends_the_connection(bed: Testbed, vector: Vector) -> None:
    """[MQTT-3.1.4-1] [MQTT-3.1.4-6] [MQTT-3.2.2-7] [MQTT-3.14.0-1]: told by CONNACK or not at all, and nothing behind it is read."""
    _, body = split(bytearray(vector.data))
    party = bed.dial(answer_version(body))
    party.write_bytes(vector.data + b"\x30\x04\x00\x01a\x00")
    bed.settle()
    assert party.closed
    code = ReasonCode(vector.code)
    has_answer = party.version == 5 or code in CONNECT_RETURN_CODES
    assert party.inbox == ([Connack(session_present=False, reason_code=code)] if has_answer else [])
    assert bed.published() == bed.events() == []
    assert bed.node.registry.sessions == {}


@VERSIONS
@pytest.mark.parametrize("cause", ["login", "will", "draining", "log"])
def test_a_refused_connect_is_answered_once_and_nothing_behind_it_is_done(make_bed: Make, version: int, cause: str) -> None:
    """[MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.2.2-7] [MQTT-3.14.0-1] [MQTT-4.13.2-1]: CONNACK, closed, no DISCONNECT."""
    bed = make_bed(access=(AccessRule("*", "publish", "no", "deny"),))
    watcher = bed.connect("w")
    watcher.subscribe("#")
    fields: dict[str, Any] = {}
    if cause == "login":
        fields = {"user_name": "Signature|x|y", "password": b"wrong"}
    elif cause == "will":
        fields = {"will": will("no")}
    bed.node.draining = cause == "draining"
    bed.log.refusing = cause == "log"
    party = bed.dial(version)
    publish = encode_packet(Publish(topic="a", payload=b"1", qos=1, retain=False, dup=False, packet_id=1), version)
    party.write_bytes(encode_packet(connect_packet("c", version, **fields), version) + publish + encode_packet(Pingreq(), version))
    bed.settle()
    bed.log.refusing = False
    bed.advance(1)
    (answer,) = party.inbox
    assert isinstance(answer, Connack)
    assert answer.reason_code >= 0x80
    assert party.closed
    assert watcher.payloads() == []


@VERSIONS
def test_no_packet_comes_before_connack(bed: Testbed, version: int) -> None:
    """[MQTT-3.2.0-1]: neither what is published while the connect waits for the store, nor what waited before."""
    first = bed.connect("s", version, auto_ack=False, **KEPT)
    first.subscribe("a", qos=2)
    publisher = bed.connect("p")
    publisher.exchange("a", b"in flight")
    first.drop()
    publisher.exchange("a", b"offline")
    commit, published = bed.store.commit, []

    async def slow(changes: Sequence[Any], positions: Any = None) -> Any:
        session = bed.session("s")
        if session is not None and session.connection is not None and not published:
            published.append(True)
            for qos in range(3):
                publisher.publish("a", b"%d" % qos, qos)
            for _ in range(50):
                await asyncio.sleep(0)
        return await commit(changes, positions)

    bed.store.commit = slow  # type: ignore[method-assign, assignment]
    second = bed.dial(version)
    second.send(connect_packet("s", version, **KEPT))
    bed.advance(1)
    assert published
    assert isinstance(second.inbox[0], Connack)
    assert {b"in flight", b"offline", b"1", b"2"} <= set(second.payloads())


@VERSIONS
@pytest.mark.parametrize("connecting", [True, False])
def test_who_is_closed_before_connack_gets_no_disconnect(bed: Testbed, version: int, connecting: bool) -> None:
    """[MQTT-3.14.0-1]: as by a gateway that stops."""
    bed.log.held = True
    party = bed.dial(version)
    if connecting:
        party.send(connect_packet("c", version))
        bed.settle()
    party.connection.close_without_will(ReasonCode.SERVER_SHUTTING_DOWN, "gateway stopped")
    bed.log.release_held()
    bed.settle()
    assert party.closed
    assert party.inbox == []


@VERSIONS
def test_connack_comes_once(bed: Testbed, version: int) -> None:
    """[MQTT-3.2.0-2] [MQTT-3.1.4-5]"""
    party = bed.connect("c", version)
    party.connect("c")
    assert party.connack is None
    assert party.closed


def test_ids_that_every_server_takes(bed: Testbed) -> None:
    """[MQTT-3.1.3-5]: 1 to 23 of these characters."""
    letters = string.digits + string.ascii_letters
    assert len(letters) == 62
    for client in (*letters, letters[:23], letters[23:46], letters[39:]):
        for version in (4, 5):
            bed.connect(client, version).drop()


@VERSIONS
def test_a_session_is_found_by_its_client_id(bed: Testbed, version: int) -> None:
    """[MQTT-3.1.3-2] [MQTT-3.1.2-5] [MQTT-3.1.2-6]: by all of it, letter by letter."""
    clients = ("c", "C", "c ", "cc", "c/", "\u00e9", "e\u0301")
    for client in clients:
        party = bed.connect(client, version, **KEPT)
        assert party.connack is not None
        assert not party.connack.session_present
        party.subscribe(f"to/{client}")
        party.drop()
    for client in clients:
        again = bed.connect(client, version, **KEPT)
        assert again.connack is not None
        assert again.connack.session_present
        for other in clients:
            bed.connect("p").exchange(f"to/{other}", other.encode())
        bed.advance(1)
        assert set(again.payloads()) == {client.encode()}
        again.drop()


@pytest.mark.parametrize("asked", [0, 1, None])
def test_no_response_information_is_returned(bed: Testbed, asked: int | None) -> None:
    """[MQTT-3.1.2-28]; a server may leave it out for who asks for it too."""
    party = bed.connect("c", properties=Properties(request_response_information=asked))
    assert party.connack is not None
    assert party.connack.properties is not None
    assert party.connack.properties.response_information is None


def test_the_keep_alive_asked_for_holds_where_connack_names_none(bed: Testbed) -> None:
    """[MQTT-3.2.2-22] [MQTT-3.1.2-22]: not before one and a half times of it, and with its will."""
    watcher = bed.connect("w")
    watcher.subscribe("w")
    party = bed.connect("c", keep_alive=20, will=will("w"))
    assert party.connack is not None
    assert party.connack.properties is not None
    assert party.connack.properties.server_keep_alive is None
    bed.advance(29.9)
    assert not party.closed
    bed.advance(0.7)
    assert party.closed
    assert watcher.payloads() == [b"gone"]


def test_a_session_is_kept_as_long_as_its_connection_is_open(bed: Testbed) -> None:
    """[MQTT-4.1.0-1], then as long as it asked for [MQTT-4.1.0-2]."""
    party = bed.connect("c", clean_start=False, session_expiry=5)
    bed.advance(100)
    assert bed.session("c") is not None
    assert bed.store._state.session_of("c") is not None
    party.drop()
    bed.advance(4)
    assert bed.session("c") is not None
    bed.advance(3)
    assert bed.session("c") is None
    assert bed.store._state.session_of("c") is None


@VERSIONS
@pytest.mark.parametrize("cause", ["second connect", "takeover", "client"])
def test_nothing_is_sent_behind_disconnect(bed: Testbed, version: int, cause: str) -> None:
    """[MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1]: not even where the transport takes its time to close, and what comes then is not
    read."""
    party = bed.connect("c", version)
    party.subscribe("a", qos=0)
    closes: list[bool] = []
    party.close = lambda: closes.append(True)  # type: ignore[method-assign]
    publisher = bed.connect("p")
    bed.log.held = True
    party.publish("b", b"before", 1)
    if cause == "second connect":
        party.send(connect_packet("c", version))
    elif cause == "takeover":
        bed.dial(version).send(connect_packet("c", version))
    else:
        party.send(Disconnect())
    bed.settle()
    publisher.publish("a", b"1")
    party.publish("a", b"2")
    party.send(Pingreq())
    bed.log.release_held()
    bed.settle()
    assert closes
    assert [type(packet) for packet in party.inbox] == ([Disconnect] if version == 5 and cause != "client" else [])
    assert [record.payload for record in bed.published()] == [b"before", b"1"]
    del party.close


def test_a_client_without_a_method_neither_gets_nor_sends_auth(bed: Testbed) -> None:
    """[MQTT-4.12.0-6] [MQTT-4.12.0-7] [MQTT-4.12.1-2]: CONNACK has no method, and AUTH ends the connection."""
    for code in (ReasonCode.CONTINUE_AUTHENTICATION, ReasonCode.REAUTHENTICATE):
        party = bed.connect("c")
        assert party.connack is not None
        assert party.connack.properties is not None
        assert party.connack.properties.authentication_method is None
        party.send(Auth(reason_code=code, properties=Properties(authentication_method="SCRAM")))
        assert party.one(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR
        assert party.inbox == []
        assert party.closed


def test_a_method_that_is_not_served_is_refused_and_the_connection_closed(bed: Testbed) -> None:
    """[MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-3.2.2-7]: AUTH behind it is of no effect."""
    party = bed.dial()
    properties = Properties(authentication_method="SCRAM", authentication_data=b"x")
    party.write_bytes(
        encode_packet(connect_packet("c", properties=properties), 5)
        + encode_packet(Auth(reason_code=ReasonCode.CONTINUE_AUTHENTICATION, properties=properties), 5)
    )
    bed.settle()
    assert party.inbox == [Connack(session_present=False, reason_code=ReasonCode.BAD_AUTHENTICATION_METHOD)]
    assert party.closed


@pytest.mark.parametrize("maximum", [0, 3])
def test_an_alias_over_the_maximum_of_connack_ends_the_connection(make_bed: Make, maximum: int) -> None:
    """[MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9]; all up to it are taken [MQTT-3.3.2-12]."""
    bed = make_bed(limits=Limits(topic_alias_maximum=maximum))
    party = bed.connect("p")
    assert party.connack is not None
    assert party.connack.properties is not None
    assert party.connack.properties.topic_alias_maximum == maximum
    for alias in range(1, maximum + 1):
        party.publish("a", b"", topic_alias=alias)
    bed.settle()
    assert not party.closed
    party.publish("a", b"", topic_alias=maximum + 1)
    assert party.one(Disconnect).reason_code == ReasonCode.TOPIC_ALIAS_INVALID
    assert len(bed.published()) == maximum
