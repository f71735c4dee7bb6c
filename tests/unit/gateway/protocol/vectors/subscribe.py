"""SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK."""

from __future__ import annotations

from gateway.protocol.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from gateway.protocol.properties import Properties
from schemas.reasons import ReasonCode
from tests.unit.gateway.protocol.vectors import BOTH, flat, good, malformed, refused


def _subscribe(*requests: SubscriptionRequest, properties: Properties | None = None) -> Subscribe:
    return Subscribe(packet_id=1, requests=requests, properties=properties)


def _request(topic_filter: str = "a", qos: int = 0, **options: object) -> SubscriptionRequest:
    return SubscriptionRequest(filter=topic_filter, qos=qos, **options)  # type: ignore[arg-type]


def _reasons(*codes: int) -> tuple[ReasonCode, ...]:
    return tuple(ReasonCode(code) for code in codes)


SUBSCRIBE = flat(
    good("subscribe", 4, '82 [ 0001 "a" 00 ]', _subscribe(_request())),
    good("subscribe", 5, '82 [ 0001 [ ] "a" 00 ]', _subscribe(_request())),
    good("subscribe QoS 1", 4, '82 [ 0001 "a" 01 ]', _subscribe(_request(qos=1))),
    good("subscribe QoS 2", 5, '82 [ 0001 [ ] "a" 02 ]', _subscribe(_request(qos=2))),
    good("subscribe three", 4, '82 [ 0001 "a" 00 "b/+" 01 "#" 02 ]', _subscribe(_request(), _request("b/+", 1), _request("#", 2))),
    good("subscribe same twice", 5, '82 [ 0001 [ ] "a" 00 "a" 01 ]', _subscribe(_request(), _request(qos=1))),
    good("subscribe no local", 5, '82 [ 0001 [ ] "a" 04 ]', _subscribe(_request(no_local=True))),
    good("subscribe retain as published", 5, '82 [ 0001 [ ] "a" 08 ]', _subscribe(_request(retain_as_published=True))),
    good("subscribe retain handling 1", 5, '82 [ 0001 [ ] "a" 10 ]', _subscribe(_request(retain_handling=1))),
    good("subscribe retain handling 2", 5, '82 [ 0001 [ ] "a" 20 ]', _subscribe(_request(retain_handling=2))),
    good(
        "subscribe all options",
        5,
        '82 [ 0001 [ ] "a" 2e ]',
        _subscribe(_request(qos=2, no_local=True, retain_as_published=True, retain_handling=2)),
    ),
    good("subscribe shared", 5, '82 [ 0001 [ ] "$share/g/a" 01 ]', _subscribe(_request("$share/g/a", 1))),
    good("subscribe share is no share", 5, '82 [ 0001 [ ] "$shared/a" 04 ]', _subscribe(_request("$shared/a", no_local=True))),
    good("subscribe identifier", 5, '82 [ 0001 [ 0b 01 ] "a" 00 ]', _subscribe(_request(), properties=Properties(subscription_identifier=(1,)))),
    good(
        "subscribe highest identifier",
        5,
        '82 [ 0001 [ 0b ffffff7f ] "a" 00 ]',
        _subscribe(_request(), properties=Properties(subscription_identifier=(268_435_455,))),
    ),
    good(
        "subscribe user property", 5, '82 [ 0001 [ 26 "k" "v" ] "a" 00 ]', _subscribe(_request(), properties=Properties(user_property=(("k", "v"),)))
    ),
    # How a filter is formed is judged where it is served, and answered with 0x8F.
    good("subscribe ill-formed filter", 4, '82 [ 0001 "a#/+b" 00 ]', _subscribe(_request("a#/+b"))),
    good("subscribe byte order mark stays", 4, "82 [ 0001 0004 efbbbf61 00 ]", _subscribe(_request("\ufeffa"))),
    # [MQTT-2.1.3-1] [MQTT-3.8.1-1]
    *(malformed(f"subscribe flags {flags}", BOTH, f'8{flags} [ 0001 00 "a" 00 ]') for flags in "013456789abcdef"),
    malformed("subscribe empty", BOTH, "82 [ ]"),
    malformed("subscribe id cut", BOTH, "82 [ 00 ]"),
    refused("subscribe id 0", 4, '82 [ 0000 "a" 00 ]'),
    refused("subscribe id 0", 5, '82 [ 0000 [ ] "a" 00 ]'),
    # [MQTT-3.8.3-2]
    refused("subscribe no filter", 4, "82 [ 0001 ]"),
    refused("subscribe no filter", 5, "82 [ 0001 [ ] ]"),
    malformed("subscribe no properties", 5, "82 [ 0001 ]"),
    malformed("subscribe no options", 4, '82 [ 0001 "a" ]'),
    malformed("subscribe no options", 5, '82 [ 0001 [ ] "a" ]'),
    malformed("subscribe second without options", 4, '82 [ 0001 "a" 00 "b" ]'),
    malformed("subscribe filter empty", 4, '82 [ 0001 "" 00 ]'),
    malformed("subscribe filter empty", 5, '82 [ 0001 [ ] "" 00 ]'),
    malformed("subscribe filter cut", BOTH, "82 [ 0001 00 09 61 ]"),
    malformed("subscribe filter with NUL", 4, "82 [ 0001 0001 00 00 ]"),
    # [MQTT-3.8.3-1]
    malformed("subscribe filter not UTF-8", 5, "82 [ 0001 [ ] 0001 ff 00 ]"),
    malformed("subscribe filter with surrogate", 4, "82 [ 0001 0003 eda080 00 ]"),
    refused("subscribe QoS 3", 4, '82 [ 0001 "a" 03 ]'),
    refused("subscribe QoS 3", 5, '82 [ 0001 [ ] "a" 03 ]'),
    malformed("subscribe 5.0 options", 4, '82 [ 0001 "a" 04 ]'),
    malformed("subscribe 5.0 retain options", 4, '82 [ 0001 "a" 10 ]'),
    # [MQTT-3.8.3-5]
    malformed("subscribe reserved bit 6", 4, '82 [ 0001 "a" 40 ]'),
    malformed("subscribe reserved bit 6", 5, '82 [ 0001 [ ] "a" 40 ]'),
    malformed("subscribe reserved bit 7", 4, '82 [ 0001 "a" 80 ]'),
    malformed("subscribe reserved bit 7", 5, '82 [ 0001 [ ] "a" 81 ]'),
    refused("subscribe retain handling 3", 5, '82 [ 0001 [ ] "a" 30 ]'),
    # [MQTT-3.8.3-4]
    refused("subscribe shared with no local", 5, '82 [ 0001 [ ] "$share/g/a" 05 ]'),
    refused("subscribe second shared with no local", 5, '82 [ 0001 [ ] "a" 04 "$share/g/a" 04 ]'),
    refused("subscribe identifier 0", 5, '82 [ 0001 [ 0b 00 ] "a" 00 ]'),
    refused("subscribe identifier twice", 5, '82 [ 0001 [ 0b 01 0b 02 ] "a" 00 ]'),
    malformed("subscribe identifier not minimal", 5, '82 [ 0001 [ 0b 8000 ] "a" 00 ]'),
    malformed("subscribe identifier of 5 bytes", 5, '82 [ 0001 [ 0b ffffffff01 ] "a" 00 ]'),
    malformed("subscribe identifier cut", 5, "82 [ 0001 [ 0b ff ] ]"),
    malformed("subscribe with reason string", 5, '82 [ 0001 [ 1f "r" ] "a" 00 ]'),
)

