"""The deployments of compose/ as tests see them: read as YAML, copied to a folder where their secrets are made, and what is in them told.

Knows the format of compose files as far as ours use it. The other modules of this folder judge.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.support.gateway import ROOT

COMPOSE = ROOT / "compose"
SHAPES = ("embedded", "kafka", "rocketmq")
GATEWAY_IMAGE = "sluiceway"
SECRETS = "/run/secrets/"
DOOR = "mqtt.example.org"
MENTIONED = re.compile(re.escape(SECRETS) + r"([A-Za-z0-9._@-]+)")


def make_secrets(compose: Path, shape: str, *names: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(compose / "secrets"), shape, *names]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def copied(to: Path, shape: str, *names: str, edited: Callable[[str], str] = str) -> Shape:
    """The shape in a copy of compose/, with secrets, which are made by the script as it was ``edited``. ``names``: what its door is called."""
    compose = to / "compose"
    shutil.copytree(COMPOSE, compose, ignore=lambda folder, _: ["secrets"] if Path(folder).parent == COMPOSE else [])
    script = compose / "secrets"
    script.write_text(edited(script.read_text("utf-8")), "utf-8")
    made = make_secrets(compose, shape, *names)
    assert made.returncode == 0, made.stderr
    return Shape(compose, shape)


class Shape:
    def __init__(self, compose: Path, name: str) -> None:
        self.name = name
        self.compose = compose
        self.folder = compose / name
        self.secrets = self.folder / "secrets"
        self.text = (self.folder / "compose.yaml").read_text("utf-8")

    @cached_property
    def file(self) -> dict[str, Any]:
        return yaml.safe_load(self.text)  # type: ignore[no-any-return]

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        return self.file["services"]  # type: ignore[no-any-return]

    @property
    def gateways(self) -> dict[str, dict[str, Any]]:
        return {name: service for name, service in self.services.items() if service["image"].partition(":")[0] == GATEWAY_IMAGE}

    def mounted(self, service: dict[str, Any]) -> Iterator[tuple[Path, str]]:
        """Files of ours that a service sees, and where it sees them."""
        for volume in service.get("volumes", ()):
            source, target, *options = volume.split(":")
            if source.startswith("."):
                assert options == ["ro"], volume
                yield (self.folder / source).resolve(), target

    def settings(self, to: Path) -> Path:
        """The gateway's settings, with the secrets where they are here."""
        file = to / f"{self.name}.toml"
        file.write_text((self.folder / "gateway.toml").read_text("utf-8").replace(SECRETS, f"{self.secrets}/"), "utf-8")
        return file

    def mentions(self, service: dict[str, Any]) -> set[str]:
        """Secrets that are named in what a service is given: its files, its command and its environment."""
        environment = service.get("environment", {})
        texts = [str(service.get("command", "")), str(service.get("entrypoint", "")), str(environment)]
        texts += [path.read_text("utf-8") for path, _ in self.mounted(service)]
        return {name.rstrip(".").replace("@NODE@", environment.get("NODE", "")) for text in texts for name in MENTIONED.findall(text)}
