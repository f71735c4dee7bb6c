"""The programs of examples/ at work: started as their README says, their lines read as they come, their end by signal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.process import Process

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN = 60.0
"""Seconds for a program to get anywhere: a consumer group may have to wait for its broker."""
MAX_LINES = 100_000


class Program(Process):
    """``command`` as one types it in the folder of the examples. HOME is the test's folder: a client writes its logs there."""

    def __init__(self, folder: Path, *command: str, **env: str) -> None:
        super().__init__(folder.name, folder)
        self._command = [sys.executable, *command]
        self._env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **env}
        self._read = 0
        self._lines: list[Any] = []

    def start(self) -> Program:
        self.spawn(self._command, self._env, EXAMPLES)
        return self

    def lines(self) -> list[Any]:
        """The JSON that it has printed up to now, of all its starts."""
        if self.out.exists():
            with self.out.open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(newline)
            self._lines += [json.loads(line) for line in whole.splitlines()]
            assert len(self._lines) < MAX_LINES
        return self._lines

    def until_lines(self, enough: Callable[[list[Any]], bool], what: str, within: float = WITHIN) -> list[Any]:
        self.until(lambda: enough(self.lines()), within, what)
        return self.lines()

    def stop(self) -> None:
        """As a supervisor does: SIGTERM, and it says goodbye with 0."""
        code = self.terminate(20)
        assert code == 0, f"{self.name} ended with {code}\n{self.tail()}"
