"""What the tests of the examples share: programs that are gone when the test is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.programs import Program
from tests.support import process


@pytest.fixture
def start_example(tmp_path: Path, servers: None) -> Callable[..., Program]:
    """Starts a program of examples/: its file and arguments, settings of its environment as keywords."""

    def start(*command: str, **env: str) -> Program:
        return Program(tmp_path / f"program-{len(process.started)}", *command, **env).start()

    return start
