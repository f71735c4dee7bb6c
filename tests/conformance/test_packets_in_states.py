"""Every type of packet in every state of a connection, in both versions: what the table of states says is what happens.

The types 0 to 15 stand in columns: y is taken, o is taken and ends the connection as the client wishes, . is a protocol error,
x is malformed. States whose packets wait for CONNACK give the same as connected ones.
"""

from __future__ import annotations

import pytest

from gateway.protocol.packets import Connack, Disconnect
from schemas.reasons import ReasonCode
from tests.support.party import will
from tests.support.testbed import Testbed
from tests.support.wire import connect_packet
from tests.unit.gateway.protocol.vectors import written

BODIES = {
    4: {
        0: "00 [ ]",
        1: '10 [ "MQTT" 04 02 003c "c" ]',
        2: "20 [ 00 00 ]",
        3: '30 [ "a" ]',
        4: "40 [ 0001 ]",
        5: "50 [ 0001 ]",
        6: "62 [ 0001 ]",
        7: "70 [ 0001 ]",
        8: '82 [ 0001 "a" 00 ]',
        9: "90 [ 0001 00 ]",
        10: 'a2 [ 0001 "a" ]',
        11: "b0 [ 0001 ]",
        12: "c0 [ ]",
        13: "d0 [ ]",
        14: "e0 [ ]",
        15: "f0 [ ]",
    }
}
BODIES[5] = BODIES[4] | {
    1: '10 [ "MQTT" 05 02 003c [ ] "c" ]',
    2: "20 [ 00 00 [ ] ]",
    3: '30 [ "a" [ ] ]',
    8: '82 [ 0001 [ ] "a" 00 ]',
    9: "90 [ 0001 [ ] 00 ]",
    10: 'a2 [ 0001 [ ] "a" ]',
    11: "b0 [ 0001 [ ] 00 ]",
}
CONNECTED = {4: "x..yyyyyy.y.y.ox", 5: "x..yyyyyy.y.y.o."}
TYPES = pytest.mark.parametrize("kind", range(16))
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@TYPES
@VERSIONS
def test_before_connect(bed: Testbed, version: int, kind: int) -> None:
    """[MQTT-3.1.0-1]: closed without a word, and nothing is left of it."""
    party = bed.dial(version)
    party.write_bytes(written(BODIES[version][kind]))
    bed.settle()
    assert party.closed is (kind != 1)
    assert [type(packet) for packet in party.inbox] == ([Connack] if kind == 1 else [])
    assert bed.published() == []
    assert len(bed.node.registry.sessions) == (kind == 1)


@TYPES
@VERSIONS
@pytest.mark.parametrize("state", ["connecting", "connected"])
def test_behind_connect(bed: Testbed, version: int, kind: int, state: str) -> None:
    """[MQTT-3.1.0-2] [MQTT-3.1.4-5] [MQTT-4.12.0-7] [MQTT-4.13.1-1]: what is not allowed ends the connection with its reason, as an error does."""
    party = bed.dial(version)
    bed.log.held = state == "connecting"
    party.send(connect_packet("c", version, will=will("w")))
    bed.settle()
    party.write_bytes(written(BODIES[version][kind]))
    bed.settle()
    if state == "connecting":
        assert party.inbox == []
        bed.log.release_held()
        bed.settle()
    assert isinstance(party.inbox.pop(0), Connack)
    verdict = CONNECTED[version][kind]
    assert party.closed is (verdict != "y")
    assert [record.topic for record in bed.published()] == {"y": ["a"] if kind == 3 else [], "o": []}.get(verdict, ["w"])
    told = party.take(Disconnect)
    if version == 4 or verdict in "yo":
        assert told == []
    else:
        assert [packet.reason_code for packet in told] == [ReasonCode.PROTOCOL_ERROR if verdict == "." else ReasonCode.MALFORMED_PACKET]
    if verdict != "y":
        assert party.inbox == []


@TYPES
@VERSIONS
@pytest.mark.parametrize("ended", ["by the client", "by an error", "by a takeover"])
def test_behind_the_end(bed: Testbed, version: int, kind: int, ended: str) -> None:
    """[MQTT-3.14.4-1]: of no effect, in the same read and in later ones."""
    party = bed.connect("c", version)
    party.close = lambda: None  # type: ignore[method-assign]
    last = written(BODIES[version][kind])
    if ended == "by a takeover":
        bed.connect("c", version)
        party.write_bytes(last)
    else:
        party.write_bytes((b"\xe0\x00" if ended == "by the client" else b"\xd0\x00") + last)
    party.write_bytes(last)
    bed.settle()
    assert [type(packet) for packet in party.inbox] == ([Disconnect] if version == 5 and ended != "by the client" else [])
    assert bed.published() == []
    assert len(bed.node.registry.sessions) == (ended == "by a takeover")
    session = bed.session("c")
    assert session is None or session.subscriptions == {}
    del party.close
