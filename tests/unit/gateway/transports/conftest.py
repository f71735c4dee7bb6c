"""Every asynchronous test here runs on uvloop and on the loop of the standard library; listeners end with their test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.support.certificates import Authority
from tests.unit.gateway.transports.fakes import Harbour


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}


@pytest.fixture
async def harbour() -> AsyncIterator[Harbour]:
    """Listeners with recording connections."""
    harbour = Harbour()
    yield harbour
    await harbour.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
