"""What deployments that run as processes share: a copy whose certificates are good for localhost, stand-ins for what images bring, and a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Queue

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.auth.login import sign
from tests.deployments.shapes import Shape, copied
from tests.support.brokers import java
from tests.support.gateway import AccessKey

WITHIN = 60.0
"""Seconds for a device's requests: the log's first records wait until replicas have found their masters."""


def copied_for_localhost(folder: Path, name: str, names: str) -> Shape:
    """The shape with secrets. ``names``: the words of compose/secrets by which its brokers are named, to which localhost is added."""

    def edited(script: str) -> str:
        assert names in script
        return script.replace(names, f"{names} localhost")

    return copied(folder, name, edited=edited)


def stand_in(script: Path, jars: str, main: str, options: Sequence[str]) -> None:
    """A script that runs a class, where an image has one of the same name."""
    line = java.command(java.classpath(jars), main, ['"$@"'], script.parent, options)
    script.write_text(f"#!/bin/bash\nexec {' '.join(line)}\n", "utf-8")
    script.chmod(0o755)


def replaced(text: str, places: Mapping[str, object]) -> str:
    for there, here in places.items():
        text = text.replace(there, str(here))
    return text


class Device:
    """Paho, by TLS and with the deployment's authority."""

    def __init__(self, shape: Shape, port: int, name: str, key: AccessKey) -> None:
        self.messages: Queue[bytes] = Queue(100)
        self._done: Queue[object] = Queue(100)
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        client.tls_set(ca_certs=str(shape.secrets / "ca.crt"))
        client.username_pw_set(f"Signature|{key.id}|{key.instance}", sign(key.secret.encode(), name).decode())
        client.on_connect = lambda client, data, flags, reason, properties: self._done.put(str(reason))
        client.on_subscribe = lambda *_: self._done.put("subscribed")
        client.on_message = lambda client, data, message: self.messages.put(message.payload)
        client.connect("localhost", port)
        client.loop_start()
        assert self._done.get(timeout=WITHIN) == "Success"
        assert client.is_connected()

    @property
    def port(self) -> int:
        port: int = self._client.socket().getsockname()[1]
        return port

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, 1)
        assert self._done.get(timeout=WITHIN) == "subscribed"

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1).wait_for_publish(WITHIN)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
