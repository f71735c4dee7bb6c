"""A whole gateway without sockets, with one connection `main` to a backend in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.connections import ConnectionSettings
from tests.support.noting_backend import NotingBackend
from tests.support.testbed import Testbed

CONNECTION = ConnectionSettings(name="main", kind="rocketmq", address=("127.0.0.1:9876",), allow_outflow=("*",), allow_inflow=("*",))


class RuleBed(Testbed):
    __test__ = False

    @property
    def backend(self) -> NotingBackend:
        return self.backends["main"]

    def do(self, work: Any) -> Any:
        """The outcome of something that waits."""
        return self.loop.finish(work)

    def outflow(self, rule_id: str = "out", **fields: Any) -> Any:
        given = {"id": rule_id, "kind": "outflow", "connection": "main", "backendTopic": "orders", "topic": "shop"}
        return self.do(self.rules.create(given | fields, by="tester"))

    def inflow(self, rule_id: str = "inf", **fields: Any) -> Any:
        given = {"id": rule_id, "kind": "inflow", "connection": "main", "backendTopic": "commands", "topic": "shop"}
        return self.do(self.rules.create(given | fields, by="tester"))

    def status(self, rule_id: str = "out") -> Any:
        return self.rules.show(rule_id)["status"]

    def bodies(self, topic: str = "orders") -> list[bytes]:
        return [message.body for message in self.backend.sent(topic)]


@pytest.fixture
def make_bed(tmp_path: Path) -> Iterator[Callable[..., RuleBed]]:
    beds: list[RuleBed] = []

    def make(**settings: Any) -> RuleBed:
        bed = RuleBed(tmp_path, connections=(CONNECTION,), **settings)
        beds.append(bed)
        for topic in ("orders", "commands", "events"):
            bed.backend.make(topic)
        return bed

    yield make
    for bed in beds:
        bed.close()


@pytest.fixture
def bed(make_bed: Callable[..., RuleBed]) -> RuleBed:
    return make_bed()
