"""Statuses and counts of groups follow what happens within a second, in a whole gateway."""

from __future__ import annotations

from gateway.api.services import ClosedConnections, OnlineGroups
from gateway.services import Services
from tests.support.testbed import Testbed


def test_counts_by_group(bed: Testbed) -> None:
    services = Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0)
    parties = [bed.connect(client) for client in ("GID_a@@@1", "GID_a@@@2", "GID_b@@@1", "of no group", "GID_ab@@@1")]
    bed.dial()
    assert bed.loop.finish(services.online()) == OnlineGroups({"GID_a": 2, "GID_b": 1, "GID_ab": 1})
    assert bed.loop.finish(services.online("GID_a")) == OnlineGroups({"GID_a": 2})
    assert bed.loop.finish(services.online("GID_c")) == OnlineGroups({})
    parties[0].drop()
    parties[2].disconnect()
    assert bed.loop.finish(services.online()).counts["GID_a"] == 2
    bed.advance(0.5)
    assert bed.loop.finish(services.online()).counts == {"GID_a": 1, "GID_ab": 1}


def test_a_gateway_alone_asks_nobody(bed: Testbed) -> None:
    assert bed.node.everywhere is None
    bed.store.cluster.ask = None  # type: ignore[method-assign, assignment]
    services = Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0)
    party = bed.connect("GID_a@@@1")
    assert not bed.loop.finish(services.close_connection("nobody"))
    assert bed.loop.finish(services.session("nobody")) is None
    assert bed.loop.finish(services.close_connection("GID_a@@@1"))
    assert bed.loop.finish(services.close_connections_of("nobody")) == ClosedConnections(0)
    bed.settle()
    assert party.closed


def test_a_groups_clients_within_a_second(bed: Testbed) -> None:
    services = Services(bed.node, bed.keyring, bed.engine, "0", lambda: 0.0)
    parties = [bed.connect(client) for client in ("GID_a@@@1", "GID_a@@@2", "GID_ab@@@1")]
    parties[0].drop()
    bed.advance(0.9)
    found = bed.loop.finish(services.group_statuses("GID_a@@@", "", 10))
    assert [(status.client, status.online) for status in found] == [("GID_a@@@1", False), ("GID_a@@@2", True)]
