"""Actions about the trace, in the words of the product: what became of a message, and what happened to a device."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault
from schemas.traces import OF_DEVICE, OF_MESSAGE, OF_PUBLISHING, OF_PUSHING, TraceAction, TraceEvent, TracePage, TraceQuery
from streams.tracing import TraceBusy, TraceOff, TraceTooDeep

MAX_TIME: Final = 2**53
MAX_PAGES: Final = 1_000_000
MAX_SIZE: Final = 100

CODES: Final = {
    "connect": "mqtt.trace.action.connect",
    "disconnect": "mqtt.trace.action.disconnect",
    "close": "mqtt.trace.action.close",
    "pub_mqtt": "mqtt.trace.action.msg.pub.mqtt",
    "pub_mq": "mqtt.trace.action.msg.pub.mq",
    "pub_api": "mqtt.trace.action.msg.pub.api",
    "rule": "mqtt.trace.action.msg.rule",
    "sub": "mqtt.trace.action.msg.sub",
    "push_offline": "mqtt.trace.action.msg.push.offline",
    "ack": "mqtt.trace.action.msg.ack",
}
"""Of the product, but for pub_api, rule and ack, which it doesn't tell of."""
INFOS: Final = {
    "connect": "accepted",
    "pub_mqtt": "Pub From Mqtt Client",
    "pub_mq": "Pub From MQ",
    "pub_api": "Pub From API",
    "sub": "Push To Mqtt Client",
    "push_offline": "Push Offline Msg To Mqtt Client",
    "ack": "Ack From Mqtt Client",
}
"""What is said of an action; of the others their detail is, up to its first colon: behind it is what the product doesn't tell."""


async def device(call: Call) -> Fields:
    found = await _find(call, client=call.parameters.text("ClientId"), actions=OF_DEVICE)
    return {**_paging(call, found), "DeviceInfoList": [{"ChannelId": event.channel_id, **_told(event)} for event in found.events]}


async def messages_of_client(call: Call) -> Fields:
    found = await _find(call, client=call.parameters.text("ClientId"), actions=OF_MESSAGE)
    return {**_paging(call, found), "MessageOfClientList": [_of_message(event) for event in found.events]}


async def message_publish(call: Call) -> Fields:
    """Where a message came from, and which rules sent it on. Without pages: there are few."""
    found = await _find(call, paged=False, message=_message(call), actions=OF_PUBLISHING)
    return {"MessageTraceLists": [_of_message(event) for event in found.events], "GapList": _gaps(found)}


async def message_subscribe(call: Call) -> Fields:
    """To whom a message was pushed, and who acknowledged it."""
    found = await _find(call, message=_message(call), client=call.parameters.optional("ClientId"), actions=OF_PUSHING)
    return {**_paging(call, found), "MessageTraceLists": [_of_message(event) for event in found.events]}


async def _find(call: Call, *, actions: tuple[TraceAction, ...], paged: bool = True, client: str = "", message: bytes = b"") -> TracePage:
    parameters = call.parameters
    parameters.text("MqttRegionId")
    call.check_instance()
    begin, end = parameters.number("BeginTime", 0, MAX_TIME), parameters.number("EndTime", 0, MAX_TIME)
    if begin > end:
        raise parameters.fault("BeginTime", "must not be later than EndTime")
    page = parameters.number("CurrentPage", 1, MAX_PAGES) if paged else 1
    size = parameters.number("PageSize", 1, MAX_SIZE) if paged else MAX_SIZE
    reverse = parameters.optional("Reverse").lower()
    if reverse not in ("", "true", "false"):
        raise parameters.fault("Reverse", "must be true or false")
    query = TraceQuery(begin=begin, end=end, client=client, message=message, actions=actions, page=page, size=size, newest_first=reverse == "true")
    try:
        return await call.services.trace(query)
    except TraceOff:
        raise Fault("ApiNotSupport", detail="Nothing is traced: set trace.enabled.") from None
    except TraceTooDeep as error:
        raise parameters.fault("CurrentPage", str(error)) from None
    except TraceBusy:
        raise Fault("SystemOverFlow") from None


def _message(call: Call) -> bytes:
    text = call.parameters.text("MsgId")
    try:
        message = bytes.fromhex(text)
    except ValueError:
        message = b""
    if len(message) != 16:
        raise call.parameters.fault("MsgId", "must be 32 hex digits")
    return message


def _paging(call: Call, found: TracePage) -> Fields:
    parameters = call.parameters
    return {
        "CurrentPage": parameters.number("CurrentPage", 1, MAX_PAGES),
        "PageSize": parameters.number("PageSize", 1, MAX_SIZE),
        "Total": found.total,
        "GapList": _gaps(found),
    }


def _gaps(found: TracePage) -> list[Fields]:
    """What the answer can't know of; of many nodes, whose gap it is."""
    return [
        {"BeginTime": gap.begin, "EndTime": gap.end, "Messages": gap.messages, "Events": gap.events, **({"Node": gap.node} if gap.node else {})}
        for gap in found.gaps
    ]


def _of_message(event: TraceEvent) -> dict[str, Any]:
    return {"ClientId": event.client_id, "MsgId": event.message_id, **_told(event)}


def _told(event: TraceEvent) -> dict[str, Any]:
    """Time in the zone of the machine, as the product tells it in that of the region."""
    moment = datetime.fromtimestamp(event.time / 1000).astimezone()
    return {
        "Time": moment.isoformat(sep=" ", timespec="milliseconds")[:23],
        "Action": event.action,
        "ActionCode": CODES[event.action],
        "ActionInfo": INFOS.get(event.action) or event.detail.partition(":")[0],
    }
