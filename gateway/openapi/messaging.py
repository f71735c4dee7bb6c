"""Actions about sessions, messages and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.auth.tokens import Token, TokenFault, TokenRefused
from gateway.cluster.asking import Unanswered
from gateway.openapi.calls import Call, Fields
from gateway.openapi.faults import Fault
from gateway.protocol.properties import NONE
from schemas.errors import LogError
from schemas.resources import SEPARATOR, group_id_problem
from schemas.topics import is_topic_name

MAX_CLIENTS = 10
"""Clients of one batch query."""
MAX_PAGE = 100
MAX_MESSAGES = 32
MAX_TOPICS = 10
"""Topics of one message of a batch."""
MAX_ID = 2**53
MAX_TOKEN_TEXT = 8192
MAX_TIME = 2**53


async def query_session(call: Call) -> Fields:
    call.check_instance()
    client = call.client()
    status = (await call.services.statuses([client])).get(client)
    return {"OnlineStatus": status is not None and status.online}


async def batch_query_sessions(call: Call) -> Fields:
    call.check_instance()
    clients = call.parameters.listed("ClientIdList", MAX_CLIENTS)
    found = await call.services.statuses(clients)
    return {"OnlineStatusList": [{"ClientId": c, "OnlineStatus": c in found and found[c].online} for c in clients]}


async def query_group_online(call: Call) -> Fields:
    """How many clients of a group are online: the answer of the control API before this one."""
    group = _group(call)
    counted = await call.services.online(group)
    return {"MqttClientSetDo": {"OnlineCount": counted.counts.get(group, 0)}, **_naming(counted.silent)}


async def query_sessions_of_group(call: Call) -> Fields:
    """A group's clients that were ever seen, page by page: an action of our own."""
    group, size = _group(call), call.parameters.number("PageSize", 1, MAX_PAGE, 100)
    found = await call.services.group_statuses(group + SEPARATOR, call.parameters.optional("NextToken"), size)
    counted = await call.services.online(group)
    return {
        "OnlineCount": counted.counts.get(group, 0),
        "NextToken": found[-1].client if len(found) == size else "",
        "OnlineStatusList": [{"ClientId": status.client, "OnlineStatus": status.online} for status in found],
        **_naming(counted.silent),
    }


def _naming(silent: Sequence[str]) -> Fields:
    """Of many nodes, those that did not answer: a field of our own, where there are any."""
    return {"SilentNodes": list(silent)} if silent else {}


def _group(call: Call) -> str:
    call.check_instance()
    group = call.parameters.text("GroupId")
    if problem := group_id_problem(group):
        raise call.parameters.fault("GroupId", problem)
    return group


async def close_connection(call: Call) -> Fields:
    call.check_instance()
    try:
        closed = await call.services.close_connection(call.client())
    except Unanswered as error:
        return {"Code": 503, "Success": False, "Message": f"{error}."}
    if closed:
        return {"Code": 200, "Success": True, "Message": "operation success."}
    return {"Code": 404, "Success": False, "Message": "this client is not connected."}


async def send_message(call: Call) -> Fields:
    call.check_instance()
    parameters = call.parameters
    topic, body = parameters.text("MqttTopic", 1024), parameters.text("Payload", call.node.limits.packet).encode()
    _check(call, "MqttTopic", topic, "Payload", body)
    return {"MsgId": await _send(call, topic, body)}


def _check(call: Call, topic_name: str, topic: str, payload_name: str, body: bytes) -> None:
    limits = call.node.limits
    if not is_topic_name(topic) or len(topic.encode()) > limits.topic_bytes or topic.count("/") >= limits.topic_levels:
        raise call.parameters.fault(topic_name, f"must be a topic without + and #, of at most {limits.topic_bytes} bytes")
    if len(body) + len(topic.encode()) + 16 > limits.packet:
        raise call.parameters.fault(payload_name, f"must fit in a packet of {limits.packet} bytes")
    if not call.node.access.may(call.principal, "publish", topic) or topic.startswith("$"):
        call.node.counters.refused["publish_not_authorized"] += 1
        call.node.refusals.denied("publish-denied", "", call.principal, topic)
        raise Fault("PermissionCheckFailed")


