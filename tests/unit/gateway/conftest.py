"""A gateway without sockets, with the options that a test asks for; it is closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.testbed import Testbed


@pytest.fixture
def make_bed(tmp_path: Path) -> Iterator[Callable[..., Testbed]]:
    made: list[Testbed] = []

    def make(**options: Any) -> Testbed:
        made.append(Testbed(tmp_path, **options))
        return made[-1]

    yield make
    for bed in made:
        bed.close()


@pytest.fixture
def bed(make_bed: Callable[..., Testbed]) -> Testbed:
    return make_bed()