SUBACK = flat(
    *(
        # [MQTT-3.9.3-2]
        good(f"suback {code:#x}", 4, f"90 [ 0001 {code:02x} ]", Suback(packet_id=1, reason_codes=_reasons(code)), from_server=True)
        for code in (0x00, 0x01, 0x02, 0x80)
    ),
    *(
        good(f"suback {code:#x}", 5, f"90 [ 0001 [ ] {code:02x} ]", Suback(packet_id=1, reason_codes=_reasons(code)), from_server=True)
        for code in (0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)
    ),
    good("suback several", 4, "90 [ 0001 02800001 ]", Suback(packet_id=1, reason_codes=_reasons(2, 0x80, 0, 1)), from_server=True),
    good(
        "suback properties",
        5,
        '90 [ 0001 [ 1f "r" 26 "k" "v" ] 01 87 ]',
        Suback(packet_id=1, reason_codes=_reasons(1, 0x87), properties=Properties(reason_string="r", user_property=(("k", "v"),))),
        from_server=True,
    ),
    refused("suback id 0", 4, "90 [ 0000 00 ]", from_server=True),
    malformed("suback no codes", 4, "90 [ 0001 ]", from_server=True),
    malformed("suback no codes", 5, "90 [ 0001 [ ] ]", from_server=True),
    malformed("suback no properties", 5, "90 [ 0001 ]", from_server=True),
    malformed("suback flags", BOTH, "92 [ 0001 00 00 ]", from_server=True),
    *(refused(f"suback {code:#x}", 4, f"90 [ 0001 {code:02x} ]", from_server=True) for code in (0x03, 0x7F, 0x81, 0x87, 0xFF)),
    *(refused(f"suback {code:#x}", 5, f"90 [ 0001 [ ] {code:02x} ]", from_server=True) for code in (0x03, 0x10, 0x11, 0x81, 0x90, 0xFF)),
)

