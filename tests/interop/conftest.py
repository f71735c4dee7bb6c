"""The broker that the client matrix talks to: the gateway, once a module. TEST_BROKER=mosquitto puts the reference in its place,
which tells a client's own habit from a fault of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway
from tests.support.mosquitto import Mosquitto


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway | Mosquitto]:
    folder = tmp_path_factory.mktemp("broker")
    if os.environ.get("TEST_BROKER") == "mosquitto":
        server: Gateway | Mosquitto = Mosquitto(folder, websocket=True).start()
    else:
        server = Gateway(folder, listen=("ws",)).start()
    try:
        yield server
    finally:
        server.kill()
