"""Ways to abuse a will: none is published that its client could not publish itself, and none for a connection that was never let in.

Who may have one and when it falls due is in tests/unit/gateway/test_wills.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.auth.login import sign, signature_user_name
from gateway.protocol.encode import encode_packet
from schemas.identities import AccessRule
from schemas.limits import Limits
from schemas.reasons import ReasonCode
from schemas.records import Source
from tests.support.party import will
from tests.support.testbed import Testbed
from tests.support.wire import connect_packet

Make = Callable[..., Testbed]
VERSIONS = pytest.mark.parametrize("version", [4, 5])
LIMITS = Limits(topic_levels=4, topic_bytes=40, connect_bytes=500)
RULES = (AccessRule("*", "publish", "no/#", "deny"), AccessRule("*", "publish", "x/p2p/#", "deny"))


def login(bed: Testbed, client: str) -> dict[str, Any]:
    key = bed.loop.finish(bed.keyring.create("device", bed.clock.wall()))
    return {"user_name": signature_user_name(key.id, bed.keyring.instance_id), "password": sign(key.secret.reveal().encode(), client)}


def wills(bed: Testbed) -> list[str]:
    return [record.topic for record in bed.published() if record.source == Source.WILL]


@VERSIONS
@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("no/w", b""),
        ("$SYS/broker/load", b""),
        ("$share/g/a", b""),
        ("$CONTROL/x", b""),
        ("$sluiceway/x", b""),
        ("a/b/c/d/e", b""),
        ("a" * 41, b""),
        ("x/p2p/c", b""),
        ("a", bytes(500)),
    ],
)
def test_a_will_that_the_client_may_not_publish_lets_nobody_in(make_bed: Make, version: int, topic: str, payload: bytes) -> None:
    """Denied, `$`, shared, reserved, too deep, too long, a device that is denied, too big: refused at CONNECT, published never, no session left."""
    bed = make_bed(access=RULES, limits=LIMITS)
    watcher = bed.connect("w")
    watcher.subscribe("#", "$SYS/#")
    watcher.inbox.clear()
    party = bed.dial(version)
    party.connect("c", will=will(topic, payload, qos=2, retain=True), clean_start=False, session_expiry=600)
    assert party.closed
    assert party.connack is None or party.connack.reason_code in (ReasonCode.NOT_AUTHORIZED, ReasonCode.TOPIC_NAME_INVALID)
    bed.advance(5)
    bed.crash()
    bed.advance(5)
    assert bed.published() == []
    assert watcher.inbox == []
    assert bed.session("c") is None


@VERSIONS
@pytest.mark.parametrize("topic", [b"", b"a/#", b"+", b"a\x00", b"\xed\xa0\x80", b"\xff"])
def test_a_will_topic_that_is_no_topic_name_lets_nobody_in(bed: Testbed, version: int, topic: bytes) -> None:
    """[MQTT-3.1.3-11] [MQTT-3.1.4-1]: empty, with a wildcard, with U+0000, not UTF-8."""
    party = bed.dial(version)
    body = b"\x00\x04MQTT" + bytes((version, 0x06, 0, 60)) + (b"\x00" if version == 5 else b"") + b"\x00\x01c"
    body += (b"\x00" if version == 5 else b"") + len(topic).to_bytes(2, "big") + topic + b"\x00\x01x"
    party.write_bytes(b"\x10" + bytes((len(body),)) + body)
    bed.advance(2)
    assert party.closed
    assert bed.published() == bed.events() == []
    assert bed.session("c") is None


@VERSIONS
def test_a_will_at_the_limits_is_published(make_bed: Make, version: int) -> None:
    bed = make_bed(access=RULES, limits=LIMITS)
    for topic in ("a/b/c/d", "a" * 40):
        bed.connect("c", version, will=will(topic)).drop()
    assert wills(bed) == ["a/b/c/d", "a" * 40]


@VERSIONS
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("online", [True, False])
def test_who_is_refused_a_client_id_publishes_no_will_and_triggers_none(bed: Testbed, version: int, clean: bool, online: bool) -> None:
    """Neither its own nor the owner's, whose delayed will goes on waiting."""
    owner = bed.connect("c", version, clean_start=False, session_expiry=600, will=will("owner", delay=5), **login(bed, "c"))
    if not online:
        owner.drop()
    thief = bed.dial(version)
    thief.connect("c", clean_start=clean, session_expiry=600, will=will("thief"), **login(bed, "c"))
    assert thief.connack is not None
    assert thief.connack.reason_code == ReasonCode.NOT_AUTHORIZED
    bed.advance(1)
    delayed = version == 5  # 3.1.1 has no delay
    assert wills(bed) == ([] if online or delayed else ["owner"])
    bed.advance(10)
    assert wills(bed) == ([] if online else ["owner"])


@VERSIONS
@pytest.mark.parametrize("clean", [True, False])
def test_a_takeover_publishes_the_will_of_the_connection_that_it_ends_once(bed: Testbed, version: int, clean: bool) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.4-3]: of many takeovers each its own, the last connection's not."""
    for number in range(5):
        bed.connect("c", version, clean_start=clean, session_expiry=600, will=will(f"w/{number}"))
    bed.advance(5)
    assert wills(bed) == [f"w/{number}" for number in range(4)]


@VERSIONS
@pytest.mark.parametrize("refuses", ["log", "store"])
def test_a_connect_without_an_answer_of_success_publishes_no_will(bed: Testbed, version: int, refuses: str) -> None:
    """The connect event was refused, or the session could not be kept."""
    bed.log.refusing = refuses == "log"
    bed.store.failing = refuses == "store"
    party = bed.dial(version)
    party.connect("c", clean_start=False, session_expiry=600, will=will("w"))
    assert party.closed
    bed.log.refusing = bed.store.failing = False
    bed.advance(5)
    bed.crash()
    bed.advance(5)
    assert wills(bed) == []


def test_the_properties_of_a_will_are_no_way_around_its_checks(make_bed: Make) -> None:
    """A response topic with a wildcard, or more properties than a PUBLISH may have."""
    bed = make_bed(limits=Limits(user_properties=3))
    for number in (3, 4):
        pairs = tuple((f"{index}", "") for index in range(number))
        party = bed.dial()
        party.connect("c", will=will("w", user_property=pairs))
        assert party.closed is (number == 4)
        party.drop()
    party = bed.dial()
    packet = connect_packet("c", will=will("w", response_topic="abc"))
    party.write_bytes(encode_packet(packet, 5).replace(b"abc", b"a/#"))
    bed.settle()
    assert party.closed
    assert wills(bed) == ["w"]
