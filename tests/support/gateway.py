"""The gateway under test: ``sluiceway run`` as a child process in a folder of its own, on loopback ports that it picks.

Says when it serves (the ready line), stops, kills and restarts it on the same ports and data. Knows the command line and
nothing else of the program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.process import Process

ROOT = Path(__file__).resolve().parents[2]
START_WITHIN = 20.0
STOP_WITHIN = 10.0
"""SIGTERM drains within this."""
LISTENERS = ("mqtt", "http", "https", "ws", "mqtts", "wss")


class Endpoint(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))


class AccessKey(NamedTuple):
    id: str
    secret: str
    instance: str


class Gateway(Process):
    """``listen`` names the listeners beside mqtt and http; ``config`` is the text of a TOML file; ``env`` is added to the environment."""

    def __init__(
        self,
        folder: Path,
        *,
        anonymous: bool = True,
        listen: Sequence[str] = (),
        config: str = "",
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("gateway", folder)
        self.data = folder / "data"
        self.env = dict(env or {})
        self.endpoints: dict[str, Endpoint] = {}
        self._listen = ("mqtt", "http", *listen)
        self._config = folder / "gateway.toml" if config else None
        if self._config is not None:
            self._config.write_text(config, "utf-8")
        self._arguments = (*(("--anonymous",) if anonymous else ()), *arguments)

    @property
    def mqtt(self) -> Endpoint:
        return self.endpoints["mqtt"]

    @property
    def http(self) -> Endpoint:
        return self.endpoints["http"]

    @property
    def ws(self) -> Endpoint:
        return self.endpoints["ws"]

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "gateway.cli", "run", "--data", str(self.data)]
        for name in self._listen:
            command += [f"--{name}", str(self.endpoints.get(name, Endpoint("127.0.0.1", 0)))]
        if self._config is not None:
            command += ["--config", str(self._config)]
        return [*command, *self._arguments]

    def start(self, *, failpoint: str | None = None, within: float = START_WITHIN) -> Gateway:
        """``failpoint`` is name[:count], for this start only. Ports of an earlier start are used again."""
        env = clean_environment() | self.env
        if failpoint is not None:
            env["SLUICEWAY_FAILPOINT"] = failpoint
        seen = self.out.stat().st_size if self.out.exists() else 0
        self.spawn(self.command(), env, ROOT)
        self.until(lambda: self._read_ready(seen), within, "the ready line")
        return self

    def _read_ready(self, offset: int) -> bool:
        with self.out.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").split("\n")
        for line in lines[:-1]:
            if line.startswith("ready "):
                pairs = (word.partition("=") for word in line.split()[1:])
                self.endpoints = {name: Endpoint.parse(address) for name, _, address in pairs if name in LISTENERS}
                return True
        return False

    def stop(self, within: float = STOP_WITHIN) -> int:
        """SIGTERM: the exit code of a drain."""
        return self.terminate(within)

    def restart(self, *, failpoint: str | None = None) -> Gateway:
        self.kill()
        return self.start(failpoint=failpoint)

    def run(self, *arguments: str, within: float = 20.0) -> str:
        """A command of the program with ``--data``; its standard output."""
        command = [sys.executable, "-m", "gateway.cli", *arguments, "--data", str(self.data)]
        env = clean_environment() | self.env
        done = subprocess.run(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=within, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def create_key(self) -> AccessKey:
        made = json.loads(self.run("key", "create", "--json"))
        return AccessKey(made["accessKeyId"], made["accessKeySecret"], made["instanceId"])


def clean_environment() -> dict[str, str]:
    """The caller's environment without settings of the gateway, which would change what a test starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICEWAY_")}


def on_kafka(address: str, prefix: str, *, shards: int = 3, replication: int = 1) -> str:
    """The configuration of a gateway whose log is on Kafka, under topics of its own; durability is checked where it could be."""
    durability = "checked" if replication >= 3 else "as configured"
    return (
        f'[connections.backbone]\nkind = "kafka"\naddress = "{address}"\n'
        f'[log]\nkind = "kafka"\nconnection = "backbone"\nprefix = "{prefix}"\n'
        f'shards = {shards}\nreplication = {replication}\ndurability = "{durability}"\n'
    )


def on_rocketmq(address: str, prefix: str, *, shards: int = 3, durability: str = "as configured") -> str:
    """The same with the log on RocketMQ; the brokers of the tests sync no disk."""
    return (
        f'[connections.backbone]\nkind = "rocketmq"\naddress = "{address}"\n'
        f'[log]\nkind = "rocketmq"\nconnection = "backbone"\nprefix = "{prefix}"\nshards = {shards}\ndurability = "{durability}"\n'
    )
