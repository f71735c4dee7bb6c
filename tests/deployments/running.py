"""What deployments that run as processes share: a copy whose certificates are good for localhost, stand-ins for what images bring, a device, and
three gateways behind their load balancer.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Queue

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.auth.login import sign
from tests.deployments.shapes import Shape, copied
from tests.support.brokers import java
from tests.support.gateway import AccessKey, Gateway
from tests.support.process import Process, listens
from tests.support.spread import haproxy

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
        client = self._client
        client.disconnect()
        client.loop_stop()
        # Who is part of no cycle closes the sockets by which it wakes itself; else they are left to the collector, which warns
        client.on_connect = client.on_subscribe = client.on_message = None


class Balancer(Process):
    def __init__(self, folder: Path, config: str, port: int) -> None:
        super().__init__("haproxy", folder)
        self.port = port
        self._file = folder / "haproxy.cfg"
        self._file.write_text(config, "utf-8")

    def start(self) -> Balancer:
        self.spawn([haproxy(), "-db", "-f", str(self._file)], java.environment(self.folder), self.folder)
        self.until(lambda: listens(self.port), 20, "it listened")
        return self


def balanced(shape: Shape, gateways: Sequence[Gateway]) -> Balancer:
    """The deployment's load balancer in front of these."""
    (port,) = java.free_ports(1)
    (file,) = (path for path, _ in shape.mounted(shape.services["balancer"]))
    text = file.read_text("utf-8").replace("/run/secrets", str(shape.secrets))
    text = text.replace("bind :8883", f"bind 127.0.0.1:{port}").replace("maxconn 200000", "maxconn 200")
    for number, gateway in enumerate(gateways, 1):
        place = f"server gateway-{number} gateway-{number}:8883"
        assert place in text
        text = text.replace(place, f"server gateway-{number} {gateway.endpoints['mqtts']} port {gateway.endpoints['https'].port}")
    return Balancer(shape.compose / "balancer-here", text, port).start()


def three_gateways(shape: Shape, config: str, start_gateway: Callable[..., Gateway]) -> tuple[list[Gateway], AccessKey]:
    """The first one makes what the others find."""
    nodes = [gateway["environment"] for gateway in shape.gateways.values()]

    def started(node: dict[str, str]) -> Gateway:
        return start_gateway(node["SLUICEWAY_NODE_ID"], config=config, env=node, listen=("mqtts",), anonymous=False)

    gateways = [started(nodes[0])]
    key = gateways[0].create_key()  # nodes that run have it within seconds only, those that start have it at once
    return [*gateways, *(started(node) for node in nodes[1:])], key


def connections(shape: Shape, gateway: Gateway) -> int:
    trusted = ssl.create_default_context(cafile=shape.secrets / "ca.crt")
    with urllib.request.urlopen(f"https://localhost:{gateway.endpoints['https'].port}/metrics", timeout=10, context=trusted) as answer:
        found = re.search(r"^sluiceway_connections (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def hello_over_three(shape: Shape, balancer: Balancer, gateways: Sequence[Gateway], key: AccessKey) -> None:
    """A device at each gateway; what one publishes comes to all, and each is known by its own address."""
    devices = [Device(shape, balancer.port, f"device-{number}", key) for number in range(len(gateways))]
    try:
        assert [connections(shape, gateway) for gateway in gateways] == [1] * len(gateways)
        for device in devices:
            device.subscribe("hello/#")
        for number, device in enumerate(devices):
            device.publish(f"hello/{number}", b"%d" % number)
        for device in devices:
            assert {device.messages.get(timeout=20) for _ in devices} == {b"%d" % number for number in range(len(devices))}
        for number, device in enumerate(devices):
            shown = json.loads(gateways[0].run("status", f"device-{number}", "--json"))
            assert shown["address"] == f"127.0.0.1:{device.port}", "its own address, by the PROXY header"
    finally:
        for device in devices:
            device.close()
