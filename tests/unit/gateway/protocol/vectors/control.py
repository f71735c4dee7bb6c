"""PINGREQ, PINGRESP, DISCONNECT, AUTH, and types that are no packets."""

from __future__ import annotations

from gateway.protocol.packets import Auth, Disconnect, Pingreq, Pingresp
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from tests.unit.gateway.protocol.vectors import BOTH, flat, good, malformed, refused

FROM_BOTH = (0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99)
FROM_SERVER = (0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2)


def _disconnect(code: int, **properties: object) -> Disconnect:
    return Disconnect(reason_code=ReasonCode(code), properties=Properties(**properties) if properties else None)  # type: ignore[arg-type]


def _auth(code: int, **properties: object) -> Auth:
    return Auth(reason_code=ReasonCode(code), properties=Properties(**properties) if properties else None)  # type: ignore[arg-type]


PING = flat(
    good("pingreq", BOTH, "c0 [ ]", Pingreq()),
    good("pingresp", BOTH, "d0 [ ]", Pingresp(), from_server=True),
    malformed("pingreq with a byte", BOTH, "c0 [ 00 ]"),
    malformed("pingresp with a byte", BOTH, "d0 [ 00 ]", from_server=True),
    malformed("pingreq flags", BOTH, "c1 [ ]"),
    malformed("pingreq flags 8", BOTH, "c8 [ ]"),
    malformed("pingresp flags", BOTH, "d2 [ ]", from_server=True),
)

DISCONNECT = flat(
    good("disconnect", BOTH, "e0 [ ]", Disconnect()),
    good("disconnect 0 in full", 5, "e0 [ 00 ]", Disconnect(), shortest=False),
    good("disconnect 0 with property length", 5, "e0 [ 00 [ ] ]", Disconnect(), shortest=False),
    good("disconnect with will", 5, "e0 [ 04 ]", _disconnect(0x04)),
    # [MQTT-3.14.2-1]
    *(good(f"disconnect {code:#x} from client", 5, f"e0 [ {code:02x} ]", _disconnect(code)) for code in FROM_BOTH),
    *(good(f"disconnect {code:#x} from server", 5, f"e0 [ {code:02x} ]", _disconnect(code), from_server=True) for code in FROM_BOTH),
    *(good(f"disconnect {code:#x} from server", 5, f"e0 [ {code:02x} ]", _disconnect(code), from_server=True) for code in FROM_SERVER),
    *(refused(f"disconnect {code:#x} from client", 5, f"e0 [ {code:02x} ]") for code in FROM_SERVER),
    *(refused(f"disconnect {code:#x}", 5, f"e0 [ {code:02x} ]") for code in (0x01, 0x10, 0x84, 0x85, 0x86, 0x8A, 0x92, 0xA3, 0xFF)),
    good("disconnect session expiry", 5, "e0 [ 00 [ 11 0000000a ] ]", _disconnect(0, session_expiry_interval=10)),
    good(
        "disconnect properties",
        5,
        'e0 [ 04 [ 11 00000000 1f "r" 26 "k" "v" ] ]',
        _disconnect(4, session_expiry_interval=0, reason_string="r", user_property=(("k", "v"),)),
    ),
    good("disconnect server reference", 5, 'e0 [ 9c [ 1c "other" ] ]', _disconnect(0x9C, server_reference="other"), from_server=True),
    # [MQTT-3.14.2-2]
    refused("disconnect session expiry from server", 5, "e0 [ 8b [ 11 0000000a ] ]", from_server=True),
    malformed("disconnect reason", 4, "e0 [ 00 ]"),
    malformed("disconnect trailing byte", 5, "e0 [ 00 [ ] 00 ]"),
    malformed("disconnect properties cut", 5, "e0 [ 00 05 11 ]"),
    # [MQTT-3.14.1-1]
    malformed("disconnect flags", BOTH, "e1 [ ]"),
    malformed("disconnect flags 4", BOTH, "e4 [ ]"),
    malformed("disconnect with receive maximum", 5, "e0 [ 00 [ 21 0001 ] ]"),
    refused("disconnect session expiry twice", 5, "e0 [ 00 [ 11 0000000a 11 0000000a ] ]"),
)

AUTH = flat(
    good("auth success", 5, "f0 [ ]", Auth(), from_server=True),
    good("auth success with method", 5, 'f0 [ 00 [ 15 "m" ] ]', _auth(0, authentication_method="m"), from_server=True),
    good("auth continue", 5, 'f0 [ 18 [ 15 "m" 16 "d" ] ]', _auth(0x18, authentication_method="m", authentication_data=b"d")),
    good("auth continue from server", 5, 'f0 [ 18 [ 15 "m" ] ]', _auth(0x18, authentication_method="m"), from_server=True),
    good("auth again", 5, 'f0 [ 19 [ 15 "m" ] ]', _auth(0x19, authentication_method="m")),
    good(
        "auth properties",
        5,
        'f0 [ 18 [ 15 "m" 16 "" 1f "r" 26 "k" "v" ] ]',
        _auth(0x18, authentication_method="m", authentication_data=b"", reason_string="r", user_property=(("k", "v"),)),
    ),
    refused("auth success from client", 5, "f0 [ ]"),
    refused("auth success with method from client", 5, 'f0 [ 00 [ 15 "m" ] ]'),
    refused("auth without method", 5, "f0 [ 18 ]"),
    refused("auth without properties", 5, "f0 [ 18 [ ] ]"),
    refused("auth data alone", 5, 'f0 [ 18 [ 16 "d" ] ]'),
    refused("auth method twice", 5, 'f0 [ 18 [ 15 "m" 15 "m" ] ]'),
    # [MQTT-3.15.2-1]
    *(refused(f"auth {code:#x}", 5, f'f0 [ {code:02x} [ 15 "m" ] ]') for code in (0x01, 0x17, 0x1A, 0x80, 0x8C, 0xFF)),
    malformed("auth trailing byte", 5, 'f0 [ 18 [ 15 "m" ] 00 ]'),
    # [MQTT-3.15.1-1]
    malformed("auth flags", 5, 'f1 [ 18 [ 15 "m" ] ]'),
    malformed("auth flags 2", 5, 'f2 [ 18 [ 15 "m" ] ]'),
    malformed("auth method not UTF-8", 5, "f0 [ 18 [ 15 0001 ff ] ]"),
    malformed("auth in 3.1.1", 4, 'f0 [ 18 [ 15 "m" ] ]'),
    malformed("auth empty in 3.1.1", 4, "f0 [ ]"),
)

RESERVED = flat(*(malformed(f"type 0 flags {flags:x}", BOTH, f"0{flags:x} [ 0001 ]") for flags in range(16)))
