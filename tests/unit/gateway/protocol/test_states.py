"""Every packet type in every state of a connection, in both versions. The table is written anew: a line a state, a column a type."""

from __future__ import annotations

import pytest

from gateway.protocol.errors import MalformedPacket, PacketError, ProtocolError
from gateway.protocol.states import MAY_SEND, ConnectionState, check_allowed

# Types 0 to 15: y is allowed, . is a protocol error, x does not exist.
EXPECTED = {
    (4, "AWAITING_CONNECT"): "xy.............x",
    (4, "CONNECTING"): "x..yyyyyy.y.y.yx",
    (4, "AUTHENTICATING"): "x..............x",
    (4, "CONNECTED"): "x..yyyyyy.y.y.yx",
    (4, "REAUTHENTICATING"): "x..............x",
    (4, "DISCONNECTING"): "x..............x",
    (5, "AWAITING_CONNECT"): "xy..............",
    (5, "CONNECTING"): "x..yyyyyy.y.y.y.",
    (5, "AUTHENTICATING"): "x.............yy",
    (5, "CONNECTED"): "x..yyyyyy.y.y.yy",
    (5, "REAUTHENTICATING"): "x..yyyyyy.y.y.yy",
    (5, "DISCONNECTING"): "x...............",
}
CELLS = [(version, state, kind, verdict) for (version, state), line in EXPECTED.items() for kind, verdict in enumerate(line)]


def test_every_cell_is_there() -> None:
    assert len(CELLS) == 2 * len(ConnectionState) * 16
    assert {(version, state.name) for version in MAY_SEND for state in MAY_SEND[version]} == set(EXPECTED)


@pytest.mark.parametrize(("version", "state", "kind", "verdict"), CELLS)
def test_type_in_state(version: int, state: str, kind: int, verdict: str) -> None:
    """[MQTT-3.1.0-1] [MQTT-3.1.0-2] [MQTT-3.1.2-30] [MQTT-3.14.4-1]"""
    if verdict == "y":
        check_allowed(kind, ConnectionState[state], version)
        return
    with pytest.raises(PacketError) as caught:
        check_allowed(kind, ConnectionState[state], version)
    expected = (ProtocolError, 0x82) if verdict == "." else (MalformedPacket, 0x81)
    assert (type(caught.value), caught.value.reason_code) == expected


def test_a_servers_packets_are_never_allowed() -> None:
    for states in MAY_SEND.values():
        for allowed in states.values():
            assert not {2, 9, 11, 13} & set(allowed)
