"""Brokers as fixtures: started when the first test of the run asks, shared by all, ended with the run. A pytest plugin.

Tests make topics of their own names (``unique``) and leave a broker serving. A test that kills, stops or proxies one asks for the
`mortal_` fixture, which brings it back afterwards; where an environment variable names a broker that runs already
(`SLUICEWAY_TEST_KAFKA`, `SLUICEWAY_TEST_ROCKETMQ` and `_PROXY`, `SLUICEWAY_TEST_ROCKETMQ4`), those tests and no others are skipped.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.brokers import guard
from tests.support.brokers.java import Jvm
from tests.support.brokers.kafka import Kafka
from tests.support.brokers.rocketmq import V4, V5, RocketMQ, Version

FIRST_START = 300.0
"""Seconds for a test that may be the first to ask: jars are fetched, two or three JVMs start."""
HERE = "tests.support.brokers."
FIXTURES = frozenset(f"{mortal}{name}" for mortal in ("", "mortal_") for name in ("kafka", "rocketmq", "rocketmq4"))
_running: dict[str, Kafka | RocketMQ] = {}
"""By fixture, for the report of a failure."""


def unique(prefix: str) -> str:
    """A name that no other test and no earlier run has used on this broker."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def servers(broker: Kafka | RocketMQ) -> list[Jvm]:
    if isinstance(broker, Kafka):
        return list(broker.nodes)
    return [*broker.brokers, *([broker.namesrv] if broker.namesrv else [])]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _needs_broker(item):
            item.add_marker(pytest.mark.brokers)
        if FIXTURES.intersection(getattr(item, "fixturenames", ())) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FIRST_START))


def _needs_broker(item: pytest.Item) -> bool:
    """By its fixtures, or because its module speaks of what is here: fixtures may be asked for by name as the test runs."""
    if FIXTURES.intersection(getattr(item, "fixturenames", ())):
        return True
    names = vars(getattr(item, "module", None)) if hasattr(item, "module") else {}
    return any(str(getattr(value, "__module__", "")).startswith(HERE) for value in names.values())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for name, broker in _running.items():
            if name in getattr(item, "fixturenames", ()):
                report.sections.extend((f"output of {server.name}", server.tail()) for server in servers(broker))
    return report


def pytest_sessionfinish() -> None:
    guard.dismiss()


def _lasting(name: str, broker: Kafka | RocketMQ) -> Iterator[Kafka | RocketMQ]:
    _running[name] = broker
    try:
        yield broker.start()
    finally:
        del _running[name]
        for server in servers(broker):
            server.kill()
        shutil.rmtree(broker.folder, ignore_errors=True)


def _mortal(broker: Kafka | RocketMQ) -> Iterator[Kafka | RocketMQ]:
    if not broker.destructible:
        pytest.skip(f"{broker.address} is not ours to kill")
    yield broker
    broker.thaw()
    for server in reversed(servers(broker)):
        if not server.alive:
            server.start()


def _is_measured(request: pytest.FixtureRequest) -> bool:
    """The long shard brings more load than a JVM with its quick compiler holds beside the gateways."""
    return "long" in request.config.option.markexpr.replace("not long", "")


def _rocketmq(name: str, folder: Path, version: Version, *, measured: bool) -> Iterator[Kafka | RocketMQ]:
    variable = f"SLUICEWAY_TEST_{name.upper()}"
    address, proxy = os.environ.get(variable, ""), os.environ.get(f"{variable}_PROXY", "")
    return _lasting(name, RocketMQ(folder, version, address=address, grpc=proxy, measured=measured))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Kafka | RocketMQ]:
    """One Kafka node."""
    address = os.environ.get("SLUICEWAY_TEST_KAFKA", "")
    yield from _lasting("kafka", Kafka(tmp_path_factory.mktemp("kafka"), address=address, measured=_is_measured(request)))


@pytest.fixture(scope="module")
def three_kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Three nodes, each broker and controller, which tests may kill and start again."""
    cluster = Kafka(tmp_path_factory.mktemp("three"), nodes=3).start()
    try:
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()


@pytest.fixture(scope="session")
def rocketmq(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Kafka | RocketMQ]:
    """RocketMQ 5.5: a name server, a broker with its proxy."""
    yield from _rocketmq("rocketmq", tmp_path_factory.mktemp("rocketmq"), V5, measured=_is_measured(request))


@pytest.fixture(scope="session")
def rocketmq4(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Kafka | RocketMQ]:
    """RocketMQ 4.9: a name server and a broker."""
    yield from _rocketmq("rocketmq4", tmp_path_factory.mktemp("rocketmq4"), V4, measured=_is_measured(request))


@pytest.fixture
def mortal_kafka(kafka: Kafka) -> Iterator[Kafka | RocketMQ]:
    yield from _mortal(kafka)


@pytest.fixture
def mortal_rocketmq(rocketmq: RocketMQ) -> Iterator[Kafka | RocketMQ]:
    yield from _mortal(rocketmq)


@pytest.fixture
def mortal_rocketmq4(rocketmq4: RocketMQ) -> Iterator[Kafka | RocketMQ]:
    yield from _mortal(rocketmq4)
