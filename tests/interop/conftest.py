"""The broker that the client matrix talks to: the gateway, once a module, over each kind of log, and three of them behind a proxy.
TEST_BROKER=mosquitto puts the reference in its place, which tells a client's own habit from a fault of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.brokers.fixtures import FIRST_START, unique
from tests.support.gateway import Gateway, on_kafka, on_rocketmq
from tests.support.mosquitto import Mosquitto
from tests.support.spread import Spread

REFERENCE = os.environ.get("TEST_BROKER") == "mosquitto"
ELSEWHERE = {"kafka": on_kafka, "rocketmq": on_rocketmq}
"""Where the log can be, by the fixture that has it."""
LONG = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(FIRST_START)]
BROKERS = [pytest.param(name, marks=LONG) for name in (*ELSEWHERE, *(f"three-{name}" for name in ELSEWHERE))]
"""One gateway with its log there, or three, where each connection goes to the next: ``scripts/test tests/interop/test_clients.py -m long``."""
KINDS = ["mosquitto"] if REFERENCE else ["embedded", *BROKERS]


@pytest.fixture(scope="module", params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway | Mosquitto | Spread]:
    folder = tmp_path_factory.mktemp("broker")
    if request.param == "mosquitto":
        server: Gateway | Mosquitto | Spread = Mosquitto(folder, websocket=True).start()
    elif request.param.startswith("three-"):
        server = Spread(request.getfixturevalue(request.param.removeprefix("three-")), folder).start()
    else:
        elsewhere = ELSEWHERE.get(request.param)
        config = elsewhere(request.getfixturevalue(request.param).address, f"{unique('interop')}-") if elsewhere is not None else ""
        server = Gateway(folder, listen=("ws",), config=config).start()
    try:
        yield server
    finally:
        server.kill()
