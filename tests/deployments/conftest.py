"""Each shape once a run, with secrets made for it."""

from __future__ import annotations

import pytest

from tests.deployments.shapes import DOOR, SHAPES, Shape, copied


@pytest.fixture(scope="session", params=SHAPES)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shape:
    return copied(tmp_path_factory.mktemp(request.param), request.param, DOOR)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Shape:
    return copied(tmp_path_factory.mktemp("embedded-alone"), "embedded", DOOR)


@pytest.fixture(scope="session")
def on_kafka(tmp_path_factory: pytest.TempPathFactory) -> Shape:
    return copied(tmp_path_factory.mktemp("kafka-alone"), "kafka", DOOR)