UNSUBSCRIBE = flat(
    good("unsubscribe", 4, 'a2 [ 0001 "a" ]', Unsubscribe(packet_id=1, filters=("a",))),
    good("unsubscribe", 5, 'a2 [ 0001 [ ] "a" ]', Unsubscribe(packet_id=1, filters=("a",))),
    good("unsubscribe several", 4, 'a2 [ 0001 "a" "b/#" "a" ]', Unsubscribe(packet_id=1, filters=("a", "b/#", "a"))),
    good("unsubscribe several", 5, 'a2 [ ffff [ ] "+" "$share/g/a" ]', Unsubscribe(packet_id=65535, filters=("+", "$share/g/a"))),
    good(
        "unsubscribe user property",
        5,
        'a2 [ 0001 [ 26 "k" "v" ] "a" ]',
        Unsubscribe(packet_id=1, filters=("a",), properties=Properties(user_property=(("k", "v"),))),
    ),
    # [MQTT-3.10.1-1]
    *(malformed(f"unsubscribe flags {flags}", BOTH, f'a{flags} [ 0001 00 "a" ]') for flags in "013456789abcdef"),
    malformed("unsubscribe empty", BOTH, "a2 [ ]"),
    refused("unsubscribe id 0", 4, 'a2 [ 0000 "a" ]'),
    refused("unsubscribe id 0", 5, 'a2 [ 0000 [ ] "a" ]'),
    # [MQTT-3.10.3-2]
    refused("unsubscribe no filter", 4, "a2 [ 0001 ]"),
    refused("unsubscribe no filter", 5, "a2 [ 0001 [ ] ]"),
    malformed("unsubscribe no properties", 5, "a2 [ 0001 ]"),
    malformed("unsubscribe filter empty", 4, 'a2 [ 0001 "" ]'),
    malformed("unsubscribe filter empty", 5, 'a2 [ 0001 [ ] "a" "" ]'),
    malformed("unsubscribe filter cut", 4, 'a2 [ 0001 "a" 0005 61 ]'),
    malformed("unsubscribe half a length", 4, 'a2 [ 0001 "a" 00 ]'),
    malformed("unsubscribe filter with NUL", 5, "a2 [ 0001 [ ] 0001 00 ]"),
    # [MQTT-3.10.3-1]
    malformed("unsubscribe filter not UTF-8", 4, "a2 [ 0001 0001 ff ]"),
    malformed("unsubscribe with identifier", 5, 'a2 [ 0001 [ 0b 01 ] "a" ]'),
)

UNSUBACK = flat(
    good("unsuback", 4, "b0 [ 0001 ]", Unsuback(packet_id=1, reason_codes=()), from_server=True),
    *(
        # [MQTT-3.11.3-2]
        good(f"unsuback {code:#x}", 5, f"b0 [ 0001 [ ] {code:02x} ]", Unsuback(packet_id=1, reason_codes=_reasons(code)), from_server=True)
        for code in (0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91)
    ),
    good(
        "unsuback properties",
        5,
        'b0 [ 0001 [ 1f "r" ] 00 11 ]',
        Unsuback(packet_id=1, reason_codes=_reasons(0, 0x11), properties=Properties(reason_string="r")),
        from_server=True,
    ),
    refused("unsuback id 0", 4, "b0 [ 0000 ]", from_server=True),
    malformed("unsuback codes", 4, "b0 [ 0001 00 ]", from_server=True),
    malformed("unsuback no codes", 5, "b0 [ 0001 [ ] ]", from_server=True),
    malformed("unsuback no properties", 5, "b0 [ 0001 ]", from_server=True),
    malformed("unsuback flags", BOTH, "b2 [ 0001 00 00 ]", from_server=True),
    *(refused(f"unsuback {code:#x}", 5, f"b0 [ 0001 [ ] {code:02x} ]", from_server=True) for code in (0x01, 0x02, 0x10, 0x97, 0xFF)),
)
