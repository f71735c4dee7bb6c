"""Debian's mosquitto as the other broker of differential and ratio runs: no persistence, no limits, no Nagle.

Its path comes from PATH or the usual place; what to install is named where it is missing.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tests.support.gateway import Endpoint
from tests.support.process import Process, free_port

INSTALL = "mosquitto is not installed: apt-get install mosquitto mosquitto-clients"


def executable(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise FileNotFoundError(INSTALL)
    return found


class Mosquitto(Process):
    def __init__(self, folder: Path, *, websocket: bool = False, extra: str = "") -> None:
        super().__init__("mosquitto", folder)
        self.mqtt = Endpoint("127.0.0.1", free_port())
        self.ws = Endpoint("127.0.0.1", free_port()) if websocket else None
        self._extra = extra

    def start(self) -> Mosquitto:
        lines = [
            "user root",
            "persistence false",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            "allow_anonymous true",
            "log_type error",
            f"listener {self.mqtt.port} {self.mqtt.host}",
        ]
        if self.ws is not None:
            lines += [f"listener {self.ws.port} {self.ws.host}", "protocol websockets"]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, self._extra, ""]), "utf-8")
        self.spawn([executable("mosquitto"), "-c", str(config)], os.environ, self.folder)
        self.until(self._accepts, 10.0, "its listener")
        return self

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(self.mqtt) == 0