async def _send(call: Call, topic: str, body: bytes) -> str:
    """The message id, once the message is durable. The payload goes as it is, base64 or not."""
    try:
        return (await call.services.publish(topic, body, 1, False, NONE, call.principal)).hex().upper()
    except LogError:
        raise Fault("SystemOverFlow") from None


class _Message(msgspec.Struct, frozen=True):
    """One of a batch, to be sent to each of its topics; or ``fault``, for which it isn't sent at all."""

    id: int
    topics: Sequence[str] = ()
    body: bytes = b""
    fault: Fault | None = None


async def batch_send_messages(call: Call) -> Fields:
    """Each message by itself: those that fail say why, the others are sent. None is, where the batch has a fault of its own: its caller
    will repeat the whole."""
    if call.parameters.optional("InstanceId"):
        call.check_instance()
    count = call.parameters.numbered("Messages", MAX_MESSAGES)
    messages = [_message(call, f"Messages.{number}") for number in range(1, count + 1)]
    return {"Responses": [await _send_each(call, message) for message in messages]}


def _message(call: Call, name: str) -> _Message:
    """A message without an id is a fault of the batch: there is no other name to answer it by."""
    parameters = call.parameters
    message_id = parameters.number(f"{name}.Id", 0, MAX_ID)
    try:
        topics = parameters.listed(f"{name}.Topics", MAX_TOPICS, longest=1024)
        body = parameters.text(f"{name}.Payload", call.node.limits.packet).encode()
        for topic in topics:
            _check(call, f"{name}.Topics", topic, f"{name}.Payload", body)
    except Fault as fault:
        return _Message(message_id, fault=fault)
    return _Message(message_id, topics, body)


async def _send_each(call: Call, message: _Message) -> Fields:
    """What was sent before a fault is told with it: that much is not to be sent again."""
    sent: list[str] = []
    fault = message.fault
    try:
        for topic in message.topics:
            sent.append(await _send(call, topic, message.body))  # noqa: PERF401 - of a fault halfway, what is there stays
    except Fault as halfway:
        fault = halfway
    problem = {"ErrorCode": 0, "ErrorMessage": ""} if fault is None else {"ErrorCode": fault.status, "ErrorMessage": fault.message}
    return {"Id": message.id, "MsgId": ",".join(sent), **problem}


async def apply_token(call: Call) -> Fields:
    call.check_instance()
    parameters = call.parameters
    resources = parameters.text("Resources", 16_384).split(",")
    actions, expires = parameters.text("Actions"), parameters.number("ExpireTime", 0, MAX_TIME)
    if not all(call.node.registers.resources.admits_topic(resource) for resource in resources):
        raise Fault("PermissionCheckFailed")
    try:
        return {"Token": call.node.registers.mint.apply(call.principal.name, resources, actions, expires, call.now)}
    except TokenRefused as refused:
        raise parameters.fault(refused.field, str(refused).removeprefix(refused.field + " ")) from None


async def query_token(call: Call) -> Fields:
    """Whether a token is valid now; of another key's tokens nothing is told."""
    call.check_instance()
    token = call.node.registers.mint.read(call.parameters.text("Token", MAX_TOKEN_TEXT), call.now)
    return {"TokenStatus": isinstance(token, Token) and _is_mine(call, token)}


async def revoke_token(call: Call) -> Fields:
    """Effective on connections at once."""
    call.check_instance()
    token = call.node.registers.mint.open(call.parameters.text("Token", MAX_TOKEN_TEXT))
    if isinstance(token, TokenFault):
        raise call.parameters.fault("Token", "is not a token")
    if not _is_mine(call, token):
        raise Fault("PermissionCheckFailed")
    await call.node.registers.mint.revoke(token, call.now)
    call.node.token_watch.revoked(token)
    return {}


def _is_mine(call: Call, token: Token) -> bool:
    return token.key == call.principal.name or call.principal.role != "device"
