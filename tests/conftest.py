"""What every test shares: servers started as child processes are ended after it, and their output is shown when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import process
from tests.support.gateway import Gateway
from tests.support.wire import Clients

pytest_plugins = ("tests.support.brokers.fixtures", "tests.support.postgresql")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.extend((f"output of {server.name}", server.tail()) for server in dict.fromkeys(process.started))
    return report


@pytest.fixture
def servers() -> Iterator[None]:
    """Ends every server that the test started, however it ended."""
    yield
    process.forget()


@pytest.fixture
def start_gateway(tmp_path: Path, servers: None) -> Callable[..., Gateway]:
    """Starts a gateway of the test's own; takes the keywords of Gateway, and ``name`` for a folder when there are several."""

    def start(name: str = "gateway", *, failpoint: str | None = None, **options: Any) -> Gateway:
        return Gateway(tmp_path / name, **options).start(failpoint=failpoint)

    return start


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    """An anonymous gateway with its default settings."""
    return start_gateway()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Raw MQTT clients that are gone when the test is."""
    wires = Clients()
    yield wires
    await wires.close()
