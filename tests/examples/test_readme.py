"""The README of the examples names every program, and the programs stay short enough to be read in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES

MAX_LINES = 80
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_program_is_named_and_short(program: Path) -> None:
    assert f"`{program.name}`" in (EXAMPLES / "README.md").read_text("utf-8")
    assert len(program.read_text("utf-8").splitlines()) <= MAX_LINES
