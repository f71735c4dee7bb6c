"""`pub` and `sub`: over MQTT with paho-mqtt, in one thread, logged in with the key that the other commands use.

Where the MQTT listener is, the gateway says itself (GET /api/v1/node).
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.auth.login import sign, signature_user_name
from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint
from gateway.commands.errors import CommandError
from gateway.logs import escape
from schemas.topics import is_topic_name, parse_subscription

CONNECT_TIMEOUT: Final = 10.0
ANSWER_TIMEOUT: Final = 70.0
"""Seconds without any acknowledgement after which `pub` gives up: longer than a publish may wait for the log."""

IN_FLIGHT: Final = 100
"""Publishes of `pub --count` that await their acknowledgement."""

PROGRESS_EVERY: Final = 1.0

_TRANSPORTS: Final[tuple[tuple[str, Literal["tcp", "websockets"], bool], ...]] = (
    ("mqtt", "tcp", False),
    ("mqtts", "tcp", True),
    ("ws", "websockets", False),
    ("wss", "websockets", True),
)
"""Listeners in the order of preference: name, paho's transport, TLS."""

_WILDCARDS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


class MqttOptions(msgspec.Struct, frozen=True):
    """What `pub` and `sub` share. ``version`` is 4 (3.1.1) or 5; ``ca_file`` for a listener with TLS."""

    topic: str
    qos: int
    version: int = 4
    client_id: str = ""
    ca_file: Path | None = None


class _Connection:
    """A connection that this thread drives: nothing happens outside ``step``."""

    def __init__(self, endpoint: Endpoint, options: MqttOptions) -> None:
        node = call(endpoint, "GET", "/api/v1/node")
        listener, transport, is_secure = _choose(node["listeners"])
        client_id = options.client_id or f"sluiceway-{secrets.token_hex(6)}"
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=True if options.version == paho.MQTTv311 else None,
            protocol=MQTTProtocolVersion(options.version),
            transport=transport,
        )
        self.client.username_pw_set(signature_user_name(endpoint.access_key, node["instanceId"]), sign(endpoint.secret.encode(), client_id).decode())
        self.client.max_inflight_messages = IN_FLIGHT
        if is_secure:
            self.client.tls_set(ca_certs=str(options.ca_file) if options.ca_file else None)
        if transport == "websockets":
            self.client.ws_set_options(path="/mqtt")
        self._is_connected = False
        self._failure = ""
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self._open(*_place(listener, endpoint.url))

    def _open(self, host: str, port: int) -> None:
        self.client.connect_timeout = CONNECT_TIMEOUT
        try:
            self.client.connect(host, port)
        except (OSError, ValueError) as error:
            raise CommandError(f"no MQTT connection to {host}:{port}: {getattr(error, 'strerror', None) or error}") from None
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while not self._is_connected:
            self.step()
            if time.monotonic() > deadline:
                raise CommandError(f"no answer to CONNECT from {host}:{port} within {CONNECT_TIMEOUT:g} s")

    def _on_connect(self, client: paho.Client, data: object, flags: object, reason: Any, properties: object) -> None:
        if reason.is_failure:
            self.fail(f"the gateway refused the connection: {reason}")
        self._is_connected = True

    def _on_disconnect(self, client: paho.Client, data: object, flags: object, reason: Any, properties: object) -> None:
        self.fail(f"the connection was closed: {reason}")

    def fail(self, message: str) -> None:
        """The first failure is what the next ``step`` raises; callbacks can't raise through paho."""
        self._failure = self._failure or message

    def step(self) -> None:
        """Send and receive what there is, waiting for up to a second."""
        code = self.client.loop(timeout=1.0)
        if self._failure:
            raise CommandError(self._failure)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise CommandError(f"the connection broke: {paho.error_string(code)}")

    def close(self) -> None:
        self.client.on_disconnect = None
        self.client.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _choose(listeners: Mapping[str, Sequence[str]]) -> tuple[str, Literal["tcp", "websockets"], bool]:
    for name, transport, is_secure in _TRANSPORTS:
        for address in listeners.get(name, ()):
            return address, transport, is_secure
    raise CommandError("the gateway has no MQTT listener")


def _place(address: str, url: str) -> tuple[str, int]:
    """Where to connect: a listener on all addresses is reached at the host that the URL names."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return (urlsplit(url).hostname or "" if host in _WILDCARDS else host), int(port)


def publish(endpoint: Endpoint, options: MqttOptions, payload: bytes, *, retain: bool, count: int) -> None:
    """Publish ``count`` times and wait until all of it is acknowledged."""
    if not is_topic_name(options.topic):
        raise CommandError(f"{options.topic!r} can't be published to: a topic is not empty and has no + and #")
    with _Connection(endpoint, options) as connection:
        _publish(connection, options, payload, retain, count)


def _publish(connection: _Connection, options: MqttOptions, payload: bytes, retain: bool, count: int) -> None:
    acknowledged = 0

    def on_publish(client: paho.Client, data: object, mid: int, reason: Any, properties: object) -> None:
        nonlocal acknowledged
        acknowledged += 1
        if reason.is_failure:
            connection.fail(f"the gateway refused the publish: {reason}")

    connection.client.on_publish = on_publish
    sent, shown, progressed = 0, time.monotonic(), time.monotonic()
    while acknowledged < count:
        before = acknowledged
        while sent < count and sent - acknowledged < IN_FLIGHT:
            try:
                connection.client.publish(options.topic, payload, options.qos, retain)
            except ValueError as error:
                raise CommandError(f"the message can't be published: {error}") from None
            sent += 1
        connection.step()
        now = time.monotonic()
        progressed = now if acknowledged > before else progressed
        if now - progressed > ANSWER_TIMEOUT:
            raise CommandError(f"no acknowledgement for {ANSWER_TIMEOUT:g} s; {acknowledged} of {count} are acknowledged")
        if now - shown > PROGRESS_EVERY:
            shown = now
            print(f"{acknowledged} of {count} published", file=sys.stderr)


def subscribe(endpoint: Endpoint, options: MqttOptions, *, count: int | None) -> None:
    """Print `topic payload`, a line a message, until ``count`` have come. What is not printable is escaped, so that a line stays a line."""
    if parse_subscription(options.topic) is None:
        raise CommandError(f"{options.topic!r} can't be subscribed to: + stands alone in its level, # alone in the last one")
    received = 0

    def on_message(client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        nonlocal received
        if count is not None and received >= count:
            return
        received += 1
        print(escape(message.topic), escape(message.payload.decode(errors="backslashreplace")), flush=True)

    def on_subscribe(client: paho.Client, data: object, mid: int, reasons: Sequence[Any], properties: object) -> None:
        for reason in reasons:
            if reason.is_failure:
                connection.fail(f"the gateway refused the subscription: {reason}")

    with _Connection(endpoint, options) as connection:
        connection.client.on_message = on_message
        connection.client.on_subscribe = on_subscribe
        if options.version == paho.MQTTv5:
            connection.client.subscribe(options.topic, options=SubscribeOptions(qos=options.qos))
        else:
            connection.client.subscribe(options.topic, options.qos)
        while count is None or received < count:
            connection.step()
