"""`rotate-seal` on a gateway's own folder: refused while it runs, and keys are what they were afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, Gateway, clean_environment

pytestmark = pytest.mark.slow


def test_a_folder_that_is_no_gateways_stays_as_it_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "rotate-seal", "--data", str(tmp_path / "elsewhere")]
    refused = subprocess.run(command, env=clean_environment(), cwd=ROOT, capture_output=True, timeout=20, text=True, check=False)
    assert refused.returncode == 2
    assert "seal.key can't be read" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_the_seal_key_is_changed(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(anonymous=True)
    made = json.loads(gateway.run("key", "create", "--json"))
    command = [sys.executable, "-m", "gateway.cli", "rotate-seal", "--data", str(gateway.data)]
    refused = subprocess.run(command, env=clean_environment(), cwd=ROOT, capture_output=True, timeout=20, text=True, check=False)
    assert refused.returncode == 2
    assert "in use by another process" in refused.stderr
    key_file = gateway.data / "seal.key"
    before = key_file.read_bytes()
    assert gateway.stop() == 0
    assert gateway.run("rotate-seal").startswith("4 secrets are sealed with a new key")
    assert key_file.read_bytes() != before
    gateway.start()
    listed = json.loads(gateway.run("key", "list", "--json"))["keys"]
    assert made["accessKeyId"] in [key["accessKeyId"] for key in listed]
    gateway.env |= {"SLUICEWAY_ACCESS_KEY": made["accessKeyId"], "SLUICEWAY_ACCESS_SECRET": made["accessKeySecret"]}
    assert gateway.run("pub", "-t", "a", "-m", "x") == ""
