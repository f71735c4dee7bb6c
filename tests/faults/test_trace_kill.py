"""A gateway that is killed keeps its trace, and a trace that is damaged keeps no gateway from serving."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.gateway import Gateway

pytestmark = pytest.mark.slow


def trace(gateway: Gateway, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.run("trace", "--json", *arguments))
    return found


def actions(found: dict[str, Any]) -> list[str]:
    return [event["action"] for event in reversed(found["events"])]


def test_a_killed_gateway_keeps_what_was_told(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway()
    gateway.run("pub", "-t", "plant/a", "-m", "x", "-i", "dev")
    before = trace(gateway, "--client", "dev")
    assert actions(before)[:2] == ["connect", "pub_mqtt"]
    message = next(event["messageId"] for event in before["events"] if "messageId" in event)
    gateway.restart()
    assert actions(trace(gateway, "--client", "dev"))[:2] == ["connect", "pub_mqtt"]
    assert [event["clientId"] for event in trace(gateway, "--message", message)["events"]] == ["dev"]
    assert "connect" in gateway.run("status", "dev", "--history")


def test_a_damaged_trace_is_a_gap_and_the_gateway_serves(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway()
    gateway.run("pub", "-t", "plant/a", "-m", "x", "-i", "one")
    assert trace(gateway, "--client", "one")["gaps"] == []
    gateway.kill()
    for path in (gateway.data / "trace").iterdir():
        path.write_bytes(b"no database" * 100)
    gateway.start()
    for client in ("two", "three"):
        gateway.run("pub", "-t", "plant/a", "-m", "x", "-i", client)
        found = trace(gateway, "--client", client)
    assert found["gaps"]
    assert actions(found)[:2] == ["connect", "pub_mqtt"]
