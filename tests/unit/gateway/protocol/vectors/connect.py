"""CONNECT and CONNACK."""

from __future__ import annotations

from gateway.protocol.packets import Connack, Connect, WillMessage
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from tests.unit.gateway.protocol.vectors import BOTH, flat, good, malformed, refused


def _connect(version: int, **fields: object) -> Connect:
    return Connect(**({"version": version, "clean_start": True, "keep_alive": 60, "client_id": "a"} | fields))  # type: ignore[arg-type]


def _will(**fields: object) -> WillMessage:
    return WillMessage(**({"topic": "w", "payload": b"p", "qos": 0, "retain": False} | fields))  # type: ignore[arg-type]


CONNECT = flat(
    # 3.1.1
    good("connect least", 4, '10 [ "MQTT" 04 02 003c "a" ]', _connect(4)),
    good("connect empty id, clean session", 4, '10 [ "MQTT" 04 02 0000 "" ]', _connect(4, keep_alive=0, client_id="")),
    good("connect without clean session", 4, '10 [ "MQTT" 04 00 003c "a" ]', _connect(4, clean_start=False)),
    good("connect keep alive longest", 4, '10 [ "MQTT" 04 02 ffff "a" ]', _connect(4, keep_alive=65535)),
    # [MQTT-3.1.2-17]
    good("connect user name", 4, '10 [ "MQTT" 04 82 003c "a" "user" ]', _connect(4, user_name="user")),
    good("connect empty user name", 4, '10 [ "MQTT" 04 82 003c "a" "" ]', _connect(4, user_name="")),
    good("connect password", 4, '10 [ "MQTT" 04 c2 003c "a" "u" "p" ]', _connect(4, user_name="u", password=b"p")),
    good("connect empty password", 4, '10 [ "MQTT" 04 c2 003c "a" "u" "" ]', _connect(4, user_name="u", password=b"")),
    good("connect binary password", 4, '10 [ "MQTT" 04 c2 003c "a" "u" 0003 00ff80 ]', _connect(4, user_name="u", password=b"\x00\xff\x80")),
    good("connect will", 4, '10 [ "MQTT" 04 06 003c "a" "w" "p" ]', _connect(4, will=_will())),
    # [MQTT-3.1.2-12]
    good("connect will QoS 1", 4, '10 [ "MQTT" 04 0e 003c "a" "w" "p" ]', _connect(4, will=_will(qos=1))),
    good("connect will QoS 2 retained", 4, '10 [ "MQTT" 04 36 003c "a" "w" "p" ]', _connect(4, will=_will(qos=2, retain=True))),
    good("connect will empty payload", 4, '10 [ "MQTT" 04 06 003c "a" "w" "" ]', _connect(4, will=_will(payload=b""))),
    good("connect will binary payload", 4, '10 [ "MQTT" 04 06 003c "a" "w" 0002 00ff ]', _connect(4, will=_will(payload=b"\x00\xff"))),
    # [MQTT-3.1.3-1]
    good(
        "connect all",
        4,
        '10 [ "MQTT" 04 ee 0005 "id" "w" "p" "u" "s" ]',
        _connect(4, keep_alive=5, client_id="id", will=_will(qos=1, retain=True), user_name="u", password=b"s"),
    ),
    good("connect 23 characters", 4, '10 [ "MQTT" 04 02 003c "abcdefghijklmnopqrstuvw" ]', _connect(4, client_id="abcdefghijklmnopqrstuvw")),
    good("connect long id", 4, f'10 [ "MQTT" 04 02 003c "{"x" * 300}" ]', _connect(4, client_id="x" * 300)),
    good("connect unicode id", 4, '10 [ "MQTT" 04 02 003c "Grüße 漢 𠜎" ]', _connect(4, client_id="Grüße 漢 𠜎")),
    good("connect byte order mark stays", 4, '10 [ "MQTT" 04 02 003c 0004 efbbbf61 ]', _connect(4, client_id="\ufeffa")),
    good("connect control characters", 4, '10 [ "MQTT" 04 02 003c 0002 017f ]', _connect(4, client_id="\x01\x7f")),
    # 5.0
    good("connect least", 5, '10 [ "MQTT" 05 02 003c [ ] "a" ]', _connect(5)),
    good("connect empty id", 5, '10 [ "MQTT" 05 02 003c [ ] "" ]', _connect(5, client_id="")),
    good("connect empty id, no clean start", 5, '10 [ "MQTT" 05 00 003c [ ] "" ]', _connect(5, client_id="", clean_start=False)),
    # [MQTT-3.1.2-19]
    good("connect password without user name", 5, '10 [ "MQTT" 05 42 003c [ ] "a" "p" ]', _connect(5, password=b"p")),
    good("connect user name", 5, '10 [ "MQTT" 05 82 003c [ ] "a" "u" ]', _connect(5, user_name="u")),
    good(
        "connect session expiry",
        5,
        '10 [ "MQTT" 05 02 003c [ 11 ffffffff ] "a" ]',
        _connect(5, properties=Properties(session_expiry_interval=0xFFFFFFFF)),
    ),
    good(
        "connect all properties",
        5,
        '10 [ "MQTT" 05 02 003c [ 11 0000000a 15 "m" 16 "d" 17 00 19 01 21 0001 22 0005 26 "k" "v" 27 00000001 ] "a" ]',
        _connect(
            5,
            properties=Properties(
                session_expiry_interval=10,
                authentication_method="m",
                authentication_data=b"d",
                request_problem_information=0,
                request_response_information=1,
                receive_maximum=1,
                topic_alias_maximum=5,
                user_property=(("k", "v"),),
                maximum_packet_size=1,
            ),
        ),
    ),
    good(
        "connect properties in any order",
        5,
        '10 [ "MQTT" 05 02 003c [ 22 0005 26 "k" "v" 11 0000000a 26 "k" "w" ] "a" ]',
        _connect(5, properties=Properties(session_expiry_interval=10, topic_alias_maximum=5, user_property=(("k", "v"), ("k", "w")))),
        shortest=False,
    ),
    good("connect will", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ ] "w" "p" ]', _connect(5, will=_will())),
    # [MQTT-3.1.2-9]
    good(
        "connect will properties",
        5,
        '10 [ "MQTT" 05 2e 003c [ ] "a" [ 01 01 02 0000003c 03 "c" 08 "r" 09 "d" 18 00000005 26 "k" "v" ] "w" "p" ]',
        _connect(
            5,
            will=_will(
                qos=1,
                retain=True,
                properties=Properties(
                    payload_format_indicator=1,
                    message_expiry_interval=60,
                    content_type="c",
                    response_topic="r",
                    correlation_data=b"d",
                    will_delay_interval=5,
                    user_property=(("k", "v"),),
                ),
            ),
        ),
    ),
    # The protocol [MQTT-3.1.2-1] [MQTT-3.1.2-2]
    # [MQTT-3.1.2-2]
    refused("connect 3.1", BOTH, '10 [ "MQIsdp" 03 02 003c "a" ]', 0x84),
    refused("connect level 3", BOTH, '10 [ "MQTT" 03 02 003c "a" ]', 0x84),
    refused("connect level 6", BOTH, '10 [ "MQTT" 06 02 003c [ ] "a" ]', 0x84),
    refused("connect level 0", BOTH, '10 [ "MQTT" 00 02 003c "a" ]', 0x84),
    refused("connect bridge level", BOTH, '10 [ "MQTT" 84 02 003c "a" ]', 0x84),
    # [MQTT-3.1.2-1]
    refused("connect name in small letters", BOTH, '10 [ "mqtt" 04 02 003c "a" ]', 0x84),
    refused("connect no name", BOTH, '10 [ "" 04 02 003c "a" ]', 0x84),
    refused("connect name not UTF-8", BOTH, "10 [ 0004 ffffffff 04 02 003c ]", 0x84),
    refused("connect name too long", BOTH, '10 [ "MQTTX" 05 02 003c "a" ]', 0x84),
    malformed("connect empty", BOTH, "10 [ ]"),
    malformed("connect name only", BOTH, '10 [ "MQTT" ]'),
    malformed("connect name cut", BOTH, "10 [ 0004 'MQT' ]"),
    malformed("connect level only", 4, '10 [ "MQTT" 04 ]'),
    malformed("connect flags only", 4, '10 [ "MQTT" 04 02 ]'),
    malformed("connect keep alive cut", 4, '10 [ "MQTT" 04 02 00 ]'),
    # [MQTT-3.1.3-3]
    malformed("connect no client id", 4, '10 [ "MQTT" 04 02 003c ]'),
    malformed("connect no properties", 5, '10 [ "MQTT" 05 02 003c ]'),
    malformed("connect no client id", 5, '10 [ "MQTT" 05 02 003c [ ] ]'),
    malformed("connect trailing byte", 4, '10 [ "MQTT" 04 02 003c "a" 00 ]'),
    malformed("connect trailing byte", 5, '10 [ "MQTT" 05 02 003c [ ] "a" 00 ]'),
    # Flags
    malformed("connect fixed header flags 1", BOTH, '11 [ "MQTT" 04 02 003c "a" ]'),
    malformed("connect fixed header flags 2", BOTH, '12 [ "MQTT" 04 02 003c "a" ]'),
    malformed("connect fixed header flags 15", BOTH, '1f [ "MQTT" 04 02 003c "a" ]'),
    # [MQTT-3.1.2-3]
    malformed("connect reserved flag", 4, '10 [ "MQTT" 04 03 003c "a" ]'),
    malformed("connect reserved flag", 5, '10 [ "MQTT" 05 03 003c [ ] "a" ]'),
    malformed("connect will QoS 3", 4, '10 [ "MQTT" 04 1e 003c "a" "w" "p" ]'),
    malformed("connect will QoS 3", 5, '10 [ "MQTT" 05 1e 003c [ ] "a" [ ] "w" "p" ]'),
    # [MQTT-3.1.2-11]
    malformed("connect will QoS 1 without will", 4, '10 [ "MQTT" 04 0a 003c "a" ]'),
    malformed("connect will QoS 2 without will", 5, '10 [ "MQTT" 05 12 003c [ ] "a" ]'),
    # [MQTT-3.1.2-13]
    malformed("connect will retain without will", 4, '10 [ "MQTT" 04 22 003c "a" ]'),
    malformed("connect will retain without will", 5, '10 [ "MQTT" 05 22 003c [ ] "a" ]'),
    malformed("connect password without user name", 4, '10 [ "MQTT" 04 42 003c "a" "p" ]'),
    # What flags promise and the payload lacks
    malformed("connect user name missing", 4, '10 [ "MQTT" 04 82 003c "a" ]'),
    malformed("connect user name missing", 5, '10 [ "MQTT" 05 82 003c [ ] "a" ]'),
    malformed("connect password missing", 4, '10 [ "MQTT" 04 c2 003c "a" "u" ]'),
    malformed("connect password missing", 5, '10 [ "MQTT" 05 42 003c [ ] "a" ]'),
    malformed("connect will missing", 4, '10 [ "MQTT" 04 06 003c "a" ]'),
    malformed("connect will payload missing", 4, '10 [ "MQTT" 04 06 003c "a" "w" ]'),
    malformed("connect will properties missing", 5, '10 [ "MQTT" 05 06 003c [ ] "a" ]'),
    malformed("connect will topic missing", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ ] ]'),
    # [MQTT-3.1.2-16]
    malformed("connect user name without flag", 4, '10 [ "MQTT" 04 02 003c "a" "u" ]'),
    # [MQTT-3.1.2-18]
    malformed("connect password without flag", 5, '10 [ "MQTT" 05 82 003c [ ] "a" "u" "p" ]'),
    # Strings
    refused("connect empty id with kept session", 4, '10 [ "MQTT" 04 00 003c "" ]', 0x85),
    malformed("connect id with NUL", 4, '10 [ "MQTT" 04 02 003c 0003 610062 ]'),
    malformed("connect id with NUL", 5, '10 [ "MQTT" 05 02 003c [ ] 0003 610062 ]'),
    malformed("connect id with surrogate", 4, '10 [ "MQTT" 04 02 003c 0003 eda080 ]'),
    malformed("connect id with surrogate", 5, '10 [ "MQTT" 05 02 003c [ ] 0003 edbfbf ]'),
    malformed("connect id with overlong slash", 4, '10 [ "MQTT" 04 02 003c 0002 c0af ]'),
    malformed("connect id not UTF-8", 4, '10 [ "MQTT" 04 02 003c 0001 ff ]'),
    malformed("connect id cut in a character", 4, '10 [ "MQTT" 04 02 003c 0001 c3 ]'),
    malformed("connect id above Unicode", 4, '10 [ "MQTT" 04 02 003c 0004 f4908080 ]'),
    malformed("connect id length too large", 4, '10 [ "MQTT" 04 02 003c ffff 61 ]'),
    malformed("connect user name not UTF-8", 4, '10 [ "MQTT" 04 82 003c "a" 0001 ff ]'),
    # [MQTT-3.1.3-12]
    malformed("connect user name with NUL", 5, '10 [ "MQTT" 05 82 003c [ ] "a" 0001 00 ]'),
    # Will
    refused("connect will topic empty", 4, '10 [ "MQTT" 04 06 003c "a" "" "p" ]', 0x90),
    refused("connect will topic empty", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ ] "" "p" ]', 0x90),
    refused("connect will topic with +", 4, '10 [ "MQTT" 04 06 003c "a" "w/+" "p" ]', 0x90),
    refused("connect will topic with #", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ ] "#" "p" ]', 0x90),
    malformed("connect will topic with NUL", 4, '10 [ "MQTT" 04 06 003c "a" 0001 00 "p" ]'),
    # [MQTT-3.1.3-11]
    malformed("connect will topic not UTF-8", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ ] 0001 80 "p" ]'),
    refused("connect will response topic with #", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ 08 "r/#" ] "w" "p" ]'),
    refused("connect will response topic empty", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ 08 "" ] "w" "p" ]'),
    malformed("connect will with session expiry", 5, '10 [ "MQTT" 05 06 003c [ ] "a" [ 11 0000000a ] "w" "p" ]'),
    malformed("connect with will delay", 5, '10 [ "MQTT" 05 02 003c [ 18 0000000a ] "a" ]'),
    # Properties
    refused("connect session expiry twice", 5, '10 [ "MQTT" 05 02 003c [ 11 0000000a 11 0000000a ] "a" ]'),
    refused("connect receive maximum 0", 5, '10 [ "MQTT" 05 02 003c [ 21 0000 ] "a" ]'),
    refused("connect maximum packet size 0", 5, '10 [ "MQTT" 05 02 003c [ 27 00000000 ] "a" ]'),
    refused("connect request problem information 2", 5, '10 [ "MQTT" 05 02 003c [ 17 02 ] "a" ]'),
    refused("connect request response information 2", 5, '10 [ "MQTT" 05 02 003c [ 19 02 ] "a" ]'),
    refused("connect authentication data alone", 5, '10 [ "MQTT" 05 02 003c [ 16 "d" ] "a" ]'),
    malformed("connect unknown property", 5, '10 [ "MQTT" 05 02 003c [ 7f 00 ] "a" ]'),
    malformed("connect property 0", 5, '10 [ "MQTT" 05 02 003c [ 00 00 ] "a" ]'),
    malformed("connect property identifier of two bytes", 5, '10 [ "MQTT" 05 02 003c [ 9100 0000000a ] "a" ]'),
    malformed("connect property cut", 5, '10 [ "MQTT" 05 02 003c [ 11 000000 ] "a" ]'),
    malformed("connect property past its block", 5, '10 [ "MQTT" 05 02 003c 03 11 0000000a "a" ]'),
    malformed("connect property length past the packet", 5, '10 [ "MQTT" 05 02 003c 7f 11 0000000a "a" ]'),
    malformed("connect property length not minimal", 5, '10 [ "MQTT" 05 02 003c 8000 "a" ]'),
    malformed("connect property length of 5 bytes", 5, '10 [ "MQTT" 05 02 003c 8080808001 "a" ]'),
    malformed("connect user property without value", 5, '10 [ "MQTT" 05 02 003c [ 26 "k" ] ]'),
)


