"""The README of the examples names every program and shows settings that load; the programs stay short enough to be read in one go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings.load import load
from tests.examples.programs import EXAMPLES

MAX_LINES = 80
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_program_is_named_and_short(program: Path) -> None:
    assert f"`{program.name}`" in (EXAMPLES / "README.md").read_text("utf-8")
    assert len(program.read_text("utf-8").splitlines()) <= MAX_LINES


def test_the_settings_load(tmp_path: Path) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", (EXAMPLES / "README.md").read_text("utf-8"), re.DOTALL)
    path = tmp_path / "gateway.toml"
    path.write_text(block, "utf-8")
    assert {connection.name: connection.allow_inflow for connection in load({}, {}, path).connections} == {
        "rocket": ("commands",),
        "kafka": ("commands",),
    }
