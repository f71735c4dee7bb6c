"""Three gateways that are one, behind a proxy that takes each connection to the next of them in turn: a broker for who wants one address."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support.brokers import java
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import RocketMQ
from tests.support.gateway import Endpoint, Gateway
from tests.support.many_backbone import NAMES, Shared
from tests.support.process import Process, free_port, listens

LISTENS_WITHIN = 20.0
CONFIG = """global
    maxconn 1000
defaults
    mode tcp
    balance roundrobin
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


def haproxy() -> str:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    assert found, "haproxy is not installed: apt-get install haproxy"
    return found


class Spread:
    """``mqtt`` and ``ws`` are the proxy's. ``config``: more settings of each gateway."""

    def __init__(self, broker: Kafka | RocketMQ, folder: Path, *, config: str = "", anonymous: bool = True) -> None:
        shared = Shared(broker, folder)
        self._folder = folder
        self.gateways = [Gateway(folder / name, anonymous=anonymous, listen=("ws",), config=f"{config}\n{shared.config(name)}") for name in NAMES]
        self._proxy = Process("haproxy", folder)
        self.mqtt = Endpoint("127.0.0.1", free_port())
        self.ws = Endpoint("127.0.0.1", free_port())

    def start(self) -> Spread:
        for gateway in self.gateways:
            gateway.start(within=60.0)
        file = self._folder / "haproxy.cfg"
        ways = [("mqtt", self.mqtt, [gateway.mqtt for gateway in self.gateways]), ("ws", self.ws, [gateway.ws for gateway in self.gateways])]
        file.write_text(CONFIG + "".join(_listen(*way) for way in ways), "utf-8")
        self._proxy.spawn([haproxy(), "-db", "-f", str(file)], java.environment(self._folder), self._folder)
        for endpoint in (self.mqtt, self.ws):
            self._proxy.until(lambda port=endpoint.port: listens(port), LISTENS_WITHIN, "it listened")  # type: ignore[misc]
        return self

    @property
    def alive(self) -> bool:
        return self._proxy.alive and all(gateway.alive for gateway in self.gateways)

    def tail(self) -> str:
        return "\n".join(each.tail() for each in (self._proxy, *self.gateways))

    def kill(self) -> None:
        for each in (self._proxy, *self.gateways):
            each.kill()


def _listen(name: str, at: Endpoint, servers: Sequence[Endpoint]) -> str:
    lines = [f"listen {name}", f"    bind {at}", *(f"    server {name}{number} {server}" for number, server in enumerate(servers))]
    return "\n".join(lines) + "\n"