def _connack(code: int, **properties: object) -> Connack:
    return Connack(session_present=False, reason_code=ReasonCode(code), properties=Properties(**properties) if properties else None)  # type: ignore[arg-type]


CONNACK = flat(
    good("connack success", 4, "20 [ 00 00 ]", _connack(0), from_server=True),
    good("connack present", 4, "20 [ 01 00 ]", Connack(session_present=True, reason_code=ReasonCode.SUCCESS), from_server=True),
    good("connack return code 1", 4, "20 [ 00 01 ]", _connack(0x84), from_server=True),
    good("connack return code 2", 4, "20 [ 00 02 ]", _connack(0x85), from_server=True),
    good("connack return code 3", 4, "20 [ 00 03 ]", _connack(0x88), from_server=True),
    good("connack return code 4", 4, "20 [ 00 04 ]", _connack(0x86), from_server=True),
    good("connack return code 5", 4, "20 [ 00 05 ]", _connack(0x87), from_server=True),
    good("connack success", 5, "20 [ 00 00 [ ] ]", _connack(0), from_server=True),
    good("connack present", 5, "20 [ 01 00 [ ] ]", Connack(session_present=True, reason_code=ReasonCode.SUCCESS), from_server=True),
    *(
        # [MQTT-3.2.2-8]
        good(f"connack {code:#x}", 5, f"20 [ 00 {code:02x} [ ] ]", _connack(code), from_server=True)
        for code in (*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F)
    ),
    good(
        "connack all properties",
        5,
        '20 [ 00 00 [ 11 0000000a 12 "id" 13 003c 15 "m" 16 "d" 1a "i" 1c "s" 1f "r" 21 0001 22 0002 24 01 25 01 26 "k" "v" 27 00001000'
        " 28 01 29 01 2a 00 ] ]",
        _connack(
            0,
            session_expiry_interval=10,
            assigned_client_identifier="id",
            server_keep_alive=60,
            authentication_method="m",
            authentication_data=b"d",
            response_information="i",
            server_reference="s",
            reason_string="r",
            receive_maximum=1,
            topic_alias_maximum=2,
            maximum_qos=1,
            retain_available=1,
            user_property=(("k", "v"),),
            maximum_packet_size=4096,
            wildcard_subscription_available=1,
            subscription_identifier_available=1,
            shared_subscription_available=0,
        ),
        from_server=True,
    ),
    malformed("connack empty", BOTH, "20 [ ]", from_server=True),
    malformed("connack one byte", BOTH, "20 [ 00 ]", from_server=True),
    malformed("connack no properties", 5, "20 [ 00 00 ]", from_server=True),
    # [MQTT-3.2.2-1]
    malformed("connack reserved flag", 4, "20 [ 02 00 ]", from_server=True),
    malformed("connack reserved flag", 5, "20 [ 80 00 [ ] ]", from_server=True),
    malformed("connack fixed header flags", BOTH, "21 [ 00 00 ]", from_server=True),
    malformed("connack trailing byte", 4, "20 [ 00 00 00 ]", from_server=True),
    malformed("connack trailing byte", 5, "20 [ 00 00 [ ] 00 ]", from_server=True),
    refused("connack return code 6", 4, "20 [ 00 06 ]", from_server=True),
    refused("connack return code 255", 4, "20 [ 00 ff ]", from_server=True),
    # [MQTT-3.2.2-6]
    refused("connack present in a refusal", 4, "20 [ 01 05 ]", from_server=True),
    refused("connack present in a refusal", 5, "20 [ 01 87 [ ] ]", from_server=True),
    *(
        refused(f"connack {code:#x}", 5, f"20 [ 00 {code:02x} [ ] ]", from_server=True)
        for code in (0x01, 0x02, 0x04, 0x10, 0x18, 0x7F, 0x8B, 0x8D, 0x8E, 0x91, 0x93, 0x9E, 0xA0, 0xA2, 0xA3, 0xFF)
    ),
    refused("connack maximum QoS 2", 5, "20 [ 00 00 [ 24 02 ] ]", from_server=True),
    refused("connack retain available 2", 5, "20 [ 00 00 [ 25 02 ] ]", from_server=True),
    refused("connack receive maximum 0", 5, "20 [ 00 00 [ 21 0000 ] ]", from_server=True),
    refused("connack reason string twice", 5, '20 [ 00 00 [ 1f "a" 1f "a" ] ]', from_server=True),
    refused("connack authentication data alone", 5, '20 [ 00 00 [ 16 "d" ] ]', from_server=True),
)
