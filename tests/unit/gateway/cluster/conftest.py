from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.many_bed import ManyBed


@pytest.fixture
def make_many(tmp_path: Path) -> Iterator[Callable[..., ManyBed]]:
    """Makes beds of several gateways; they are closed when the test is over."""
    made: list[ManyBed] = []

    def make(**options: Any) -> ManyBed:
        made.append(ManyBed(tmp_path, **options))
        return made[-1]

    yield make
    for bed in made:
        bed.close()
