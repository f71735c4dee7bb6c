"""Whatever is cut into frames here is kept, not handled: these are tests of bytes and packets."""

from __future__ import annotations

import pytest

from tests.support import frames


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    frames.keeping(monkeypatch)
