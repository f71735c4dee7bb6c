"""A gateway of its own for a test of rules, with a connection `main` to a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.brokers.fixtures import unique
from tests.support.gateway import Gateway

Start = Callable[..., "RuleGateway"]


class RuleGateway:
    """The gateway and the names of its backend's topics."""

    def __init__(self, gateway: Gateway, broker: Any) -> None:
        self.gateway, self.broker = gateway, broker

    def topic(self, name: str, **options: Any) -> str:
        """A fresh topic of the broker."""
        made = unique(name)
        self.broker.create_topic(made, **options)
        return made

    def rule(self, *arguments: str) -> Any:
        return json.loads(self.gateway.run("rule", *arguments, "--json"))

    def status(self, rule: str) -> Any:
        return self.rule("show", rule)["status"]


@pytest.fixture
def start_rules(start_gateway: Callable[..., Gateway]) -> Start:
    def start(kind: str, broker: Any, **options: Any) -> RuleGateway:
        config = f'[connections.main]\nkind = "{kind}"\naddress = "{broker.address}"\nallow_outflow = ["*"]\nallow_inflow = ["*"]\n'
        return RuleGateway(start_gateway(config=config, **options), broker)

    return start
