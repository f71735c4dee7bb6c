"""The image's recipe, as far as it can be read, and its health check against a running gateway."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments.shapes import COMPOSE, Shape
from tests.support.gateway import ROOT, Gateway

RECIPE = (COMPOSE / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
STEPS = [tuple(line.split(None, 1)) for line in RECIPE.splitlines() if line and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def steps(word: str) -> list[str]:
    return [rest for first, rest in STEPS if first == word]


def test_both_stages_start_from_one_pinned_python_that_the_project_takes() -> None:
    images = {step.split()[0] for step in steps("FROM")}
    (image,) = images
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", image)
    assert found
    assert tuple(map(int, found[1].split("."))) >= tuple(map(int, PROJECT["project"]["requires-python"].removeprefix(">=").split(".")))


def test_all_that_is_copied_is_there_and_may_be_seen() -> None:
    ignored = (COMPOSE / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"
    sources = [source for step in steps("COPY") if "--from" not in step for source in step.split()[:-1] if not source.startswith("--")]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    packages = [found.rstrip("*") for found in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    assert set(packages) | {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= set(sources)


def test_the_wheel_is_installed_with_extras_that_it_has() -> None:
    (extras,) = re.findall(r"\$wheel\[([a-z,]+)\]", RECIPE)
    assert set(extras.split(",")) == {"kafka", "postgresql", "rocketmq"}
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_it_runs_as_a_user_who_owns_the_data_alone() -> None:
    (user,) = steps("USER")
    uid, _, gid = user.partition(":")
    assert uid.isdigit() and int(uid) > 0
    (volume,) = steps("VOLUME")
    assert f"install -d -o {uid} -g {gid} -m 0700 {volume}" in RECIPE
    assert f"SLUICEWAY_DATA={volume}" in RECIPE
    assert STEPS.index(("USER", user)) > max(number for number, (word, _) in enumerate(STEPS) if word == "RUN")
    assert steps("ENTRYPOINT") == ['["sluiceway", "run"]']


def test_shapes_keep_their_data_in_the_images_volume(shape: Shape) -> None:
    (volume,) = steps("VOLUME")
    assert f'data = "{volume}"' in (shape.folder / "gateway.toml").read_text("utf-8")
    for name, gateway in shape.gateways.items():
        assert any(mount.partition(":")[2] == volume for mount in gateway["volumes"]), name
        version = gateway["image"].partition(":")[2]
        assert version == PROJECT["project"]["version"]


def check(data: Path) -> subprocess.CompletedProcess[str]:
    (health,) = steps("HEALTHCHECK")
    assert health.endswith('CMD ["python", "/opt/sluiceway/healthcheck.py"]')
    command = [sys.executable, "-I", str(COMPOSE / "healthcheck.py")]
    return subprocess.run(command, env={"SLUICEWAY_DATA": str(data)}, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.slow
def test_the_health_check_says_whether_the_gateway_answers(start_gateway: Callable[..., Gateway], embedded: Shape, tmp_path: Path) -> None:
    nothing = check(tmp_path)
    assert nothing.returncode == 1
    assert "FileNotFoundError" in nothing.stderr
    gateway = start_gateway(anonymous=False, config=embedded.settings(tmp_path).read_text("utf-8"), listen=("mqtts",))
    assert "https" in gateway.endpoints
    assert check(gateway.data).returncode == 0
    gateway.kill()
    dead = check(gateway.data)
    assert dead.returncode == 1
    assert "URLError" in dead.stderr
