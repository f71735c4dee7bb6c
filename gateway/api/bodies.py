"""Bodies of requests, and their translation to what MQTT carries. Each fault names its field."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gateway.api.errors import ApiError
from gateway.protocol.properties import Properties
from schemas.limits import Limits
from schemas.topics import is_topic_name

MAX_STRING: Final = 65_535
"""Bytes of a string in MQTT [MQTT-1.5.4]."""

PROPERTY_OVERHEAD: Final = 5
"""Bytes that a user property costs beside its name and value."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, frozen=True)


class NewKeyBody(_Body):
    """A device's key is for MQTT, messages and tokens; a manager's also for managing the instance over HTTP."""

    role: Literal["device", "manager"] = "device"


class BearerKeyBody(_Body):
    """``valid_seconds`` 0: the key has no end."""

    name: str
    scope: str = "read"
    valid_seconds: int = 0


class SignatureBody(_Body):
    """A login as a device sent it."""

    client_id: str
    user_name: str
    password: str


class RotationBody(_Body):
    """``valid_seconds``: for how long the secret before stays valid beside the new one."""

    valid_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class GroupBody(_Body):
    group_id: str


class TopicBody(_Body):
    topic: str
    remark: Annotated[str, Field(max_length=256)] = ""


class AuthorityBody(_Body):
    """An authority of device certificates and what proves that its key is there, both as PEM (gateway/auth/x509.py)."""

    name: str
    ca: str
    verification: str


class PolicyBody(_Body):
    """An access rule (schemas/policies.py)."""

    principal: str
    action: str
    filter: str
    effect: str = "allow"


UserProperty = tuple[str, str]


class PropertiesBody(_Body):
    payload_format: Annotated[int, Field(ge=0, le=1)] | None = None
    message_expiry: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: str | None = None
    user_properties: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []


class PublishBody(_Body):
    """One of ``payload`` (text) and ``payload_base64``; none of them is an empty payload."""

    topic: str
    payload: str | None = None
    payload_base64: str | None = None
    qos: Annotated[int, Field(ge=0, le=2)] = 1
    retain: bool = False
    properties: PropertiesBody = PropertiesBody()


def _invalid(field: str, message: str) -> ApiError:
    return ApiError(400, "invalid", message, field)


def _string(field: str, value: str) -> str:
    """A string that MQTT can carry: no surrogates, no NUL, not too long [MQTT-1.5.4-1] [MQTT-1.5.4-2]."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _invalid(field, "is not valid Unicode") from None
    if "\x00" in value or size > MAX_STRING:
        raise _invalid(field, f"holds a NUL character or more than {MAX_STRING} bytes")
    return value


def _binary(field: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(field, "is not base64") from None


def read_topic(body: PublishBody, limits: Limits) -> str:
    topic = _string("topic", body.topic)
    if not is_topic_name(topic):
        raise _invalid("topic", "is not a topic name: it must not be empty and must hold no +, # or NUL")
    if len(topic.encode()) > limits.topic_bytes or topic.count("/") >= limits.topic_levels:
        raise _invalid("topic", f"has more than {limits.topic_bytes} bytes or {limits.topic_levels} levels")
    return topic


def read_payload(body: PublishBody, limits: Limits) -> bytes:
    if body.payload is not None and body.payload_base64 is not None:
        raise _invalid("payload", "give payload or payloadBase64, not both")
    if body.payload_base64 is not None:
        payload = _binary("payloadBase64", body.payload_base64)
    else:
        try:
            payload = (body.payload or "").encode()
        except UnicodeEncodeError:
            raise _invalid("payload", "is not valid Unicode") from None
    if len(payload) > limits.packet:
        raise ApiError(413, "too_large", f"has more than {limits.packet} bytes", "payload")
    if body.properties.payload_format == 1 and not _is_text(payload):
        raise _invalid("properties.payloadFormat", "says text, and the payload is not UTF-8")  # [MQTT-3.3.2-4]
    return payload


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_properties(body: PublishBody, limits: Limits) -> Properties:
    given = body.properties
    pairs = tuple((_string("properties.userProperties", name), _string("properties.userProperties", value)) for name, value in given.user_properties)
    if len(pairs) > limits.user_properties:
        raise _invalid("properties.userProperties", f"has more than {limits.user_properties} entries")
    response_topic = given.response_topic
    if response_topic is not None and not is_topic_name(_string("properties.responseTopic", response_topic)):
        raise _invalid("properties.responseTopic", "is not a topic name")  # [MQTT-3.3.2-14]
    content_type = None if given.content_type is None else _string("properties.contentType", given.content_type)
    correlation = None if given.correlation_data is None else _binary("properties.correlationData", given.correlation_data)
    parts = [part.encode() for pair in pairs for part in pair] + [(response_topic or "").encode(), (content_type or "").encode(), correlation or b""]
    if sum(map(len, parts)) + PROPERTY_OVERHEAD * len(pairs) > limits.properties_bytes or len(correlation or b"") > MAX_STRING:
        raise _invalid("properties", f"have more than {limits.properties_bytes} bytes")
    return Properties(
        payload_format_indicator=given.payload_format,
        message_expiry_interval=given.message_expiry,
        content_type=content_type,
        response_topic=response_topic,
        correlation_data=correlation,
        user_property=pairs,
    )
