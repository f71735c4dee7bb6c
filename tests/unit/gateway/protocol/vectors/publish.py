"""PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP."""

from __future__ import annotations

from gateway.protocol.packets import Ack, PacketType, Publish
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from tests.unit.gateway.protocol.vectors import BOTH, Vector, flat, good, malformed, refused


def _publish(**fields: object) -> Publish:
    return Publish(**({"topic": "t", "payload": b"p", "qos": 0, "retain": False, "dup": False} | fields))  # type: ignore[arg-type]


def _props(**fields: object) -> Publish:
    return _publish(properties=Properties(**fields))  # type: ignore[arg-type]


PUBLISH = flat(
    # [MQTT-2.2.1-2]
    good("publish", 4, "30 [ \"t\" 'p' ]", _publish()),
    good("publish", 5, "30 [ \"t\" [ ] 'p' ]", _publish()),
    good("publish no payload", 4, '30 [ "t" ]', _publish(payload=b"")),
    good("publish no payload", 5, '30 [ "t" [ ] ]', _publish(payload=b"")),
    good("publish retained", 4, "31 [ \"t\" 'p' ]", _publish(retain=True)),
    good("publish retained", 5, "31 [ \"t\" [ ] 'p' ]", _publish(retain=True)),
    good("publish QoS 1", 4, "32 [ \"t\" 0001 'p' ]", _publish(qos=1, packet_id=1)),
    good("publish QoS 1", 5, "32 [ \"t\" 0001 [ ] 'p' ]", _publish(qos=1, packet_id=1)),
    good("publish QoS 1 again", 4, "3a [ \"t\" 0001 'p' ]", _publish(qos=1, packet_id=1, dup=True)),
    good("publish QoS 1 again", 5, "3a [ \"t\" 0001 [ ] 'p' ]", _publish(qos=1, packet_id=1, dup=True)),
    good("publish QoS 1 again retained", 4, "3b [ \"t\" 0001 'p' ]", _publish(qos=1, packet_id=1, dup=True, retain=True)),
    good("publish QoS 2", 4, "34 [ \"t\" ffff 'p' ]", _publish(qos=2, packet_id=65535)),
    good("publish QoS 2", 5, "34 [ \"t\" ffff [ ] 'p' ]", _publish(qos=2, packet_id=65535)),
    good("publish QoS 2 again retained", 5, "3d [ \"t\" 0100 [ ] 'p' ]", _publish(qos=2, packet_id=256, dup=True, retain=True)),
    good("publish QoS 1 no payload", 4, '32 [ "t" 0001 ]', _publish(qos=1, packet_id=1, payload=b"")),
    good("publish binary payload", 4, '30 [ "t" 00ff8000 ]', _publish(payload=b"\x00\xff\x80\x00")),
    good("publish payload like properties", 4, '30 [ "t" 0123 ]', _publish(payload=b"\x01\x23")),
    good("publish 128 bytes", 4, f"30 [ \"t\" '{'x' * 125}' ]", _publish(payload=b"x" * 125)),
    good("publish 16384 bytes", 4, f"30 [ \"t\" '{'x' * 16381}' ]", _publish(payload=b"x" * 16381)),
    good("publish levels", 4, '30 [ "a/b//c/" ]', _publish(topic="a/b//c/", payload=b"")),
    good("publish slash", 4, '30 [ "/" ]', _publish(topic="/", payload=b"")),
    good("publish dollar", 4, '30 [ "$SYS/x" ]', _publish(topic="$SYS/x", payload=b"")),
    good("publish space", 5, '30 [ " " [ ] ]', _publish(topic=" ", payload=b"")),
    good("publish unicode", 5, '30 [ "Ä/漢/𠜎" [ ] ]', _publish(topic="Ä/漢/𠜎", payload=b"")),
    # [MQTT-1.5.4-3]
    good("publish byte order mark stays", 5, "30 [ 0004 efbbbf74 [ ] ]", _publish(topic="\ufefft", payload=b"")),
    good("publish payload format 0", 5, "30 [ \"t\" [ 01 00 ] 'p' ]", _props(payload_format_indicator=0)),
    good("publish payload format 1", 5, "30 [ \"t\" [ 01 01 ] 'p' ]", _props(payload_format_indicator=1)),
    good("publish expiry 0", 5, "30 [ \"t\" [ 02 00000000 ] 'p' ]", _props(message_expiry_interval=0)),
    good("publish expiry longest", 5, "30 [ \"t\" [ 02 ffffffff ] 'p' ]", _props(message_expiry_interval=0xFFFFFFFF)),
    good("publish content type", 5, '30 [ "t" [ 03 "text/plain" ] \'p\' ]', _props(content_type="text/plain")),
    good("publish content type empty", 5, '30 [ "t" [ 03 "" ] \'p\' ]', _props(content_type="")),
    good("publish response topic", 5, '30 [ "t" [ 08 "r/1" ] \'p\' ]', _props(response_topic="r/1")),
    good("publish correlation data", 5, "30 [ \"t\" [ 09 0003 00ff80 ] 'p' ]", _props(correlation_data=b"\x00\xff\x80")),
    good("publish correlation data empty", 5, '30 [ "t" [ 09 "" ] \'p\' ]', _props(correlation_data=b"")),
    good("publish topic alias", 5, "30 [ \"t\" [ 23 0001 ] 'p' ]", _props(topic_alias=1)),
    good("publish alias alone", 5, "30 [ \"\" [ 23 ffff ] 'p' ]", _publish(topic="", properties=Properties(topic_alias=65535))),
    good("publish user property", 5, '30 [ "t" [ 26 "k" "v" ] \'p\' ]', _props(user_property=(("k", "v"),))),
    good("publish user property empty", 5, '30 [ "t" [ 26 "" "" ] \'p\' ]', _props(user_property=(("", ""),))),
    good(
        "publish user properties in order",
        5,
        '30 [ "t" [ 26 "b" "1" 26 "a" "2" 26 "b" "1" ] \'p\' ]',
        _props(user_property=(("b", "1"), ("a", "2"), ("b", "1"))),
    ),
    good("publish identifier", 5, "30 [ \"t\" [ 0b 01 ] 'p' ]", _props(subscription_identifier=(1,)), from_server=True),
    good(
        "publish identifiers",
        5,
        "30 [ \"t\" [ 0b 01 0b ffffff7f 0b 8001 ] 'p' ]",
        _props(subscription_identifier=(1, 268_435_455, 128)),
        from_server=True,
    ),
    good(
        "publish all properties",
        5,
        '30 [ "t" [ 01 01 02 0000003c 03 "c" 08 "r" 09 "d" 23 0002 26 "k" "v" ] \'p\' ]',
        _props(
            payload_format_indicator=1,
            message_expiry_interval=60,
            content_type="c",
            response_topic="r",
            correlation_data=b"d",
            topic_alias=2,
            user_property=(("k", "v"),),
        ),
    ),
    # The first byte [MQTT-3.3.1-4] [MQTT-3.3.1-2]
    # [MQTT-3.3.1-4]
    malformed("publish QoS 3", 4, "36 [ \"t\" 0001 'p' ]"),
    malformed("publish QoS 3", 5, "36 [ \"t\" 0001 [ ] 'p' ]"),
    malformed("publish QoS 3 again retained", BOTH, "3f [ \"t\" 0001 00 'p' ]"),
    # [MQTT-3.3.1-2]
    malformed("publish QoS 0 again", 4, "38 [ \"t\" 'p' ]"),
    malformed("publish QoS 0 again", 5, "39 [ \"t\" [ ] 'p' ]"),
    # Packet identifier
    # [MQTT-2.2.1-3]
    refused("publish QoS 1 id 0", 4, "32 [ \"t\" 0000 'p' ]"),
    refused("publish QoS 1 id 0", 5, "32 [ \"t\" 0000 [ ] 'p' ]"),
    refused("publish QoS 2 id 0", BOTH, "34 [ \"t\" 0000 00 'p' ]"),
    malformed("publish QoS 1 without id", BOTH, '32 [ "t" ]'),
    malformed("publish QoS 1 id cut", BOTH, '32 [ "t" 00 ]'),
    # Topic name
    # [MQTT-3.3.2-1]
    malformed("publish empty", BOTH, "30 [ ]"),
    malformed("publish topic length cut", BOTH, "30 [ 00 ]"),
    malformed("publish topic cut", BOTH, "30 [ 0005 't' ]"),
    # [MQTT-4.7.3-1]
    malformed("publish topic empty", 4, "30 [ \"\" 'p' ]", 0x90),
    refused("publish topic empty", 5, "30 [ \"\" [ ] 'p' ]"),
    refused("publish topic empty with other properties", 5, "30 [ \"\" [ 01 01 ] 'p' ]"),
    # [MQTT-3.3.2-2]
    malformed("publish topic +", 4, "30 [ \"+\" 'p' ]", 0x90),
    malformed("publish topic a/+/b", 5, "30 [ \"a/+/b\" [ ] 'p' ]", 0x90),
    # [MQTT-4.7.0-1]
    malformed("publish topic #", 5, "30 [ \"#\" [ ] 'p' ]", 0x90),
    malformed("publish topic a#", 4, "30 [ \"a#\" 'p' ]", 0x90),
    # [MQTT-4.7.3-2]
    malformed("publish topic with NUL", 4, "30 [ 0003 740074 'p' ]"),
    malformed("publish topic with NUL", 5, "30 [ 0003 740074 [ ] 'p' ]"),
    malformed("publish topic with surrogate", BOTH, "30 [ 0003 eda080 00 'p' ]"),
    malformed("publish topic with surrogate pair", BOTH, "30 [ 0006 eda080edb080 00 'p' ]"),
    malformed("publish topic overlong NUL", BOTH, "30 [ 0002 c080 00 'p' ]"),
    malformed("publish topic not UTF-8", BOTH, "30 [ 0001 ff 00 'p' ]"),
    # Properties
    malformed("publish no properties", 5, '30 [ "t" ]'),
    malformed("publish QoS 1 no properties", 5, '32 [ "t" 0001 ]'),
    malformed("publish properties cut", 5, '30 [ "t" 05 01 01 ]'),
    malformed("publish property without value", 5, '30 [ "t" [ 01 ] ]'),
    malformed("publish content type past the block", 5, '30 [ "t" 04 03 "text" \'p\' ]'),
    malformed("publish content type past the packet", 5, '30 [ "t" [ 03 0009 61 ] ]'),
    # [MQTT-3.3.2-19]
    malformed("publish content type not UTF-8", 5, "30 [ \"t\" [ 03 0001 ff ] 'p' ]"),
    malformed("publish content type with NUL", 5, "30 [ \"t\" [ 03 0001 00 ] 'p' ]"),
    # [MQTT-3.3.2-13]
    malformed("publish response topic not UTF-8", 5, "30 [ \"t\" [ 08 0001 ff ] 'p' ]"),
    # [MQTT-3.3.2-14]
    refused("publish response topic with +", 5, '30 [ "t" [ 08 "r/+" ] \'p\' ]'),
    refused("publish response topic with #", 5, '30 [ "t" [ 08 "#" ] \'p\' ]'),
    refused("publish response topic empty", 5, '30 [ "t" [ 08 "" ] \'p\' ]'),
    # [MQTT-1.5.7-1]
    malformed("publish user key not UTF-8", 5, '30 [ "t" [ 26 0001 ff "v" ] \'p\' ]'),
    malformed("publish user value not UTF-8", 5, '30 [ "t" [ 26 "k" 0001 ff ] \'p\' ]'),
    malformed("publish user key with NUL", 5, '30 [ "t" [ 26 0001 00 "v" ] \'p\' ]'),
    malformed("publish user value with surrogate", 5, '30 [ "t" [ 26 "k" 0003 eda080 ] \'p\' ]'),
    refused("publish payload format 2", 5, "30 [ \"t\" [ 01 02 ] 'p' ]"),
    refused("publish payload format 255", 5, "30 [ \"t\" [ 01 ff ] 'p' ]"),
    # [MQTT-3.3.2-8]
    refused("publish alias 0", 5, "30 [ \"t\" [ 23 0000 ] 'p' ]", 0x94),
    refused("publish alias 0 without topic", 5, "30 [ \"\" [ 23 0000 ] 'p' ]", 0x94),
    # [MQTT-3.3.4-6]
    refused("publish identifier from a client", 5, "30 [ \"t\" [ 0b 01 ] 'p' ]"),
    refused("publish identifier 0", 5, "30 [ \"t\" [ 0b 00 ] 'p' ]", from_server=True),
    malformed("publish identifier not minimal", 5, "30 [ \"t\" [ 0b 8100 ] 'p' ]", from_server=True),
    malformed("publish identifier of 5 bytes", 5, "30 [ \"t\" [ 0b 8080808001 ] 'p' ]", from_server=True),
    refused("publish payload format twice", 5, "30 [ \"t\" [ 01 01 01 01 ] 'p' ]"),
    refused("publish expiry twice", 5, "30 [ \"t\" [ 02 0000003c 02 0000003c ] 'p' ]"),
    refused("publish content type twice", 5, '30 [ "t" [ 03 "a" 03 "a" ] \'p\' ]'),
    refused("publish correlation data twice", 5, '30 [ "t" [ 09 "a" 09 "a" ] \'p\' ]'),
    refused("publish alias twice", 5, "30 [ \"t\" [ 23 0001 23 0001 ] 'p' ]"),
    malformed("publish with will delay", 5, "30 [ \"t\" [ 18 00000001 ] 'p' ]"),
    malformed("publish with reason string", 5, '30 [ "t" [ 1f "r" ] \'p\' ]'),
)


def _acknowledgements(packet_type: PacketType, first: str, codes: tuple[int, ...], others: tuple[int, ...]) -> list[Vector]:
    name = packet_type.name.lower()
    last = codes[-1]
    wrong = f"{int(first, 16) ^ 1:02x}", f"{int(first, 16) ^ 2:02x}", f"{int(first, 16) ^ 8:02x}"
    properties = Properties(reason_string="r", user_property=(("k", "v"), ("k", "v")))
    return list(
        flat(
            good(name, BOTH, f"{first} [ 0001 ]", Ack(type=packet_type, packet_id=1)),
            good(f"{name} highest id", BOTH, f"{first} [ ffff ]", Ack(type=packet_type, packet_id=65535)),
            good(f"{name} success in full", 5, f"{first} [ 0001 00 ]", Ack(type=packet_type, packet_id=1), shortest=False),
            good(f"{name} success without properties", 5, f"{first} [ 0001 00 [ ] ]", Ack(type=packet_type, packet_id=1), shortest=False),
            *(
                good(f"{name} {code:#x}", 5, f"{first} [ 0001 {code:02x} ]", Ack(type=packet_type, packet_id=1, reason_code=ReasonCode(code)))
                for code in codes
            ),
            good(
                f"{name} with property length",
                5,
                f"{first} [ 0001 {last:02x} [ ] ]",
                Ack(type=packet_type, packet_id=1, reason_code=ReasonCode(last)),
                shortest=False,
            ),
            good(
                f"{name} properties",
                5,
                f'{first} [ 0001 {last:02x} [ 1f "r" 26 "k" "v" 26 "k" "v" ] ]',
                Ack(type=packet_type, packet_id=1, reason_code=ReasonCode(last), properties=properties),
            ),
            good(
                f"{name} success with properties",
                5,
                f'{first} [ 0001 00 [ 1f "r" 26 "k" "v" 26 "k" "v" ] ]',
                Ack(type=packet_type, packet_id=1, properties=properties),
            ),
            # [MQTT-2.1.3-1], of PUBREL [MQTT-3.6.1-1]
            *(malformed(f"{name} flags {byte}", BOTH, f"{byte} [ 0001 ]") for byte in wrong),
            malformed(f"{name} empty", BOTH, f"{first} [ ]"),
            malformed(f"{name} one byte", BOTH, f"{first} [ 00 ]"),
            refused(f"{name} id 0", BOTH, f"{first} [ 0000 ]"),
            malformed(f"{name} three bytes", 4, f"{first} [ 0001 00 ]"),
            malformed(f"{name} trailing byte", 5, f"{first} [ 0001 00 [ ] 00 ]"),
            malformed(f"{name} properties cut", 5, f"{first} [ 0001 00 05 1f ]"),
            malformed(f"{name} with content type", 5, f'{first} [ 0001 00 [ 03 "c" ] ]'),
            refused(f"{name} reason string twice", 5, f'{first} [ 0001 00 [ 1f "r" 1f "r" ] ]'),
            # [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
            *(refused(f"{name} {code:#x}", 5, f"{first} [ 0001 {code:02x} ]") for code in others),
        )
    )


_PUBLISHED = (0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
_NOT_PUBLISHED = (0x01, 0x02, 0x11, 0x7F, 0x81, 0x82, 0x92, 0x94, 0xFF)
_NOT_RELEASED = (0x10, 0x80, 0x82, 0x91, 0xFF)

ACKNOWLEDGEMENTS = flat(
    _acknowledgements(PacketType.PUBACK, "40", _PUBLISHED, _NOT_PUBLISHED),
    _acknowledgements(PacketType.PUBREC, "50", _PUBLISHED, _NOT_PUBLISHED),
    _acknowledgements(PacketType.PUBREL, "62", (0x92,), _NOT_RELEASED),
    _acknowledgements(PacketType.PUBCOMP, "70", (0x92,), _NOT_RELEASED),
)
